"""One reading of a running server, the interface of what takes it, and counts that every meter shares.

A reading that the system does not give is None, never 0. CPU time counts from the server's start, user and system
together, and includes all children, also the reaped ones: otherwise a process per client would look free.
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading.

    Args:
        cpu_seconds: user and system time since the server started.
        memory_bytes: memory in use, without the file cache that the kernel would give back.
        processes: number of processes; in a container this includes the small init process.
        threads: number of threads of all processes.
        user_seconds, system_seconds: the two parts of the CPU time; some kernels count them in ticks.
        peak_bytes: the kernel's own record of the highest memory use, file cache included.
        throttled_seconds: time for which a CPU quota stopped the server; 0 without a quota.
        switches: context switches since the first reading. A lower bound: threads between two readings are missed.
    """

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    threads: int | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None
    peak_bytes: int | None = None
    throttled_seconds: float | None = None
    switches: int | None = None


class Meter(Protocol):
    """Reads one server.

    Attributes:
        pid: one of its processes, as numbered on this machine; None if no process can be inspected.
    """

    @property
    def pid(self) -> int | None: ...

    def read(self) -> Sample:
        """Take a reading. A server that has ended gives an empty sample."""
        ...

    def count_descriptors(self) -> int | None:
        """Count the open descriptors of all processes. Not part of `read`: the cost grows with their number."""
        ...

    def count_zombies(self) -> int | None:
        """Count the children that have ended and were never reaped."""
        ...


class NoMeter:
    """A meter that knows nothing.

    Args:
        reason: why; empty if that is unknown too.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        self.pid = None

    def read(self) -> Sample:
        return Sample()

    def count_descriptors(self) -> None: ...

    def count_zombies(self) -> None: ...


class Switches:
    """Adds up the context switches of threads that come and go.

    The kernel keeps the counters per thread and drops them with it. Switches between the last reading of a thread and
    its end are lost.

    Args:
        proc: mount point of procfs.
    """

    # Reading more threads than this would cost more than the thing that is measured.
    MOST = 128

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._seen: dict[tuple[int, str], int] = {}
        self._total = 0

    def read(self, pids: Iterable[int]) -> int | None:
        """Count since the first reading; None if there are too many threads, or none can be read."""
        first = not self._seen
        now: dict[tuple[int, str], int] = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                for thread in os.listdir(self._proc / str(pid) / "task"):  # noqa: PTH208 - names are all that counts
                    if len(now) >= self.MOST:
                        return None
                    with contextlib.suppress(OSError):
                        now[pid, thread] = _count_switches(self._proc / str(pid) / "task" / thread / "status")
        if not now:
            return None
        if not first:
            # A reused thread id starts at 0 again.
            self._total += sum(max(count - self._seen.get(key, 0), 0) for key, count in now.items())
        self._seen = now
        return self._total


def _count_switches(status: Path) -> int:
    # The name in it may be no UTF-8: the kernel cuts it at 15 bytes.
    lines = status.read_text(errors="replace").splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches:" in line)


def count_descriptors(pids: Iterable[int], proc: Path = Path("/proc")) -> int | None:
    """Count the open descriptors of processes; None without permission for one of them, or if all have ended."""
    count = None
    for pid in pids:
        try:
            count = (count or 0) + len(os.listdir(proc / str(pid) / "fd"))  # noqa: PTH208 - names are all that counts
        except PermissionError:
            return None
        except OSError:
            continue  # it has ended
    return count
