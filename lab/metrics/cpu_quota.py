"""Whether this process is held back by a CPU quota: read from its own control group, version 1 or 2."""

from pathlib import Path


def read_throttled(*, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """For how many seconds the quota has held this process and its neighbours in the group back, since they started.

    A container may see its group at the root of what it has mounted, whatever the path that the kernel gives it.

    Returns:
        0 where there is no quota; None where the kernel does not say. A quota further up is not seen.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, key, unit = root, "throttled_usec", 1e6
        elif "cpu" in controllers.split(","):
            top, key, unit = root / "cpu", "throttled_time", 1e9
        else:
            continue
        for folder in (top / path.lstrip("/"), top):
            try:
                text = (folder / "cpu.stat").read_text()
            except OSError:
                continue
            found = dict(field.split(" ", 1) for field in text.splitlines() if " " in field)
            if key in found:
                return int(found[key]) / unit
    return None
