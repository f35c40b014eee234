"""What is measured, and in which order: data, and functions that only depend on it.

A cell is one model under one kind of work. Each is first swept, in a closed loop over a ladder of connections, up to
its knee; then come the rounds. In each round every cell is measured in every way (see `WAYS`), all of them shuffled: a
slow minute of the machine hits whoever is on then, and somebody else in the next round.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lab.catalogue import Model
from lab.errors import LabError
from lab.workloads import SCENARIOS
from services.protocol import Transport


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work that a server may have to do.

    Args:
        name: what `--works` takes.
        summary: one line for people.
        closed, open: the scenarios that ask for it.
        transport: over what, if not over the scenarios' own.
    """

    name: str
    summary: str
    closed: str
    open: str
    transport: Transport | None = None

    @property
    def over(self) -> Transport:
        """Over what."""
        return self.transport or SCENARIOS[self.closed].transport

    @property
    def service(self) -> str:
        """Which service answers it."""
        return SCENARIOS[self.closed].workload.service

    @property
    def fixed_rate(self) -> float:
        """Requests per second at which all models are compared."""
        return SCENARIOS[self.open].rate

    def is_for(self, model: Model) -> bool:
        """Whether a model can be asked for it."""
        return any((item.service, item.transport) == (self.service, self.over) for item in model.addresses)

    def most_users(self, model: Model, most: int) -> int:
        """How many connections make sense: one where a second would wait for the first one's end."""
        holds = SCENARIOS[self.closed].workload.holds_connection
        return 1 if holds and not self.over.is_datagram and "overlap" in model.limits else most


def _work(name: str, scenario: str, summary: str, **changes: Any) -> Work:
    return Work(name, summary, f"closed_{scenario}", f"open_{scenario}", **changes)


_WORKS = (
    _work("session", "session", "connect, 50 PINGs one after the other, close"),
    Work("ping", "PING on held connections", "closed_ping", "open_steady"),
    _work("pipeline", "pipeline_16", "16 PINGs at once"),
    _work("echo_1k", "echo_1k", "1 KiB there and back"),
    _work("echo_64k", "echo_64k", "64 KiB there and back"),
    _work("churn", "churn", "connect, one PING, close"),
    _work("wait", "sleep_20ms", "replies that take 20 ms of waiting"),
    _work("burn", "burn", "replies that take computing"),
    _work("mixed", "mixed", "small and large, waiting and computing, in turn"),
    _work("download", "download", "connect, read 256 KiB, close"),
    _work("udp", "datagrams", "16 datagrams at once, there and back"),
    Work("tls", "PING on held TLS connections", "closed_ping", "open_steady", Transport.TLS),
)
WORKS = {work.name: work for work in _WORKS}

# The ways in which a round measures a cell: as fast as it goes at the knee; at one rate for all models; at parts of its
# own knee's rate.
CLOSED, FIXED = "closed", "fixed"
WAYS = (CLOSED, FIXED, "open-50", "open-70", "open-90")

# In front of the name of the model that is measured twice, as if it were two: what the two differ by is noise.
AGAIN = "again-"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole benchmark, as it is kept with its results.

    Args:
        models: names.
        works: names, of `WORKS`.
        ladder: connections of the sweep, rising; with one step there is no sweep.
        ways: of `WAYS`.
        rounds: repeats of each.
        seconds: the measured window of each step.
        warm_up: load before it that does not count.
        seed: of the order.
        twin: the model that is measured twice, from a second server of it; None if none is.
    """

    models: tuple[str, ...]
    works: tuple[str, ...]
    ladder: tuple[int, ...]
    ways: tuple[str, ...]
    rounds: int
    seconds: float
    warm_up: float
    seed: int
    twin: str | None

    @property
    def is_swept(self) -> bool:
        """Whether there is a sweep; without one, nothing can be asked at a part of the knee's rate."""
        return len(self.ladder) > 1

    def as_json(self) -> dict[str, Any]:
        """For the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `as_json` gave.

        Raises:
            LabError: it is something else.
        """
        try:
            values: dict[str, Any] = {item.name: data[item.name] for item in fields(cls)}
        except KeyError as error:
            raise LabError(f"the plan of this run has no {error}") from None
        return cls(**values | {name: tuple(value) for name, value in values.items() if isinstance(value, list)})


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement that is to be made.

    Args:
        phase: `sweep`, or `round-1` and so on.
        work, model: the cell; the model's name may have `AGAIN` in front.
        way: of `WAYS`; of a sweep, the number of connections.
    """

    phase: str
    work: str
    model: str
    way: str

    @property
    def key(self) -> str:
        """Its name in the store."""
        return f"{self.phase}/{self.work}/{self.model}/{self.way}"

    @property
    def server(self) -> str:
        """The model, by its own name."""
        return self.model.removeprefix(AGAIN)


# What a person asks for, by name. About two minutes for all models, about ten, and as long as it takes.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {"works": ("session",), "ladder": (16,), "ways": (CLOSED,), "rounds": 3, "seconds": 0.6, "warm_up": 0.2},
    "default": {
        "works": ("session",),
        "ladder": (4, 16, 64),
        "ways": (CLOSED, FIXED, "open-70"),
        "rounds": 3,
        "seconds": 0.8,
        "warm_up": 0.3,
    },
    "full": {
        "works": tuple(WORKS),
        "ladder": (1, 4, 16, 64, 256),
        "ways": WAYS,
        "rounds": 5,
        "seconds": 3.0,
        "warm_up": 0.5,
    },
}


def list_cells(plan: Plan, models: Mapping[str, Model]) -> list[tuple[str, str]]:
    """(work, model) of all that can be measured, and the twin of one of them.

    Args:
        models: those that are sound, by name.
    """
    cells = []
    for name in plan.works:
        able = [model for model in plan.models if model in models and WORKS[name].is_for(models[model])]
        cells += [(name, model) for model in able]
        if plan.twin in able:
            cells.append((name, f"{AGAIN}{plan.twin}"))
    return cells


def list_levels(plan: Plan, work: Work, model: Model) -> list[int]:
    """The ladder of a cell."""
    return sorted({work.most_users(model, users) for users in plan.ladder})


def shuffle(plan: Plan, phase: str, cells: Sequence[tuple[str, str]], ways: Sequence[str]) -> Iterator[Step]:
    """Every cell in every way, in an order of this phase's own; always the same for one seed."""
    steps = [Step(phase, work, model, way) for work, model in cells for way in ways]
    # Not for secrets: an order that nobody chose.
    random.Random(f"{plan.seed}/{phase}").shuffle(steps)  # noqa: S311
    return iter(steps)
