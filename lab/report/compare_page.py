"""The page of `lab compare`: the change of each figure between two runs, or from the baseline, beside the noise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab.experiments.bench.baseline import Baseline, read_ratios
from lab.experiments.bench.findings import Findings, RowKey
from lab.experiments.bench.plan import CLOSED, FIXED, is_control
from lab.metrics.estimates import Change, compare
from lab.report.charts.chart import Chart
from lab.report.charts.intervals import Interval, draw_intervals
from lab.report.charts.palette import Tone
from lab.report.html import load_template

# Figures of a chart: its name, its title, the modes of its rows, and whether more is worse.
_FIGURES = (
    ("cpu_us", "CPU per request: left is better", (CLOSED, FIXED), True),
    ("rate", "Requests/s: right is better", (CLOSED,), False),
)

# A chart of more rows shows only those that changed.
_MOST_ROWS = 100


@dataclass(frozen=True, slots=True)
class Changed:
    """A figure in both runs.

    Args:
        key: of its row.
        change: between the two.
        is_worse: whether it is beyond noise and worse.
    """

    key: RowKey
    change: Change
    is_worse: bool

    @property
    def tone(self) -> Tone:
        """Blue for better, orange for worse, grey for no difference beyond the noise."""
        if not self.change.is_beyond_noise:
            return Tone.GREY
        return Tone.ORANGE if self.is_worse else Tone.BLUE


def render(before: str, after: str, charts: Sequence[Chart], sentences: Sequence[str], facts: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        before, after: names of the runs.
        charts: of the changes.
        sentences: the result, as printed.
        facts: about the two.
    """
    return load_template("compare.html.j2").render(
        before=before, after=after, charts=charts, sentences=sentences, environment=facts
    )


def draw_changes(before: Findings, after: Findings) -> list[Chart]:
    """Return the change of CPU per request and of the rate between two runs."""
    charts = []
    for figure, title, modes, more_is_worse in _FIGURES:
        noise = max(before.noise(figure) or 0.0, after.noise(figure) or 0.0)
        found = []
        for key, row in before.rows.items():
            now = after.rows.get(key)
            if now is None or is_control(key.model) or key.mode not in modes:
                continue
            one, other = row.read(figure), now.read(figure)
            if change := compare(one, other, noise=noise) if one and other else None:
                found.append(Changed(key, change, (change.ratio > 1) is more_is_worse))
        charts += _draw(figure.removesuffix("_us"), title, found, noise)
    return charts


def draw_baseline(baseline: Baseline, findings: Findings) -> list[Chart]:
    """Return the change of the costs relative to the reference model."""
    noise = findings.noise("cpu_us") or 0.0
    ratios = read_ratios(findings, baseline.reference)
    changes = ((key, compare(was, ratios[key], noise=noise)) for key, was in baseline.ratios.items() if key in ratios)
    found = [Changed(key, change, change.ratio > 1) for key, change in changes if change]
    return _draw("cpu", f"CPU per request relative to {baseline.reference}: left is better", found, noise)


def _draw(name: str, title: str, found: Sequence[Changed], noise: float) -> list[Chart]:
    if len(found) > _MOST_ROWS:
        found = [item for item in found if item.change.is_beyond_noise]
    rows = list(_make_rows(sorted(found, key=lambda item: (item.key.workload, item.key.mode, -item.change.ratio))))
    if not rows:
        return []
    band = (-100 * noise, 100 * noise)
    return [draw_intervals(name, title, rows, axis="change in %", show=_show_percent, band=band)]


def _show_percent(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _make_rows(found: Sequence[Changed]) -> Iterator[Interval]:
    for item in found:
        change = item.change
        low = change.after.low / change.before.high if math.isfinite(change.before.high) else change.ratio
        high = change.after.high / change.before.low if change.before.low > 0 else change.ratio
        yield Interval(
            item.key.model,
            100 * (change.ratio - 1),
            100 * (min(low, change.ratio) - 1),
            100 * (high - 1),
            item.tone,
            f"{change.ratio - 1:+.0%}",
            "beyond the noise" if change.is_beyond_noise else "no difference beyond the noise",
            f"{item.key.workload}, {item.key.mode}",
        )
