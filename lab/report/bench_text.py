"""The report of `lab bench` as tables, on a terminal and in Markdown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.units import UNKNOWN, show_bytes, show_count, show_share, show_us
from lab.experiments.bench.findings import FIGURES, CrossCheck, Findings, Row, choose_costs
from lab.experiments.bench.plan import CLOSED, FIXED, WORKLOADS, Plan
from lab.experiments.bench.sweep import STOP_RULE
from lab.experiments.bench.theory_check import expect
from lab.metrics.estimates import Estimate, show_estimate
from lab.report.bench_answer import FAR_BELOW, find_answer
from lab.report.bench_charts import list_figures
from lab.report.cells import Cell
from lab.report.charts.intervals import write_intervals
from lab.report.markdown import fence, make_head, make_row

# The columns without numbers.
TEXTS = ("model", "verdict")

# A window cuts its first and last requests, so this share of a rate counts as all of it.
_COMPLETE = 0.98


@dataclass(frozen=True, slots=True)
class Line:
    """The row of a model under one workload.

    Args:
        cells: By the title of their column. The note of `theory` is the expectation and its reason, empty if it is
            not known; that of `verdict` is its reason, and the failures.
        deviation: How the measurement contradicts theory; empty if it does not.
        keys: The stored steps behind the figures.
    """

    cells: Mapping[str, Cell]
    deviation: str
    keys: tuple[str, ...]

    @property
    def model(self) -> str:
        return self.cells["model"].text


@dataclass(frozen=True, slots=True)
class Advice:
    """A sentence on the models under one workload."""

    kind: Literal["best", "avoid", "result"]
    text: str


def make_lines(findings: Findings, workload: str) -> list[Line]:
    """Return the lines of one workload, the best rate first, then models that could not be measured."""
    rows = {row.model: row for row in findings.list_rows(workload, CLOSED)}
    costs = {row.model: row for row in choose_costs(findings, workload)}
    ranks = findings.rank(list(rows.values()), "rate")
    order = [*ranks, *(model for model in rows if model not in ranks)]
    return [_make_line(findings, rows[model], costs.get(model), ranks.get(model)) for model in order]


def _make_line(findings: Findings, row: Row, cost: Row | None, rank: tuple[int, int] | None) -> Line:
    one = next(iter(row.found.values()), None)
    verdict = ", ".join(
        bound if count == len(row.found) else f"{bound} ({count} of {len(row.found)})"
        for bound, count in row.verdicts.most_common()
    )
    verdict = verdict or "not measured"
    reason = row.reason
    if row.failed:
        verdict = f"{show_share(row.failed_ratio)} FAILED, {verdict}"
        reason += "; failures: " + "; ".join(f"{count} × {why}" for why, count in row.failed.items())  # noqa: RUF001
    if row.failures and row.found:
        reason += f"; {len(row.failures)} of {len(row.keys)} could not be measured: {row.failures[0]}"
    theory = expect(findings, row)
    mark = " !" if theory and theory.deviation else ""
    best, worst = rank or (None, None)
    keys = row.keys + (cost.keys if cost and cost is not row else ()) + ((theory.key,) if theory and theory.key else ())
    cells = {
        "model": Cell(row.model, row.model),
        "rank": Cell.of(best, lambda best: f"{best}" if best == worst else f"{best}-{worst}"),
        "requests/s": _make_cell(row.read("rate"), show_count),
        "theory": Cell(theory.upper_bound.rate, f"≤ {show_count(theory.upper_bound.rate)}{mark}", note=theory.reason)
        if theory
        else Cell(None, UNKNOWN),
        "users": Cell.of(one.users if one else None, str),
        # Without their interval, which would make the table too wide; the CSV has all rounds.
        "p50 µs": _make_cell(row.read("p50_us"), show_us, is_short=True),
        "p99 µs": _make_cell(row.read("p99_us"), show_us, is_short=True),
        "CPU µs/req": _make_cell(cost.read("cpu_us") if cost else None, show_us),
        "memory": Cell.of(row.memory_bytes, show_bytes),
        "KiB/conn": Cell.of(findings.connection_bytes(row.workload, row.model), lambda size: f"{size / 1024:.0f}"),
        "verdict": Cell(verdict, verdict, note=reason),
    }
    return Line(cells, theory.deviation if theory else "", keys)


def _make_cell(found: Estimate | None, show: Callable[[float], str], *, is_short: bool = False) -> Cell:
    middle = found.middle if found else None
    return Cell.of(middle, show) if is_short else Cell(middle, show_estimate(found, show))


def make_answers(findings: Findings, workload: str) -> Iterator[Advice]:
    """Yield the results in sentences, with differences beyond the noise only: first what to use, and what to avoid."""
    rows = [row for row in findings.list_rows(workload, CLOSED) if row.found]
    if not rows:
        yield Advice("result", "Nothing could be measured.")
        return
    ranks = findings.rank(rows, "rate")
    first = [model for model, (best, _) in ranks.items() if best == 1]
    costs = findings.rank([row for row in choose_costs(findings, workload) if row.found], "cpu_us")
    cheapest = [model for model, (best, _) in costs.items() if best == 1]
    yield from _recommend(findings, rows, first, cheapest)
    bounds = [row.model for row in rows if row.is_lower_bound and row.model in first]
    if len(first) == 1:
        yield Advice("result", f"Highest rate: {first[0]}.")
    elif first:
        yield Advice("result", f"Highest rate: {', '.join(first)} (no difference beyond the noise).")
    if bounds:
        yield Advice("result", f"Lower bounds, since the server was not the limit: {', '.join(bounds)}.")
    if cheapest:
        at = f" at {WORKLOADS[workload].fixed_rate:.0f} requests/s" if findings.list_rows(workload, FIXED) else ""
        yield Advice("result", f"Least CPU per request{at}: {', '.join(cheapest)}.")


def _recommend(
    findings: Findings, rows: Sequence[Row], first: Sequence[str], cheapest: Sequence[str]
) -> Iterator[Advice]:
    """Yield which models to use for a workload, and which to avoid, with the reason."""
    rates = {row.model: found for row in rows if (found := row.read("rate"))}
    best = max(found.middle for found in rates.values())
    # A lower bound far below the best rate is no reason to recommend a model.
    failing = [row.model for row in rows if row.failed]
    both = [
        model
        for model in first
        if model in cheapest and model not in failing and rates[model].middle >= best * FAR_BELOW
    ]
    if len(both) == len(rows):
        yield Advice("best", "Best: any of them (no difference beyond the noise).")
    elif both:
        yield Advice("best", f"Best: {', '.join(both)} (no model is measurably faster or cheaper).")
    for row in rows:
        rate = rates.get(row.model)
        if row.failed:
            yield Advice("avoid", f"Avoid: {row.model} ({show_share(row.failed_ratio)} of its replies failed).")
        elif rate and row.model not in first and rate.high < best * FAR_BELOW:
            theory = expect(findings, row)
            why = theory.upper_bound.reason if theory else row.reason
            yield Advice("avoid", f"Avoid: {row.model} ({show_share(rate.middle / best)} of the best rate: {why}).")


def make_deviations(lines: Sequence[Line]) -> Iterator[str]:
    """Yield a sentence for each row that theory does not explain."""
    for line in lines:
        if line.deviation:
            yield f"! {line.model}: {line.deviation}. Theory: {line.cells['theory'].note}."


def falls_short(row: Row, rate: float) -> bool:
    """Return whether a model did not reach a requested rate."""
    found = row.read("rate")
    return found is not None and found.middle < _COMPLETE * rate


def make_reliability(findings: Findings) -> Iterator[str]:
    """Yield sentences on the reliability of the run: noise, drift, the cross-check, and missing results."""
    shown = {"rate": "requests/s", "cpu_us": "CPU per request", "p50_us": "p50", "p99_us": "p99"}
    floors = {figure: findings.noise(figure) for figure in FIGURES}
    if known := [f"{shown[figure]} {value:.1%}" for figure, value in floors.items() if value is not None]:
        control = findings.plan.control
        yield f"Noise: two servers of {control}, measured like two models, differ by {', '.join(known)}."
    else:
        yield "Noise: not known, since the run has no control server."
    for figure in ("rate", "cpu_us"):
        if (value := findings.drift(figure)) is not None:
            beyond = (floor := floors[figure]) is not None and abs(value) > floor
            warning = " More than the noise: the machine changed during the run." if beyond else ""
            yield f"Drift of {shown[figure]} from the first round to the last: {value:+.1%}.{warning}"
    for item in findings.cross_checks:
        ours, theirs = show_estimate(item.ours, show_count), show_estimate(item.theirs, show_count)
        if item.missing:
            yield f"Independent check of {item.model} by {item.client}: not made: {item.missing}."
        else:
            yield (
                f"Independent check of {item.model}, {item.workload}: {ours} requests/s here, {theirs} by "
                f"{item.client}{_show_costs(item)}: "
                f"{_CROSS_CHECK_RESULTS[item.differs(floors['rate'] or 0.0)].format(client=item.client)}."
            )
    if (top := findings.generator_limit) is not None:
        limits = ", ".join(f"{bound} in {count}" for bound, count in top.verdicts.most_common())
        cores = UNKNOWN if top.generator_cores is None else f"{top.generator_cores:.2f}"
        yield (
            f"The limit of the load generator: {show_estimate(top.rate, show_count)} PINGs/s from {top.model}, with "
            f"{cores} cores ({limits} of {top.rate.repeats}). A rate near this limit is that of the generator."
        )
    else:
        yield "The limit of the load generator: not measured; that needs redis-server, which runs only in a container."
    for workload in findings.plan.workloads:
        rate = WORKLOADS[workload].fixed_rate
        if short := [row for row in findings.list_rows(workload, FIXED) if falls_short(row, rate)]:
            yield (
                f"Of the {show_count(rate)} {workload} requests/s at which CPU per request is compared, "
                f"{', '.join(row.model for row in short)} did not reach it; their cost is that at their own maximum."
            )
    for model, reason in findings.unsound.items():
        yield f"Not measured: {model}: {reason}."
    if not findings.run.is_finished:
        yield (
            "This run was interrupted; the report has its measurements so far. Continue with: "
            f"lab bench --resume {findings.run.started}"
        )
    if (own := findings.run.end.get("own_cores")) is not None:
        yield f"Measuring itself took {own:.1%} of a core: meters, orchestration, Docker clients."
    yield f"The sweep: {STOP_RULE}" if findings.plan.is_swept else "No sweep: the same number of connections for all."


# By `CrossCheck.differs`.
_CROSS_CHECK_RESULTS = {
    None: "they agree",
    "more": "THEY DISAGREE: {client} gets more, so the rates here are too low",
    "less": "they differ beyond the noise: {client} is the slower client, or the rates here are too high; the "
    "CPU per request, which no client can change, shows which",
}


def _show_costs(item: CrossCheck) -> str:
    if item.our_cost is None or item.their_cost is None:
        return ""
    ours, theirs = show_estimate(item.our_cost, show_us), show_estimate(item.their_cost, show_us)
    return f" (CPU µs of the server for each: {ours}, and {theirs})"


def make_environment(findings: Findings) -> dict[str, str]:
    """Return the facts of the environment for a reader."""
    return {name: value or "not known" for name, value in findings.environment.items()}


def print_report(findings: Findings, console: Console) -> None:
    for workload in findings.plan.workloads:
        lines = make_lines(findings, workload)
        if not lines:
            continue
        console.print(f"\n{workload}: {WORKLOADS[workload].summary}", style="bold", markup=False)
        for advice in make_answers(findings, workload):
            console.print(advice.text, markup=False)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in lines[0].cells:
            table.add_column(name, justify="left" if name in TEXTS else "right", no_wrap=name != "verdict")
        for line in lines:
            table.add_row(*(Text(cell.text) for cell in line.cells.values()))
        console.print(table)
        for sentence in make_deviations(lines):
            console.print(sentence, markup=False)
    for sentence in make_reliability(findings):
        console.print(sentence, style="dim", markup=False)


def render_markdown(findings: Findings) -> str:
    """Return the report as Markdown; each row links the stored steps behind its figures."""
    run, plan = findings.run, findings.plan
    text = [f"# Benchmark: {run.started}", "", *_write_answers(findings)]
    for workload in plan.workloads:
        lines = make_lines(findings, workload)
        if not lines:
            continue
        text += [f"## {workload}: {WORKLOADS[workload].summary}", ""]
        text += [f"{advice.text}  " for advice in make_answers(findings, workload)]
        text += ["", *make_head([*lines[0].cells, "reason", "theory", "raw"])]
        for line in lines:
            raw = " ".join(f"[{number}]({run.path_of(key)})" for number, key in enumerate(line.keys, 1))
            shown = [cell.text for cell in line.cells.values()]
            text.append(make_row([*shown, line.cells["verdict"].note, line.cells["theory"].note or UNKNOWN, raw]))
        text += ["", *(f"* {sentence}" for sentence in make_deviations(lines)), ""]
    text += ["## Reliability", "", *(f"* {sentence}" for sentence in make_reliability(findings)), ""]
    text += ["## Environment", ""]
    text += [f"* {name}: {value}" for name, value in make_environment(findings).items()]
    text += [
        "",
        f"{plan.rounds} rounds of {plan.seconds:g} s after {plan.warm_up:g} s of warm-up, seed {plan.seed}, in the "
        f"modes {', '.join(plan.modes)}{describe_additional_rounds(plan)}. `[low high]` is the 95 % interval of the "
        "median over the rounds; `≥` a lower bound; a rank is a range if intervals overlap. `≤` is the upper bound of "
        "theory, `!` marks a row that theory does not explain.",
        "",
    ]
    return "\n".join(text)


def _write_answers(findings: Findings) -> Iterator[str]:
    """Yield the answer of each workload, with its figures in characters: a job summary of a CI shows no pictures."""
    for workload in findings.plan.workloads:
        answer = find_answer(findings, workload)
        figures = list_figures(findings, workload, answer)
        if not figures:
            continue
        best = f"best: **{answer.names}** ({answer.why_best})" if answer.best else "no model is best"
        worst = f"worst: **{answer.worst}**, {answer.why_worst}" if answer.worst else "no model is far behind"
        yield from (f"**{workload}**: {best}; {worst}", "")
        for figure in figures:
            yield from (f"[{figure.title}](charts/{figure.name}.svg)", "", *fence(write_intervals(figure.rows)), "")


def describe_additional_rounds(plan: Plan) -> str:
    """Describe which modes have more rounds than the others; empty if none has."""
    more = [mode for mode in plan.modes if plan.rounds_of(mode) > plan.rounds]
    return "".join(f", {mode} in {plan.rounds_of(mode)}" for mode in more)
