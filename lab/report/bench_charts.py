"""The charts of `lab bench`, made from the findings of a run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab.base.units import show_bytes, show_count, show_number, show_time, show_us
from lab.experiments.bench.findings import Findings, Row, choose_costs
from lab.experiments.bench.plan import CLOSED, FIXED, WORKLOADS
from lab.metrics.estimates import show_estimate
from lab.report.bench_answer import Answer
from lab.report.charts.chart import Chart
from lab.report.charts.intervals import Interval, draw_intervals
from lab.report.charts.lines import Distribution, Line, draw_lines, draw_percentiles
from lab.report.charts.scale import Axis, make_axis
from lab.report.charts.scatter import Point, draw_scatter
from lab.report.distribution import read_shares

# Modes for the latency, the best first: in an open loop a request does not wait for earlier replies.
LATENCY_MODES = ("open-70", "open-50", CLOSED)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of all models under a workload, the best first.

    Args:
        name, title: of its chart.
        rows: a row for each model. The intervals have the noise of the machine in them, as the ranks do.
        band: the interval of the best.
        show: how to format a value.
    """

    name: str
    title: str
    axis: str
    rows: tuple[Interval, ...]
    band: tuple[float, float] | None
    show: Callable[[float], str]


def draw_answer(findings: Findings, workload: str, answer: Answer) -> list[Chart]:
    """Return the picture of the answer: intervals of rate and of CPU per request, the best first."""
    return [
        draw_intervals(each.name, each.title, each.rows, axis=each.axis, show=each.show, band=each.band)
        for each in list_figures(findings, workload, answer)
    ]


def list_figures(findings: Findings, workload: str, answer: Answer) -> list[Figure]:
    """Return the figures of the answer that were measured."""
    rate = WORKLOADS[workload].fixed_rate
    at = f" at {show_count(rate)} requests/s" if findings.list_rows(workload, FIXED) else ""
    rates = _make_rows(findings, findings.list_rows(workload, CLOSED), answer, "rate", show_count)
    costs = _make_rows(findings, choose_costs(findings, workload), answer, "cpu_us", show_us)
    found = (
        ("rate", "Requests/s: more is better", "requests/s", rates, show_count),
        ("cpu", f"CPU per request{at}: less is better", "CPU µs per request", costs, show_us),
    )
    return [
        Figure(f"{workload}-{name}", title, axis, rows, (rows[0].low, rows[0].high), show)
        for name, title, axis, rows, show in found
        if rows
    ]


def _make_rows(
    findings: Findings, rows: Sequence[Row], answer: Answer, figure: str, show: Callable[[float], str]
) -> tuple[Interval, ...]:
    noise = findings.noise(figure) or 0.0
    found = {row.model: estimate for row in rows if row.found and (estimate := row.read(figure))}
    made = []
    for model, (best, worst) in findings.rank(rows, figure).items():
        known = found[model]
        wide = known.widen(noise)
        place = f"rank {best}" if best == worst else f"ties for ranks {best} to {worst}"
        text = show_estimate(known, show)
        short = text.split(" [")[0]
        low = max(wide.low, 0.0)
        made.append(Interval(model, known.middle, low, wide.high, answer.tone(model), short, f"{place}, {text}"))
    return tuple(made)


def draw_details(findings: Findings, workload: str, answer: Answer) -> list[Chart]:
    """Return all other charts: saturation, latency, cost against tail, memory."""
    return [
        *_draw_saturation(findings, workload, answer),
        *_draw_latency(findings, workload, answer),
        *_draw_costs(findings, workload, answer),
        *_draw_memory(findings, workload, answer),
    ]


def _draw_saturation(findings: Findings, workload: str, answer: Answer) -> Iterator[Chart]:
    """Yield the rate and p99 against the connections, with a ring at the knee."""
    shown: tuple[tuple[str, str, str, Callable[[float], str], bool | None], ...] = (
        ("rate", "Saturation: requests/s by connections", "requests/s", show_count, False),
        ("p99_us", "Saturation: p99 by connections", "p99", show_time, True),
    )
    for figure, title, unit, show, is_log in shown:
        sweeps = findings.read_sweep(workload, figure)
        lines = []
        for model, points in sweeps.items():
            knee = findings.find_knee(workload, model)
            tip = ", ".join(f"{show(value)} at {users}" for users, value in points)
            tip += f"; knee at {knee.users} connections" if knee else ""
            marked = (knee.users,) if knee else ()
            lines.append(Line(model, points, answer.tone(model), f"{model}: {tip}", marked))
        if any(len(points) > 1 for points in sweeps.values()):
            values = [value for points in sweeps.values() for _, value in points]
            up = make_axis(f"{unit}; a ring marks the knee", values, show, is_log=is_log)
            name = f"{workload}-saturation-{'p99' if figure == 'p99_us' else figure}"
            yield draw_lines(name, title, lines, across=_connections(sweeps), up=up)


def _draw_latency(findings: Findings, workload: str, answer: Answer) -> Iterator[Chart]:
    rows, mode = list_latencies(findings, workload)
    found = [
        Distribution(
            row.model,
            answer.tone(row.model),
            row.answered,
            read_shares(row.times),
        )
        for row in rows
    ]
    if found:
        title = f"Latency distribution, {describe_mode(mode)}"
        yield draw_percentiles(f"{workload}-latency", title, found, show=show_time, up="response time, log scale")


def list_latencies(findings: Findings, workload: str) -> tuple[list[Row], str]:
    """Return the rows with which latencies are compared, and their mode."""
    mode = next((mode for mode in LATENCY_MODES if mode in findings.plan.modes_of(workload)), CLOSED)
    return [row for row in findings.list_rows(workload, mode) if row.found], mode


def describe_mode(mode: str) -> str:
    """Return the words for a mode of `LATENCY_MODES`."""
    return "closed loop" if mode == CLOSED else f"at {mode.removeprefix('open-')}% of each model's knee"


def _draw_costs(findings: Findings, workload: str, answer: Answer) -> Iterator[Chart]:
    """Yield the cost of a request against its p99: the best are at the bottom left."""
    costs = {row.model: found.middle for row in choose_costs(findings, workload) if (found := row.read("cpu_us"))}
    rows, mode = list_latencies(findings, workload)
    tails = {row.model: found.middle for row in rows if (found := row.read("p99_us"))}
    points = [
        Point(
            model, cost, tails[model], answer.tone(model), f"{model}: {show_us(cost)} µs, p99 {show_time(tails[model])}"
        )
        for model, cost in costs.items()
        if model in tails
    ]
    if points:
        across = make_axis("CPU µs per request", costs.values(), show_us)
        up = make_axis(f"p99, {describe_mode(mode)}", tails.values(), show_time)
        title = "Cost against tail: the best are at the bottom left"
        yield draw_scatter(f"{workload}-cost", title, points, across=across, up=up)


def _draw_memory(findings: Findings, workload: str, answer: Answer) -> Iterator[Chart]:
    sweeps = findings.read_sweep(workload, "memory_bytes")
    if not any(len(points) > 1 for points in sweeps.values()):
        return
    lines = []
    for model, points in sweeps.items():
        each = findings.connection_bytes(workload, model)
        tip = ", ".join(f"{show_bytes(value)} at {users}" for users, value in points)
        tip += f"; {each / 1024:.0f} KiB per connection" if each is not None else ""
        shown = [(users, value / 2**20) for users, value in points]
        lines.append(Line(model, shown, answer.tone(model), f"{model}: {tip}"))
    values = [value for line in lines for _, value in line.known]
    up = make_axis("memory in MiB", values, show_number)
    yield draw_lines(f"{workload}-memory", "Memory by connections", lines, across=_connections(sweeps), up=up)


def _connections(sweeps: Mapping[str, Sequence[tuple[int, float]]]) -> Axis:
    """Return the axis of connections, with a tick at each level of the sweep."""
    levels = sorted({users for points in sweeps.values() for users, _ in points})
    return Axis("connections", levels[0], levels[-1], tuple(levels), lambda users: f"{users:.0f}", is_log=True)
