"""The report of `lab bench` as one self-contained HTML file that links to the raw data.

The curves of each model are in its own row, all on one scale. Lines of twenty models in one chart could only be
distinguished by colour, which not every reader can.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lab.base.units import UNKNOWN, show_count, show_time
from lab.experiments.bench.findings import Findings, Row, RowKey
from lab.experiments.bench.plan import CLOSED, CONFORMANCE, WARM_UP, WORKLOADS, Phase, Step, is_control
from lab.report.bench_text import COLUMNS, Line, make_answers, make_environment, make_lines, make_reliability
from lab.report.html import load_template
from loadtests.sockets.histogram import Histogram

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
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure as a bar: its text, its sort key, and its width in per cent of the longest."""

    text: str
    sort: str
    width: float


@dataclass(frozen=True, slots=True)
class PageRow:
    """A model as the template needs it: `sorts` has the sort keys of the cells, `raw` the links to its steps."""

    line: Line
    sorts: tuple[str, ...]
    throughput: Curve | None
    latency: Curve | None
    cost: Bar
    memory: Bar
    raw: tuple[str, ...]

    @property
    def model(self) -> str:
        return self.line.cells[0]


@dataclass(frozen=True, slots=True)
class Section:
    """One workload; the two headings name the curves and their scale."""

    name: str
    summary: str
    answers: tuple[str, ...]
    rows: tuple[PageRow, ...]
    throughput_heading: str
    latency_heading: str

    @property
    def advice(self) -> tuple[str, ...]:
        """The recommendations among the answers; all answers if there are none."""
        return tuple(text for text in self.answers if text.startswith(("Best", "Avoid"))) or self.answers

    def find(self, model: str) -> PageRow | None:
        """Return the row of a model; None if it has none."""
        return next((row for row in self.rows if row.model == model), None)


def render(findings: Findings) -> str:
    """Return the page as HTML."""
    sections = [section for workload in findings.plan.workloads if (section := _make_section(findings, workload)).rows]
    return load_template("bench.html.j2").render(
        run=findings.run,
        plan=findings.plan,
        columns=COLUMNS,
        sections=sections,
        models=list(dict.fromkeys(row.model for section in sections for row in section.rows)),
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
    costs = _make_bars(lines, COLUMNS.index("CPU µs/req"))
    memories = _make_bars(lines, COLUMNS.index("KiB/conn"))
    rows = [
        PageRow(
            line,
            tuple(_sort_key(cell) for cell in line.cells),
            throughputs.get(line.cells[0]),
            latencies.get(line.cells[0]),
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


def _make_bars(lines: Sequence[Line], column: int) -> list[Bar]:
    """Return the figures of a column as bars."""
    keys = [_sort_key(line.cells[column]) for line in lines]
    longest = max((float(key) for key in keys if key != UNKNOWN), default=0.0)
    return [
        Bar(line.cells[column], key, 100 * float(key) / longest if longest and key != UNKNOWN else 0.0)
        for line, key in zip(lines, keys, strict=True)
    ]


def _list_others(findings: Findings) -> Iterator[tuple[str, list[str]]]:
    """Yield the steps that belong to no row, as titles with keys."""
    run = findings.run
    yield "control server", [key for key in run.list_keys() if (step := Step.parse(key)) and step.is_control]
    for folder in (Phase.CROSS_CHECK, CONFORMANCE, WARM_UP):
        yield folder, run.list_keys(folder)


def _list_keys(findings: Findings, workload: str, mode: str, line: Line) -> list[str]:
    """Return the keys of the steps behind a row's figures and curves."""
    model = line.cells[0]
    levels = sorted(findings.sweeps.get((workload, model), ()))
    latency = findings.rows.get(RowKey(workload, model, mode))
    swept = (Step(Phase.SWEEP, users, workload, model).key for users in levels)
    return list(dict.fromkeys([*line.keys, *(latency.keys if latency else ()), *swept]))


def _percentiles(row: Row) -> list[tuple[float, float]]:
    """Return pairs of (index of the percentile, microseconds) over all rounds."""
    times = Histogram()
    for item in row.found.values():
        times.merge(Histogram.from_pairs(item.histogram))
    known = [(float(number), times.percentile(share)) for number, share in enumerate(_SHARES)]
    return [(number, value) for number, value in known if value]


def _draw(
    lines: dict[str, list[tuple[float, float]]],
    describe: Callable[[float, float], str],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> dict[str, Curve]:
    """Draw lines on one scale; a single point is no line."""
    across = [math.log10(x) if log_x else x for points in lines.values() for x, _ in points]
    up = [math.log10(y) if log_y else y for points in lines.values() for _, y in points]
    if not across:
        return {}
    left, right = min(across), max(across)
    low, high = (min(up) if log_y else 0.0), max(up)
    drawn = {}
    for name, points in lines.items():
        if len(points) < 2:
            continue
        dots = [
            (
                _place(math.log10(x) if log_x else x, left, right, _WIDTH),
                _HEIGHT - _place(math.log10(y) if log_y else y, low, high, _HEIGHT),
                describe(x, y),
            )
            for x, y in points
        ]
        drawn[name] = Curve(" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in dots), tuple(dots))
    return drawn


def _place(value: float, low: float, high: float, room: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return _MARGIN + share * (room - 2 * _MARGIN)


def _sort_key(cell: str) -> str:
    """Return the number in a cell, or the cell itself if it has none."""
    text = (
        cell.lstrip("≥≤ ")
        .removesuffix(" !")
        .partition(" [")[0]
        .replace("\u202f", "")
        .removesuffix(" MiB")
        .partition("-")[0]
    )
    factor = {"k": 1e3, "M": 1e6}.get(text[-1:], 1.0)
    try:
        return repr(float(text.rstrip("kM")) * factor)
    except ValueError:
        return cell
