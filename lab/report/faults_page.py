"""The report of `lab faults` as one self-contained HTML file that links to the raw data."""

import math
from dataclasses import dataclass
from itertools import groupby

from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import show
from lab.experiments.faults.under_load import UnderLoad
from lab.report.cells import Cell
from lab.report.faults_text import (
    DETAILS,
    TIMES,
    Outcome,
    key_of,
    list_environment,
    make_answers,
    make_reading,
    make_times,
    name_of,
    show_cell,
    show_details,
    show_load,
)
from lab.report.html import load_template
from lab.report.svg import Dot, Scale, join_points

# Size of a picture in pixels; the margins hold the axes.
_WIDTH, _HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 34


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its position in pixels and its label."""

    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart of PINGs around a fault: p50 and p99 per second, with a cross over each second in which some failed.

    Args:
        title, load: The fault, and the result of the load.
        begin, end: The fault's interval as x coordinates.
        lines: (name, SVG points), interrupted at seconds without an answer.
        dots: (x, y, tooltip).
        crosses: (x, y, tooltip).
        across, down: The marks of the axes.
        raw: Link to the stored figures.
    """

    title: str
    load: str
    begin: float
    end: float
    lines: tuple[tuple[str, str], ...]
    dots: tuple[Dot, ...]
    crosses: tuple[Dot, ...]
    across: tuple[Tick, ...]
    down: tuple[Tick, ...]
    raw: str


def render(outcome: Outcome) -> str:
    """Return the page as HTML."""
    faults = outcome.faults
    return load_template("faults.html.j2").render(
        run=outcome.run,
        answers=list(make_answers(outcome)),
        faults=faults,
        card=[
            (model, [(fault, _make_cell(outcome, row[fault]) if fault in row else None) for fault in faults])
            for model, row in outcome.card.items()
        ],
        times_columns=TIMES,
        times=[dict(zip(TIMES, row, strict=True)) for row in make_times(outcome)],
        columns=DETAILS,
        details=[
            (dict(zip(DETAILS, show_details(each), strict=True)), _path(outcome, each)) for each in outcome.scores
        ],
        pictures=[_draw(outcome, each) for each in outcome.seen],
        size=(_WIDTH, _HEIGHT),
        frame=(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
        reading=make_reading(),
        environment=list_environment(outcome.run),
    )


def _make_cell(outcome: Outcome, score: Score) -> Cell:
    is_good = score.verdict is Verdict.HELD and score.is_fine
    return Cell(None, show_cell(score), note=score.reason, link=_path(outcome, score), is_good=is_good)


def _path(outcome: Outcome, score: Score) -> str:
    return outcome.run.path_of(key_of(score.model, score.fault))


def _draw(outcome: Outcome, each: UnderLoad) -> Picture:
    probe_report = each.probe_report
    # A row covers a whole second and is drawn at its middle.
    rows = [(second + 0.5, p50, p99, failed) for second, p50, p99, failed in probe_report.seconds]
    left, right = rows[0][0] - 0.5, max(rows[-1][0] + 0.5, probe_report.lasted)
    known = [value for _, p50, p99, _ in rows for value in (p50, p99) if value]
    low = math.floor(math.log10(min(known))) if known else -3
    high = max(math.ceil(math.log10(max(known))), low + 1) if known else 0

    across = Scale(left, right, _LEFT, _WIDTH - _RIGHT).place
    down = Scale(10.0**low, 10.0**high, _HEIGHT - _BOTTOM, _TOP, is_log=True).place
    lines: list[tuple[str, str]] = []
    dots: list[Dot] = []
    for name, column in (("p50", 1), ("p99", 2)):
        values = [(row[0], row[column]) for row in rows]
        for is_answered, part in groupby(values, lambda value: value[1] is not None):
            if is_answered:
                found = [(x, y) for x, y in part if y]
                lines.append((name, join_points((across(x), down(y)) for x, y in found)))
                dots += [(across(x), down(y), f"second {x - 0.5:g}: {name} {show(y)}") for x, y in found]
    step = max(1, round((right - left) / 12))
    return Picture(
        title=f"{name_of(each)}: {probe_report}",
        load=show_load(each),
        begin=across(0.0),
        end=across(max(probe_report.lasted, 0.02)),
        lines=tuple(lines),
        dots=tuple(dots),
        crosses=tuple((across(x), _TOP + 6.0, f"second {x - 0.5:g}: {n} failed") for x, _, _, n in rows if n),
        across=tuple(Tick(across(second), f"{second} s") for second in range(math.ceil(left), int(right) + 1, step)),
        down=tuple(Tick(down(10.0**power), show(10.0**power)) for power in range(low, high + 1)),
        raw=outcome.run.path_of(key_of(each.interval.model, each.interval.fault)),
    )
