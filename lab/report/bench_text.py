"""What `lab bench` has found, as tables: on a terminal, and in Markdown for a CI job's summary."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.units import UNKNOWN, show_bytes, show_count, show_us
from lab.experiments.bench.findings import FIGURES, CrossCheck, Findings, Row, choose_costs
from lab.experiments.bench.plan import CLOSED, FIXED, WORKLOADS, Plan
from lab.experiments.bench.sweep import STOP_RULE
from lab.experiments.bench.theory_check import expect
from lab.metrics.estimates import Estimate, show_estimate

COLUMNS = (
    "model",
    "place",
    "requests/s",
    "theory",
    "users",
    "p50 µs",
    "p99 µs",
    "CPU µs/req",
    "memory",
    "KiB/conn",
    "verdict",
)
_NUMBERS = COLUMNS[1:-1]

# Less than this part of the best is one to avoid.
_FAR_BEHIND = 0.5

# A window cuts its first and its last requests: so much of a rate is all of it.
_ALL = 0.98


@dataclass(frozen=True, slots=True)
class Line:
    """A model under one workload, as its row is shown.

    Args:
        cells: in the order of the columns.
        reason: of the verdict; what failed.
        theory: what is to be expected, and why; empty where nobody can say.
        deviation: how the measurement contradicts that; empty if it does not.
        keys: the steps that stand behind it, in the store.
    """

    cells: tuple[str, ...]
    reason: str
    theory: str
    deviation: str
    keys: tuple[str, ...]


def make_lines(findings: Findings, workload: str) -> list[Line]:
    """The rows of one workload, the best rate first, then what could not be measured."""
    rows = {row.model: row for row in findings.list_rows(workload, CLOSED)}
    costs = {row.model: row for row in choose_costs(findings, workload)}
    places = findings.rank(list(rows.values()), "rate")
    order = [*places, *(model for model in rows if model not in places)]
    return [_make_line(findings, rows[model], costs.get(model), places.get(model)) for model in order]


def _make_line(findings: Findings, row: Row, cost: Row | None, place: tuple[int, int] | None) -> Line:
    one = next(iter(row.found.values()), None)
    per_connection = findings.connection_bytes(row.workload, row.model)
    verdict = ", ".join(
        bound if count == len(row.found) else f"{bound} ({count} of {len(row.found)})"
        for bound, count in row.verdicts.most_common()
    )
    reason = row.reason
    if row.failed:
        verdict = f"{row.failed_ratio:.2%} FAILED, {verdict}"
        reason += "; failures: " + "; ".join(f"{count} × {why}" for why, count in row.failed.items())  # noqa: RUF001
    if row.failures and row.found:
        reason += f"; {len(row.failures)} of {len(row.keys)} could not be measured: {row.failures[0]}"
    theory = expect(findings, row)
    keys = row.keys + (cost.keys if cost and cost is not row else ())
    return Line(
        (
            row.model,
            show_place(place),
            show_estimate(row.read("rate"), show_count),
            UNKNOWN
            if theory is None
            else f"≤ {show_count(theory.upper_bound.rate)}" + (" !" if theory.deviation else ""),
            UNKNOWN if one is None else str(one.users),
            show_middle(row.read("p50_us"), show_us),
            show_middle(row.read("p99_us"), show_us),
            show_estimate(cost.read("cpu_us") if cost else None, show_us),
            show_bytes(row.memory_bytes),
            UNKNOWN if per_connection is None else f"{per_connection / 1024:.0f}",
            verdict or "not measured",
        ),
        reason,
        "" if theory is None else theory.reason,
        "" if theory is None else theory.deviation,
        keys + ((theory.key,) if theory and theory.key else ()),
    )


def show_place(place: tuple[int, int] | None) -> str:
    """`2`, or `2-4` in a tie."""
    if place is None:
        return UNKNOWN
    best, worst = place
    return str(best) if best == worst else f"{best}-{worst}"


def show_middle(found: Estimate | None, show: Callable[[float], str]) -> str:
    """A median alone, where its interval would make the table too wide; the interval is in the CSV's rounds."""
    return UNKNOWN if found is None else show(found.middle)


def make_answers(findings: Findings, workload: str) -> Iterator[str]:
    """What the rows come to, in sentences: only what is beyond the noise."""
    rows = [row for row in findings.list_rows(workload, CLOSED) if row.found]
    if not rows:
        yield "Nothing could be measured."
        return
    places = findings.rank(rows, "rate")
    first = [model for model, (best, _) in places.items() if best == 1]
    costs = findings.rank([row for row in choose_costs(findings, workload) if row.found], "cpu_us")
    cheapest = [model for model, (best, _) in costs.items() if best == 1]
    yield from _advise(findings, rows, first, cheapest)
    bounds = [row.model for row in rows if row.is_lower_bound and row.model in first]
    if len(first) == 1:
        yield f"The most requests: {first[0]}."
    elif first:
        yield f"The most requests: no difference beyond doubt between {', '.join(first)}."
    if bounds:
        yield f"Lower bounds, since not the server was the limit: {', '.join(bounds)}."
    if cheapest:
        at = f" at {WORKLOADS[workload].fixed_rate:.0f} requests/s" if findings.list_rows(workload, FIXED) else ""
        yield f"The least CPU for a request{at}: {', '.join(cheapest)}."


def _advise(findings: Findings, rows: Sequence[Row], first: Sequence[str], cheapest: Sequence[str]) -> Iterator[str]:
    """Whom to take for a workload, and whom not to, with the reason."""
    rates = {row.model: found for row in rows if (found := row.read("rate"))}
    best = max((found.middle for found in rates.values()), default=0.0)
    # What is far behind, and only a lower bound, may be good; nothing says that it is.
    failing = [row.model for row in rows if row.failed]
    both = [
        model
        for model in first
        if model in cheapest and model not in failing and rates[model].middle >= best * _FAR_BEHIND
    ]
    if len(both) == len(rows):
        yield "Take any of them: nothing tells them apart."
    elif both:
        yield f"Take: {', '.join(both)}, since nobody answers more beyond doubt, and nobody needs less CPU."
    for row in rows:
        rate = rates.get(row.model)
        if row.failed:
            yield f"Avoid: {row.model}, of whose replies {row.failed_ratio:.2%} failed."
        elif rate and row.model not in first and rate.high < best * _FAR_BEHIND:
            theory = expect(findings, row)
            why = theory.upper_bound.reason if theory else row.reason
            yield f"Avoid: {row.model}, with {rate.middle / best:.0%} of the best rate: {why}."


def make_deviations(lines: Sequence[Line]) -> Iterator[str]:
    """What theory does not explain, a sentence for each row."""
    for line in lines:
        if line.deviation:
            yield f"! {line.cells[0]}: {line.deviation}. Theory: {line.theory}."


def is_behind(row: Row, rate: float) -> bool:
    """Whether a model could not be brought to answer what was asked for."""
    found = row.read("rate")
    return found is not None and found.middle < _ALL * rate


def make_trust(findings: Findings) -> Iterator[str]:
    """How far the run can be trusted: noise, drift, the independent check, what is missing."""
    shown = {"rate": "requests/s", "cpu_us": "CPU per request", "p50_us": "p50", "p99_us": "p99"}
    floors = {figure: findings.noise(figure) for figure in FIGURES}
    if known := [f"{shown[figure]} {value:.1%}" for figure, value in floors.items() if value is not None]:
        control = findings.plan.control
        yield f"Noise: two servers of {control}, measured as if they were two models, differ by {', '.join(known)}."
    else:
        yield "Noise: not known; no model was measured twice."
    drifts = {figure: findings.drift(figure) for figure in ("rate", "cpu_us")}
    for figure, value in drifts.items():
        if value is not None:
            beyond = floors[figure] is not None and abs(value) > (floors[figure] or 0.0)
            warning = " More than the noise: the machine has changed while it was measured." if beyond else ""
            yield f"Drift of {shown[figure]} from the first round to the last: {value:+.1%}.{warning}"
    for item in findings.cross_checks:
        ours, theirs = show_estimate(item.ours, show_count), show_estimate(item.theirs, show_count)
        if item.missing:
            yield f"Independent check of {item.model}: not made: {item.missing}."
        else:
            yield (
                f"Independent check of {item.model}: {ours} requests/s here, {theirs} by redis-benchmark"
                f"{_show_costs(item)}: {_SAYS[item.differs(floors['rate'] or 0.0)]}."
            )
    if (top := findings.generator_limit) is not None:
        limits = ", ".join(f"{bound} in {count}" for bound, count in top.verdicts.most_common())
        cores = UNKNOWN if top.generator_cores is None else f"{top.generator_cores:.2f}"
        yield (
            f"The limit of the load generator: {show_estimate(top.rate, show_count)} PINGs/s out of {top.model}, with "
            f"{cores} cores of its own ({limits} of {top.rate.repeats}). A rate near it is not a server's."
        )
    else:
        yield "The limit of the load generator: not measured; it takes redis-server, which runs only in a container."
    for workload in findings.plan.workloads:
        rate = WORKLOADS[workload].fixed_rate
        behind = [row for row in findings.list_rows(workload, FIXED) if is_behind(row, rate)]
        if behind:
            yield (
                f"Of the {show_count(rate)} {workload} requests/s at which CPU per request is compared, "
                f"{', '.join(row.model for row in behind)} did not answer all: there it is that of their own end."
            )
    for model, reason in findings.unsound.items():
        yield f"Not measured: {model}: {reason}."
    if not findings.run.is_finished:
        yield (f"This run was interrupted; what it has is shown. Go on with: lab bench --resume {findings.run.started}")
    if (own := findings.run.end.get("own_cores")) is not None:
        yield f"Measuring took {own:.1%} of a core itself: meters, orchestration, clients of Docker."
    yield f"The sweep: {STOP_RULE}" if findings.plan.is_swept else "No sweep: one number of connections for all."


# By `CrossCheck.differs`.
_SAYS = {
    None: "they agree",
    "more": "THEY DISAGREE: redis-benchmark gets more, so the rates here are too low",
    "less": "beyond the spread: redis-benchmark is the slower client, or something here counts too much; the CPU for a "
    "request, which no client can change, says which",
}


def _show_costs(item: CrossCheck) -> str:
    if item.our_cost is None or item.their_cost is None:
        return ""
    ours, theirs = show_estimate(item.our_cost, show_us), show_estimate(item.their_cost, show_us)
    return f" (CPU µs of the server for each: {ours}, and {theirs})"


def make_environment(findings: Findings) -> dict[str, str]:
    """What it ran on; the load generator says of itself what it is, with each measurement."""
    facts = dict(findings.run.facts["environment"])
    if not facts.get("load generator"):
        versions = next((item.versions for row in findings.rows.values() for item in row.found.values()), {})
        facts["load generator"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {name: value or "not known" for name, value in facts.items()}


def print_report(findings: Findings, console: Console) -> None:
    """Print everything."""
    for workload in findings.plan.workloads:
        lines = make_lines(findings, workload)
        if not lines:
            continue
        console.print(f"\n{workload}: {WORKLOADS[workload].summary}", style="bold", markup=False)
        for sentence in make_answers(findings, workload):
            console.print(sentence, markup=False)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in COLUMNS:
            table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=name != "verdict")
        for line in lines:
            table.add_row(*map(Text, line.cells))
        console.print(table)
        for sentence in make_deviations(lines):
            console.print(sentence, markup=False)
    for sentence in make_trust(findings):
        console.print(sentence, style="dim", markup=False)


def render_markdown(findings: Findings) -> str:
    """The same as Markdown; each row leads to the steps that it was made from."""
    run, plan = findings.run, findings.plan
    text = [f"# Which model for which workload: {run.started}", ""]
    for workload in plan.workloads:
        lines = make_lines(findings, workload)
        if not lines:
            continue
        text += [f"## {workload}: {WORKLOADS[workload].summary}", ""]
        text += [f"{sentence}  " for sentence in make_answers(findings, workload)]
        text += ["", make_row([*COLUMNS, "why", "theory says", "raw"]), make_row(["---"] * (len(COLUMNS) + 3))]
        for line in lines:
            raw = " ".join(f"[{number}]({run.path_of(key)})" for number, key in enumerate(line.keys, 1))
            text.append(make_row([*line.cells, line.reason, line.theory or UNKNOWN, raw]))
        text += ["", *(f"* {sentence}" for sentence in make_deviations(lines)), ""]
    text += ["## How far it can be trusted", "", *(f"* {sentence}" for sentence in make_trust(findings)), ""]
    text += ["## What it ran on", ""]
    text += [f"* {name}: {value}" for name, value in make_environment(findings).items()]
    text += [
        "",
        f"{plan.rounds} rounds of {plan.seconds:g} s after {plan.warm_up:g} s of warm-up, seed {plan.seed}, in the "
        f"modes {', '.join(plan.modes)}{make_more(plan)}. `[low high]` is the 95 % interval of the median over the "
        "rounds; `≥` a lower bound; a place is a range where intervals overlap. `≤` is the most that theory allows, "
        "`!` a row that it does not explain.",
        "",
    ]
    return "\n".join(text)


def make_more(plan: Plan) -> str:
    """In words, which mode was measured more often than the others; nothing if none was."""
    more = [mode for mode in plan.modes if plan.rounds_of(mode) > plan.rounds]
    return "".join(f", {mode} in {plan.rounds_of(mode)}" for mode in more)


def make_row(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"
