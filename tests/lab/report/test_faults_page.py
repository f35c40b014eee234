"""The report of `lab faults`: what it says of a card and of a fault under load."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lab.experiments.store import Run
from lab.report.faults_page import draw_probe, draw_recovery, render
from lab.report.faults_text import Outcome, key_of, make_answers, make_times, render_markdown
from tests.support.chart_reading import read_chart
from tests.support.made_up_runs import SCORES, SEEN, make_outcome


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return make_outcome(tmp_path)


def test_outcome_is_read_from_its_run(outcome: Outcome, tmp_path: Path) -> None:
    plan = {"models": ["trio_nursery", "prefork", "absent"], "faults": ["latency", "slow-clients", "pause"]}
    run = Run.create("faults", {"plan": plan}, root=tmp_path / "scores")
    interval = replace(outcome.seen[0].interval, exit_code=137)
    scores = [replace(score, interval=interval, recovery=0.25) for score in SCORES]
    for score in scores:
        run.keep(key_of(score.model, score.fault), asdict(score))
    order = [("trio_nursery", "latency"), ("trio_nursery", "slow-clients"), ("trio_nursery", "pause")]
    order += [("prefork", "slow-clients"), ("prefork", "pause")]
    found = Outcome.read(Run.open(run.folder))
    assert [(score.model, score.fault) for score in found.scores] == order
    assert sorted(found.scores, key=repr) == sorted(scores, key=repr)
    assert found.seen == []
    under = Run.create("faults", {"plan": plan}, root=tmp_path / "seen")
    for each in outcome.seen:
        under.keep(key_of(each.interval.model, each.interval.fault), each.as_json())
    assert Outcome.read(Run.open(under.folder)) == Outcome(Run.open(under.folder), [], outcome.seen)


def test_answers_name_unexpected_scores(outcome: Outcome) -> None:
    text = " ".join(make_answers(outcome))
    assert "4 faults were injected" in text
    assert "1,980 requests were answered, 0 replies were wrong" in text
    assert "Unexpected: trio_nursery under slow-clients." in text
    assert "slower than allowed: trio_nursery under pause." in text
    assert "which is not a pass: latency." in text
    assert "prefork, pause: PING late after 12 ms, slowest 480 ms, 3 failed" in text
    fine = " ".join(make_answers(replace(outcome, scores=SCORES[:2])))
    assert "As expected:" in fine


def test_times_are_medians_and_name_the_last_model(outcome: Outcome) -> None:
    (row,) = make_times(outcome)
    assert row[:1] + row[2:] == ["pause", "2 of 2 late", "12 ms", "480 ms", "1.68 s", "trio_nursery (3.00 s)"]
    never = [SCORES[0], replace(SCORES[2], probe_report=replace(SEEN, recover=None))]
    (row,) = make_times(replace(outcome, scores=never))
    assert row[-2:] == ["–", "trio_nursery: not recovered"]  # noqa: RUF001


def test_markdown_has_the_same_figures(outcome: Outcome) -> None:
    text = render_markdown(outcome)
    assert "| model | pause | latency | slow-clients |" in text
    assert "| prefork | ●\u00a0held | – | ▲\u00a0failed (declared) |" in text  # noqa: RUF001
    assert "| trio_nursery | ◐\u00a0degraded | ○\u00a0unknown | ▲\u00a0failed ! |" in text
    assert "[account](steps/prefork/pause.json)" in text
    recovery = text.split("Time to recover from each fault: median, lowest and highest model\n\n```text\n")[1]
    assert re.match(r"pause +─+●─+ +1\.68 s\n```", recovery)
    assert "| 0 | 200 ms | 480 ms | 3 |" in text
    assert "* commit: not known" in text


def test_recovery_of_each_fault_is_the_median_of_the_models(outcome: Outcome) -> None:
    slowest, recovery = (read_chart(chart) for chart in draw_recovery(outcome))
    assert (slowest.title, recovery.title) == ("Slowest PING of each fault", "Time to recover from each fault")
    assert slowest.series["pause"].tip == "pause: 480 ms, 480 ms to 480 ms (prefork)"
    assert recovery.series["pause"].tip == "pause: 1.68 s, 350 ms to 3.00 s (trio_nursery)"
    # A model that was never late has nothing to recover from.
    fine = replace(outcome, scores=[replace(SCORES[0], probe_report=replace(SEEN, detect=None))])
    assert [chart.name for chart in draw_recovery(fine)] == ["slowest"]


def test_fault_under_load_is_drawn_by_the_second(outcome: Outcome) -> None:
    """The seconds -1, 0 and 1 are each drawn at their middle, on an axis from -1 to 2."""
    (each,) = outcome.seen
    chart = draw_probe(each, "probe-1")
    seen = read_chart(chart)
    assert (seen.series["p50"].tip, seen.series["p99"].tip) == (
        "p50: 1 ms in second -1, 200 ms in second 0",
        "p99: 2 ms in second -1, 480 ms in second 0",
    )
    assert [x for x, _ in seen.series["p99"].marks] == [16.67, 50.0]
    # From 1 ms to 1 s: 200 ms are 2.301 of three decades.
    assert seen.series["p50"].paths == [[(167, 1000), (500, 233)]]
    assert ["dashed" in seen.series[name].classes for name in ("p50", "p99")] == [True, False]
    assert seen.ticks == ["-1 s", "0 s", "1 s", "2 s", "1 ms", "10 ms", "100 ms", "1 s"]
    # The fault lasted half a second.
    assert (seen.bands, seen.notes[0]) == ([(33.33, 16.67)], "pause, 500 ms")
    assert re.findall(r'<svg x="([0-9.]+%)" y="8"><title>(.*?)</title>', chart.render_file()) == [
        ("50%", "second 0: 3 failed"),
        ("83.33%", "second 1: 4 failed"),
    ]
    assert 'id="probe-1-title"' in render(outcome)


def test_fault_without_a_reply_has_an_axis_all_the_same(outcome: Outcome) -> None:
    (each,) = outcome.seen
    silent = replace(each, probe_report=replace(each.probe_report, seconds=((0, None, None, 4),)))
    assert read_chart(draw_probe(silent, "x")).ticks == ["0 s", "1 s", "1 ms", "10 ms", "100 ms", "1 s"]
