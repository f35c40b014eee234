"""Compare two runs of the benchmark: the figures that changed by more than the noise of both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.base.units import show_count, show_us
from lab.experiments.bench.findings import Findings
from lab.experiments.bench.plan import is_control
from lab.metrics.estimates import Change, show_estimate
from lab.metrics.estimates import compare as compare_estimates

# The figures that are compared: whether more is worse, the unit, and how to show it.
_FIGURES = {
    "rate": (False, "requests/s", show_count),
    "cpu_us": (True, "CPU µs/request", show_us),
    "p99_us": (True, "p99 µs", show_us),
}

# Facts that must be equal for two runs to be comparable.
_CONDITIONS = ("processor", "system", "backend", "engine", "servers", "cores", "governor", "libc", "allocator")


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that changed.

    Args:
        case: workload, model and mode.
        figure: of `lab.experiments.bench.findings.FIGURES`.
        change: None if it is no longer measured.
        is_regression: whether it is worse by more than the threshold.
        text: one line.
    """

    case: tuple[str, str, str]
    figure: str
    change: Change | None
    is_regression: bool
    text: str


def find_differences(before: Findings, after: Findings, threshold: float) -> Iterator[Difference]:
    """Yield the figures that changed by more than the noise of both runs.

    Args:
        threshold: the largest relative change for the worse that is no regression.
    """
    for case, row in before.rows.items():
        if is_control(case[1]) or not row.found:
            continue
        now = after.rows.get(case)
        if now is None or not now.found:
            if case[0] in after.plan.workloads and case[1] in after.plan.models and case[2] in after.plan.modes:
                reason = now.reason if now else after.unsound.get(case[1], "the run was interrupted before it")
                yield Difference(case, "rate", None, True, f"{_name(case)}: no longer measured: {reason}")
            continue
        if now.failed and not row.failed:
            why = ", ".join(now.failed)
            yield Difference(
                case, "failures", None, True, f"{_name(case)}: {now.failed.total()} failures, none before: {why}"
            )
        for figure, (more_is_worse, name, show) in _FIGURES.items():
            noise = max(before.noise(figure) or 0.0, after.noise(figure) or 0.0)
            one, other = row.read(figure), now.read(figure)
            change = compare_estimates(one, other, noise=noise) if one and other else None
            if change is None or not change.is_beyond_noise:
                continue
            worse = change.ratio - 1 if more_is_worse else 1 - change.ratio
            is_regression = worse > threshold
            was, now_is = show_estimate(one, show), show_estimate(other, show)
            text = f"{_name(case)}: {name} {was} -> {now_is} ({change.ratio - 1:+.0%})"
            yield Difference(case, figure, change, is_regression, text + (", a regression" if is_regression else ""))


def find_other_conditions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield the facts that changed: a difference in the figures may come from the machine."""
    for name in _CONDITIONS:
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name) or 'not known'} -> {after.get(name) or 'not known'}"


def _name(case: tuple[str, str, str]) -> str:
    workload, model, mode = case
    return f"{model}, {workload}, {mode}"
