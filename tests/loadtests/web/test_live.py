"""The live page: its figures, worked out by hand, and its routes."""

import json
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from gevent import GreenletExit

from lab.base.environ import ENV_FAULTS
from lab.base.messages import decode
from lab.load.messages import FaultEvent, FaultRequest, Usage
from loadtests.sockets.histogram import Histogram
from loadtests.sockets.recorder import Recorder, Series, Tally
from loadtests.web import live
from loadtests.web.live import Course, Point
from tests.support.approx import about

PING, SLEEP = Series("prefork", "ping"), Series("prefork", "sleep_20ms")
OPEN = Series("selector_loop", "ping", "tcp", "open")
PAUSE = FaultEvent("prefork", "pause", "2026-11-29T10:00:00+00:00", "")


def make_tally(requests: int, times: list[float], failed: int = 0, intended: list[float] | None = None) -> Tally:
    """`requests` right replies; times in seconds."""
    tally = Tally(answered=len(times), requests=requests, failures=Counter({"reset": failed} if failed else {}))
    tally.service.record(times)
    tally.intended.record(intended or [])
    return tally


class Lab:
    """A recorder, a clock and usages that a test sets."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.at = 100.0
        self.usages: list[Usage] = []
        self.course = Course(
            self.recorder, lambda: self.usages, clock=lambda: self.at, now=lambda: 1_000_000.1234 + self.at
        )

    def second(self, *usages: Usage, **added: tuple[Series, Tally]) -> dict[str, Point]:
        """A second passes, in which tallies are added; return the new points."""
        self.at += 1.0
        self.usages = list(usages)
        for series, tally in added.values():
            self.recorder.add(series, tally, users=3, in_flight=1)
        self.course.sample()
        samples = self.course.since(0)
        return {model: Point(**point) for model, point in samples[-1]["models"].items()} if samples else {}


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_figures_cover_three_seconds(lab: Lab) -> None:
    memory = 7 * 2**20
    first = lab.second(Usage("prefork", 0.5, memory), a=(PING, make_tally(1000, [0.001])))["prefork"]
    # No second has passed since the first sample.
    assert first == Point(0.0, None, None, 0.0, None, memory, 3)
    # One second: 200 requests. 0.5 cores for 200 requests per second: 2.5 ms each.
    assert lab.second(Usage("prefork", 0.5, memory), a=(PING, make_tally(200, [0.002], failed=4)))["prefork"] == Point(
        200.0, about(2000, rel=1e-3), about(2000, rel=1e-3), 4.0, 2500.0, memory, 3
    )
    # Two: 200 + 400 in 2 s; (0.5 + 0.7) / 2 cores. Times of 2, 4, 6 ms: the median is 4, p99 is 6.
    point = lab.second(Usage("prefork", 0.7, memory), a=(PING, make_tally(400, [0.004, 0.006])))["prefork"]
    assert point.rate == 300.0
    assert (point.p50_us, point.p99_us) == (about(4000, rel=1e-3), about(6000, rel=1e-3))
    assert (point.failures, point.cpu_us) == (2.0, about(2000.0))
    # Four: only the last three count, (400 + 0 + 80) / 3; cores 0.7, unknown, 0.1.
    assert lab.second()["prefork"].rate == 200.0
    point = lab.second(Usage("prefork", 0.1), a=(PING, make_tally(80, [])))["prefork"]
    assert (point.rate, point.failures, point.memory_bytes) == (160.0, 0.0, None)
    assert point.cpu_us == about(0.4 / 160 * 1e6)


def test_series_of_a_model_are_added_and_an_open_loop_has_its_intended_times(lab: Lab) -> None:
    both = {
        "a": (PING, make_tally(5, [0.001])),
        "b": (SLEEP, make_tally(7, [0.02])),
        "c": (OPEN, make_tally(1, [0.001])),
    }
    lab.second(**both)
    points = lab.second(
        a=(PING, make_tally(10, [0.001])),
        b=(SLEEP, make_tally(20, [0.02])),
        c=(OPEN, make_tally(1, [0.001], intended=[0.5])),
    )
    assert points["prefork"].rate == 30.0
    assert points["prefork"].connections == 6
    assert points["prefork"].p99_us == about(20_000, rel=1e-3)
    assert points["selector_loop"].p50_us == about(500_000, rel=1e-3)


def test_reset_starts_again_instead_of_going_below_zero(lab: Lab) -> None:
    lab.second(a=(PING, make_tally(500, [0.001] * 5)))
    lab.recorder.reset()
    assert lab.second(a=(PING, make_tally(10, [0.002])))["prefork"].rate == 0.0
    assert lab.second(a=(PING, make_tally(30, [0.002])))["prefork"].rate == 30.0


def test_failures_alone_show_a_reset_too(lab: Lab) -> None:
    lab.second(a=(PING, make_tally(0, [], failed=9)))
    lab.recorder.reset()
    assert lab.second(a=(PING, make_tally(0, [], failed=1)))["prefork"].failures == 0.0


def test_new_test_has_no_past_of_the_last_one(lab: Lab) -> None:
    lab.second(a=(PING, make_tally(500, [0.001])))
    lab.recorder.clear()
    assert lab.second()["prefork"].rate == 0.0  # the last sample: without a series there is no new one
    assert len(lab.course.since(0)) == 1
    assert lab.second(a=(SLEEP, make_tally(900, [0.02])))["prefork"].rate == 0.0


def test_other_workload_of_a_model_has_no_past(lab: Lab) -> None:
    lab.second(a=(PING, make_tally(500, [0.001])))
    assert lab.second(a=(SLEEP, make_tally(900, [0.02])))["prefork"].rate == 0.0


def test_samples_have_numbers_and_the_oldest_are_forgotten(lab: Lab) -> None:
    for _ in range(live.SECONDS + 2):
        lab.second(a=(PING, make_tally(1, [])))
    samples = lab.course.since(0)
    assert [samples[0]["number"], samples[-1]["number"], len(samples)] == [3, 302, 300]
    assert [sample["number"] for sample in lab.course.since(300)] == [301, 302]
    assert samples[-1]["at"] == 1_000_402.123


def test_times_since_a_copy_of_the_counts() -> None:
    histogram = Histogram()
    histogram.record([0.001, 0.002])
    before = dict(histogram.counts)
    assert histogram.since(before).percentile(0.5) is None
    histogram.record([0.001, 0.004, 0.004])
    news = histogram.since(before)
    assert [count for _, count in news.pairs()] == [1, 2]
    assert news.total == 3
    assert news.max_us == about(4000, rel=1e-3)


class Page:
    """The web UI with the live page, and its client."""

    def __init__(self, course: Course) -> None:
        app = Flask(__name__)
        index = Blueprint("locust", __name__)
        index.add_url_rule("/", "index", lambda: "<body>Locust</body>")
        index.add_url_rule("/other", "other", lambda: "<body>Other</body>")
        app.register_blueprint(index)
        self.options = SimpleNamespace(
            workload="ping", transport="tcp", loop="closed", models=["prefork"], num_users=4, spawn_rate=None
        )
        self.runner = SimpleNamespace(state="running")
        self.guarded: list[str] = []
        web_ui = SimpleNamespace(app=app, auth_required_if_enabled=self._guard)
        environment = SimpleNamespace(web_ui=web_ui, parsed_options=self.options, runner=self.runner)
        pages = Blueprint("lab", __name__, url_prefix="/lab")
        live.add_page(cast(Any, environment), pages, course, lambda: [PAUSE], ["ping", "burn"])
        app.register_blueprint(pages)
        self.client: FlaskClient = app.test_client()

    def _guard(self, view: Callable[..., Any]) -> Callable[..., Any]:
        self.guarded.append(view.__name__)
        return view


@pytest.fixture
def page(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(gevent, "spawn", lambda *arguments: None)
    monkeypatch.setenv(ENV_FAULTS, "pause,kill")
    lab.second(a=(PING, make_tally(1, [0.001])))
    lab.second(a=(PING, make_tally(4, [0.001])))
    return Page(lab.course)


def test_page_loads_nothing_and_is_linked_from_locusts(page: Page) -> None:
    answer = page.client.get("/lab/live")
    assert (answer.mimetype, answer.headers["Cache-Control"]) == ("text/html", "no-store")
    text = answer.text
    assert "http://www.w3.org/2000/svg" in text
    assert text.count("http") == 1 + text.count("http_")  # the namespace alone
    assert b'href="./lab/live"' in page.client.get("/").data
    assert b"lab/live" not in page.client.get("/other").data
    assert len(page.guarded) == 3


def test_figures_are_sent_once(page: Page) -> None:
    response = page.client.get("/lab/live.json")
    assert (response.mimetype, response.headers["Cache-Control"]) == ("application/json", "no-store")
    answer = json.loads(response.data)
    assert [sample["models"]["prefork"]["rate"] for sample in answer["samples"]] == [0.0, 4.0]
    assert answer["faults"] == [{"model": "prefork", "fault": "pause", "begin": PAUSE.begin, "end": "", "why_not": ""}]
    assert (answer["state"], answer["offered"], answer["workloads"]) == ("running", ["pause", "kill"], ["ping", "burn"])
    assert answer["options"]["users"] == 4
    assert answer["options"]["spawn_rate"] == 1
    assert len(json.loads(page.client.get("/lab/live.json?after=1").data)["samples"]) == 1
    refused = page.client.get("/lab/live.json?after=x")
    assert (refused.status_code, refused.mimetype) == (400, "text/plain")
    # Locust's own default of both.
    page.options.num_users = None
    assert json.loads(page.client.get("/lab/live.json").data)["options"]["users"] == 1


def test_course_is_sampled_every_second(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise GreenletExit

    lab.recorder.add(PING, make_tally(1, []), users=1, in_flight=0)
    monkeypatch.setattr(gevent, "sleep", sleep)
    with pytest.raises(GreenletExit):
        live._sample_forever(lab.course)
    assert slept == [1.0] * 3
    assert len(lab.course.since(0)) == 2


def test_fault_is_asked_for(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    answer = page.client.post("/lab/live/fault", data={"fault": "kill", "models": ["prefork"], "seconds": "2.5"})
    assert (answer.status_code, answer.json) == (200, {"success": True, "message": "kill on prefork"})
    assert decode(capsys.readouterr().out.strip(), FaultRequest) == FaultRequest("kill", ("prefork",), 2.5)


@pytest.mark.parametrize(
    ("change", "state", "why"),
    [
        ({}, "stopped", "no load is running: start one first"),
        ({"fault": "flood"}, "running", "unknown fault 'flood': one of pause, kill"),
        ({"models": []}, "running", "choose models of this load: prefork"),
        ({"models": ["prefork", "other"]}, "running", "choose models of this load: prefork"),
        ({"seconds": "0"}, "running", "a fault lasts more than 0 and at most 600 seconds"),
        ({"seconds": "601"}, "spawning", "a fault lasts more than 0 and at most 600 seconds"),
        ({"seconds": "soon"}, "running", "a fault lasts more than 0 and at most 600 seconds"),
    ],
)
def test_impossible_fault_is_refused(
    change: dict[str, Any], state: str, why: str, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    page.runner.state = state
    form = {"fault": "kill", "models": ["prefork"], "seconds": "2.5"} | change
    answer = page.client.post("/lab/live/fault", data=form)
    assert (answer.status_code, answer.json) == (400, {"success": False, "message": why})
    assert capsys.readouterr().out == ""
