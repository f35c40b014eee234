"""What is measured, and in which order: data, and functions that only depend on it.

A cell is one model under one kind of work. Each is first swept, in a closed loop over a ladder of connections, up to
its knee; then come the rounds. In each round every cell is measured in every way (see `WAYS`; `FIXED` has rounds of its
own besides), all of them shuffled: a slow minute of the machine hits whoever is on then, and somebody else in the next
round.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self

from lab.base.errors import LabError
from lab.load.presets import find_preset
from lab.load.workloads import IDLE_CONNECTIONS
from lab.servers.catalogue import Model
from services.protocol import Transport


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work that a server may have to do.

    Args:
        name: what `--works` takes.
        summary: one line for people.
        closed, open: the scenarios that ask for it.
        fixed_rate: requests per second at which all models are compared: enough that their CPU time is that of requests
            and not of waking up (on a virtual machine, windows at 4000 a second scatter twice as much as at 12,000);
            not too much for most models: one that does not get there is compared at its own end, which is said.
        transport: over what, if not over the scenarios' own.
    """

    name: str
    summary: str
    closed: str
    open: str
    fixed_rate: float
    transport: Transport | None = None

    @property
    def over(self) -> Transport:
        """Over what."""
        return self.transport or find_preset(self.closed).transport

    @property
    def service(self) -> str:
        """Which service answers it."""
        return find_preset(self.closed).workload.service

    def is_for(self, model: Model) -> bool:
        """Whether a model can be asked for it."""
        return any((item.service, item.transport) == (self.service, self.over) for item in model.addresses)

    def most_users(self, model: Model, most: int) -> int:
        """How many connections make sense: one where a second would wait for the first one's end."""
        holds = find_preset(self.closed).workload.holds_connection
        return 1 if holds and not self.over.is_datagram and "overlap" in model.limits else most


def _work(name: str, scenario: str, rate: float, summary: str) -> Work:
    return Work(name, summary, f"closed_{scenario}", f"open_{scenario}", rate)


_WORKS = (
    _work("session", "session", 12_000, "connect, 50 PINGs one after the other, close"),
    Work("ping", "PING on held connections", "closed_ping", "open_steady", 8000),
    _work("pipeline", "pipeline_16", 16_000, "16 PINGs at once"),
    _work("echo_1k", "echo_1k", 4000, "1 KiB there and back"),
    _work("echo_64k", "echo_64k", 400, "64 KiB there and back"),
    _work("churn", "churn", 200, "connect, one PING, close"),
    _work("wait", "sleep_20ms", 200, "replies that take 20 ms of waiting"),
    _work("burn", "burn", 200, "replies that take computing"),
    _work("mixed", "mixed", 400, "90 % small requests, 10 % that wait or compute"),
    _work("download", "download", 50, "connect, read 256 KiB, close"),
    _work("idle", "idle_connections", 4000, f"PING on held connections, beside {IDLE_CONNECTIONS} that say nothing"),
    _work("udp", "datagrams", 4000, "16 datagrams at once, there and back"),
    Work("tls", "PING on held TLS connections", "closed_ping", "open_steady", 4000, Transport.TLS),
)
WORKS = {work.name: work for work in _WORKS}

# The ways in which a round measures a cell: as fast as it goes at the knee; at one rate for all models; at parts of its
# own knee's rate.
CLOSED, FIXED = "closed", "fixed"
WAYS = (CLOSED, FIXED, "open-50", "open-70", "open-90")

_ROUND = "round-"

# In front of the name of the model that is measured twice, as if it were two: what the two differ by is noise.
AGAIN = "again-"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole benchmark, as it is kept with its results.

    Args:
        models: names.
        works: names, of `WORKS`.
        glances: those of the works that are only looked at: closed, at the middle of the ladder, without a sweep.
        ladder: connections of the sweep, rising; with one step there is no sweep.
        ways: of `WAYS`.
        rounds: repeats of each.
        fixed_rounds: repeats of `FIXED`, if more: what a request costs is compared between runs as well, and a machine
            that is now slower and now faster for seconds is only evened out by many windows, not by long ones.
        seconds: the measured window of each step.
        warm_up: load before it that does not count.
        seed: of the order.
        twin: the model that is measured twice, from a second server of it; None if none is.
        ceiling: the server that shows what the generator can do; None if there is none.
    """

    models: tuple[str, ...]
    works: tuple[str, ...]
    glances: tuple[str, ...]
    ladder: tuple[int, ...]
    ways: tuple[str, ...]
    rounds: int
    seconds: float
    warm_up: float
    seed: int
    twin: str | None
    ceiling: str | None
    fixed_rounds: int = 0

    @property
    def is_swept(self) -> bool:
        """Whether there is a sweep of anything."""
        return any(map(self.sweeps, self.works))

    def sweeps(self, work: str) -> bool:
        """Whether a kind of work is swept; without that, nothing can be asked at a part of its knee's rate."""
        return len(self.ladder_of(work)) > 1

    def ladder_of(self, work: str) -> tuple[int, ...]:
        """The connections that are tried of a kind of work."""
        return (self.ladder[len(self.ladder) // 2],) if work in self.glances else self.ladder

    def ways_of(self, work: str) -> tuple[str, ...]:
        """In which ways it is measured."""
        return (CLOSED,) if work in self.glances else self.ways

    def rounds_of(self, way: str) -> int:
        """How often it is measured in a way."""
        return max(self.rounds, self.fixed_rounds) if way == FIXED else self.rounds

    def order_rounds(self) -> Iterator[int]:
        """The numbers of the rounds in their order: those of all ways, and behind each its part of the others."""
        for number in range(1, self.rounds + 1):
            yield number
            yield from range(self.rounds + number, max(self.rounds_of(way) for way in WAYS) + 1, self.rounds)

    def as_json(self) -> dict[str, Any]:
        """For the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `as_json` gave.

        Raises:
            LabError: it is something else.
        """
        known = {item.name: item for item in fields(cls)}
        if missing := [name for name, item in known.items() if item.default is MISSING and name not in data]:
            raise LabError(f"the plan of this run has no {', '.join(missing)}")
        values: dict[str, Any] = {name: data[name] for name in known if name in data}
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
    "quick": {
        "works": ("session",),
        "glances": (),
        "ladder": (16,),
        "ways": (CLOSED,),
        "rounds": 3,
        "seconds": 0.6,
        "warm_up": 0.2,
    },
    "default": {
        "works": ("session", "wait", "burn", "mixed"),
        "glances": ("wait", "burn", "mixed"),
        "ladder": (4, 16, 64),
        "ways": WAYS,
        "rounds": 3,
        "fixed_rounds": 12,
        "seconds": 0.6,
        "warm_up": 0.25,
    },
    "full": {
        "works": tuple(WORKS),
        "glances": (),
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
    return sorted({work.most_users(model, users) for users in plan.ladder_of(work.name)})


def list_steps(plan: Plan, number: int, cells: Sequence[tuple[str, str]]) -> list[Step]:
    """Of a round: every cell in each of its ways."""
    return [
        Step(name_round(number), work, model, way)
        for work, model in cells
        for way in plan.ways_of(work)
        if number <= plan.rounds_of(way)
    ]


def name_round(number: int) -> str:
    """The phase of a round."""
    return f"{_ROUND}{number}"


def read_round(phase: str) -> int | None:
    """The number of a round, from its phase; None of another phase."""
    return int(phase.removeprefix(_ROUND)) if phase.startswith(_ROUND) else None


def shuffle(plan: Plan, phase: str, steps: Sequence[Step]) -> Iterator[Step]:
    """The steps of a phase in an order of its own; always the same for one seed."""
    steps = list(steps)
    # Not for secrets: an order that nobody chose.
    random.Random(f"{plan.seed}/{phase}").shuffle(steps)  # noqa: S311
    return iter(steps)


# The check by somebody else's client: PING, on so many held connections.
INDEPENDENT = "independent"


NAME = "bench"
