"""`lab soak`: test models for resource leaks under mixed and hostile traffic. `lab.metrics.trend` has the statistics.

Clients (`lab.clients.soak_traffic`) visit the models in rotation. At regular intervals they pause and disconnect. As
soon as the number of descriptors no longer changes, memory, descriptors, threads and zombies are read.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.base.environ import ENV_TARGETS
from lab.base.errors import LabError
from lab.experiments.theory import Server
from lab.load.measurement import encode_targets
from lab.metrics.sample import Meter
from lab.metrics.trend import FEWEST, Slope, Trend, after_warm_up, find_slope, judge_counts
from lab.servers.backend import Backend, Instrument

NAME = "soak"
COUNTS = ("descriptors", "threads", "zombies")

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
        visits: Counts of the clients (`lab.clients.soak_traffic.TrafficCounts`).
    """

    model: str
    memory: Slope | None
    growth: Mapping[str, Trend]
    readings: Sequence[Reading]
    visits: Mapping[str, Any]

    @property
    def is_flat(self) -> bool:
        """Whether nothing grows and every well-behaved client was served; False without any request."""
        served = self.visits["requests"] > 0 and not self.visits["failures"]
        return served and all(growth is Trend.FLAT for growth in self.growth.values())

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_flat": self.is_flat}


def judge(model: str, readings: Sequence[Reading], visits: Mapping[str, Any], limit: float) -> SoakResult:
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
    return SoakResult(model, memory, found, readings, visits)


class Clients:
    """Controls the traffic through the stdin of its process."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._rests = 0

    def rest(self) -> None:
        """Pause the traffic, and wait until all clients have disconnected.

        Raises:
            LabError: The traffic has ended, since a model no longer serves, or it does not pause.
        """
        self._rests += 1
        self._send("rest")
        deadline = time.monotonic() + _REST_TIMEOUT
        while not self._instrument.output().endswith(f"resting {self._rests}\n"):
            if self._instrument.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the traffic has ended: {self._instrument.output().strip()[-500:] or '(nothing)'}")
            time.sleep(0.02)

    def go(self, *, warm_up: bool) -> None:
        """Continue the traffic; in the warm-up with several times more clients."""
        self._send("warm-up" if warm_up else "go")

    def end(self) -> dict[str, dict[str, Any]]:
        """End the traffic; return the counts of each model."""
        assert self._instrument.process.stdin is not None  # noqa: S101 - start_service opens it
        self._instrument.process.stdin.close()
        self._instrument.process.wait(_REST_TIMEOUT)
        rows = [json.loads(line) for line in self._instrument.output().splitlines() if line.startswith("{")]
        return {row.pop("model"): row for row in rows}

    def _send(self, word: str) -> None:
        assert self._instrument.process.stdin is not None  # noqa: S101 - start_service opens it
        with suppress(BrokenPipeError):  # it has ended, which `rest` reports
            self._instrument.process.stdin.write(f"{word}\n".encode())
            self._instrument.process.stdin.flush()


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
    with TemporaryDirectory(prefix="soak-") as directory:
        environ = {ENV_TARGETS: encode_targets(targets)}
        log = Path(directory) / "log"
        with backend.helpers.start_service(NAME, arguments, environ=environ, log=log) as instrument:
            clients = Clients(instrument)
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
