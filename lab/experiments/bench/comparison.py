"""Compare two runs of the benchmark: which figures changed beyond the noise of both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.base.units import show_count, show_us
from lab.experiments.bench.findings import Findings
from lab.experiments.bench.plan import AGAIN
from lab.metrics.estimates import Change, show_estimate
from lab.metrics.estimates import compare as compare_estimates

# What is held: whether more of it is worse, and how it is shown.
_HELD = {
    "rate": (False, "requests/s", show_count),
    "cpu_us": (True, "CPU µs/request", show_us),
    "p99_us": (True, "p99 µs", show_us),
}


# What has to be the same for two runs to be comparable at all.
_SAME = ("processor", "system", "backend", "engine", "servers", "cores", "governor", "libc", "allocator")


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of a cell that is not what it was.

    Args:
        cell: work, model and way.
        figure: of `lab.experiments.bench.findings.FIGURES`.
        change: what it was and is; None if it is no longer measured.
        is_regression: whether it is worse by more than the threshold.
        text: the line for people.
    """

    cell: tuple[str, str, str]
    figure: str
    change: Change | None
    is_regression: bool
    text: str


def find_differences(before: Findings, after: Findings, threshold: float) -> Iterator[Difference]:
    """What has changed beyond the noise of both runs, by cell.

    Args:
        threshold: how much worse a figure may become, as a part of what it was.
    """
    for cell, row in before.rows.items():
        if cell[1].startswith(AGAIN) or not row.found:
            continue
        now = after.rows.get(cell)
        if now is None or not now.found:
            if cell[0] in after.plan.works and cell[1] in after.plan.models and cell[2] in after.plan.ways:
                reason = now.reason if now else after.unsound.get(cell[1], "the run was interrupted before it")
                yield Difference(cell, "rate", None, True, f"{_name(cell)}: no longer measured: {reason}")
            continue
        if now.failed and not row.failed:
            why = ", ".join(now.failed)
            yield Difference(
                cell, "failures", None, True, f"{_name(cell)}: {now.failed.total()} failures, none before: {why}"
            )
        for figure, (more_is_worse, name, show) in _HELD.items():
            noise = max(before.noise(figure) or 0.0, after.noise(figure) or 0.0)
            one, other = row.read(figure), now.read(figure)
            change = compare_estimates(one, other, noise=noise) if one and other else None
            if change is None or not change.is_beyond_noise:
                continue
            worse = change.ratio - 1 if more_is_worse else 1 - change.ratio
            is_regression = worse > threshold
            was, now_is = show_estimate(one, show), show_estimate(other, show)
            text = f"{_name(cell)}: {name} {was} -> {now_is} ({change.ratio - 1:+.0%})"
            yield Difference(cell, figure, change, is_regression, text + (", a regression" if is_regression else ""))


def find_other_conditions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What else has changed: a difference in the figures may be one of the machine."""
    for name in _SAME:
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name) or 'not known'} -> {after.get(name) or 'not known'}"


def _name(cell: tuple[str, str, str]) -> str:
    work, model, way = cell
    return f"{model}, {work}, {way}"
