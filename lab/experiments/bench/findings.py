"""What a run says: read from its store alone, so that every figure can be made again from what is there."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.experiments.bench.plan import (
    AGAIN,
    CLOSED,
    FIXED,
    INDEPENDENT,
    Plan,
    Step,
    read_round,
)
from lab.experiments.conformance.results import Check
from lab.experiments.store import Run
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate, drift, estimate, noise_floor, rank
from lab.metrics.verdict import Limit

# What is compared between models, rounds and runs: how it is read, whether more is better.
_READ: Mapping[str, tuple[Callable[[Measurement], float | None], bool]] = {
    "rate": (lambda found: found.rate, True),
    "cpu_us": (lambda found: found.server_cpu_us, False),
    "p50_us": (lambda found: found.percentile(0.5), False),
    "p99_us": (lambda found: found.percentile(0.99), False),
}
FIGURES = tuple(_READ)


@dataclass(frozen=True, slots=True)
class Row:
    """One cell, measured in one way, over all rounds.

    Args:
        work, model, way: what, see `lab.experiments.bench.plan`.
        keys: its steps in the store.
        found: by round, those that could be measured.
        failures: why the others could not.
    """

    work: str
    model: str
    way: str
    keys: tuple[str, ...]
    found: Mapping[int, Measurement]
    failures: tuple[str, ...]

    def read(self, figure: str) -> Estimate | None:
        """A figure of `FIGURES` over the rounds. A rate with a lower bound among its rounds is one."""
        values = [_READ[figure][0](item) for item in self.found.values()]
        return estimate(values, is_lower_bound=figure == "rate" and self.is_lower_bound)

    def percentile(self, share: float) -> float | None:
        """Seconds within which this share of the exchanges ended, the median over the rounds."""
        found = estimate(item.percentile(share) for item in self.found.values())
        return found.middle / 1e6 if found else None

    @property
    def is_lower_bound(self) -> bool:
        """Whether the server could have done more in at least one round."""
        return any(item.verdict.is_lower_bound for item in self.found.values())

    @property
    def verdicts(self) -> Counter[str]:
        """What limited it, and in how many rounds."""
        return Counter(str(item.verdict.bound) for item in self.found.values())

    @property
    def reason(self) -> str:
        """One sentence: of the most frequent verdict, or why there is none."""
        if not self.found:
            return self.failures[0] if self.failures else "not measured"
        usual = self.verdicts.most_common(1)[0][0]
        return next(item.verdict.reason for item in self.found.values() if item.verdict.bound == usual)

    @property
    def failed(self) -> Counter[str]:
        """Exchanges that did not come back right, by reason, of all rounds."""
        return sum((Counter(item.failures) for item in self.found.values()), Counter[str]())

    @property
    def failed_ratio(self) -> float:
        """These, of all exchanges."""
        failed = self.failed.total()
        return failed / (failed + sum(item.answered for item in self.found.values())) if failed else 0.0

    @property
    def failing(self) -> str:
        """How the server did not do what it was asked, in the first such round; empty if it did in all."""
        return next((item.verdict.reason for item in self.found.values() if item.verdict.is_failure), "")

    @property
    def memory_bytes(self) -> int | None:
        """The most that was seen."""
        return max((item.memory_bytes for item in self.found.values() if item.memory_bytes is not None), default=None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same cell by our generator and by redis-benchmark.

    Args:
        model: which.
        ours, theirs: requests per second.
        our_cost, their_cost: the server's CPU microseconds per request. The load of one or the other client may be
            the larger; what a request costs the server is the same, or one of them has counted wrongly.
        missing: why there is nothing to compare; None if there is.
    """

    model: str
    ours: Estimate | None
    theirs: Estimate | None
    our_cost: Estimate | None
    their_cost: Estimate | None
    missing: str | None

    def differs(self, noise: float) -> str | None:
        """`more` or `less`: what redis-benchmark gets, beyond the spread of both; None: they agree, or nothing says."""
        if self.ours is None or self.theirs is None:
            return None
        ours, theirs = self.ours.widen(noise), self.theirs.widen(noise)
        if theirs.low > ours.high:
            return "more"
        return "less" if theirs.high < ours.low else None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the load generator gets out of the fastest server there is, in the same run.

    Args:
        model: that server.
        rate: requests per second: PING, on as many held connections as the independent check has.
        generator_cores: CPU that the generator used for it, the median; None if not known.
        verdicts: what the limit was, and how often.
    """

    model: str
    rate: Estimate
    generator_cores: float | None
    verdicts: Counter[str]


@dataclass(frozen=True, slots=True)
class Findings:
    """One run.

    Args:
        run: where it is kept.
        plan: what was to be measured.
        rows: by (work, model, way).
        sweeps: by (work, model): connections -> measurement.
        unsound: models that the conformance suite has found wanting, and how.
        comparisons: with somebody else's client.
        ceiling: of the load generator; None if it was not measured.
    """

    run: Run
    plan: Plan
    rows: Mapping[tuple[str, str, str], Row]
    sweeps: Mapping[tuple[str, str], Mapping[int, Measurement]]
    unsound: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    ceiling: Ceiling | None

    def list_rows(self, work: str, way: str) -> list[Row]:
        """Of all models, without the twin's second name."""
        return [
            row
            for (found, model, how), row in self.rows.items()
            if (found, how) == (work, way) and not model.startswith(AGAIN)
        ]

    def failing(self, work: str, model: str) -> str:
        """How a model did not do what it was asked; empty if it did. Too many connections of a sweep are no fault."""
        rows = [row for (found, name, _), row in self.rows.items() if (found, name) == (work, model)]
        if reason := next((row.failing for row in rows if row.failing), ""):
            return reason
        is_measured = any(row.found for row in rows)
        for level in self.sweeps.get((work, model), {}).values():
            if level.verdict.bound is Limit.WRONG or (level.verdict.is_failure and not is_measured):
                return level.verdict.reason
        return ""

    def noise(self, figure: str) -> float | None:
        """How far two servers of the same model were apart in the same round; None if there was no twin."""
        pairs = []
        for (work, model, way), row in self.rows.items():
            other = self.rows.get((work, f"{AGAIN}{model}", way))
            if other:
                pairs += [(_read(row, number, figure), _read(other, number, figure)) for number in row.found]
        return noise_floor(pairs)

    def drift(self, figure: str) -> float | None:
        """The median change from the first round to the last; None of a single one."""
        if self.plan.rounds < 2:
            return None
        first, last = (
            {"/".join(key): _read(row, number, figure) for key, row in self.rows.items()}
            for number in (1, self.plan.rounds)
        )
        return drift(first, last)

    def rank(self, rows: Sequence[Row], figure: str) -> dict[str, tuple[int, int]]:
        """The places of models, the best first; see `lab.metrics.estimates.rank`."""
        estimates = {row.model: found for row in rows if row.found and (found := row.read(figure))}
        return rank(estimates, noise=self.noise(figure) or 0.0, higher_is_better=_READ[figure][1])

    def connection_bytes(self, work: str, model: str) -> float | None:
        """What one more connection takes of the server's memory, from the two ends of the sweep; None if not known."""
        levels = self.sweeps.get((work, model), {})
        known = [(users, item.memory_bytes) for users, item in levels.items() if item.memory_bytes is not None]
        if len(known) < 2:
            return None
        (few, less), (many, more) = min(known), max(known)
        return max(more - less, 0) / (many - few)

    @property
    def missing_steps(self) -> int:
        """Measurements of the rounds that are not there: 0 of a run that was not interrupted."""
        cells = {(work, model) for work, model, _ in self.rows}
        wanted = sum(self.plan.rounds_of(way) for work, _ in cells for way in self.plan.ways_of(work))
        return max(wanted - sum(len(row.keys) for row in self.rows.values()), 0)


def read_findings(run: Run) -> Findings:
    """Read a run.

    Raises:
        LabError: what is there cannot be read.
    """
    plan = Plan.from_json(run.facts["plan"])
    steps = run.steps()
    rows: dict[tuple[str, str, str], list[tuple[int, Step, Mapping[str, Any]]]] = {}
    sweeps: dict[tuple[str, str], dict[int, Measurement]] = {}
    for key, record in steps.items():
        phase, *cell = key.split("/")
        if phase == "sweep" and (found := read_measurement(record)):
            sweeps.setdefault((cell[0], cell[1]), {})[int(cell[2])] = found
        elif (number := read_round(phase)) is not None:
            work, model, way = cell
            rows.setdefault((work, model, way), []).append((number, Step(phase, work, model, way), record))
    unsound = {}
    for key, item in steps.items():
        phase, _, name = key.partition("/")
        if phase == "conformance":
            check = Check(item["passed"], item["failed"], item["xfailed"], tuple(item.get("failures", ())))
            if reason := check.explain(name, (run.facts.get("environment") or {}).get("backend")):
                unsound[name] = reason
    return Findings(
        run,
        plan,
        {key: _make_row(key, parts) for key, parts in sorted(rows.items())},
        sweeps,
        unsound,
        tuple(
            _compare(model, steps)
            for model in dict.fromkeys(key.split("/")[2] for key in steps if key.startswith(f"{INDEPENDENT}/"))
        ),
        _find_ceiling(plan.ceiling, steps),
    )


def _make_row(key: tuple[str, str, str], parts: Iterable[tuple[int, Step, Mapping[str, Any]]]) -> Row:
    parts = list(parts)
    found = {number: item for number, _, record in parts if (item := read_measurement(record))}
    return Row(
        *key,
        keys=tuple(step.key for _, step, _ in parts),
        found=found,
        failures=tuple(record["failure"] for _, _, record in parts if "failure" in record),
    )


def _compare(model: str, steps: Mapping[str, Mapping[str, Any]]) -> Comparison:
    prefix = f"{INDEPENDENT}/ping/{model}/"
    records = {key.removeprefix(prefix): record for key, record in steps.items() if key.startswith(prefix)}
    ours = _list_ours(model, steps)
    theirs = [record for key, record in records.items() if key.startswith("redis-benchmark")]
    missing = next((record["failure"] for record in theirs if "failure" in record), None)
    return Comparison(
        model,
        estimate([item.rate for item in ours], is_lower_bound=any(item.verdict.is_lower_bound for item in ours)),
        estimate([record.get("rate") for record in theirs]),
        estimate([item.server_cpu_us for item in ours]),
        estimate([record.get("server_cpu_us") for record in theirs]),
        missing if theirs else "it was not asked",
    )


def _list_ours(model: str, steps: Mapping[str, Mapping[str, Any]]) -> list[Measurement]:
    prefix = f"{INDEPENDENT}/ping/{model}/ours"
    return [item for key, record in steps.items() if key.startswith(prefix) and (item := read_measurement(record))]


def _find_ceiling(model: str | None, steps: Mapping[str, Mapping[str, Any]]) -> Ceiling | None:
    found = _list_ours(model, steps) if model else []
    rate = estimate(item.rate for item in found)
    if model is None or rate is None:
        return None
    used = estimate(item.generator_cores for item in found)
    return Ceiling(model, rate, used.middle if used else None, Counter(str(item.verdict.bound) for item in found))


def _read(row: Row, number: int, figure: str) -> float | None:
    return _READ[figure][0](row.found[number]) if number in row.found else None


def choose_costs(findings: Findings, work: str) -> list[Row]:
    """The rows by which the cost of a request is compared: at one rate for all where that was measured."""
    return findings.list_rows(work, FIXED) or findings.list_rows(work, CLOSED)


def read_measurement(record: Mapping[str, Any]) -> Measurement | None:
    """The measurement of a step that was kept; None if it failed."""
    return Measurement.from_json(record["measurement"]) if "measurement" in record else None
