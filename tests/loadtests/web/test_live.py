"""The live page: its routes, its figures and its buttons."""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient

from lab.base.environ import ENV_FAULTS
from lab.base.messages import decode
from lab.load.messages import FaultEvent, FaultRequest
from loadtests.course import Course, Point
from loadtests.web import live
from tests.support.made_up_course import PING, CourseLab, make_tally

PAUSE = FaultEvent("prefork", "pause", "2026-11-29T10:00:00+00:00", "")
NOT_INJECTED = FaultEvent("prefork", "kill", "2026-11-29T10:00:01+00:00", "2026-11-29T10:00:01+00:00", "it has ended")


@pytest.fixture
def lab() -> CourseLab:
    return CourseLab()


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
        live.add_page(cast(Any, environment), pages, course, lambda: [PAUSE, NOT_INJECTED], ["ping", "burn"])
        app.register_blueprint(pages)
        self.client: FlaskClient = app.test_client()

    def _guard(self, view: Callable[..., Any]) -> Callable[..., Any]:
        self.guarded.append(view.__name__)
        return view


@pytest.fixture
def page(lab: CourseLab, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setattr(gevent, "spawn", lambda *arguments: None)
    monkeypatch.setenv(ENV_FAULTS, "pause,kill")
    lab.second(a=(PING, make_tally(1, [0.001])))
    lab.second(a=(PING, make_tally(4, [0.001])))
    return Page(lab.course)


def test_page_loads_nothing_and_is_linked_from_locusts(
    page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # Locust may be started anywhere
    answer = page.client.get("/lab/live")
    assert (answer.mimetype, answer.headers["Cache-Control"]) == ("text/html", "no-store")
    text = answer.text
    assert "http://www.w3.org/2000/svg" in text
    assert text.count("http") == 1 + text.count("http_")  # the namespace alone
    assert b'href="./lab/live"' in page.client.get("/").data
    assert b"lab/live" not in page.client.get("/other").data
    assert len(page.guarded) == 3


def test_page_draws_each_figure_of_a_point_in_its_unit() -> None:
    page = Path(live.__file__).with_name("live.html").read_text(encoding="utf-8")
    table = page.partition("const FIGURES = [")[2].partition("];")[0]
    found = {
        key: (column, factor) for key, column, factor in re.findall(r'\["(\w+)", "([^"]+)", "[^"]+", ([^,]+),', table)
    }
    assert found == {
        "rate": ("requests/s", "1"),
        "p50_us": ("p50 µs", "1"),
        "p99_us": ("p99 µs", "1"),
        "cpu_us": ("CPU µs/request", "1"),
        "memory_bytes": ("memory MiB", f"1 / {2**20}"),
        "connections": ("connections", "1"),
        "failures": ("failures/s", "1"),
    }
    assert set(found) == {item.name for item in fields(Point)}


def test_figures_are_sent_once(page: Page) -> None:
    response = page.client.get("/lab/live.json")
    assert (response.mimetype, response.headers["Cache-Control"]) == ("application/json", "no-store")
    answer = json.loads(response.data)
    assert [sample["models"]["prefork"]["rate"] for sample in answer["samples"]] == [0.0, 4.0]
    assert answer["faults"] == [{"model": "prefork", "fault": "pause", "begin": PAUSE.begin, "end": "", "why_not": ""}]
    assert (answer["state"], answer["offered"], answer["workloads"]) == ("running", ["pause", "kill"], ["ping", "burn"])
    chosen = {"workload": "ping", "transport": "tcp", "loop": "closed", "models": ["prefork"]}
    assert answer["options"] == {**chosen, "users": 4, "spawn_rate": 1}
    page.options.spawn_rate = 7
    assert json.loads(page.client.get("/lab/live.json").data)["options"]["spawn_rate"] == 7
    assert len(json.loads(page.client.get("/lab/live.json?after=1").data)["samples"]) == 1
    for wrong in ("x", "9" * 5000):
        refused = page.client.get(f"/lab/live.json?after={wrong}")
        assert (refused.status_code, refused.mimetype) == (400, "text/plain")
    # Locust's own default of both.
    page.options.num_users = None
    assert json.loads(page.client.get("/lab/live.json").data)["options"]["users"] == 1


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


def test_without_a_lab_no_fault_can_be_injected(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_FAULTS)
    answer = page.client.post("/lab/live/fault", data={"fault": "kill", "models": ["prefork"], "seconds": "2.5"})
    assert answer.json == {"success": False, "message": "unknown fault 'kill': one of none"}
