"""Compare two runs of the benchmark: the figures that changed by more than the noise of both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.base.units import show_count, show_us
from lab.experiments.bench.findings import Findings, RowKey
from lab.experiments.bench.plan import is_control
from lab.metrics.estimates import compare as compare_estimates
from lab.metrics.estimates import show_estimate

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
        figure: of `lab.experiments.bench.findings.FIGURES`.
        is_regression: whether it is worse by more than the threshold.
    """

    key: RowKey
    figure: str
    is_regression: bool
    text: str


def find_differences(before: Findings, after: Findings, threshold: float) -> Iterator[Difference]:
    """Yield the figures that changed by more than the noise of both runs.

    Args:
        threshold: the largest relative change for the worse that is no regression.
    """
    for key, row in before.rows.items():
        if is_control(row.model) or not row.found:
            continue
        now = after.rows.get(key)
        if now is None or not now.found:
            if after.plan.includes(*key):
                text = f"{key}: no longer measured: {after.explain_missing(key)}"
                yield Difference(key, "rate", True, text)
            continue
        if now.failed and not row.failed:
            why = ", ".join(now.failed)
            text = f"{key}: {now.failed.total()} failures, none before: {why}"
            yield Difference(key, "failures", True, text)
        for figure, (more_is_worse, name, show) in _FIGURES.items():
            noise = max(before.noise(figure) or 0.0, after.noise(figure) or 0.0)
            one, other = row.read(figure), now.read(figure)
            change = compare_estimates(one, other, noise=noise) if one and other else None
            if change is None or not change.is_beyond_noise:
                continue
            worse = change.ratio - 1 if more_is_worse else 1 - change.ratio
            is_regression = worse > threshold
            was, now_is = show_estimate(one, show), show_estimate(other, show)
            text = f"{key}: {name} {was} -> {now_is} ({change.ratio - 1:+.0%})"
            yield Difference(key, figure, is_regression, text + (", a regression" if is_regression else ""))


def find_other_conditions(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    """Yield the facts that changed: a difference in the figures may come from the machine."""
    for name in _CONDITIONS:
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name) or 'not known'} -> {after.get(name) or 'not known'}"
