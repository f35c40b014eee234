"""What a server used under a load."""

from dataclasses import dataclass

# The columns of `ServerUse.series`: seconds since its start, CPU seconds since the server's start, and so on.
SERIES = ("seconds", "cpu_seconds", "memory_bytes", "processes", "threads", "descriptors")


@dataclass(frozen=True, slots=True)
class ServerUse:
    """What a server used under a load. Times in microseconds, memory in bytes; None if unknown.

    Args:
        cpu_us: CPU time per request.
        user_us, system_us: its two parts.
        cores: mean number of cores in use.
        allotted: the most cores that it could use.
        throttled: the share of the time for which a CPU quota stopped it.
        memory_bytes, threads, processes, descriptors: the highest reading under this load.
        peak_bytes: the highest memory use since it started, file cache included.
        switches: context switches per request; a lower bound.
        series: readings under this load: see `SERIES`.
        window_begin: when the window began, in the seconds of `series`.
        unknown: why its process is unknown; empty if it is known, or there is no reason.
    """

    cpu_us: float | None = None
    user_us: float | None = None
    system_us: float | None = None
    cores: float | None = None
    allotted: int | None = None
    throttled: float | None = None
    memory_bytes: int | None = None
    threads: int | None = None
    processes: int | None = None
    descriptors: int | None = None
    peak_bytes: int | None = None
    switches: float | None = None
    series: tuple[tuple[float | None, ...], ...] = ()
    window_begin: float | None = None
    unknown: str = ""
