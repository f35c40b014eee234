"""`lab soak`: whether a model keeps anything of what it has been through. The test is that of `lab.metrics.trend`.

Clients (`lab.clients.soak_traffic`) visit all models in turns. Every few seconds they rest: nobody is connected, and as
soon as no count changes any more, memory, descriptors, threads and zombies are read.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.base.errors import LabError
from lab.experiments.theory import Server
from lab.load.measure import open_meter
from lab.load.measurement import encode_targets
from lab.metrics.sample import Meter
from lab.metrics.trend import FEWEST, Growth, Slope, after_warm_up, find_slope, judge_counts
from lab.servers.backend import Backend, Instrument

NAME = "soak"
COUNTS = ("descriptors", "threads", "zombies")

MEGABYTE = 1e6
_HOUR = 3600.0

# At a rest: how often to look, how often running the counts must be the same, and how long that may take. What a model
# does twice a second, as socketserver waits for its children, has then had its turn.
_LOOK_EVERY = 0.25
_SAME = 3
_SETTLE_SECONDS = 5.0
_REST_SECONDS = 120.0  # until a visit has ended: every client in it has its own patience


@dataclass(frozen=True, slots=True)
class Reading:
    """One model at rest.

    Args:
        seconds: since the soak began.
        others: as the meter says; None is not known.
    """

    seconds: float
    memory_bytes: int | None
    descriptors: int | None
    threads: int | None
    zombies: int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one model.

    Args:
        memory: bytes an hour; None if that is not known.
        growth: by series, what it says.
        readings: of all rests, the warm-up's too.
        visits: what the clients say of it: `lab.clients.soak_traffic.Visits`.
    """

    model: str
    memory: Slope | None
    growth: Mapping[str, Growth]
    readings: Sequence[Reading]
    visits: Mapping[str, Any]

    @property
    def is_flat(self) -> bool:
        """Whether nothing grows, and each client that behaved was served. Without a client, nothing was tried."""
        served = self.visits["requests"] > 0 and not self.visits["failures"]
        return served and all(growth is Growth.FLAT for growth in self.growth.values())

    def as_json(self) -> dict[str, Any]:
        """For the store."""
        return {**asdict(self), "is_flat": self.is_flat}


def judge(model: str, readings: Sequence[Reading], visits: Mapping[str, Any], limit: float) -> Finding:
    """Put the test to what was read.

    Args:
        limit: bytes an hour that the memory must not grow by.
    """
    late = after_warm_up(readings)
    known = [(item.seconds / _HOUR, item.memory_bytes) for item in late if item.memory_bytes is not None]
    memory, growth = None, Growth.UNKNOWN
    if len(known) == len(late) >= FEWEST:
        memory = find_slope([hours for hours, _ in known], [value for _, value in known])
        growth = memory.judge(limit)
    found = {"memory": growth} | {name: judge_counts([getattr(item, name) for item in late]) for name in COUNTS}
    return Finding(model, memory, found, readings, visits)


class Clients:
    """The instrument, told through its stdin."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._rests = 0

    def rest(self) -> None:
        """Have all clients go; returns when they have.

        Raises:
            LabError: somebody was not served any more.
        """
        self._rests += 1
        self._tell("rest")
        deadline = time.monotonic() + _REST_SECONDS
        while not self._instrument.output().endswith(f"resting {self._rests}\n"):
            if self._instrument.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the clients have stopped: {self._instrument.output().strip()[-500:] or '(no word)'}")
            time.sleep(0.02)

    def go(self, *, crowd: bool) -> None:
        """Have them go on; as a crowd, with several times as many."""
        self._tell("crowd" if crowd else "go")

    def end(self) -> dict[str, dict[str, Any]]:
        """What there was, by model."""
        assert self._instrument.process.stdin is not None  # noqa: S101 - start_service opens it
        self._instrument.process.stdin.close()
        self._instrument.process.wait(_REST_SECONDS)
        rows = [json.loads(line) for line in self._instrument.output().splitlines() if line.startswith("{")]
        return {row.pop("model"): row for row in rows}

    def _tell(self, word: str) -> None:
        assert self._instrument.process.stdin is not None  # noqa: S101 - start_service opens it
        with suppress(BrokenPipeError):  # it has ended, which the next look at it tells
            self._instrument.process.stdin.write(f"{word}\n".encode())
            self._instrument.process.stdin.flush()


def read_settled(meters: Mapping[str, Meter], since: float) -> dict[str, Reading]:
    """Read all models as soon as they open and close no descriptors any more, or have had their time to."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    seen: list[list[int | None]] = []
    while len(seen) < _SAME or any(one != seen[-1] for one in seen[-_SAME:]):
        if time.monotonic() > deadline:
            break
        time.sleep(_LOOK_EVERY)
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
) -> list[Finding]:
    """Soak models that run.

    Args:
        seconds: for how long they are visited, rests not counted.
        every: seconds between two rests.
        limit: bytes an hour that the memory of a model must not grow by.
        say: is told of every rest.

    Raises:
        LabError: a model does not serve any more.
    """
    targets = [item for item in backend.targets() if item.model in models]
    servers = {name: Server.of(backend.catalogue, backend.catalogue[name]) for name in models}
    workers = {name: server.workers for name, server in servers.items() if server and server.workers}
    arguments = [word for name, count in workers.items() for word in ("--workers", name, str(count))]
    meters = {name: open_meter(backend, name) for name in models}
    readings: dict[str, list[Reading]] = {name: [] for name in models}
    rests = max(1, round(seconds / every))
    warm_up = rests - len(after_warm_up(range(rests)))
    with TemporaryDirectory(prefix="soak-") as directory:
        environ = {"LAB_TARGETS": encode_targets(targets)}
        log = Path(directory) / "log"
        with backend.start_service(NAME, arguments, environ=environ, log=log) as instrument:
            clients = Clients(instrument)
            clients.rest()  # as soon as it is there: its start is no part of the first visits
            begun = time.monotonic()
            for number in range(1, rests + 1):
                clients.go(crowd=number <= warm_up)
                time.sleep(every)
                clients.rest()
                for name, reading in read_settled(meters, begun).items():
                    readings[name].append(reading)
                say(f"rest {number} of {rests}")
            visits = clients.end()
    return [judge(name, readings[name], visits[name], limit) for name in models]
