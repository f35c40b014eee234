"""A measured window: warm up, count for so many seconds, write a line of JSON for each model, end.

Whoever drives load (this process, or each worker) is told when the window begins and when it ends, and answers with
what it has counted in between; whoever has told it puts the parts together. Locust's messages carry both, and on a
runner without workers it hands them to itself.
"""

import json
import platform
import sys
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version
from time import perf_counter, process_time
from typing import Any, cast

import gevent
import gevent.event
import psutil
from locust.env import Environment

from lab.quota import read_throttled
from loadtests.engine import Engine, Link
from loadtests.recorder import RECORDER, Series, Tally

# In front of the result on stdout: Locust and its libraries may write lines of their own.
MARKER = "LOAD-RESULT "

_ORDER, _PART = "socketlab_window", "socketlab_part"
_BEGIN, _END = "begin", "end"

# How long a worker may take to say what it has counted, in seconds.
_PATIENCE = 10.0


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


class Share:
    """What one process counts of a window, when it is told to."""

    def __init__(self, environment: Environment) -> None:
        self._engine = Engine.of(environment)
        self._runner = cast(Any, environment.runner)
        self._stats = environment.stats
        self._before: dict[Link, int] = {}
        self._started = self._cpu = 0.0
        self._throttled: float | None = None
        self._runner.register_message(_ORDER, self._obey)

    def _obey(self, msg: Any, **_: Any) -> None:
        if msg.data == _BEGIN:
            self._engine.flush()
            RECORDER.reset()
            self._stats.reset_all()
            self._before = {link: link.answered for lane in self._engine.lanes for link in lane.links}
            self._started, self._cpu, self._throttled = perf_counter(), process_time(), read_throttled()
        else:
            self._runner.send_message(_PART, self._count())

    def _count(self) -> dict[str, Any]:
        self._engine.hold()
        self._engine.flush()
        seconds, cpu = perf_counter() - self._started, process_time() - self._cpu
        before, after = self._throttled, read_throttled()
        throttled = None if before is None or after is None else after - before
        tallies = RECORDER.tallies()
        lanes = [
            {
                "series": astuple(lane.series),
                "depth": lane.exchange.depth,
                "tally": tallies.get(lane.series, Tally()).encode(),
                "starved": sum(link.lane is lane and link.answered == count for link, count in self._before.items()),
                "answered_in_all": lane.answered_in_all,
            }
            for lane in self._engine.lanes
        ]
        # Nothing more is asked: the server's account ends where ours does.
        self._engine.halt()
        return {"seconds": seconds, "cpu": cpu, "throttled": throttled, "lanes": lanes}


class Window:
    """Takes the measurement, and ends the run."""

    def __init__(self, environment: Environment, *, warm_up: float, seconds: float) -> None:
        self._environment = environment
        self._runner = cast(Any, environment.runner)
        self._warm_up = warm_up
        self._seconds = seconds
        self._parts: list[dict[str, Any]] = []
        self._all_there = gevent.event.Event()
        self._machine_cpu: float | None = None
        self._started = False
        self._runner.register_message(_PART, self._receive)
        events = cast(Any, environment.events)  # not annotated by Locust
        events.spawning_complete.add_listener(self._spawned)
        events.quit.add_listener(self._write)
        # The measured failures are the result's; an exit code other than 0 is left to mean "could not run".
        environment.process_exit_code = 0

    def _spawned(self, **_: Any) -> None:
        # A shape spawns more than once.
        if not self._started:
            self._started = True
            gevent.spawn(self._measure)

    def _measure(self) -> None:
        gevent.sleep(self._warm_up)
        before = _machine_cpu()
        self._runner.send_message(_ORDER, _BEGIN)
        gevent.sleep(self._seconds)
        after = _machine_cpu()
        self._machine_cpu = None if before is None or after is None else after - before
        self._runner.send_message(_ORDER, _END)
        self._all_there.wait(_PATIENCE)
        self._runner.quit()

    def _receive(self, msg: Any, **_: Any) -> None:
        self._parts.append(msg.data)
        if len(self._parts) >= self._runner.worker_count:
            self._all_there.set()

    def _write(self, **_: Any) -> None:
        for found in combine(self._parts, self._machine_cpu):
            sys.stdout.write(f"{MARKER}{json.dumps(asdict(found))}\n")
        sys.stdout.flush()


def combine(parts: list[dict[str, Any]], machine_cpu: float | None) -> list[Result]:
    """The results, from what each process has counted."""
    found: dict[Series, list[dict[str, Any]]] = {}
    for part in parts:
        for lane in part["lanes"]:
            found.setdefault(Series(*lane["series"]), []).append(lane)
    return [_combine(series, lanes, parts, machine_cpu) for series, lanes in sorted(found.items())]


def _combine(
    series: Series, lanes: list[dict[str, Any]], parts: list[dict[str, Any]], machine_cpu: float | None
) -> Result:
    tally = Tally()
    for lane in lanes:
        tally.merge(Tally.decode(lane["tally"]))
    is_open = series.loop == "open"
    seconds = sum(part["seconds"] for part in parts) / len(parts)
    return Result(
        model=series.model,
        workload=series.workload,
        transport=series.transport,
        loop=series.loop,
        users=tally.user_seconds / seconds,
        depth=lanes[0]["depth"],
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
        starved=sum(lane["starved"] for lane in lanes),
        generators=len(parts),
        generator_cpu=sum(part["cpu"] for part in parts),
        machine_cpu=machine_cpu,
        generator_throttled=max((part["throttled"] for part in parts if part["throttled"] is not None), default=None),
        cores=psutil.cpu_count(),
        versions=_versions(),
        answered_in_all=sum(lane["answered_in_all"] for lane in lanes),
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("locust", "gevent")}


def _machine_cpu() -> float | None:
    """CPU seconds that all cores have spent on anything; what a hypervisor took (steal) was not idle either."""
    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None
    # Guest time is part of user time, proc(5).
    busy = (times.user, times.system, *(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq", "steal")))
    return sum(busy)
