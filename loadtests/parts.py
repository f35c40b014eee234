"""What a measured window comes to: the parts that each process has counted, put together. Nothing of it is Locust's."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter, process_time
from typing import Any

import psutil

from loadtests.sockets.recorder import Series, Tally

# A generator that neither computed nor came to its turn for this long was stopped, or had no core. A busy machine has
# shorter waits.
_STALL_SECONDS = 0.8
BEAT_SECONDS = 0.1

# The windows of several generators are the same one: they differ by what a message takes.
_APART_SECONDS = 0.8


@dataclass(frozen=True, slots=True)
class Result:
    """What one run found of one model.

    Args:
        model, workload, transport, loop: what was loaded with what, and how.
        users: how many it had, on average; each has at most one exchange in flight.
        depth: requests in one exchange.
        seconds: the window, after the warm-up.
        answered: exchanges of the window that came back right.
        asked: of an open loop, exchanges that were due in the window; None of a closed one.
        late, dropped: of these, what was sent too late, and what could not be sent.
        lost, duplicates, reordered: datagrams.
        failures: exchanges that did not come back right, by reason.
        mean_us: mean response time in microseconds from the sending, None if nothing was answered.
        min_us, max_us: its extremes, unrounded.
        service: [microseconds, count] in rising order, from the sending: what was answered, and what timed out.
        intended: the same from when it was due, of an open loop; None of a closed one.
        starved: users that were not answered once during the window.
        generators: processes that drove the load.
        generator_cpu: CPU seconds of all of them in the window, for all models together.
        machine_cpu: CPU seconds of everything on this machine in the window, whoever used them; None where the system
            does not say. A container sees the whole machine's account.
        generator_throttled: seconds in the window for which a CPU quota held the generator back, of its processes the
            most; None where the kernel does not say.
        cores: what the machine has.
        versions: of what generated the load.
        answered_in_all: exchanges since the test started, warm-up included: what the server's CPU is divided by.
        warm_up_failures: exchanges of the warm-up that did not come back right, by reason.
        disturbances: what happened to the generators, in sentences: the figures are then not those of the load that was
            asked for.
    """

    model: str
    workload: str
    transport: str
    loop: str
    users: float
    depth: int
    seconds: float
    answered: int
    asked: int | None
    late: int
    dropped: int
    lost: int
    duplicates: int
    reordered: int
    failures: dict[str, int]
    mean_us: float | None
    min_us: float | None
    max_us: float | None
    service: list[tuple[float, int]]
    intended: list[tuple[float, int]] | None
    starved: int
    generators: int
    generator_cpu: float
    machine_cpu: float | None
    generator_throttled: float | None
    cores: int | None
    versions: dict[str, str]
    answered_in_all: int
    warm_up_failures: dict[str, int]
    disturbances: list[str]


class Pulse:
    """Notices that this process stood still: that it was stopped, or that it got no core.

    Strategy: of the time between two beats the process has computed for some, and has slept for as long as it was told
    to. The rest is time in which it wanted to run and could not.

    Args:
        clock: seconds that no one sets.
        cpu: seconds of CPU that this process has used.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter, cpu: Callable[[], float] = process_time) -> None:
        self._clock, self._cpu = clock, cpu
        self._last = clock(), cpu()
        self.longest = 0.0

    def beat(self) -> None:
        """Look how long ago the last beat was."""
        now, cpu = self._clock(), self._cpu()
        self.longest = max(self.longest, now - self._last[0] - (cpu - self._last[1]) - BEAT_SECONDS)
        self._last = now, cpu


def combine(parts: list[dict[str, Any]], machine_cpu: float | None, *, expected: int) -> list[Result]:
    """The results, from what each process has counted.

    Args:
        expected: how many processes were to drive the load.
    """
    disturbances = list(find_disturbances(parts, expected))
    # What came late has no beginning of its window, so nothing can be said of how long it counted.
    parts = [part for part in parts if part["stalled"] is not None]
    found: dict[Series, list[dict[str, Any]]] = {}
    for part in parts:
        for group in part["groups"]:
            found.setdefault(Series(*group["series"]), []).append(group)
    return [_combine(series, groups, parts, machine_cpu, disturbances) for series, groups in sorted(found.items())]


def find_disturbances(parts: list[dict[str, Any]], expected: int) -> Iterator[str]:
    """What happened to the processes that drove the load; nothing, if they drove it as they were to."""
    whole = [part for part in parts if part["stalled"] is not None]
    if len(whole) < expected:
        yield f"{expected - len(whole)} of {expected} load generators did not take part in the whole window"
    if late := len(parts) - len(whole):
        yield f"{late} load generator{'s' if late > 1 else ''} joined during the window"
    # A quota makes a process wait as well, and is accounted for by itself.
    stalled = max((part["stalled"] - (part["throttled"] or 0.0) for part in whole), default=0.0)
    if stalled >= _STALL_SECONDS:
        yield f"a load generator stood still for {stalled:.1f} s: it was stopped, or had no core"
    seconds = [part["seconds"] for part in whole]
    if seconds and max(seconds) - min(seconds) >= _APART_SECONDS:
        yield f"the windows of the load generators differ: {min(seconds):.1f} s to {max(seconds):.1f} s"


def _combine(
    series: Series,
    groups: list[dict[str, Any]],
    parts: list[dict[str, Any]],
    machine_cpu: float | None,
    disturbances: list[str],
) -> Result:
    tally = Tally()
    early = Counter[str]()
    for group in groups:
        tally.merge(Tally.decode(group["tally"]))
        early.update(group["warm_up_failures"])
    is_open = series.loop == "open"
    seconds = sum(part["seconds"] for part in parts) / len(parts)
    return Result(
        model=series.model,
        workload=series.workload,
        transport=series.transport,
        loop=series.loop,
        users=tally.user_seconds / seconds,
        depth=groups[0]["depth"],
        seconds=seconds,
        answered=tally.answered,
        asked=tally.asked if is_open else None,
        late=tally.late,
        dropped=tally.dropped,
        lost=tally.lost,
        duplicates=tally.duplicates,
        reordered=tally.reordered,
        failures=dict(tally.failures),
        mean_us=tally.service.mean_us,
        min_us=tally.service.min_us,
        max_us=tally.service.max_us,
        service=tally.service.pairs(),
        intended=tally.intended.pairs() if is_open else None,
        starved=sum(group["starved"] for group in groups),
        generators=len(parts),
        generator_cpu=sum(part["cpu"] for part in parts),
        machine_cpu=machine_cpu,
        generator_throttled=max((part["throttled"] for part in parts if part["throttled"] is not None), default=None),
        cores=psutil.cpu_count(),
        versions=_versions(),
        answered_in_all=sum(group["answered_in_all"] for group in groups),
        warm_up_failures=dict(early),
        disturbances=disturbances,
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("locust", "gevent")}


def read_machine_cpu() -> float | None:
    """CPU seconds that all cores have spent on anything; what a hypervisor took (steal) was not idle either."""
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None
    # Guest time is part of user time, proc(5).
    busy = (times.user, times.system, *(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq", "steal")))
    return sum(busy)
