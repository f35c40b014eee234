"""CPU, memory, threads and descriptors of a server that is a process of this machine."""

import contextlib
import time

import psutil

from lab.metrics.sample import Meter, NoMeter, Sample, Switches, count_descriptors


class ProcessMeter:
    """Reads a process and its descendants.

    Args:
        pid: the server.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._root = psutil.Process(pid)
        self._switches = Switches()

    def read(self) -> Sample:
        try:
            tree = [self._root, *self._root.children(recursive=True)]
            times = self._root.cpu_times()
        except psutil.Error:
            return Sample()
        user, system, memory, processes, threads = times.children_user, times.children_system, 0, 0, 0
        for process in tree:
            # A process that ends meanwhile is in its parent's children_* of the next reading.
            with contextlib.suppress(psutil.Error), process.oneshot():
                own = _read_cpu(process)
                user += own[0]
                system += own[1]
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue  # it has CPU time and nothing else
                memory += _memory(process)
                processes += 1
                threads += process.num_threads()
        if not processes:
            return Sample()
        return Sample(
            cpu_seconds=user + system,
            memory_bytes=memory,
            processes=processes,
            threads=threads,
            user_seconds=user,
            system_seconds=system,
            switches=self._switches.read(process.pid for process in tree),
        )

    def count_descriptors(self) -> int | None:
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return None
        return count_descriptors(process.pid for process in tree)

    def count_zombies(self) -> int | None:
        return count_zombies(self._root.pid)


def count_zombies(root: int) -> int | None:
    """Count the zombies below a process; None if it has ended."""
    count = 0
    try:
        for process in psutil.Process(root).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                count += process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return count


def _read_cpu(process: psutil.Process) -> tuple[float, float]:
    """Return the user and system CPU seconds of a process without its children.

    proc(5) has them in ticks of 10 ms, each cut off: of a server with 64 workers up to 0.6 s is missing at first. The
    CPU clock of a process, clock_getcpuclockid(3), has nanoseconds, and no division in two: the ticks give that.
    """
    times = process.cpu_times()
    exact = read_cpu_clock(process.pid)
    ticks = times.user + times.system
    if exact is None:
        return times.user, times.system
    return (exact * times.user / ticks, exact * times.system / ticks) if ticks else (exact, 0.0)


def read_cpu_clock(pid: int) -> float | None:
    """Return the CPU seconds of all threads of a process, ended ones included; None if there is no such process.

    Source: CPUCLOCK_SCHED of include/linux/posix-timers.h, which glibc's clock_getcpuclockid builds alike.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None


def _memory(process: psutil.Process) -> int:
    # PSS divides a page among the processes that map it. RSS would count the interpreter once for each forked child.
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))


def open_process_meter(pid: int) -> Meter:
    """Return the meter of a process; one that knows nothing if there is no such process."""
    try:
        return ProcessMeter(pid)
    except psutil.Error as error:
        return NoMeter(str(error))
