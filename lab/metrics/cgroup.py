"""Control groups, version 1 or 2, read from the kernel's own files: exact, at a cost of microseconds.

Source: cgroups(7), under "/proc files".
"""

import os
from collections.abc import Iterator
from pathlib import Path

from lab.metrics.process import count_zombies
from lab.metrics.sample import Sample, Switches, count_descriptors

_PROC, _ROOT = Path("/proc"), Path("/sys/fs/cgroup")

# The unit of user and system time in version 1, in cpuacct.stat.
_TICKS = os.sysconf("SC_CLK_TCK")

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")


class CgroupMeter:
    """Reads a container by its control group.

    Args:
        folders: the folder of each controller's files; with version 2 the same for all.
        unified: whether it is version 2.
        first: the container's first process, the ancestor of all others.
    """

    def __init__(
        self, folders: dict[str, Path], *, unified: bool, proc: Path = _PROC, first: int | None = None
    ) -> None:
        self._folders = folders
        self.pid = first
        self._unified = unified
        self._proc = proc
        self._switches = Switches(proc)

    @classmethod
    def find(cls, pid: int, container: str, *, proc: Path = _PROC, root: Path = _ROOT) -> "CgroupMeter | None":
        """Return the meter of the container whose first process is `pid`; None if this machine does not show its group.

        `pid` is the engine's view. With a remote engine it is another process here, or none: the group's path must
        name the container.
        """
        folders: dict[str, Path] = {}
        unified = False
        for controllers, path in _list_groups(proc, str(pid)):
            if container not in path:
                continue
            if not controllers:
                folder = root / path
                if (folder / "cpu.stat").exists():
                    folders.update(dict.fromkeys(_CONTROLLERS, folder))
                    unified = True
                continue
            for name in controllers:
                folder = root / name / path
                if folder.exists():
                    folders[name] = folder
        return cls(folders, unified=unified, proc=proc, first=pid) if "cpuacct" in folders else None

    def read(self) -> Sample:
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
        """Count those of the group's processes; it takes root, or the user that they run as."""
        pids = (self._text("cpuacct", "cgroup.procs") or "").split()
        return count_descriptors(map(int, pids), self._proc)

    def count_zombies(self) -> int | None:
        """Count those below the first process: a group's list of processes does not contain zombies."""
        return None if self.pid is None else count_zombies(self.pid)

    def _text(self, controller: str, name: str) -> str | None:
        return _read(self._folders[controller] / name) if controller in self._folders else None

    def _number(self, controller: str, name: str) -> int | None:
        text = self._text(controller, name)
        return int(text) if text and text.strip().isdigit() else None

    def _scaled(self, controller: str, name: str, key: str, unit: float) -> float | None:
        value = self._field(controller, name, key)
        return None if value is None else value / unit

    def _field(self, controller: str, name: str, key: str) -> int | None:
        return _find_field(self._text(controller, name), key)


def read_throttled(*, proc: Path = _PROC, root: Path = _ROOT) -> float | None:
    """Return the seconds for which a CPU quota has stopped the group of this process since the group was made.

    Inside a container the group may be at the root of what is mounted, whatever path the kernel gives it.

    Returns:
        0 without a quota; None if the kernel does not say. The quota of a group further up is not seen.
    """
    for controllers, path in _list_groups(proc, "self"):
        if not controllers:
            top, key, unit = root, "throttled_usec", 1e6
        elif "cpu" in controllers:
            top, key, unit = root / "cpu", "throttled_time", 1e9
        else:
            continue
        for folder in (top / path, top):
            value = _find_field(_read(folder / "cpu.stat"), key)
            if value is not None:
                return value / unit
    return None


def _list_groups(proc: Path, pid: str) -> Iterator[tuple[list[str], str]]:
    """Yield the groups of a process: their controllers (none in version 2), and the path below the mount point."""
    for line in (_read(proc / pid / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        yield controllers.split(",") if controllers else [], path.lstrip("/")


def _read(path: Path) -> str | None:
    try:
        # The names of groups are file names: any bytes.
        return os.fsdecode(path.read_bytes())
    except OSError:
        return None


def _find_field(text: str | None, key: str) -> int | None:
    for line in (text or "").splitlines():
        field, _, value = line.partition(" ")
        if field == key:
            return int(value)
    return None
