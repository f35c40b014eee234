"""The page of `lab soak`: whether memory grows, with the readings behind it."""

from collections.abc import Iterator, Mapping, Sequence

from lab.base.units import UNKNOWN, show_number
from lab.experiments.soak import COUNTS, MEGABYTE, UNASKED, SoakResult
from lab.experiments.store import Run
from lab.metrics.trend import Trend, after_warm_up
from lab.report.cells import Cell
from lab.report.charts.chart import Chart
from lab.report.charts.intervals import Interval, draw_intervals
from lab.report.charts.lines import Events, Line, draw_lines
from lab.report.charts.palette import Tone
from lab.report.charts.scale import make_axis
from lab.report.html import load_template

TEXTS = ("model", "verdict")

_MARKS = {Trend.FLAT: "●", Trend.UNKNOWN: "○", Trend.GROWS: "▲"}

# A flat model is blue, a growing one orange, and one without a verdict grey.
_TONES = {Trend.FLAT: Tone.BLUE, Trend.GROWS: Tone.ORANGE, Trend.UNKNOWN: Tone.GREY}


def render(findings: Sequence[SoakResult], run: Run, *, limit: float, resolution: str) -> str:
    """Return the page.

    Args:
        limit: the allowed growth of memory in bytes per hour.
        resolution: a sentence on what a run of this length can show.
    """
    return load_template("soak.html.j2").render(
        run=run,
        charts=[*draw_growth(findings, limit), *draw_memory(findings), *draw_counts(findings)],
        rows=[_make_row(found) for found in findings],
        grows=[found.model for found in findings if find_trend(found) is Trend.GROWS],
        unknown=[found.model for found in findings if find_trend(found) is Trend.UNKNOWN],
        unserved=[found.model for found in findings if found.visits.failures],
        texts=TEXTS,
        resolution=resolution,
        environment={name: value or "not known" for name, value in run.facts["environment"].items()},
    )


def find_trend(found: SoakResult) -> Trend:
    """Return the worst verdict of all series of a model; without any request they prove nothing."""
    verdicts = {*found.growth.values(), *([] if found.visits.requests else [Trend.UNKNOWN])}
    return next((trend for trend in (Trend.GROWS, Trend.UNKNOWN) if trend in verdicts), Trend.FLAT)


def draw_growth(findings: Sequence[SoakResult], limit: float) -> Iterator[Chart]:
    """Yield the growth of memory with its interval; what ends within the band is below the limit."""
    rows = [
        Interval(
            found.model,
            found.memory.middle / MEGABYTE,
            found.memory.low / MEGABYTE,
            found.memory.high / MEGABYTE,
            _TONES[found.growth["memory"]],
            f"{found.memory.middle / MEGABYTE:+.2f}",
            f"{found.memory.low / MEGABYTE:+.2f} to {found.memory.high / MEGABYTE:+.2f} MB/h, {found.growth['memory']}",
        )
        for found in findings
        if found.memory
    ]
    if rows:
        # The band reaches to the left end: shrinking is no leak.
        least = min(0.0, *(row.low for row in rows))
        yield draw_intervals(
            "growth",
            f"Growth of memory; the band ends at the limit of {limit / MEGABYTE:g} MB per hour",
            rows,
            axis="MB per hour",
            show=lambda value: f"{value:.3g}",
            band=(least, limit / MEGABYTE),
        )


def draw_memory(findings: Sequence[SoakResult]) -> Iterator[Chart]:
    """Yield the memory at each rest, with the warm-up shaded."""
    lines = [
        Line(
            found.model,
            [
                (item.seconds / 60, None if item.memory_bytes is None else item.memory_bytes / MEGABYTE)
                for item in found.readings
            ],
            _TONES[find_trend(found)],
        )
        for found in findings
    ]
    yield from _draw_course("memory", "Memory at each rest", "MB", lines, findings)


def draw_counts(findings: Sequence[SoakResult]) -> Iterator[Chart]:
    """Yield the counts that changed after the warm-up in any model."""
    for name in COUNTS:
        # A reading that is not known is no change.
        late = {
            found.model: {getattr(item, name) for item in after_warm_up(found.readings)} - {None} for found in findings
        }
        lines = [
            Line(
                found.model,
                [(item.seconds / 60, getattr(item, name)) for item in found.readings],
                _TONES[found.growth[name]],
            )
            for found in findings
        ]
        if any(len(values) > 1 for values in late.values()):
            yield from _draw_course(name, f"{name.capitalize()} at each rest", name, lines, findings)


def _draw_course(
    name: str, title: str, unit: str, lines: Sequence[Line], findings: Sequence[SoakResult]
) -> Iterator[Chart]:
    known = [value for line in lines for _, value in line.known]
    if not known:
        return
    minutes = [at for line in lines for at, _ in line.points]
    across = make_axis("minutes", minutes, lambda value: f"{value:.3g}", is_log=False)
    begin = min(after_warm_up(found.readings)[0].seconds / 60 for found in findings)
    tipped = [
        Line(
            line.name,
            line.points,
            line.tone,
            f"{line.name}: {line.known[0][1]:.3g} {unit} first, {line.known[-1][1]:.3g} {unit} last",
            has_dots=False,
        )
        for line in lines
        if line.known
    ]
    up = make_axis(unit, known, lambda value: f"{value:.4g}")
    yield draw_lines(
        name, title, tipped, across=across, up=up, events=Events([(0.0, begin, "warm-up")], are_faults=False)
    )


def _make_row(found: SoakResult) -> Mapping[str, Cell]:
    late = after_warm_up(found.readings)
    trend = find_trend(found)
    grown = [f"{name}: {growth}" for name, growth in found.growth.items()]
    failures = found.visits.failures
    served = [f"{count} x {what}" for what, count in failures.items()]
    served += [] if found.visits.requests else [UNASKED]
    memory = found.memory.middle / MEGABYTE if found.memory else None
    return {
        "model": Cell(found.model, found.model),
        "memory, MB/h": Cell(memory, UNKNOWN if memory is None else f"{memory:+.2f}"),
        **{
            name: Cell.of(last, show_number)
            if first == last
            else Cell(last, f"{show_number(first)} → {show_number(last)}")
            for name in COUNTS
            for first, last in [(getattr(late[0], name), getattr(late[-1], name))]
        },
        "requests": Cell(found.visits.requests, f"{found.visits.requests:,}"),
        "verdict": Cell(
            trend,
            f"{'▲' if failures else _MARKS[trend]} {'not served' if failures else trend}",
            is_good=trend is not Trend.GROWS and not failures,
            words=(*grown, *served),
        ),
    }
