"""Decide what is measured and in which order: data, and functions that depend only on it.

A case is one model under one workload. First a sweep finds each case's knee, in a closed loop with rising numbers of
connections. Then come the rounds. Each round measures every case in every mode (see `MODES`; `FIXED` has additional
rounds of its own), in shuffled order: a slow minute of the machine hits different cases in each round.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from lab.base.errors import LabError
from lab.load.presets import find_preset
from lab.load.workloads import IDLE_CONNECTIONS, Workload
from lab.servers.catalogue import Model
from services.protocol import Transport


@dataclass(frozen=True, slots=True)
class BenchWorkload:
    """A workload as the benchmark uses it.

    Args:
        name: as in `lab.load.workloads`; `tls` is `ping` over TLS.
        closed, open: its presets.
        fixed_rate: requests per second at which all models are compared. High enough that their CPU time is spent on
            requests and not on waking up (on a virtual machine, windows at 4000 a second vary twice as much as at
            12,000). Low enough for most models; a model that does not reach it is compared at its own maximum, and the
            report says so.
        transport: if not the preset's own.
    """

    name: str
    summary: str
    closed: str
    open: str
    fixed_rate: float
    transport: Transport | None = None

    @property
    def asked(self) -> Workload:
        return find_preset(self.closed).workload

    @property
    def over(self) -> Transport:
        return self.transport or find_preset(self.closed).spec.transport

    def is_for(self, model: Model) -> bool:
        """Return whether a model speaks the workload's service over its transport, and declares no limit against it."""
        offered = any((item.service, item.transport) == (self.asked.service, self.over) for item in model.addresses)
        return offered and self.asked.is_possible(model.limits)

    def most_users(self, model: Model, most: int) -> int:
        """Return the number of connections that make sense: one if a second one would only wait for the first."""
        holds = self.asked.holds_connection
        return 1 if holds and not self.over.is_datagram and "overlap" in model.limits else most


def _workload(name: str, rate: float, summary: str) -> BenchWorkload:
    return BenchWorkload(name, summary, f"closed_{name}", f"open_{name}", rate)


_WORKLOADS = (
    _workload("session", 12_000, "connect, 50 PINGs one after the other, close"),
    BenchWorkload("ping", "PING on held connections", "closed_ping", "open_steady", 8000),
    _workload("pipeline_16", 16_000, "16 PINGs at once"),
    _workload("echo_1k", 4000, "1 KiB there and back"),
    _workload("echo_64k", 400, "64 KiB there and back"),
    _workload("churn", 200, "connect, one PING, close"),
    _workload("sleep_20ms", 200, "requests that sleep 20 ms"),
    _workload("burn", 200, "CPU-bound requests"),
    _workload("mixed", 400, "90 % small requests, 10 % that sleep or compute"),
    _workload("download", 50, "connect, read 256 KiB, close"),
    _workload("idle_connections", 4000, f"PING on held connections while {IDLE_CONNECTIONS} others are idle"),
    _workload("datagrams", 4000, "16 datagrams at once, there and back"),
    _workload("http_ping", 4000, "GET /ping on kept connections"),
    _workload("http_echo_1k", 2000, "POST 1 KiB and get it back, over HTTP"),
    _workload("http_sleep", 200, "HTTP requests that sleep 20 ms"),
    _workload("http_churn", 200, "connect, one GET, close"),
    _workload("http_mixed", 400, "HTTP, 90 % small requests, 10 % that sleep or compute"),
    _workload("ws_echo", 4000, "1 KiB as a WebSocket message there and back"),
    BenchWorkload("tls", "PING on held TLS connections", "closed_ping", "open_steady", 4000, Transport.TLS),
)
WORKLOADS = {workload.name: workload for workload in _WORKLOADS}

# The modes of a round: at full speed with the knee's connections; at one rate for all models; at shares of the rate at
# the case's own knee.
CLOSED, FIXED = "closed", "fixed"
OPEN_SHARES = {"open-50": 0.5, "open-70": 0.7, "open-90": 0.9}
MODES = (CLOSED, FIXED, *OPEN_SHARES)

# Our generator, among the clients of the cross-check; the others are in independent_clients.py.
OURS = "ours"

# The folder in the store of the warm-ups, which are no measurements.
WARM_UP = "warm-up"

# Prefix of the control server's name: a second server of one model, measured as if it were another model. The
# difference between the two is noise.
CONTROL = "control-"

NAME = "bench"


def is_control(model: str) -> bool:
    return model.startswith(CONTROL)


def name_control(model: str | None) -> str:
    """Return the name of a model's control server."""
    return f"{CONTROL}{model}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole benchmark, as it is stored with its results.

    Args:
        workloads: names, of `WORKLOADS`.
        quick_workloads: workloads that are only measured closed, at the middle one of the levels, without a sweep.
        levels: numbers of connections of the sweep, rising; a single level means no sweep.
        modes: of `MODES`.
        rounds: repeats of each mode.
        fixed_rounds: repeats of `FIXED`, if more. The CPU time per request is also compared between runs, and the speed
            of a machine varies over seconds: many windows even that out, long windows do not.
        seconds: the measured window of each step.
        warm_up: seconds of load before the window.
        seed: of the order.
        control: the model that has a control server; None for no control server.
        generator_limit: the server that shows the generator's limit; None if there is none.
    """

    models: tuple[str, ...]
    workloads: tuple[str, ...]
    quick_workloads: tuple[str, ...]
    levels: tuple[int, ...]
    modes: tuple[str, ...]
    rounds: int
    seconds: float
    warm_up: float
    seed: int
    control: str | None
    generator_limit: str | None
    fixed_rounds: int = 0

    @property
    def is_swept(self) -> bool:
        return any(map(self.sweeps, self.workloads))

    def sweeps(self, workload: str) -> bool:
        """Return whether a workload has a sweep. Without one there is no knee, and so no share of its rate."""
        return len(self.levels_of(workload)) > 1

    def levels_of(self, workload: str) -> tuple[int, ...]:
        """Return the numbers of connections that are tried."""
        return (self.levels[len(self.levels) // 2],) if workload in self.quick_workloads else self.levels

    def modes_of(self, workload: str) -> tuple[str, ...]:
        """Return the modes in which a workload is measured."""
        return (CLOSED,) if workload in self.quick_workloads else self.modes

    def rounds_of(self, mode: str) -> int:
        return max(self.rounds, self.fixed_rounds) if mode == FIXED else self.rounds

    def order_rounds(self) -> Iterator[int]:
        """Yield the numbers of the rounds in order: after each round of all modes its part of the additional ones."""
        for number in range(1, self.rounds + 1):
            yield number
            yield from range(self.rounds + number, max(self.rounds_of(mode) for mode in MODES) + 1, self.rounds)

    def includes(self, workload: str, model: str, mode: str) -> bool:
        """Return whether something of that name is measured."""
        return workload in self.workloads and model in self.models and mode in self.modes_of(workload)

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` returned.

        Raises:
            LabError: the data is something else.
        """
        known = {item.name: item for item in fields(cls)}
        if missing := [name for name, item in known.items() if item.default is MISSING and name not in data]:
            raise LabError(f"the plan of this run has no {', '.join(missing)}")
        values: dict[str, Any] = {name: data[name] for name in known if name in data}
        return cls(**values | {name: tuple(value) for name, value in values.items() if isinstance(value, list)})


class Phase(StrEnum):
    SWEEP = "sweep"
    ROUND = "round"
    CROSS_CHECK = "cross-check"


# The key of a step in the store, and what may stand in its parts.
_KEYS = {
    Phase.SWEEP: "sweep/{workload}/{model}/{number}",
    Phase.ROUND: "round-{number}/{workload}/{model}/{mode}",
    Phase.CROSS_CHECK: "cross-check/{workload}/{model}/{mode}-{number}",
}
_PARTS = {"number": r"(?P<number>\d+)"} | {name: f"(?P<{name}>[^/]+)" for name in ("workload", "model", "mode")}


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement.

    Args:
        number: the round; in a sweep, the number of connections.
        workload, model: the case; the model's name may have the prefix `CONTROL`.
        mode: of `MODES`; in the cross-check, the client.
    """

    phase: Phase
    number: int
    workload: str
    model: str
    mode: str = CLOSED

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """Return the step of a key; None if the key is that of something else in the store."""
        for phase, form in _KEYS.items():
            if match := re.fullmatch(form.format(**_PARTS), key):
                found: dict[str, Any] = match.groupdict()
                return cls(phase, **found | {"number": int(match["number"])})
        return None

    @property
    def key(self) -> str:
        return _KEYS[self.phase].format(**asdict(self))

    def __str__(self) -> str:
        return self.key.replace("/", ", ")

    @property
    def is_control(self) -> bool:
        return is_control(self.model)

    @property
    def server(self) -> str:
        """The model without the prefix."""
        return self.model.removeprefix(CONTROL)


# About two minutes for all models, about ten, and hours.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "workloads": ("session",),
        "quick_workloads": (),
        "levels": (16,),
        "modes": (CLOSED,),
        "rounds": 3,
        "seconds": 0.6,
        "warm_up": 0.2,
    },
    "default": {
        "workloads": ("session", "sleep_20ms", "burn", "mixed"),
        "quick_workloads": ("sleep_20ms", "burn", "mixed"),
        "levels": (4, 16, 64),
        "modes": MODES,
        "rounds": 3,
        "fixed_rounds": 12,
        "seconds": 0.6,
        "warm_up": 0.25,
    },
    "full": {
        "workloads": tuple(WORKLOADS),
        "quick_workloads": (),
        "levels": (1, 4, 16, 64, 256),
        "modes": MODES,
        "rounds": 5,
        "seconds": 3.0,
        "warm_up": 0.5,
    },
}


def list_cases(plan: Plan, models: Mapping[str, Model]) -> list[tuple[str, str]]:
    """Return (workload, model) of everything that can be measured, the control server included.

    Args:
        models: the models that pass the conformance suite, by name.
    """
    cases = []
    for name in plan.workloads:
        able = [model for model in plan.models if model in models and WORKLOADS[name].is_for(models[model])]
        cases += [(name, model) for model in able]
        if plan.control in able:
            cases.append((name, name_control(plan.control)))
    return cases


def list_levels(plan: Plan, workload: BenchWorkload, model: Model) -> list[int]:
    """Return the numbers of connections that are tried of a case."""
    return sorted({workload.most_users(model, users) for users in plan.levels_of(workload.name)})


def list_steps(plan: Plan, number: int, cases: Sequence[tuple[str, str]]) -> list[Step]:
    """Return the steps of a round: every case in each of its modes."""
    return [
        Step(Phase.ROUND, number, workload, model, mode)
        for workload, model in cases
        for mode in plan.modes_of(workload)
        if number <= plan.rounds_of(mode)
    ]


def shuffle(plan: Plan, steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps of a round or of a level in random order, the same for the same seed."""
    steps = list(steps)
    for first in steps[:1]:
        group = f"round-{first.number}" if first.phase is Phase.ROUND else f"{first.phase}/{first.number}"
        random.Random(f"{plan.seed}/{group}").shuffle(steps)  # noqa: S311 - an order, no secret
    return iter(steps)
