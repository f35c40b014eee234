"""Combine the parts of a window that each process has counted into results. Independent of Locust."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter, process_time
from typing import Any

import psutil

from loadtests.sockets.recorder import Series, Tally

# A generator that was not scheduled for this long was stopped, or had no core. On a busy machine, waits are shorter.
_STALL_SECONDS = 0.8
BEAT_SECONDS = 0.1

# The windows of several generators should differ only by the time that a message takes.
_APART_SECONDS = 0.8


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run for one model.

    Args:
        model, workload, transport, loop: the load.
        users: mean number; each has at most one exchange in flight.
        depth: requests in one exchange.
        seconds: the window, after the warm-up.
        answered: exchanges of the window with a correct reply.
        asked: exchanges that were due in the window in an open loop; None in a closed one.
        late, dropped: exchanges of these that were sent late, or could not be sent.
        lost, duplicates, reordered: datagrams.
        failures: failed exchanges by reason.
        mean_us: mean response time in microseconds from sending; None without replies.
        min_us, max_us: its extremes, unrounded.
        service: [microseconds, count], ascending, from sending; of replies and timeouts.
        intended: the same from when the exchange was due, in an open loop; None in a closed one.
        starved: users without a reply in the window.
        generators: processes that generated the load.
        generator_cpu: their CPU seconds in the window, for all models together.
        machine_cpu: CPU seconds of all processes of this machine in the window; None if unknown. A container sees the
            whole machine too.
        generator_throttled: seconds in the window for which a CPU quota stopped the generator, of its processes the
            maximum; None if unknown.
        cores: cores of the machine.
        versions: of the software of the generator.
        answered_in_all: exchanges since the start, warm-up included; the server's CPU time is divided by it.
        warm_up_failures: failed exchanges of the warm-up by reason.
        disturbances: sentences about events at the generators that make the figures meaningless.
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
        """Record the time since the last beat."""
        now, cpu = self._clock(), self._cpu()
        self.longest = max(self.longest, now - self._last[0] - (cpu - self._last[1]) - BEAT_SECONDS)
        self._last = now, cpu


def combine(parts: list[dict[str, Any]], machine_cpu: float | None, *, expected: int) -> list[Result]:
    """Combine the counts of all processes into results.

    Args:
        expected: number of processes that should have generated the load.
    """
    disturbances = list(find_disturbances(parts, expected))
    # A process that joined late did not see the window begin, so its duration is unknown.
    parts = [part for part in parts if part["stalled"] is not None]
    found: dict[Series, list[dict[str, Any]]] = {}
    for part in parts:
        for group in part["groups"]:
            found.setdefault(Series(*group["series"]), []).append(group)
    return [_combine(series, groups, parts, machine_cpu, disturbances) for series, groups in sorted(found.items())]


def find_disturbances(parts: list[dict[str, Any]], expected: int) -> Iterator[str]:
    """Yield a sentence for each disturbance of the processes that generated the load."""
    whole = [part for part in parts if part["stalled"] is not None]
    if len(whole) < expected:
        yield f"{expected - len(whole)} of {expected} load generators did not take part in the whole window"
    if late := len(parts) - len(whole):
        yield f"{late} load generator{'s' if late > 1 else ''} joined during the window"
    # A quota makes a process wait as well, and is reported separately.
    stalled = max((part["stalled"] - (part["throttled"] or 0.0) for part in whole), default=0.0)
    if stalled >= _STALL_SECONDS:
        yield f"a load generator did not run for {stalled:.1f} s: it was stopped, or had no core"
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
    """Return the busy CPU seconds of all cores; time taken by a hypervisor (steal) counts as busy."""
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None
    # Guest time is part of user time, proc(5).
    busy = (times.user, times.system, *(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq", "steal")))
    return sum(busy)
