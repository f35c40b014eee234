"""What faults have done to models, as Markdown; and the sentences and figures that its page has as well."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lab.base.units import UNKNOWN, show_us
from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import BAND, show
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.under_load import UnderLoad
from lab.experiments.store import Run
from lab.metrics.verdict import show_failures
from lab.report.bench_text import make_row
from lab.report.cells import show_rate

# A shape beside each word, so that nobody has to tell colours apart.
MARKS: Mapping[Verdict, str] = {
    Verdict.HELD: "●",
    Verdict.DEGRADED: "◐",
    Verdict.FAILED: "▲",
    Verdict.UNKNOWN: "○",
}

DETAILS = ("model", "fault", "verdict", "again after", "why")
TIMES = ("fault", "what is done", "models", "PING late after", "slowest PING", "as before after", "the last to recover")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of `lab faults` has found.

    Args:
        run: where it is kept.
        scores: of the card.
        seen: faults in the middle of a load.
    """

    run: Run
    scores: Sequence[Score] = ()
    seen: Sequence[UnderLoad] = ()

    @property
    def faults(self) -> list[str]:
        """Those of the card, in its order."""
        tried = {score.fault for score in self.scores}
        return [fault for fault in FAULTS if fault in tried]

    @property
    def card(self) -> dict[str, dict[str, Score]]:
        """Model -> fault -> score."""
        cells: dict[str, dict[str, Score]] = {}
        for score in self.scores:
            cells.setdefault(score.model, {})[score.fault] = score
        return cells


def key_of(model: str, fault: str) -> str:
    """Under which a score, or a fault under load, is kept."""
    return f"{model}/{fault}"


def show_cell(score: Score | None) -> str:
    """A cell of the card; ! marks what is not as it should be."""
    if score is None:
        return UNKNOWN
    mark = "" if score.is_fine or score.verdict is Verdict.UNKNOWN else " !"
    return f"{MARKS[score.verdict]}\N{NO-BREAK SPACE}{score.verdict}{mark}{' (declared)' if score.expected else ''}"


def show_details(score: Score) -> list[str]:
    """Its row below the card."""
    again = UNKNOWN if score.recovery is None else show(score.recovery)
    reason = f"{score.reason} (declared: {score.expected})" if score.expected else score.reason
    return [score.model, score.fault, show_cell(score), again, reason]


def make_answers(outcome: Outcome) -> Iterator[str]:
    """The result in sentences."""
    if outcome.scores:
        scores = [score for score in outcome.scores if score.verdict is not Verdict.UNKNOWN]
        accounts = [score.account for score in scores if score.account]
        answered = sum(account.answered for account in accounts)
        wrong = sum(sum(account.wrong.values()) for account in accounts)
        yield (
            f"{len(scores)} times a model was broken and mended under load: {answered:,} requests were answered, "
            f"{wrong} replies were wrong, doubled, out of order or somebody else's."
        )
        if bad := [score for score in scores if not score.is_fine]:
            yield f"Not as it should be: {_list(bad)}."
        else:
            yield "Everything is as it should be: it held, or it failed where the catalogue says so and why."
        if degraded := [score for score in scores if score.verdict is Verdict.DEGRADED]:
            yield f"Nothing lost, but others waited longer than they may: {_list(degraded)}."
        if unknown := sorted({score.fault for score in outcome.scores if score.verdict is Verdict.UNKNOWN}):
            yield f"Not known here, which is never a pass: {', '.join(unknown)}."
    for each in outcome.seen:
        yield f"{name_of(each)}: {each.probe_report}."


def _list(scores: Sequence[Score]) -> str:
    models: dict[str, list[str]] = {}
    for score in scores:
        models.setdefault(score.fault, []).append(score.model)
    return "; ".join(f"{', '.join(names)} under {fault}" for fault, names in models.items())


def name_of(each: UnderLoad) -> str:
    """Of a fault under load."""
    return f"{each.interval.model}, {each.interval.fault}{' (control run)' if each.interval.is_control else ''}"


def show_load(each: UnderLoad) -> str:
    """What became of the load itself."""
    load = each.measurement
    failed = f", failed: {show_failures(load.failures)}" if load.failures else ", none failed"
    return (
        f"{load.workload}, {load.users} users for {load.seconds:.1f} s: {show_rate(load)} requests/s, "
        f"{load.answered:,} exchanges answered{failed}, p99 {show_us(load.percentile(0.99))} µs over all of it. "
        f"Broken from {each.interval.begin} for {show(each.probe_report.lasted)}."
    )


def make_times(outcome: Outcome) -> Iterator[list[str]]:
    """A row for each fault that somebody else could look at: medians over the models."""
    for fault in outcome.faults:
        found = [
            (score.model, score.probe_report) for score in outcome.scores if score.fault == fault and score.probe_report
        ]
        seen = [(model, probe_report) for model, probe_report in found if probe_report.quiet_p99 is not None]
        if not seen:
            continue
        late = [probe_report.detect for _, probe_report in seen if probe_report.detect is not None]
        slowest = [probe_report.slowest for _, probe_report in seen if probe_report.slowest is not None]
        # Who was never late has nothing to recover from.
        back = [(probe_report.recover or 0.0, model) for model, probe_report in seen if probe_report.detect is not None]
        never = [
            model for model, probe_report in seen if probe_report.detect is not None and probe_report.recover is None
        ]
        last = f"{', '.join(never)}: not seen to" if never else UNKNOWN
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
    """How it is read."""
    return [
        "held: what had to be answered was answered, once and in order, and others were soon served as before. "
        "degraded: the same, and later than it may be. failed: a request was lost or answered wrongly, or nobody was "
        "served; declared means that the catalogue says so of this model, with the reason, and then it must. unknown: "
        "the fault cannot be had here. A dash: the model has nothing that it could break.",
        "PING: of another client, every 20 ms, beside eight connections that are never idle. It is late when it fails "
        f"or takes more than {BAND:g} times the p99 from before the fault; it is as before when ten in turn do not. "
        "Times count from the break, or from the mending. A model that serves one client at a time has no other "
        "client.",
        "again after: of a model that was ended, the time until it answers; after `kill`, from the kill.",
    ]


def render_markdown(outcome: Outcome) -> str:
    """The report as Markdown, for a pull request or a CI job's summary."""
    text = [f"# Models that were broken: {outcome.run.started}", ""]
    text += [f"{sentence}  " for sentence in make_answers(outcome)]
    if outcome.scores:
        faults = outcome.faults
        text += ["", make_row(["model", *faults]), make_row(["---"] * (len(faults) + 1))]
        text += [
            make_row([model, *(show_cell(row.get(fault)) for fault in faults)]) for model, row in outcome.card.items()
        ]
        if times := list(make_times(outcome)):
            text += ["", "## What others saw", "", make_row(TIMES), make_row(["---"] * len(TIMES))]
            text += [make_row(row) for row in times]
        text += ["", "## Each of them", "", make_row([*DETAILS, "raw"]), make_row(["---"] * (len(DETAILS) + 1))]
        for score in outcome.scores:
            raw = f"[account]({outcome.run.path_of(key_of(score.model, score.fault))})"
            text.append(make_row([*show_details(score), raw]))
    for each in outcome.seen:
        raw = outcome.run.path_of(key_of(each.interval.model, each.interval.fault))
        text += ["", f"## {name_of(each)}", "", f"{show_load(each)} [Raw data]({raw}).", ""]
        text += [make_row(["second", "PING p50", "PING p99", "failed"]), make_row(["---"] * 4)]
        text += [
            make_row([str(second), show(p50), show(p99), str(failed)])
            for second, p50, p99, failed in each.probe_report.seconds
        ]
    text += ["", "## How to read it", "", *(f"* {line}" for line in make_reading()), ""]
    text += ["## What it ran on", "", *(f"* {name}: {value}" for name, value in list_environment(outcome.run)), ""]
    return "\n".join(text)


def list_environment(run: Run) -> list[tuple[str, str]]:
    """Names and values; what is not known says so."""
    return [(name, str(value) if value else "not known") for name, value in run.facts["environment"].items()]
