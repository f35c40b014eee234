"""`lab soak`: test models for resource leaks under mixed and hostile traffic. `lab.metrics.trend` has the statistics.

Clients (`lab.clients.soak_traffic`) visit the models in rotation. At regular intervals they pause and disconnect. As
soon as the number of descriptors no longer changes, memory, descriptors, threads and zombies are read.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from lab.base.environ import ENV_TARGETS
from lab.clients.soak_traffic import Go, ModelCounts, Rest, Resting, TrafficCounts
from lab.experiments.theory import Server
from lab.load.measurement import encode_targets
from lab.metrics.sample import Meter
from lab.metrics.trend import FEWEST, Slope, Trend, after_warm_up, find_slope, judge_counts
from lab.servers.backend import Backend
from lab.servers.helper import Helper

NAME = "soak"
COUNTS = ("descriptors", "threads", "zombies")
# In reports: the readings are those of a server with nothing to do.
UNASKED = "no request was answered"

MEGABYTE = 1e6
_HOUR = 3600.0

# During a rest, poll until three consecutive counts are equal. That covers what a model does twice a second, as
# socketserver collects its child processes.
_POLL_SECONDS = 0.25
_SETTLED_AFTER = 3
_SETTLE_TIMEOUT = 5.0
_REST_TIMEOUT = 120.0  # for the visits to end: each client has its own timeout


@dataclass(frozen=True, slots=True)
class Reading:
    """The resources of one model at a rest; None means not known.

    Args:
        seconds: Since the soak began.
    """

    seconds: float
    memory_bytes: int | None
    descriptors: int | None
    threads: int | None
    zombies: int | None


@dataclass(frozen=True, slots=True)
class SoakResult:
    """The result of the leak test of one model.

    Args:
        memory: Bytes per hour; None if a reading is missing.
        growth: The verdict of each series.
        readings: All readings, including the warm-up.
        visits: Counts of the clients.
    """

    model: str
    memory: Slope | None
    growth: Mapping[str, Trend]
    readings: tuple[Reading, ...]
    visits: TrafficCounts

    @property
    def is_flat(self) -> bool:
        """Whether nothing grows and every well-behaved client was served; False without any request."""
        served = self.visits.requests > 0 and not self.visits.failures
        return served and all(growth is Trend.FLAT for growth in self.growth.values())

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "is_flat": self.is_flat}


def judge(model: str, readings: Sequence[Reading], visits: TrafficCounts, limit: float) -> SoakResult:
    """Apply the leak test to the readings of a model.

    Args:
        limit: Allowed growth of memory in bytes per hour.
    """
    late = after_warm_up(readings)
    known = [(item.seconds / _HOUR, item.memory_bytes) for item in late if item.memory_bytes is not None]
    memory, growth = None, Trend.UNKNOWN
    if len(known) == len(late) >= FEWEST:
        memory = find_slope([hours for hours, _ in known], [value for _, value in known])
        growth = memory.judge(limit)
    found = {"memory": growth} | {name: judge_counts([getattr(item, name) for item in late]) for name in COUNTS}
    return SoakResult(model, memory, found, tuple(readings), visits)


class Clients:
    """Controls the traffic.

    Args:
        helper: `lab.clients.soak_traffic`.
    """

    def __init__(self, helper: Helper) -> None:
        self._helper = helper

    def rest(self) -> None:
        """Pause the traffic, and wait until all clients have disconnected.

        Raises:
            LabError: The traffic has ended, since a model no longer serves, or it does not pause.
        """
        self._helper.tell(Rest())
        self._helper.wait_for(Resting, _REST_TIMEOUT)

    def go(self, *, warm_up: bool) -> None:
        """Continue the traffic; in the warm-up with several times more clients."""
        self._helper.tell(Go(warm_up))

    def end(self) -> dict[str, TrafficCounts]:
        """End the traffic; return the counts of each model."""
        self._helper.finish(_REST_TIMEOUT)
        return {found.model: found.counts for found in self._helper.take(ModelCounts)}


def read_settled(meters: Mapping[str, Meter], since: float) -> dict[str, Reading]:
    """Read all models when their descriptors no longer change, or after five seconds."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    seen: list[list[int | None]] = []
    while len(seen) < _SETTLED_AFTER or any(one != seen[-1] for one in seen[-_SETTLED_AFTER:]):
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
        seen.append([meter.count_descriptors() for meter in meters.values()])
    return {name: _read(meter, time.monotonic() - since) for name, meter in meters.items()}


def _read(meter: Meter, seconds: float) -> Reading:
    sample = meter.read()
    return Reading(seconds, sample.memory_bytes, meter.count_descriptors(), sample.threads, meter.count_zombies())


def run(
    backend: Backend,
    models: Sequence[str],
    *,
    seconds: float,
    every: float,
    limit: float = MEGABYTE,
    say: Callable[[str], object] = lambda line: None,
) -> list[SoakResult]:
    """Put traffic on running models, and test each for leaks.

    Args:
        seconds: Duration of the traffic, without the rests.
        every: Seconds between two rests.
        limit: Allowed growth of memory in bytes per hour.
        say: Called at each rest.

    Raises:
        LabError: A model no longer serves.
    """
    targets = [item for item in backend.targets() if item.model in models]
    servers = {name: Server.of(backend.catalogue, backend.catalogue[name]) for name in models}
    workers = {name: server.workers for name, server in servers.items() if server and server.workers}
    arguments = [word for name, count in workers.items() for word in ("--workers", name, str(count))]
    meters = {name: backend.meter(name) for name in models}
    readings: dict[str, list[Reading]] = {name: [] for name in models}
    rests = max(1, round(seconds / every))
    warm_up_rests = rests - len(after_warm_up(range(rests)))
    environ = {ENV_TARGETS: encode_targets(targets)}
    with backend.helpers.start_service("the traffic", NAME, arguments, environ=environ) as helper:
        clients = Clients(helper)
        clients.rest()  # the start of the process is not part of the first interval
        begun = time.monotonic()
        for number in range(1, rests + 1):
            clients.go(warm_up=number <= warm_up_rests)
            time.sleep(every)
            clients.rest()
            for name, reading in read_settled(meters, begun).items():
                readings[name].append(reading)
            say(f"rest {number} of {rests}")
        visits = clients.end()
    return [judge(name, readings[name], visits[name], limit) for name in models]
