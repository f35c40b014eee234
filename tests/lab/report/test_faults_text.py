"""The report of `lab faults`: cells, sentences, medians and coordinates, with expected values computed by hand."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lab.clients.request_log import Account
from lab.experiments.faults.fault import FaultInterval
from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import ProbeReport
from lab.experiments.faults.under_load import UnderLoad
from lab.experiments.store import Run
from lab.report import faults_page
from lab.report.fault_recovery import list_recoveries
from lab.report.faults_text import (
    Outcome,
    key_of,
    list_environment,
    make_answers,
    make_times,
    render_markdown,
    show_cell,
    show_details,
)
from tests.support.approx import about
from tests.support.chart_reading import SeenChart, read_chart
from tests.support.made_up import MEASUREMENT, vary

SEEN = ProbeReport(0.002, 0.01, 0.3, 0.4, 3, 0.5, ((-1, 0.001, 0.002, 0), (0, 0.2, 0.48, 3), (1, None, None, 4)))
NOWHERE = "–"  # noqa: RUF001 - what stands in an empty cell


def score(
    model: str, fault: str, verdict: Verdict = Verdict.HELD, probe_report: ProbeReport | None = SEEN, **more: str
) -> Score:
    return Score(model, fault, verdict, "so it was", 1, 0.3, probe_report=probe_report, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "expected", "cell"),
    [
        (Verdict.HELD, "", "●\u00a0held"),
        (Verdict.DEGRADED, "", "◐\u00a0degraded"),
        (Verdict.FAILED, "", "▲\u00a0failed !"),
        (Verdict.UNKNOWN, "", "○\u00a0unknown"),
        (Verdict.HELD, "why", "●\u00a0held ! (declared)"),
        (Verdict.DEGRADED, "why", "◐\u00a0degraded ! (declared)"),
        (Verdict.FAILED, "why", "▲\u00a0failed (declared)"),
        (Verdict.UNKNOWN, "why", "○\u00a0unknown (declared)"),
    ],
)
def test_cell_marks_unexpected_verdicts(verdict: Verdict, expected: str, cell: str) -> None:
    assert show_cell(score("a", "slow-clients", verdict, expected=expected)) == cell
    assert show_cell(None) == NOWHERE


def test_details_have_recovery_and_declared_reason() -> None:
    assert show_details(score("a", "kill")) == ["a", "kill", "●\u00a0held", NOWHERE, "so it was"]
    found = replace(score("a", "kill", Verdict.FAILED, expected="why"), recovery=0.25)
    assert show_details(found) == ["a", "kill", "▲\u00a0failed (declared)", "250 ms", "so it was (declared: why)"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create("faults", {"environment": {"cores": 2, "commit": None}}, root=tmp_path)


def test_answers_sum_the_known_accounts(run: Run) -> None:
    accounts = [
        Account(8, 8, 1000, 1500, wrong={"out of order": 1, "one too many": 2}),
        Account(8, 8, 1000, 20, wrong={"out of order": 4}),
        Account(8, 8, 1000, 7_000_000, wrong={"out of order": 9}),
    ]
    verdicts = [Verdict.FAILED, Verdict.FAILED, Verdict.UNKNOWN]
    scores = [
        replace(score(model, "pause", verdict), account=account)
        for model, verdict, account in zip("abc", verdicts, accounts, strict=True)
    ]
    found = list(make_answers(Outcome(run, [*scores, score("d", "kill", Verdict.DEGRADED)])))
    # 1500 + 20 answered, 3 + 4 wrong; an unknown score does not count.
    assert found[0].startswith("3 faults were injected under load and healed: 1,520 requests were answered, 7 replies")
    assert found[1:] == [
        "Unexpected: a, b under pause.",
        "No request lost, but slower than allowed: d under kill.",
        "Unknown on this machine, which is not a pass: pause.",
    ]
    assert list(make_answers(Outcome(run))) == []


def test_times_are_medians_over_probed_models(run: Run) -> None:
    times = [
        (None, 0.0, 0.001),  # never late: nothing to recover from
        (0.01, 0.1, 0.2),
        (0.02, 0.4, 0.3),
        (0.06, 0.3, 0.9),
        (None, None, None),  # nor was this one, of whose few PINGs none was answered
    ]
    scores = [
        score(f"m{number}", "pause", probe_report=replace(SEEN, detect=detect, recover=recover, slowest=slowest))
        for number, (detect, recover, slowest) in enumerate(times)
    ]
    unseen = score("u", "pause", probe_report=replace(SEEN, quiet_p99=None, detect=None, recover=None))
    (row,) = make_times(
        Outcome(run, [*scores, unseen, score("n", "pause", probe_report=None), score("n", "kill", probe_report=None)])
    )
    # Late: 10, 20 and 60 ms, of which the median is 20. Slowest: 1, 200, 300 and 900 ms: 250. Back: 0.1, 0.3 and 0.4 s.
    assert row[0] == "pause"
    assert row[2:] == ["3 of 5 late", "20 ms", "250 ms", "300 ms", "m2 (400 ms)"]
    never = [replace(scores[2], probe_report=replace(SEEN, recover=None)), *scores[:2]]
    ((*_, back, last),) = make_times(Outcome(run, never))
    assert (back, last) == (NOWHERE, "m2: not recovered")
    ((*_, late, slowest, back, last),) = make_times(Outcome(run, scores[:1]))
    assert (late, slowest, back, last) == (NOWHERE, "1 ms", NOWHERE, NOWHERE)


def test_recoveries_are_in_the_order_of_their_medians() -> None:
    """The slowest PINGs: 1, 5 and 6 s under pause, 2, 3 and 4 s under kill."""
    slowest = {"pause": (1.0, 5.0, 6.0), "kill": (2.0, 3.0, 4.0)}
    scores = [
        score(f"m{number}", fault, probe_report=replace(SEEN, slowest=seconds, recover=None))
        for fault, times in slowest.items()
        for number, seconds in enumerate(times)
    ]
    (found,) = list_recoveries(scores, ["pause", "kill"])
    assert [(row.name, row.low, row.middle) for row in found.rows] == [("kill", 2.0, 3.0), ("pause", 1.0, 5.0)]


def test_faults_are_in_registry_order_and_models_in_run_order(run: Run) -> None:
    outcome = Outcome(run, [score("b", "pause"), score("a", "kill"), score("a", "drain"), score("b", "kill")])
    assert outcome.faults == ["drain", "kill", "pause"]
    assert {model: list(row) for model, row in outcome.card.items()} == {"b": ["pause", "kill"], "a": ["kill", "drain"]}
    assert list_environment(run) == [("cores", "2"), ("commit", "not known")]


@pytest.mark.parametrize(
    ("verdict", "expected", "is_good"),
    [
        (Verdict.HELD, "", True),
        (Verdict.HELD, "why", False),
        (Verdict.FAILED, "why", False),
        (Verdict.DEGRADED, "", False),
        (Verdict.UNKNOWN, "", False),
    ],
)
def test_only_held_cells_do_not_stand_out(run: Run, verdict: Verdict, expected: str, is_good: bool) -> None:
    outcome = Outcome(run, [score("a", "slow-clients", verdict, expected=expected)])
    cell = faults_page._make_cell(outcome, outcome.scores[0])
    assert (cell.is_good, cell.note, cell.link) == (is_good, "so it was", run.path_of(key_of("a", "slow-clients")))


def draw(probe_report: ProbeReport) -> SeenChart:
    interval = FaultInterval("pause", "a", is_control=False)
    interval.close()
    return read_chart(faults_page.draw_probe(UnderLoad(interval, probe_report, MEASUREMENT), "probe-1"))


def test_chart_axes_are_seconds_and_powers_of_ten() -> None:
    """From -1 to 2 s, and from 1 ms to 1 s on 230 pixels."""
    seen = draw(SEEN)
    assert seen.ticks == ["-1 s", "0 s", "1 s", "2 s", "1 ms", "10 ms", "100 ms", "1 s"]
    # From 0 to 0.5 s, of 3 s.
    assert seen.bands == [(about(33.33, abs=0.01), about(16.67, abs=0.01))]
    # A row is drawn at the middle of its second. 0.2 s: 230 x (1 - 2.301 / 3), 2 ms: 230 x (1 - 0.301 / 3).
    assert seen.series["p50"].marks == [(16.67, 230), (50, about(53.59, abs=0.01))]
    assert seen.series["p99"].marks == [(16.67, about(206.92, abs=0.01)), (50, about(24.44, abs=0.01))]
    assert seen.series["p50"].tip == "p50: 1 ms in second -1, 200 ms in second 0"
    assert seen.notes == ["pause, 500 ms", "second 0: 3 failed", "second 1: 4 failed"]


def test_line_is_interrupted_where_nothing_was_answered() -> None:
    seconds = ((0, 0.1, 0.1, 0), (1, None, None, 5), (2, 0.1, 0.1, 0))
    seen = draw(replace(SEEN, seconds=seconds, lasted=9.0))
    assert [(len(each.paths), len(each.marks)) for each in seen.series.values()] == [(0, 2), (0, 2)]
    # The fault lasted longer than the last second: the chart shows all of it. A single value spans a decade.
    assert seen.bands == [(0, 100)]
    assert seen.ticks[-2:] == ["100 ms", "1 s"]
    # A fault without duration is still visible.
    assert draw(replace(SEEN, lasted=0.0)).bands[0][1] == about(100 * 0.02 / 3, abs=0.01)
    nothing = draw(replace(SEEN, seconds=((0, None, None, 3),)))
    assert nothing.series == {}
    assert nothing.ticks[-4:] == ["1 ms", "10 ms", "100 ms", "1 s"]


def test_long_chart_has_a_dozen_ticks() -> None:
    seconds = tuple((second, 0.1, 0.1, 0) for second in range(-4, 32))
    # From -4 to 32: 36 s in steps of three.
    assert draw(replace(SEEN, seconds=seconds)).ticks[:3] == ["-4 s", "-1 s", "2 s"]


def test_report_as_markdown(run: Run) -> None:
    interval = FaultInterval("pause", "a", is_control=True, begin="then", end="later")
    load = vary(MEASUREMENT, failures={"timeout": 2})
    declared = score("b", "slow-clients", Verdict.FAILED, probe_report=None, expected="why")
    outcome = Outcome(run, [score("a", "pause"), declared], [UnderLoad(interval, SEEN, load)])
    text = render_markdown(outcome)
    answers, card = text.split("\n\n| model | pause | slow-clients |\n")
    assert answers.splitlines() == [
        f"# Faults: {run.started}",
        "",
        "2 faults were injected under load and healed: 0 requests were answered, 0 replies were wrong, duplicated, "
        "out of order or those of another client.  ",
        "As expected: each model held, or failed where the catalogue declares it.  ",
        f"a, pause (control run): {SEEN}.  ",
    ]
    lines = card.splitlines()
    assert lines[:4] == [
        "| --- | --- | --- |",
        f"| a | ●\u00a0held | {NOWHERE} |",
        f"| b | {NOWHERE} | ▲\u00a0failed (declared) |",
        "",
    ]
    saw = lines.index("## Latency probe")
    assert [line.count("|") for line in lines[saw + 1 : saw + 6]] == [0, 8, 8, 8, 0]
    assert lines[saw + 3] == f"| {' | '.join(['---'] * 7)} |"
    assert lines[saw + 4].startswith("| pause | all its processes are paused | 1 of 1 late | 10 ms | 400 ms | 300 ms |")
    each = lines.index("## Scores")
    assert lines[each + 1 : each + 7] == [
        "",
        "| model | fault | verdict | restarted in | reason | raw |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| a | pause | ●\u00a0held | {NOWHERE} | so it was | [account]({run.path_of('a/pause')}) |",
        f"| b | slow-clients | ▲\u00a0failed (declared) | {NOWHERE} | so it was (declared: why) "
        f"| [account]({run.path_of('b/slow-clients')}) |",
        "",
    ]
    under = lines.index("## a, pause (control run)")
    assert lines[under + 2] == (
        "closed_session, 16 users for 1.0 s: 10.0k requests/s, 10,000 exchanges answered, failed: 2 × timeout, "  # noqa: RUF001
        "p99 900 µs over the whole load. Fault from then for 500 ms. "
        f"[Raw data]({run.path_of('a/pause')})."
    )
    assert lines[under + 3 : under + 10] == [
        "",
        "| second | PING p50 | PING p99 | failed |",
        "| --- | --- | --- | --- |",
        "| -1 | 1 ms | 2 ms | 0 |",
        "| 0 | 200 ms | 480 ms | 3 |",
        "| 1 | - | - | 4 |",
        "",
    ]
    reading = lines.index("## How to read it")
    assert lines[reading + 2].startswith("* held: ")
    assert lines[-5:] == ["", "## Environment", "", "* cores: 2", "* commit: not known"]


def test_report_of_a_load_has_no_scorecard(run: Run) -> None:
    interval = FaultInterval("pause", "a", is_control=False)
    interval.close()
    text = render_markdown(Outcome(run, (), [UnderLoad(interval, SEEN, MEASUREMENT)]))
    assert "| model |" not in text
    assert "## a, pause\n" in text
    assert ", none failed, " in text
    # A model without a probe has no row of times.
    alone = render_markdown(Outcome(run, [score("a", "pause", probe_report=None)]))
    assert "## Latency probe" not in alone
    assert "| a | ●\u00a0held |" in alone


def test_page_links_each_account(run: Run) -> None:
    interval = FaultInterval("loss", "b", is_control=False)
    interval.close()
    scores = [score("a", "pause"), score("a", "slow-clients", Verdict.FAILED)]
    text = faults_page.render(Outcome(run, scores, [UnderLoad(interval, SEEN, MEASUREMENT)]))
    details = re.findall(r'so it was <a href="([^"]+)">account</a>', text)
    assert details == [run.path_of(key_of("a", fault)) for fault in ("pause", "slow-clients")]
    assert f'<a href="{run.path_of(key_of("b", "loss"))}">Raw data</a>' in text
    assert "▲\u00a0failed !" in text
    # The times of the probe, and how long each fault took.
    assert '<td data-label="slowest PING">400 ms</td>' in text
    assert re.findall(r'aria-labelledby="(\S+)-title', text) == ["slowest", "recovery", "probe-1"]


def test_least_harmful_fault_comes_first_and_each_names_its_slowest_model() -> None:
    times = {("a", "kill"): 0.9, ("b", "kill"): 0.5, ("a", "pause"): 0.3, ("b", "pause"): 0.1, ("c", "pause"): None}
    scores = [
        score(model, fault, probe_report=replace(SEEN, slowest=took, recover=None))
        for (model, fault), took in times.items()
    ]
    (slowest,) = list_recoveries(scores, ["drain", "kill", "pause"])
    assert [(row.name, row.low, row.middle, row.high, row.note) for row in slowest.rows] == [
        ("pause", 0.1, about(0.2), 0.3, "100 ms to 300 ms (a)"),
        ("kill", 0.5, 0.7, 0.9, "500 ms to 900 ms (a)"),
    ]
    # One that has recovered when the fault was healed counts, with 0.
    times = {("a", "kill"): 0.0, ("b", "kill"): 0.5}
    scores = [
        score(model, fault, probe_report=replace(SEEN, slowest=None, recover=took))
        for (model, fault), took in times.items()
    ]
    (recovery,) = list_recoveries(scores, ["kill"])
    assert [(row.low, row.middle, row.high) for row in recovery.rows] == [(0.0, 0.25, 0.5)]
