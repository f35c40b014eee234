"""The report of `lab faults`: what it says of a card and of a fault under load, and how a reader opens it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from lab.clients.request_log import Account
from lab.experiments.faults.fault import FaultInterval
from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import ProbeReport
from lab.experiments.faults.under_load import UnderLoad
from lab.experiments.store import Run
from lab.report import faults_page
from lab.report.faults_text import Outcome, key_of, make_answers, make_times, render_markdown
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from tests.support.made_up import MEASUREMENT, vary
from tools.browser import read_page

ACCOUNT = Account(8, 8, 1_000, 990, 0, {}, {"end": 8})
SEEN = ProbeReport(0.002, 0.012, 0.35, 0.48, 3, 0.5, ((-1, 0.001, 0.002, 0), (0, 0.2, 0.48, 3), (1, None, None, 4)))


def make_score(model: str, fault: str, verdict: Verdict = Verdict.HELD, **changes: object) -> Score:
    score = Score(model, fault, verdict, f"because of <b>{fault}</b>", 1, 0.3, account=ACCOUNT, probe_report=SEEN)
    return replace(score, **changes)  # type: ignore[arg-type] # each is a field's


SCORES = (
    make_score("prefork", "pause"),
    make_score("prefork", "slow-clients", Verdict.FAILED, expected="64 places", account=None, probe_report=None),
    make_score("trio_nursery", "pause", Verdict.DEGRADED, probe_report=replace(SEEN, recover=3.0)),
    make_score("trio_nursery", "latency", Verdict.UNKNOWN, account=None, probe_report=None),
    make_score("trio_nursery", "slow-clients", Verdict.FAILED, account=None, probe_report=None),
)


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    load = vary(MEASUREMENT, model="prefork", failures={"timeout": 2})
    interval = FaultInterval("pause", "prefork", is_control=False)
    interval.close()
    run = Run.create("faults", {"environment": {"processor": "<i>a test's</i>", "commit": None}}, root=tmp_path)
    for score in SCORES:
        run.keep(key_of(score.model, score.fault), score.as_json())
    return Outcome(run, SCORES, [UnderLoad(interval, SEEN, load)])


def test_outcome_is_read_from_its_run(outcome: Outcome, tmp_path: Path) -> None:
    plan = {"models": ["trio_nursery", "prefork", "absent"], "faults": ["latency", "slow-clients", "pause"]}
    run = Run.create("faults", {"plan": plan}, root=tmp_path / "scores")
    interval = replace(outcome.seen[0].interval, exit_code=137)
    scores = [replace(score, interval=interval, recovery=0.25) for score in SCORES]
    for score in scores:
        run.keep(key_of(score.model, score.fault), score.as_json())
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
    assert "| 0 | 200 ms | 480 ms | 3 |" in text
    assert "* commit: not known" in text


# The browser's image is built once, from half a gigabyte of packages.
@pytest.mark.docker
@pytest.mark.xdist_group("docker")
@pytest.mark.timeout(900)
def test_page_in_a_browser(engine: object, find_of_project: Callable[[str], list[str]], outcome: Outcome) -> None:
    backend = Containers(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        seen = read_page(backend.helpers, faults_page.render(outcome))
    finally:
        backend.down()
        assert not find_of_project(backend.project)
    assert (seen.complaints, seen.requested, seen.wide) == ([], [], [])
    assert set(seen.pictures) == {"phone", "paper", "dark", "desk"}
    assert {"run.json", "steps/", "steps/trio_nursery/slow-clients.json"} <= set(seen.links)
    assert [link for link in seen.links if not (outcome.run.folder / link).exists()] == []
