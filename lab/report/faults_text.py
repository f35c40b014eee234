"""The report of `lab faults` as Markdown, and the sentences and figures that it shares with the HTML page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from lab.base.messages import build
from lab.base.units import UNKNOWN, show_us
from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import LATE_FACTOR, show
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.under_load import UnderLoad
from lab.experiments.store import Run
from lab.metrics.verdict import show_failures
from lab.report.cells import show_rate
from lab.report.charts.intervals import write_intervals
from lab.report.fault_recovery import list_recoveries
from lab.report.markdown import fence, make_head, make_row

# Shapes, so that verdicts can be told apart without colours.
MARKS: Mapping[Verdict, str] = {
    Verdict.HELD: "●",
    Verdict.DEGRADED: "◐",
    Verdict.FAILED: "▲",
    Verdict.UNKNOWN: "○",
}

DETAILS = ("model", "fault", "verdict", "restarted in", "reason")
TIMES = ("fault", "effect", "models", "PING late after", "slowest PING", "recovered after", "last to recover")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one run of `lab faults`.

    Args:
        run: The stored run.
        scores: Cells of the scorecard.
        seen: Faults in the middle of a preset's load.
    """

    run: Run
    scores: Sequence[Score] = ()
    seen: Sequence[UnderLoad] = ()

    @classmethod
    def read(cls, run: Run) -> Self:
        """Return the results of a stored run, in the order of its plan.

        Raises:
            StoreError: A file is damaged.
        """
        plan, steps = run.facts["plan"], run.steps()
        keys = [key_of(model, fault) for model in plan["models"] for fault in plan["faults"]]
        records = [steps[key] for key in keys if key in steps]
        seen = [each for record in records if (each := UnderLoad.from_json(record))]
        return cls(run, [] if seen else [build(Score, record) for record in records], seen)

    @property
    def faults(self) -> list[str]:
        """The faults of the scorecard, in the order of the registry."""
        tried = {score.fault for score in self.scores}
        return [fault for fault in FAULTS if fault in tried]

    @property
    def card(self) -> dict[str, dict[str, Score]]:
        cells: dict[str, dict[str, Score]] = {}
        for score in self.scores:
            cells.setdefault(score.model, {})[score.fault] = score
        return cells


def key_of(model: str, fault: str) -> str:
    """Return the key under which a score, or a fault under load, is stored."""
    return f"{model}/{fault}"


def show_cell(score: Score | None) -> str:
    """Format a cell of the scorecard; ! marks an unexpected verdict."""
    if score is None:
        return UNKNOWN
    mark = "" if score.is_fine or score.verdict is Verdict.UNKNOWN else " !"
    return f"{MARKS[score.verdict]}\N{NO-BREAK SPACE}{score.verdict}{mark}{' (declared)' if score.expected else ''}"


def show_details(score: Score) -> list[str]:
    """Return the row of a score in the list below the scorecard."""
    again = UNKNOWN if score.recovery is None else show(score.recovery)
    reason = f"{score.reason} (declared: {score.expected})" if score.expected else score.reason
    return [score.model, score.fault, show_cell(score), again, reason]


def make_answers(outcome: Outcome) -> Iterator[str]:
    """Yield the results as sentences."""
    if outcome.scores:
        scores = [score for score in outcome.scores if score.verdict is not Verdict.UNKNOWN]
        accounts = [score.account for score in scores if score.account]
        answered = sum(account.answered for account in accounts)
        wrong = sum(sum(account.wrong.values()) for account in accounts)
        yield (
            f"{len(scores)} faults were injected under load and healed: {answered:,} requests were answered, {wrong} "
            "replies were wrong, duplicated, out of order or those of another client."
        )
        if bad := [score for score in scores if not score.is_fine]:
            yield f"Unexpected: {_list(bad)}."
        else:
            yield "As expected: each model held, or failed where the catalogue declares it."
        if degraded := [score for score in scores if score.verdict is Verdict.DEGRADED]:
            yield f"No request lost, but slower than allowed: {_list(degraded)}."
        if unknown := sorted({score.fault for score in outcome.scores if score.verdict is Verdict.UNKNOWN}):
            yield f"Unknown on this machine, which is not a pass: {', '.join(unknown)}."
    for each in outcome.seen:
        yield f"{name_of(each)}: {each.probe_report}."


def _list(scores: Sequence[Score]) -> str:
    models: dict[str, list[str]] = {}
    for score in scores:
        models.setdefault(score.fault, []).append(score.model)
    return "; ".join(f"{', '.join(names)} under {fault}" for fault, names in models.items())


def name_of(each: UnderLoad) -> str:
    """Return the title of a fault under load."""
    return f"{each.interval.model}, {each.interval.fault}{' (control run)' if each.interval.is_control else ''}"


def show_load(each: UnderLoad) -> str:
    """Describe the load during a fault, and how much of it was answered."""
    found, load = each.measurement, each.measurement.load
    failed = f", failed: {show_failures(load.failures)}" if load.failures else ", none failed"
    return (
        f"{found.workload}, {found.users} users for {load.seconds:.1f} s: {show_rate(found)} requests/s, "
        f"{load.answered:,} exchanges answered{failed}, p99 {show_us(found.percentile(0.99))} µs over the whole load. "
        f"Fault from {each.interval.begin} for {show(each.probe_report.lasted)}."
    )


def make_times(outcome: Outcome) -> Iterator[list[str]]:
    """Yield a row of medians over the models, for each fault with a probe report."""
    for fault in outcome.faults:
        found = [(score.model, score.probe_report) for score in outcome.scores if score.fault == fault]
        seen = [(model, report) for model, report in found if report and report.quiet_p99 is not None]
        if not seen:
            continue
        late = [probe_report.detect for _, probe_report in seen if probe_report.detect is not None]
        slowest = [probe_report.slowest for _, probe_report in seen if probe_report.slowest is not None]
        # A model that was never late has nothing to recover from.
        back = [(probe_report.recover or 0.0, model) for model, probe_report in seen if probe_report.detect is not None]
        never = [
            model for model, probe_report in seen if probe_report.detect is not None and probe_report.recover is None
        ]
        last = f"{', '.join(never)}: not recovered" if never else UNKNOWN
        if back and not never:
            last = f"{max(back)[1]} ({show(max(back)[0])})"
        yield [
            fault,
            FAULTS[fault].summary,
            f"{len(late)} of {len(seen)} late",
            show(median(late)) if late else UNKNOWN,
            show(median(slowest)) if slowest else UNKNOWN,
            show(median(seconds for seconds, _ in back)) if back and not never else UNKNOWN,
            last,
        ]


def make_reading() -> list[str]:
    """Return sentences on how to read the report."""
    return [
        "held: every request that had to be answered was answered, once and in order, and the model recovered in time. "
        "degraded: the same, but it recovered later than allowed. failed: a request was lost or answered wrongly, or "
        "no client was served; declared means that the catalogue declares this failure with its reason, and then the "
        "model must fail. unknown: this machine does not support the fault. A dash: the model has nothing that the "
        "fault could break.",
        "PING: a latency probe sends one every 20 ms, in addition to eight connections that are never idle. A PING is "
        f"late if it fails or takes more than {LATE_FACTOR:g} times the p99 from before the fault. The model has "
        "recovered when ten consecutive PINGs are not late. Times count from the injection, or from healing. A model "
        "that serves one client at a time cannot be probed.",
        "restarted in: for a fault that ends the model, the time until it answers again; for `kill`, from the kill.",
    ]


def render_markdown(outcome: Outcome) -> str:
    """Return the report as Markdown, for a pull request or the summary of a CI job."""
    text = [f"# Faults: {outcome.run.started}", ""]
    text += [f"{sentence}  " for sentence in make_answers(outcome)]
    if outcome.scores:
        faults = outcome.faults
        text += ["", *make_head(["model", *faults])]
        text += [make_row([model, *map(show_cell, map(row.get, faults))]) for model, row in outcome.card.items()]
        if times := list(make_times(outcome)):
            text += ["", "## Latency probe", "", *make_head(TIMES)]
            text += [make_row(row) for row in times]
        for figure in list_recoveries(outcome.scores, faults):
            text += ["", f"{figure.title}: median, lowest and highest model", "", *fence(write_intervals(figure.rows))]
        text += ["", "## Scores", "", *make_head([*DETAILS, "raw"])]
        for score in outcome.scores:
            raw = f"[account]({outcome.run.path_of(key_of(score.model, score.fault))})"
            text.append(make_row([*show_details(score), raw]))
    for each in outcome.seen:
        raw = outcome.run.path_of(key_of(each.interval.model, each.interval.fault))
        text += ["", f"## {name_of(each)}", "", f"{show_load(each)} [Raw data]({raw}).", ""]
        text += make_head(["second", "PING p50", "PING p99", "failed"])
        text += [
            make_row([str(second), show(p50), show(p99), str(failed)])
            for second, p50, p99, failed in each.probe_report.seconds
        ]
    text += ["", "## How to read it", "", *(f"* {line}" for line in make_reading()), ""]
    text += ["## Environment", "", *(f"* {name}: {value}" for name, value in list_environment(outcome.run)), ""]
    return "\n".join(text)


def list_environment(run: Run) -> list[tuple[str, str]]:
    """Return the names and values of the environment, missing ones as `not known`."""
    return [(name, str(value) if value else "not known") for name, value in run.facts["environment"].items()]
