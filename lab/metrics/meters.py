"""CPU, memory, processes, threads and descriptors of a running server, read from outside of it.

A reading that the system does not give is None, never 0. CPU counts from the server's start, user and system together,
with all its children, the reaped ones too: otherwise a process per client would look free.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import docker
import docker.errors
import psutil
import requests


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading.

    Args:
        cpu_seconds: user and system time since the server started.
        memory_bytes: what it holds now: without the file cache that the kernel would give back.
        processes: how many; in a container with the small init process in front.
        threads: over all processes.
        user_seconds, system_seconds: the two parts of its CPU time; some kernels count them in ticks.
        peak_bytes: the most that it has ever held, file cache included, as the kernel kept it.
        throttled_seconds: for how long its CPU quota has held it back; 0 where it has none.
        switches: context switches since the first reading, of threads that were there at one: at least so many.
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
        pid: a process of it, as this machine numbers them; None if there is none that can be looked at.
    """

    @property
    def pid(self) -> int | None: ...

    def read(self) -> Sample:
        """Read now. A server that has gone gives an empty sample."""
        ...

    def count_descriptors(self) -> int | None:
        """How many descriptors all its processes have open. Not a part of `read`: it costs more the more there are."""
        ...

    def count_zombies(self) -> int | None:
        """How many of its children have ended and were never waited for."""
        ...


class NoMeter:
    """The no-op: knows nothing, and says so.

    Args:
        reason: why nothing is known; empty where that is not known either.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        self.pid = None

    def read(self) -> Sample:
        """Nothing is known."""
        return Sample()

    def count_descriptors(self) -> None:
        """Nothing is known."""

    def count_zombies(self) -> None:
        """Nothing is known."""


class Switches:
    """Adds up the context switches of threads that come and go.

    The kernel keeps them for each thread, and drops them with it: what happened between the last reading of a thread
    and its end is lost.

    Args:
        proc: where the kernel shows processes.
    """

    # Beyond this, looking at every thread would cost more than what is measured.
    MOST = 128

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._seen: dict[tuple[int, str], int] = {}
        self._total = 0

    def read(self, pids: Iterable[int]) -> int | None:
        """Count since the first reading; None if there are too many threads to look at, or none can be read."""
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
            # A number that is used again begins anew.
            self._total += sum(max(count - self._seen.get(key, 0), 0) for key, count in now.items())
        self._seen = now
        return self._total


def _count_switches(status: Path) -> int:
    return sum(int(line.split()[1]) for line in status.read_text().splitlines() if "ctxt_switches:" in line)


class ProcessMeter:
    """A process and its descendants.

    Args:
        pid: the server.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._root = psutil.Process(pid)
        self._switches = Switches()

    def read(self) -> Sample:
        """Read the whole tree."""
        try:
            tree = [self._root, *self._root.children(recursive=True)]
            times = self._root.cpu_times()
        except psutil.Error:
            return Sample()
        user, system, memory, processes, threads = times.children_user, times.children_system, 0, 0, 0
        for process in tree:
            # One that has ended meanwhile is in its parent's children_* of the next reading.
            with contextlib.suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                user += times.user
                system += times.system
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue  # has CPU to its name and nothing else
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
        """Count those of the whole tree."""
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return None
        return _count_descriptors(process.pid for process in tree)

    def count_zombies(self) -> int | None:
        """Count those of the whole tree."""
        return _count_zombies(self._root.pid)


def _count_zombies(root: int) -> int | None:
    """Those below a process; None if it has gone."""
    count = 0
    try:
        for process in psutil.Process(root).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                count += process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return count


def _count_descriptors(pids: Iterable[int], proc: Path = Path("/proc")) -> int | None:
    """Those of these processes together; None if there is one that this user may not look into, or none at all."""
    count = None
    for pid in pids:
        try:
            count = (count or 0) + len(os.listdir(proc / str(pid) / "fd"))  # noqa: PTH208 - names are all that counts
        except PermissionError:
            return None
        except OSError:
            continue  # it has ended meanwhile
    return count


def _memory(process: psutil.Process) -> int:
    # PSS shares a page among those who map it. RSS would count the interpreter once for each forked child.
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))


# What the kernel counts user and system time in, with version 1; cpuacct.stat.
_TICKS = os.sysconf("SC_CLK_TCK")

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")


class CgroupMeter:
    """A container's control group, version 1 or 2, read from the kernel's own files: exact, and costs microseconds.

    Args:
        folders: where each controller's files are; with version 2 they are all in one place.
        unified: whether it is version 2.
        proc: where the kernel shows processes.
        first: the container's first process, below which all others are.
    """

    def __init__(
        self, folders: dict[str, Path], *, unified: bool, proc: Path = Path("/proc"), first: int | None = None
    ) -> None:
        self._folders = folders
        self.pid = first
        self._unified = unified
        self._proc = proc
        self._switches = Switches(proc)

    @classmethod
    def find(
        cls, pid: int, container: str, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")
    ) -> "CgroupMeter | None":
        """The group of the container whose first process is `pid`; None if this machine does not show it.

        `pid` is the engine's view. With an engine elsewhere it is some other process here, or none: the group's path
        must name the container. Source: cgroups(7), under "/proc files".
        """
        folders: dict[str, Path] = {}
        unified = False
        try:
            lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if container not in path:
                continue
            if not controllers:
                folder = root / path.lstrip("/")
                if (folder / "cpu.stat").exists():
                    folders.update(dict.fromkeys(_CONTROLLERS, folder))
                    unified = True
                continue
            for name in controllers.split(","):
                folder = root / name / path.lstrip("/")
                if name in _CONTROLLERS and folder.exists():
                    folders[name] = folder
        return cls(folders, unified=unified, proc=proc, first=pid) if "cpuacct" in folders else None

    def read(self) -> Sample:
        """Read the files."""
        if self._unified:
            cpu = self._scaled("cpuacct", "cpu.stat", "usage_usec", 1e6)
            user = self._scaled("cpuacct", "cpu.stat", "user_usec", 1e6)
            system = self._scaled("cpuacct", "cpu.stat", "system_usec", 1e6)
            throttled = self._scaled("cpu", "cpu.stat", "throttled_usec", 1e6)
            used, peak = self._number("memory", "memory.current"), self._number("memory", "memory.peak")
            cache = self._field("memory", "memory.stat", "inactive_file")
        else:
            nanoseconds = self._number("cpuacct", "cpuacct.usage")
            cpu = None if nanoseconds is None else nanoseconds / 1e9
            user = self._scaled("cpuacct", "cpuacct.stat", "user", _TICKS)
            system = self._scaled("cpuacct", "cpuacct.stat", "system", _TICKS)
            throttled = self._scaled("cpu", "cpu.stat", "throttled_time", 1e9)
            used = self._number("memory", "memory.usage_in_bytes")
            peak = self._number("memory", "memory.max_usage_in_bytes")
            cache = self._field("memory", "memory.stat", "total_inactive_file")
        pids = [int(pid) for pid in (self._text("cpuacct", "cgroup.procs") or "").split()]
        return Sample(
            cpu_seconds=cpu,
            memory_bytes=None if used is None or cache is None else max(used - cache, 0),
            processes=len(pids) or None,
            threads=self._number("pids", "pids.current"),
            user_seconds=user,
            system_seconds=system,
            peak_bytes=peak,
            throttled_seconds=throttled,
            switches=self._switches.read(pids),
        )

    def count_descriptors(self) -> int | None:
        """Count those of the group's processes: only root, or whoever they run as, may."""
        pids = (self._text("cpuacct", "cgroup.procs") or "").split()
        return _count_descriptors(map(int, pids), self._proc)

    def count_zombies(self) -> int | None:
        """Count those below the first process: a group's list of processes does not have them."""
        return None if self.pid is None else _count_zombies(self.pid)

    def _text(self, controller: str, name: str) -> str | None:
        try:
            return (self._folders[controller] / name).read_text()
        except (OSError, KeyError):
            return None

    def _number(self, controller: str, name: str) -> int | None:
        text = self._text(controller, name)
        return int(text) if text and text.strip().isdigit() else None

    def _scaled(self, controller: str, name: str, key: str, unit: float) -> float | None:
        value = self._field(controller, name, key)
        return None if value is None else value / unit

    def _field(self, controller: str, name: str, key: str) -> int | None:
        for line in (self._text(controller, name) or "").splitlines():
            field, _, value = line.partition(" ")
            if field == key:
                return int(value)
        return None


class StatsMeter:
    """A container, as the engine's API sees it: works wherever the engine is, at some ten milliseconds a reading.

    Args:
        fetch: returns one answer of the engine's `stats`.
    """

    def __init__(self, fetch: Callable[[], dict[str, Any]]) -> None:
        self._fetch = fetch
        self.pid = None

    def read(self) -> Sample:
        """Ask the engine."""
        try:
            stats = self._fetch()
        except (docker.errors.DockerException, requests.RequestException):
            return Sample()
        cpu = stats.get("cpu_stats", {})
        usage = cpu.get("cpu_usage", {})
        # The engine answers 0 for a container that has stopped.
        nanoseconds = usage.get("total_usage")
        memory = stats.get("memory_stats", {})
        used, details = memory.get("usage"), memory.get("stats", {})
        cache = details.get("total_inactive_file", details.get("inactive_file"))
        return Sample(
            cpu_seconds=nanoseconds / 1e9 if nanoseconds else None,
            memory_bytes=None if used is None or cache is None else max(used - cache, 0),
            threads=stats.get("pids_stats", {}).get("current"),
            user_seconds=_seconds(usage.get("usage_in_usermode")) if nanoseconds else None,
            system_seconds=_seconds(usage.get("usage_in_kernelmode")) if nanoseconds else None,
            peak_bytes=memory.get("max_usage"),
            throttled_seconds=_seconds(cpu.get("throttling_data", {}).get("throttled_time")) if nanoseconds else None,
        )

    def count_descriptors(self) -> None:
        """The engine does not tell."""

    def count_zombies(self) -> None:
        """The engine does not tell."""


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def find_container(ip: str) -> str | None:
    """The id of the running container that has an address; None if no engine answers, or it knows of none."""
    ids = _docker("ps", "--quiet", "--no-trunc").split()
    found = json.loads(_docker("inspect", *ids) or "[]") if ids else []
    for item in found:
        networks = (item["NetworkSettings"].get("Networks") or {}).values()
        if any(ip in (network.get("IPAddress"), network.get("GlobalIPv6Address")) for network in networks):
            return str(item["Id"])
    return None


def _docker(*arguments: str) -> str:
    """What a docker command says; nothing where there is no such command, or no engine."""
    try:
        return subprocess.run(  # noqa: S603 - docker, with arguments made here
            ["docker", *arguments],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except FileNotFoundError:
        return ""


def open_container_meter(container: str) -> Meter:
    """The best meter that there is for a container: its control group if it is on this machine, else the engine's API.

    Args:
        container: its name, or its full id.
    """
    try:
        client = docker.from_env()
        found = client.api.inspect_container(container)
        pid, container = found["State"]["Pid"], found["Id"]
    except (docker.errors.DockerException, requests.RequestException, KeyError) as error:
        return NoMeter(f"the Docker engine says nothing of the container {container}: {error}")
    if pid and (meter := CgroupMeter.find(pid, container)):
        client.close()
        return meter
    return StatsMeter(lambda: client.api.stats(container, stream=False, one_shot=True))


def open_process_meter(pid: int) -> Meter:
    """The meter for a server that is a process of this machine."""
    try:
        return ProcessMeter(pid)
    except psutil.Error as error:
        return NoMeter(str(error))
