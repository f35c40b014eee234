"""Read the findings of a run from its store alone: every figure can be worked out again from the stored steps."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lab.base.messages import build
from lab.experiments.bench.independent_clients import CLIENTS
from lab.experiments.bench.plan import (
    CLOSED,
    FIXED,
    OURS,
    Phase,
    Plan,
    Step,
    is_control,
    name_control,
)
from lab.experiments.bench.sweep import Knee, find_knee, is_telling, make_level
from lab.experiments.conformance.results import ModelResult
from lab.experiments.records import key_of_check, read_failure, read_measurement
from lab.experiments.store import Run
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate, drift, estimate, noise_floor, rank
from lab.metrics.verdict import Limit
from loadtests.sockets.histogram import Histogram

# The figures that are compared between models, rounds and runs: how to read each, and whether more is better.
_READ: Mapping[str, tuple[Callable[[Measurement], float | None], bool]] = {
    "rate": (lambda found: found.rate, True),
    "cpu_us": (lambda found: found.server.cpu_us, False),
    "p50_us": (lambda found: found.percentile(0.5), False),
    "p99_us": (lambda found: found.percentile(0.99), False),
}
FIGURES = tuple(_READ)

# Figures of the sweep.
_READ_LEVEL: Mapping[str, Callable[[Measurement], float | None]] = {
    "rate": lambda found: found.rate,
    "p99_us": lambda found: found.percentile(0.99),
    "memory_bytes": lambda found: found.server.memory_bytes,
}

# A stored step and its result.
_Stored = tuple[Step, Mapping[str, Any]]


class RowKey(NamedTuple):
    """The name of a row: a case and a mode."""

    workload: str
    model: str
    mode: str

    def __str__(self) -> str:
        return f"{self.model}, {self.workload}, {self.mode}"


@dataclass(frozen=True, slots=True)
class Row:
    """One case in one mode, over all rounds.

    Args:
        workload, model, mode: see `lab.experiments.bench.plan`.
        keys: its steps in the store.
        failures: why the other rounds have none.
    """

    workload: str
    model: str
    mode: str
    keys: tuple[str, ...]
    found: Mapping[int, Measurement]
    failures: tuple[str, ...]

    def read(self, figure: str) -> Estimate | None:
        """Return a figure of `FIGURES` over the rounds. A rate is a lower bound if one of its rounds is."""
        values = [_READ[figure][0](item) for item in self.found.values()]
        return estimate(values, is_lower_bound=figure == "rate" and self.is_lower_bound)

    def percentile(self, share: float) -> float | None:
        """Return a percentile of the response time in seconds, the median over the rounds."""
        found = estimate(item.percentile(share) for item in self.found.values())
        return found.middle / 1e6 if found else None

    @property
    def summary(self) -> str:
        """The consequence of the model for a client, from the catalogue; empty without a measurement."""
        return next((item.summary for item in self.found.values()), "")

    @property
    def times(self) -> Histogram:
        """The response times of all rounds, in microseconds."""
        found = Histogram()
        for item in self.found.values():
            found.merge(item.load.times)
        return found

    @property
    def answered(self) -> int:
        """The number of exchanges with a correct reply in all rounds."""
        return sum(item.answered for item in self.found.values())

    @property
    def is_lower_bound(self) -> bool:
        """Whether the server could have done more in at least one round."""
        return any(item.verdict.is_lower_bound for item in self.found.values())

    @property
    def verdicts(self) -> Counter[str]:
        """The limits, with their numbers of rounds."""
        return Counter(str(item.verdict.bound) for item in self.found.values())

    @property
    def reason(self) -> str:
        """The reason of the most frequent verdict, or why there is no verdict."""
        if not self.found:
            return self.failures[0] if self.failures else "not measured"
        usual = self.verdicts.most_common(1)[0][0]
        return next(item.verdict.reason for item in self.found.values() if item.verdict.bound == usual)

    @property
    def failed(self) -> Counter[str]:
        return sum((Counter(item.load.failures) for item in self.found.values()), Counter[str]())

    @property
    def failed_ratio(self) -> float:
        failed = self.failed.total()
        return failed / (failed + self.answered) if failed else 0.0

    @property
    def failing(self) -> str:
        """The failure of the server in the first round with one; empty if there is none."""
        return next((item.verdict.reason for item in self.found.values() if item.verdict.is_failure), "")

    @property
    def memory_bytes(self) -> int | None:
        """The highest reading of all rounds."""
        return max(
            (item.server.memory_bytes for item in self.found.values() if item.server.memory_bytes is not None),
            default=None,
        )


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The same case measured by our generator and by an independent client.

    Args:
        workload, model: the case.
        ours, theirs: requests per second.
        our_cost, their_cost: the server's CPU microseconds per request. The rates may differ because one client is
            faster; the cost must be the same, or one of the two counts wrongly.
        missing: why there is no result; None if there is one.
    """

    workload: str
    model: str
    client: str
    ours: Estimate | None
    theirs: Estimate | None
    our_cost: Estimate | None
    their_cost: Estimate | None
    missing: str | None

    def differs(self, noise: float) -> str | None:
        """Return whether the other client gets `more` or `less`, beyond noise; None if they agree or one is unknown."""
        if self.ours is None or self.theirs is None:
            return None
        ours, theirs = self.ours.widen(noise), self.theirs.widen(noise)
        if theirs.low > ours.high:
            return "more"
        return "less" if theirs.high < ours.low else None


@dataclass(frozen=True, slots=True)
class GeneratorLimit:
    """The highest rate of the load generator in this run, with a very fast server.

    Args:
        model: that server.
        rate: PINGs per second, on as many held connections as in the cross-check.
        generator_cores: cores that the generator used, the median; None if not known.
        verdicts: the limits, with their numbers of rounds.
    """

    model: str
    rate: Estimate
    generator_cores: float | None
    verdicts: Counter[str]


@dataclass(frozen=True, slots=True)
class Findings:
    """One run.

    Args:
        sweeps: by (workload, model): connections -> measurement.
        unsound: models that failed the conformance suite, and why.
        cross_checks: with independent clients.
        generator_limit: None if it was not measured.
    """

    run: Run
    plan: Plan
    rows: Mapping[RowKey, Row]
    sweeps: Mapping[tuple[str, str], Mapping[int, Measurement]]
    unsound: Mapping[str, str]
    cross_checks: tuple[CrossCheck, ...]
    generator_limit: GeneratorLimit | None

    @property
    def environment(self) -> dict[str, str | None]:
        """The facts of the environment, with the load generator's own versions from a measurement."""
        facts = dict(self.run.facts.get("environment") or {})
        if not facts.get("load generator"):
            versions = next((item.load.versions for row in self.rows.values() for item in row.found.values()), {})
            facts["load generator"] = ", ".join(f"{name} {version}" for name, version in versions.items()) or None
        return facts

    def list_rows(self, workload: str, mode: str) -> list[Row]:
        """Return the rows of all models, without the control server."""
        return [
            row
            for row in self.rows.values()
            if (row.workload, row.mode) == (workload, mode) and not is_control(row.model)
        ]

    def failing(self, workload: str, model: str) -> str:
        """Return how a model failed; empty if it did not. A level of the sweep that was not served is no failure."""
        rows = [row for row in self.rows.values() if (row.workload, row.model) == (workload, model)]
        if reason := next((row.failing for row in rows if row.failing), ""):
            return reason
        is_measured = any(row.found for row in rows)
        for level in self.sweeps.get((workload, model), {}).values():
            if level.verdict.bound is Limit.WRONG or (level.verdict.is_failure and not is_measured):
                return level.verdict.reason
        return ""

    def explain_missing(self, key: RowKey) -> str:
        """Return why a row of the plan has no measurement."""
        row = self.rows.get(key)
        return row.reason if row else self.unsound.get(key.model, "the run was interrupted before it")

    def noise(self, figure: str) -> float | None:
        """Return the difference between the control server and its model in the same round; None without a control."""
        pairs = []
        for row in self.rows.values():
            if other := self.rows.get(RowKey(row.workload, name_control(row.model), row.mode)):
                pairs += [(_read(row, number, figure), _read(other, number, figure)) for number in row.found]
        return noise_floor(pairs)

    def drift(self, figure: str) -> float | None:
        """Return the median change from the first round to the last; None for a single round."""
        if self.plan.rounds < 2:
            return None
        rows = self.rows.values()
        return drift((_read(row, 1, figure), _read(row, self.plan.rounds, figure)) for row in rows)

    def rank(self, rows: Sequence[Row], figure: str) -> dict[str, tuple[int, int]]:
        """Return the ranks of the models, the best first; see `lab.metrics.estimates.rank`."""
        estimates = {row.model: found for row in rows if (found := row.read(figure))}
        return rank(estimates, noise=self.noise(figure) or 0.0, higher_is_better=_READ[figure][1])

    def read_sweep(self, workload: str, figure: str) -> dict[str, list[tuple[int, float]]]:
        """Return a figure of the sweep (`rate`, `p99_us`, `memory_bytes`) by model: (connections, value), rising."""
        read = _READ_LEVEL[figure]
        return {
            model: [(users, value) for users, item in sorted(levels.items()) if (value := read(item)) is not None]
            for (found, model), levels in self.sweeps.items()
            if found == workload and not is_control(model)
        }

    def find_knee(self, workload: str, model: str) -> Knee | None:
        """Return the knee of a case; None if no level was served, or there is no sweep."""
        levels = self.sweeps.get((workload, model), {})
        return find_knee([make_level(users, item) for users, item in levels.items() if is_telling(item)])

    def connection_bytes(self, workload: str, model: str) -> float | None:
        """Return the memory of one connection in bytes, from the two ends of the sweep; None if not known."""
        levels = self.sweeps.get((workload, model), {})
        known = [
            (users, item.server.memory_bytes) for users, item in levels.items() if item.server.memory_bytes is not None
        ]
        if len(known) < 2:
            return None
        (few, less), (many, more) = min(known), max(known)
        return max(more - less, 0) / (many - few)

    @property
    def missing_steps(self) -> int:
        """The number of missing measurements: 0 if the run was not interrupted."""
        cases = {(row.workload, row.model) for row in self.rows.values()}
        wanted = sum(self.plan.rounds_of(mode) for workload, _ in cases for mode in self.plan.modes_of(workload))
        return max(wanted - sum(len(row.keys) for row in self.rows.values()), 0)


def read_findings(run: Run) -> Findings:
    """Read a run.

    Raises:
        LabError: a file cannot be read.
    """
    plan = Plan.from_json(run.facts["plan"])
    rows: dict[RowKey, list[_Stored]] = {}
    sweeps: dict[tuple[str, str], dict[int, Measurement]] = {}
    checked: dict[tuple[str, str], list[_Stored]] = {}
    steps = run.steps()
    for key, record in steps.items():
        match step := Step.parse(key):
            case Step(Phase.ROUND):
                rows.setdefault(RowKey(step.workload, step.model, step.mode), []).append((step, record))
            case Step(Phase.CROSS_CHECK):
                checked.setdefault((step.workload, step.model), []).append((step, record))
            case Step(Phase.SWEEP) if found := read_measurement(record):
                sweeps.setdefault((step.workload, step.model), {})[step.number] = found
    unsound = {}
    for name in sorted(plan.models):
        if (item := steps.get(key_of_check(name))) is None:
            continue
        if reason := build(ModelResult, item).explain(name, (run.facts.get("environment") or {}).get("backend")):
            unsound[name] = reason
    return Findings(
        run,
        plan,
        {key: _make_row(key, parts) for key, parts in sorted(rows.items())},
        sweeps,
        unsound,
        tuple(check for case, stored in checked.items() for check in _make_cross_checks(*case, stored)),
        _find_generator_limit(plan.generator_limit, checked),
    )


def _make_row(key: RowKey, stored: Sequence[_Stored]) -> Row:
    return Row(
        *key,
        keys=tuple(step.key for step, _ in stored),
        found={step.number: item for step, record in stored if (item := read_measurement(record))},
        failures=tuple(reason for _, record in stored if (reason := read_failure(record))),
    )


def _make_cross_checks(workload: str, model: str, stored: Sequence[_Stored]) -> Iterator[CrossCheck]:
    ours = _list_ours(stored)
    for client in [item.name for item in CLIENTS if item.workload == workload]:
        theirs = [record for step, record in stored if step.mode == client]
        missing = next((reason for record in theirs if (reason := read_failure(record))), None)
        yield CrossCheck(
            workload,
            model,
            client,
            estimate([item.rate for item in ours], is_lower_bound=any(item.verdict.is_lower_bound for item in ours)),
            estimate([record.get("rate") for record in theirs]),
            estimate([item.server.cpu_us for item in ours]),
            estimate([record.get("server_cpu_us") for record in theirs]),
            missing if theirs else f"{client} was not run",
        )


def _list_ours(stored: Sequence[_Stored]) -> list[Measurement]:
    return [item for step, record in stored if step.mode == OURS and (item := read_measurement(record))]


def _find_generator_limit(
    model: str | None, checked: Mapping[tuple[str, str], Sequence[_Stored]]
) -> GeneratorLimit | None:
    found = _list_ours(checked.get(("ping", model), ())) if model else []
    rate = estimate(item.rate for item in found)
    if model is None or rate is None:
        return None
    used = estimate(item.load.generator_cores for item in found)
    return GeneratorLimit(
        model, rate, used.middle if used else None, Counter(str(item.verdict.bound) for item in found)
    )


def _read(row: Row, number: int, figure: str) -> float | None:
    return _READ[figure][0](row.found[number]) if number in row.found else None


def choose_costs(findings: Findings, workload: str) -> list[Row]:
    """Return the rows that compare the cost of a request: at the fixed rate if that was measured."""
    return findings.list_rows(workload, FIXED) or findings.list_rows(workload, CLOSED)
