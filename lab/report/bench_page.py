"""The report of `lab bench` as one self-contained HTML file that links to the raw data.

The curves of each model are in its own row, all on one scale. Lines of twenty models in one chart could only be
distinguished by colour, which not every reader can.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab.base.units import show_count, show_time
from lab.experiments.bench.findings import Findings, Row, RowKey
from lab.experiments.bench.plan import CLOSED, WARM_UP, WORKLOADS, Phase, Step, is_control
from lab.experiments.records import CONFORMANCE
from lab.report.bench_text import (
    TEXTS,
    Advice,
    Line,
    make_answers,
    make_environment,
    make_lines,
    make_reliability,
)
from lab.report.cells import list_widths
from lab.report.html import load_template
from lab.report.svg import Dot, Scale, join_points
from loadtests.sockets.histogram import Histogram, percentiles

# Size of a curve's picture, and the margin around the line.
_WIDTH, _HEIGHT, _MARGIN = 190, 44, 4

# Each has one nine more, as in HdrHistogram's plots: rare values get as much room as frequent ones.
_SHARES = (0.0, 0.5, 0.9, 0.99, 0.999)

# Modes for the latency, the best first: in an open loop a request does not wait for earlier replies.
_LATENCY_MODES = ("open-70", "open-50", CLOSED)


@dataclass(frozen=True, slots=True)
class Curve:
    """A line in a small picture.

    Args:
        points: SVG points.
        dots: (x, y, tooltip).
    """

    points: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class PageRow:
    """A model as the template needs it: its line, its pictures, and the links to its steps."""

    line: Line
    throughput: Curve | None
    latency: Curve | None
    cost_width: float
    memory_width: float
    raw: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One workload; the two headings name the curves and their scale."""

    name: str
    summary: str
    answers: tuple[Advice, ...]
    rows: tuple[PageRow, ...]
    throughput_heading: str
    latency_heading: str

    @property
    def advice(self) -> tuple[Advice, ...]:
        """The recommendations among the answers; all answers if there are none."""
        return tuple(advice for advice in self.answers if advice.kind != "result") or self.answers

    def find(self, model: str) -> PageRow | None:
        """Return the row of a model; None if it has none."""
        return next((row for row in self.rows if row.line.model == model), None)


def render(findings: Findings) -> str:
    """Return the page as HTML."""
    sections = [section for workload in findings.plan.workloads if (section := _make_section(findings, workload)).rows]
    return load_template("bench.html.j2").render(
        run=findings.run,
        plan=findings.plan,
        texts=TEXTS,
        sections=sections,
        models=list(dict.fromkeys(row.line.model for section in sections for row in section.rows)),
        trust=list(make_reliability(findings)),
        trust_raw={title: [findings.run.path_of(key) for key in keys] for title, keys in _list_others(findings)},
        environment=make_environment(findings),
        size=(_WIDTH, _HEIGHT),
    )


def _make_section(findings: Findings, workload: str) -> Section:
    lines = make_lines(findings, workload)
    mode = next((mode for mode in _LATENCY_MODES if mode in findings.plan.modes_of(workload)), CLOSED)
    sweeps = {
        model: [(float(users), item.rate) for users, item in sorted(levels.items())]
        for (found, model), levels in findings.sweeps.items()
        if found == workload and not is_control(model)
    }
    times = {row.model: _percentiles(row) for row in findings.list_rows(workload, mode)}
    throughputs = _draw(sweeps, lambda x, y: f"{x:.0f} connections: {show_count(y)} requests/s", log_x=True)
    latencies = _draw(times, lambda x, y: f"p{100 * _SHARES[int(x)]:g}: {show_time(y)}", log_y=True)
    costs = list_widths(line.cells["CPU µs/req"] for line in lines)
    memories = list_widths(line.cells["KiB/conn"] for line in lines)
    rows = [
        PageRow(
            line,
            throughputs.get(line.model),
            latencies.get(line.model),
            cost,
            memory,
            tuple(findings.run.path_of(key) for key in _list_keys(findings, workload, mode, line)),
        )
        for line, cost, memory in zip(lines, costs, memories, strict=True)
    ]
    users = [x for points in sweeps.values() for x, _ in points]
    rates = [y for points in sweeps.values() for _, y in points]
    spans = [y for points in times.values() for _, y in points]
    return Section(
        workload,
        WORKLOADS[workload].summary,
        tuple(make_answers(findings, workload)),
        tuple(rows),
        f"requests/s, 0 to {show_count(max(rates))}, by {min(users):.0f} to {max(users):.0f} connections"
        if users
        else "",
        f"time of p0 to p99.9, {show_time(min(spans))} to {show_time(max(spans))}, {mode}"
        if spans
        else f"times, {mode}",
    )


def _list_others(findings: Findings) -> Iterator[tuple[str, list[str]]]:
    """Yield the steps that belong to no row, as titles with keys."""
    run = findings.run
    yield "control server", [key for key in run.list_keys() if (step := Step.parse(key)) and step.is_control]
    for folder in (Phase.CROSS_CHECK, CONFORMANCE, WARM_UP):
        yield folder, run.list_keys(folder)


def _list_keys(findings: Findings, workload: str, mode: str, line: Line) -> list[str]:
    """Return the keys of the steps behind a row's figures and curves."""
    model = line.model
    levels = sorted(findings.sweeps.get((workload, model), ()))
    latency = findings.rows.get(RowKey(workload, model, mode))
    swept = (Step(Phase.SWEEP, users, workload, model).key for users in levels)
    return list(dict.fromkeys([*line.keys, *(latency.keys if latency else ()), *swept]))


def _percentiles(row: Row) -> list[tuple[float, float]]:
    """Return pairs of (index of the percentile, microseconds) over all rounds."""
    times = Histogram()
    for item in row.found.values():
        times.merge(item.load.times)
    found = enumerate(percentiles(times.pairs(), _SHARES))
    return [(float(number), value) for number, value in found if value]


def _draw(
    lines: dict[str, list[tuple[float, float]]],
    describe: Callable[[float, float], str],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> dict[str, Curve]:
    """Draw lines on one scale; a single point is no line."""
    across = [x for points in lines.values() for x, _ in points]
    up = [y for points in lines.values() for _, y in points]
    if not across:
        return {}
    place = Scale(min(across), max(across), _MARGIN, _WIDTH - _MARGIN, is_log=log_x).place
    lift = Scale(min(up) if log_y else 0.0, max(up), _HEIGHT - _MARGIN, _MARGIN, is_log=log_y).place
    return {
        name: Curve(
            join_points((place(x), lift(y)) for x, y in points),
            tuple((place(x), lift(y), describe(x, y)) for x, y in points),
        )
        for name, points in lines.items()
        if len(points) > 1
    }
