"""The report of `lab faults` as one self-contained HTML file that links to the raw data."""

import math
from dataclasses import dataclass

from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import ProbeReport, show
from lab.experiments.faults.under_load import UnderLoad
from lab.report.cells import Cell
from lab.report.charts.chart import Chart
from lab.report.charts.intervals import draw_intervals
from lab.report.charts.lines import Events, Line, draw_lines
from lab.report.charts.palette import Tone
from lab.report.charts.scale import Axis
from lab.report.fault_recovery import list_recoveries
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

# The axis of the seconds has about so many ticks.
_TICKS = 12

# A fault without a duration is still drawn.
_SHORTEST = 0.02


@dataclass(frozen=True, slots=True)
class Picture:
    """The latency probe around a fault.

    Args:
        chart: p50 and p99 of the PINGs per second, with a cross over each second in which some failed.
        load: the result of the load.
        raw: link to the stored figures.
    """

    chart: Chart
    load: str
    raw: str


def render(outcome: Outcome) -> str:
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
        charts=draw_recovery(outcome),
        pictures=[
            Picture(draw_probe(each, f"probe-{number}"), show_load(each), _path_of_seen(outcome, each))
            for number, each in enumerate(outcome.seen, 1)
        ],
        reading=make_reading(),
        environment=dict(list_environment(outcome.run)),
    )


def _make_cell(outcome: Outcome, score: Score) -> Cell:
    is_good = score.verdict is Verdict.HELD and score.is_fine
    return Cell(None, show_cell(score), note=score.reason, link=_path(outcome, score), is_good=is_good)


def _path(outcome: Outcome, score: Score) -> str:
    return outcome.run.path_of(key_of(score.model, score.fault))


def _path_of_seen(outcome: Outcome, each: UnderLoad) -> str:
    return outcome.run.path_of(key_of(each.interval.model, each.interval.fault))


def draw_recovery(outcome: Outcome) -> list[Chart]:
    """Return the longest PING of each fault, and the time to recover."""
    return [
        draw_intervals(each.name, each.title, each.rows, axis="median, lowest and highest model", show=show)
        for each in list_recoveries(outcome.scores, outcome.faults)
    ]


def draw_probe(each: UnderLoad, name: str) -> Chart:
    """Draw the PINGs of the latency probe by seconds since the injection, with the fault shaded.

    Args:
        name: of the chart.
    """
    report = each.probe_report
    # A row covers a whole second and is drawn at its middle.
    lines = [
        Line("p99", [(second + 0.5, p99) for second, _, p99, _ in report.seconds], Tone.BLUE, _tell(report, "p99", 2)),
        Line(
            "p50",
            [(second + 0.5, p50) for second, p50, _, _ in report.seconds],
            Tone.GREY,
            _tell(report, "p50", 1),
            is_dashed=True,
        ),
    ]
    left, right = report.seconds[0][0], max(report.seconds[-1][0] + 1, report.lasted)
    step = max(1, round((right - left) / _TICKS))
    ticks = tuple(range(math.ceil(left), int(right) + 1, step))
    across = Axis("seconds since the injection", left, right, ticks, lambda second: f"{second:g} s")
    known = [value for line in lines for _, value in line.known]
    low = math.floor(math.log10(min(known))) if known else -3
    high = max(math.ceil(math.log10(max(known))), low + 1) if known else 0
    powers = tuple(10.0**power for power in range(low, high + 1))
    up = Axis("PING, log scale", powers[0], powers[-1], powers, show, is_log=True)
    events = Events(
        shades=[(0.0, max(report.lasted, _SHORTEST), f"{each.interval.fault}, {show(report.lasted)}")],
        crosses=[
            (second + 0.5, f"second {second}: {failed} failed") for second, _, _, failed in report.seconds if failed
        ],
    )
    return draw_lines(name, f"{name_of(each)}: {report}", lines, across=across, up=up, events=events)


def _tell(report: ProbeReport, name: str, column: int) -> str:
    values = ((row[0], row[column]) for row in report.seconds)
    return f"{name}: " + ", ".join(f"{show(value)} in second {second}" for second, value in values if value)
