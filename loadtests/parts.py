"""Combine the parts of a window that each process has counted into results. Independent of Locust."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from importlib.metadata import version
from time import perf_counter, process_time
from typing import Any, Self

import psutil

from loadtests.contract import LoadResult
from loadtests.sockets.recorder import Series, Tally

# A generator that was not scheduled for this long was stopped, or had no core. On a busy machine, waits are shorter.
_STALL_SECONDS = 0.8
BEAT_SECONDS = 0.1

# The windows of several generators should differ only by the time that a message takes.
_APART_SECONDS = 0.8


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Seconds of one core in which it did nothing, and those that a hypervisor gave to others: "steal" in proc(5).

    The kernel measures the idle time; of the rest it counts clock ticks, and a virtual machine misses some of these.
    """

    idle: float
    stolen: float

    def __sub__(self, before: "CoreTime") -> "CoreTime":
        return CoreTime(self.idle - before.idle, self.stolen - before.stolen)


@dataclass(frozen=True, slots=True)
class Group:
    """The counts of one series in one process.

    Args:
        depth: requests in one exchange.
        tally: the counts of the window.
        starved: users without a reply in the window.
        answered_in_all: exchanges since the start, warm-up included.
        warm_up_failures: failed exchanges of the warm-up by reason.
    """

    series: Series
    depth: int
    tally: Tally
    starved: int
    answered_in_all: int
    warm_up_failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Part:
    """What one process has counted in a window.

    Args:
        seconds: the window.
        cpu: CPU seconds of the process in it.
        throttled: seconds for which a CPU quota stopped the process; None if unknown.
        stalled: the longest time without a core; None if the process joined after the window had begun.
        groups: the counts.
    """

    seconds: float
    cpu: float
    throttled: float | None
    stalled: float | None
    groups: tuple[Group, ...]

    def encode(self) -> dict[str, object]:
        """Return data for a message, for `decode`."""
        groups = [
            [
                astuple(group.series),
                group.depth,
                group.tally.encode(),
                group.starved,
                group.answered_in_all,
                dict(group.warm_up_failures),
            ]
            for group in self.groups
        ]
        own = {"seconds": self.seconds, "cpu": self.cpu, "throttled": self.throttled, "stalled": self.stalled}
        return own | {"groups": groups}

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> Self:
        groups = tuple(
            Group(Series(*series), depth, Tally.decode(tally), *rest) for series, depth, tally, *rest in data["groups"]
        )
        return cls(**{**data, "groups": groups})


class Pulse:
    """Measures how long this process was stopped or had no core.

    Strategy: between two beats, the process computes for some time and sleeps for a known time. The rest is time in
    which it was ready to run but did not.

    Args:
        clock: a monotonic clock in seconds.
        cpu: CPU seconds used by this process.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter, cpu: Callable[[], float] = process_time) -> None:
        self._clock, self._cpu = clock, cpu
        self._last = clock(), cpu()
        self.longest = 0.0

    def beat(self) -> None:
        now, cpu = self._clock(), self._cpu()
        self.longest = max(self.longest, now - self._last[0] - (cpu - self._last[1]) - BEAT_SECONDS)
        self._last = now, cpu


def combine(
    parts: Sequence[Part],
    cores: Sequence[CoreTime],
    *,
    expected: int,
    began: float | None = None,
    read_course: Callable[[str], tuple[tuple[float | None, ...], ...]] = lambda model: (),
) -> list[LoadResult]:
    """Combine the counts of all processes into results.

    Args:
        began: see `LoadResult`.
        read_course: name of a model -> its course.
        cores: of this machine, in the window; empty if unknown.
        expected: number of processes that should have generated the load.
    """
    disturbances = tuple(find_disturbances(parts, expected))
    # A process that joined late did not see the window begin, so its duration is unknown.
    parts = [part for part in parts if part.stalled is not None]
    found: dict[Series, list[Group]] = {}
    for part in parts:
        for group in part.groups:
            found.setdefault(group.series, []).append(group)
    return [
        replace(_combine(series, groups, parts, cores, disturbances), began=began, course=read_course(series.model))
        for series, groups in sorted(found.items())
    ]


def find_disturbances(parts: Sequence[Part], expected: int) -> Iterator[str]:
    """Yield a sentence for each disturbance of the processes that generated the load."""
    whole = [part for part in parts if part.stalled is not None]
    if len(whole) < expected:
        yield f"{expected - len(whole)} of {expected} load generators did not take part in the whole window"
    if late := len(parts) - len(whole):
        yield f"{late} load generator{'s' if late > 1 else ''} joined during the window"
    # A quota makes a process wait as well, and is reported separately.
    stalled = max(((part.stalled or 0.0) - (part.throttled or 0.0) for part in whole), default=0.0)
    if stalled >= _STALL_SECONDS:
        yield f"a load generator did not run for {stalled:.1f} s: it was stopped, or had no core"
    seconds = [part.seconds for part in whole]
    if seconds and max(seconds) - min(seconds) >= _APART_SECONDS:
        yield f"the windows of the load generators differ: {min(seconds):.1f} s to {max(seconds):.1f} s"


def _combine(
    series: Series,
    groups: Sequence[Group],
    parts: Sequence[Part],
    cores: Sequence[CoreTime],
    disturbances: tuple[str, ...],
) -> LoadResult:
    tally = Tally()
    early = Counter[str]()
    for group in groups:
        tally.merge(group.tally)
        early.update(group.warm_up_failures)
    is_open = series.is_open
    seconds = sum(part.seconds for part in parts) / len(parts)
    use = [max(1.0 - core.idle / seconds, 0.0) for core in cores]
    throttled = max((part.throttled for part in parts if part.throttled is not None), default=None)
    return LoadResult(
        model=series.model,
        transport=series.transport,
        users=tally.user_seconds / seconds,
        depth=groups[0].depth,
        seconds=seconds,
        answered=tally.answered,
        failures=dict(tally.failures),
        service=tally.service,
        intended=tally.intended if is_open else None,
        asked=tally.asked if is_open else None,
        late=tally.late,
        dropped=tally.dropped,
        lost=tally.lost,
        duplicates=tally.duplicates,
        reordered=tally.reordered,
        starved=sum(group.starved for group in groups),
        generators=len(parts),
        generator_cores=sum(part.cpu for part in parts) / seconds,
        generator_throttled=None if throttled is None else throttled / seconds,
        machine_cores=sum(use) if use else None,
        core_use=tuple(round(share, 3) for share in use),
        core_steal=tuple(round(core.stolen / seconds, 3) for core in cores),
        cores=psutil.cpu_count(),
        versions=_versions(),
        answered_in_all=sum(group.answered_in_all for group in groups),
        warm_up_failures=dict(early),
        disturbances=disturbances,
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("locust", "gevent")}


def read_cores() -> tuple[CoreTime, ...]:
    """Return the times of each core of this machine since its start; nothing if they cannot be read."""
    try:
        cores = psutil.cpu_times(percpu=True)
    except (OSError, psutil.Error):
        return ()
    return tuple(CoreTime(core.idle + getattr(core, "iowait", 0.0), getattr(core, "steal", 0.0)) for core in cores)
