"""The committed baseline: the CPU time per request of each model, relative to a reference model.

Strategy: microseconds depend on the machine, but the ratio of two models in the same rounds of one run is nearly the
same on another machine. The reference is the model with a control server. If the reference itself becomes more
expensive, all other models seem to become cheaper: that is reported too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Self

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.bench.findings import Findings, Row, RowKey
from lab.experiments.bench.plan import CLOSED, FIXED, name_control
from lab.metrics.estimates import Estimate, compare, estimate

BASELINE_FILE = ROOT / "benchmarks" / "baseline.json"

# The ratio of kernel time to Python time depends on the processor: a smaller relative change proves nothing.
THRESHOLD = 0.3

_SCHEMA = 1

# If this many quarters of the cases become cheaper, the reference has become more expensive.
_MOVED_QUARTERS = 3

# Facts of the environment that the file keeps.
_FACTS = ("date", "commit", "processor", "system", "backend", "engine", "servers", "cores")


@dataclass(frozen=True, slots=True)
class Baseline:
    """The content of the file.

    Args:
        made: the run and its environment.
        reference: the model that the others are compared with.
        ratios: by row: CPU time per request divided by that of the reference.
    """

    made: Mapping[str, Any]
    reference: str
    ratios: Mapping[RowKey, Estimate]

    @classmethod
    def of(cls, findings: Findings) -> Self:
        """Make the baseline of a run.

        Raises:
            LabError: the run has no control server, or no other model.
        """
        reference = findings.plan.control
        ratios = read_ratios(findings, reference) if reference else {}
        if reference is None or not ratios:
            raise LabError(f"{findings.run.started}: no baseline: it has no control server, or no other model")
        facts = findings.run.facts["environment"]
        made = {"run": findings.run.started, **{name: facts.get(name) for name in _FACTS}}
        return cls(made | {"rounds": findings.plan.rounds, "seconds": findings.plan.seconds}, reference, ratios)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            LabError: it does not exist, or is no baseline.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["schema"] != _SCHEMA:
                raise LabError(f"{path}: schema {data['schema']}, this version reads {_SCHEMA}: export it again")
            ratios = {
                RowKey(workload, model, mode): Estimate(middle, low, high, data["made"]["rounds"])
                for workload, modes in data["ratios"].items()
                for mode, models in modes.items()
                for model, (middle, low, high) in models.items()
            }
            return cls(data["made"], data["reference"], ratios)
        except FileNotFoundError:
            raise LabError(f"{path} does not exist; `lab bench --show RUN --export baseline` prints one") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabError(f"{path} is no baseline: {error}") from None

    def as_json(self) -> dict[str, object]:
        ratios: dict[str, dict[str, dict[str, list[float]]]] = {}
        for (workload, model, mode), found in sorted(self.ratios.items()):
            values = [round(value, 4) for value in (found.middle, found.low, found.high)]
            ratios.setdefault(workload, {}).setdefault(mode, {})[model] = values
        return {"schema": _SCHEMA, "made": dict(self.made), "reference": self.reference, "ratios": ratios}


@dataclass(frozen=True, slots=True)
class Deviation:
    """A cost that differs from the baseline.

    Args:
        text: one line.
        is_regression: whether it is worse by more than the threshold.
    """

    text: str
    is_regression: bool


def read_ratios(findings: Findings, reference: str) -> dict[RowKey, Estimate]:
    """Return the cost of each model relative to the reference: one ratio per round."""
    found = {}
    names = reference, name_control(reference)
    for key, row in findings.rows.items():
        if row.model in names or row.mode not in (CLOSED, FIXED):
            continue
        references = [findings.rows.get(RowKey(row.workload, name, row.mode)) for name in names]
        ratios = [_ratio(row, [item for item in references if item], number) for number in row.found]
        if known := estimate(ratios):
            found[key] = known
    return found


def _ratio(row: Row, references: list[Row], number: int) -> float | None:
    cost = row.found[number].server.cpu_us
    others = [item.found[number].server.cpu_us for item in references if number in item.found]
    known = [other for other in others if other]
    return None if cost is None or not known else cost / mean(known)


def find_deviations(baseline: Baseline, findings: Findings, threshold: float) -> Iterator[Deviation]:
    """Yield the costs of a run that differ from the baseline by more than noise.

    Args:
        threshold: the largest relative change of a ratio that is not reported.

    Raises:
        LabError: the two have no case in common.
    """
    ratios = read_ratios(findings, baseline.reference)
    common = [key for key in baseline.ratios if key in ratios]
    if not common:
        raise LabError(
            f"{findings.run.started} has no case in common with the baseline, which compares models with "
            f"{baseline.reference} under {', '.join(sorted({key.workload for key in baseline.ratios}))}"
        )
    noise = findings.noise("cpu_us") or 0.0
    for key, was in baseline.ratios.items():
        if key not in ratios:
            if findings.plan.includes(*key):
                yield Deviation(f"{key}: no longer measured: {findings.explain_missing(key)}", True)
            continue
        change = compare(was, ratios[key], noise=noise)
        if change is None or not change.is_beyond_noise or abs(change.ratio - 1) <= threshold:
            continue
        worse = change.ratio > 1
        yield Deviation(
            f"{key}: a request costs {change.after.middle:.2f} times as much as that of "
            f"{baseline.reference}, baseline {was.middle:.2f} ({change.ratio - 1:+.0%})"
            + (", a regression" if worse else ""),
            worse,
        )
    moved = sorted(ratios[key].middle / baseline.ratios[key].middle for key in common)[
        _MOVED_QUARTERS * len(common) // 4
    ]
    if moved < 1 / (1 + threshold):
        yield Deviation(
            f"relative to {baseline.reference}, most models cost {moved:.2f} times their baseline, or less: "
            f"{baseline.reference} itself costs more, a regression",
            True,
        )


def render_baseline(findings: Findings) -> str:
    """Return the text of the file.

    Raises:
        LabError: see `Baseline.of`.
    """
    return json.dumps(Baseline.of(findings).as_json(), indent=1) + "\n"
