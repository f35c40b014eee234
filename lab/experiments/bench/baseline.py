"""What the lab holds itself to: what each model costs beside one of them, from a run that is committed in short.

Strategy: microseconds are those of a machine, but what one model costs beside another, in the same rounds of the same
run, is nearly the same on another machine. So the baseline keeps ratios of CPU time per request to a reference model,
which is the one that the run has measured twice. If the reference itself gets dearer, all others seem to get cheaper:
that is looked for too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Self

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.bench.findings import Findings, Row
from lab.experiments.bench.plan import AGAIN, CLOSED, FIXED
from lab.metrics.estimates import Estimate, compare, estimate

BASELINE_FILE = ROOT / "benchmarks" / "baseline.json"

# Another processor weighs the kernel against Python otherwise: less than this need not be a change of ours.
THRESHOLD = 0.3

_SCHEMA = 1

# Quarters of the cells that have to get cheaper before it is the reference that got dearer.
_MOST = 3

# What of the environment a reader of the file will want to know.
_FACTS = ("date", "commit", "processor", "system", "backend", "engine", "servers", "cores")

Cell = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The file.

    Args:
        made: from which run, and what that ran on.
        reference: the model that the others are measured by.
        ratios: by (work, model, way): CPU time per request, of that of the reference.
    """

    made: Mapping[str, Any]
    reference: str
    ratios: Mapping[Cell, Estimate]

    @classmethod
    def of(cls, findings: Findings) -> Self:
        """That of a run.

        Raises:
            LabError: there is nothing in it to compare by.
        """
        reference = findings.plan.twin
        ratios = read_ratios(findings, reference) if reference else {}
        if reference is None or not ratios:
            raise LabError(f"{findings.run.started}: no model was measured twice, or nothing beside it: no baseline")
        facts = findings.run.facts["environment"]
        made = {"run": findings.run.started, **{name: facts.get(name) for name in _FACTS}}
        return cls(made | {"rounds": findings.plan.rounds, "seconds": findings.plan.seconds}, reference, ratios)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            LabError: it is not there, or something else.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["schema"] != _SCHEMA:
                raise LabError(f"{path}: of schema {data['schema']}, and this version reads {_SCHEMA}: make it anew")
            ratios = {
                (work, model, way): Estimate(middle, low, high, data["made"]["rounds"])
                for work, ways in data["ratios"].items()
                for way, models in ways.items()
                for model, (middle, low, high) in models.items()
            }
            return cls(data["made"], data["reference"], ratios)
        except FileNotFoundError:
            raise LabError(f"{path}: there is none; `lab bench --show RUN --export baseline` prints one") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabError(f"{path}: no baseline: {error}") from None

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        ratios: dict[str, dict[str, dict[str, list[float]]]] = {}
        for (work, model, way), found in sorted(self.ratios.items()):
            values = [round(value, 4) for value in (found.middle, found.low, found.high)]
            ratios.setdefault(work, {}).setdefault(way, {})[model] = values
        return {"schema": _SCHEMA, "made": dict(self.made), "reference": self.reference, "ratios": ratios}


@dataclass(frozen=True, slots=True)
class Deviation:
    """A cost that is not what the baseline says.

    Args:
        text: the line for people.
        is_regression: whether it is worse by more than the threshold.
    """

    text: str
    is_regression: bool


def read_ratios(findings: Findings, reference: str) -> dict[Cell, Estimate]:
    """What each model costs beside the reference: the ratio in each round, over the rounds."""
    found = {}
    for cell, row in findings.rows.items():
        work, model, way = cell
        if model in (reference, f"{AGAIN}{reference}") or way not in (CLOSED, FIXED):
            continue
        twins = [findings.rows.get((work, name, way)) for name in (reference, f"{AGAIN}{reference}")]
        ratios = [_ratio(row, [twin for twin in twins if twin], number) for number in row.found]
        if known := estimate(ratios):
            found[cell] = known
    return found


def _ratio(row: Row, twins: list[Row], number: int) -> float | None:
    cost = row.found[number].server_cpu_us
    others = [twin.found[number].server_cpu_us for twin in twins if number in twin.found]
    known = [other for other in others if other]
    return None if cost is None or not known else cost / mean(known)


def find_deviations(baseline: Baseline, findings: Findings, threshold: float) -> Iterator[Deviation]:
    """What a run says otherwise than the baseline, beyond its noise.

    Args:
        threshold: how much dearer a request may become beside the reference, as a part.

    Raises:
        LabError: the two have no cell in common.
    """
    ratios = read_ratios(findings, baseline.reference)
    common = [cell for cell in baseline.ratios if cell in ratios]
    if not common:
        raise LabError(
            f"{findings.run.started} has nothing in common with the baseline: it holds {baseline.reference} against "
            f"others in {', '.join(sorted({work for work, _, _ in baseline.ratios}))}"
        )
    noise = findings.noise("cpu_us") or 0.0
    plan = findings.plan
    for cell, was in baseline.ratios.items():
        work, model, way = cell
        if cell not in ratios:
            if work in plan.works and model in plan.models and way in plan.ways:
                reason = (
                    findings.rows[cell].reason if cell in findings.rows else findings.unsound.get(model, "interrupted")
                )
                yield Deviation(f"{model}, {work}, {way}: no longer measured: {reason}", True)
            continue
        change = compare(was, ratios[cell], noise=noise)
        if change is None or not change.is_beyond_noise or abs(change.ratio - 1) <= threshold:
            continue
        worse = change.ratio > 1
        yield Deviation(
            f"{model}, {work}, {way}: a request costs {change.after.middle:.2f} times what it costs "
            f"{baseline.reference}, and it was {was.middle:.2f} ({change.ratio - 1:+.0%})"
            + (", a regression" if worse else ""),
            worse,
        )
    moved = sorted(ratios[cell].middle / baseline.ratios[cell].middle for cell in common)[_MOST * len(common) // 4]
    if moved < 1 / (1 + threshold):
        yield Deviation(
            f"beside {baseline.reference} nearly all others cost {moved:.2f} times what they did, or less: it is "
            f"{baseline.reference} itself that costs more, a regression",
            True,
        )


def render_baseline(findings: Findings) -> str:
    """The file's text, made of a run.

    Raises:
        LabError: there is nothing in it to compare by.
    """
    return json.dumps(Baseline.of(findings).as_json(), indent=1) + "\n"
