"""The check of Locust's form: what cannot change during a run, and which forms are checked."""

import importlib.util
import re
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Blueprint, Flask
from werkzeug.datastructures import MultiDict

from loadtests.contract import FLAGS
from loadtests.web.form import UNDER_LOAD, FormError, check_form, read_form

BEFORE: dict[str, Any] = {
    "models": ["prefork"],
    **dict.fromkeys((name for name, flag in FLAGS.items() if flag.in_form), "before"),
    "fault": "none",
    "fault_after": 10.0,
    "fault_for": 5.0,
    "num_users": 4,
    "spawn_rate": 1.0,
}
STATES = ("ready", "spawning", "running", "cleanup", "stopping", "stopped", "missing")


class Form:
    """A UI with the check in front of a view that starts everything; and what the last form asked for."""

    def __init__(self, state: str, why: str | None = None) -> None:
        app = Flask(__name__)
        pages = Blueprint("locust", __name__)
        pages.add_url_rule("/swarm", "swarm", lambda: {"success": True}, methods=["POST"])
        pages.add_url_rule("/stop", "stop", lambda: {"success": True}, methods=["POST"])
        app.register_blueprint(pages)
        environment = SimpleNamespace(
            web_ui=SimpleNamespace(app=app),
            parsed_options=Namespace(**BEFORE),
            runner=SimpleNamespace(state=state),
        )
        self.asked: Namespace | None = None

        def find_objection(options: Namespace) -> str | None:
            self.asked = options
            return why

        check_form(cast(Any, environment), find_objection)
        self.client = app.test_client()

    def send(self, form: dict[str, Any], path: str = "/swarm") -> Any:
        return self.client.post(path, data=form).json


def test_states_are_those_of_locust() -> None:
    spec = importlib.util.find_spec("locust")
    assert spec
    assert spec.origin
    source = Path(spec.origin).with_name("runners.py").read_text(encoding="utf-8")
    match = re.search(r"^(STATE_INIT[A-Z_, ]+) = \[(.+?)\]", source, re.MULTILINE | re.DOTALL)
    assert match
    states = dict(zip(match[1].split(", "), re.findall(r'"(\w+)"', match[2]), strict=True))
    assert tuple(states.values()) == STATES
    assert (states["STATE_SPAWNING"], states["STATE_RUNNING"]) == UNDER_LOAD


@pytest.mark.parametrize(
    ("state", "name"),
    [
        *((state, "workload") for state in STATES),
        *(("running", name) for name in BEFORE if name not in ("workload", "num_users", "spawn_rate")),
    ],
)
def test_option_that_users_read_at_their_start_cannot_change_under_load(state: str, name: str) -> None:
    form = Form(state)
    answer = form.send({name: "7" if isinstance(BEFORE[name], float) else "after"})
    if state in ("spawning", "running"):
        assert answer == {"success": False, "message": f"stop the run first: {name} cannot change during a run"}
        assert form.asked is None
    else:
        assert answer == {"success": True}
        assert getattr(form.asked, name) != BEFORE[name]


@pytest.mark.parametrize("state", STATES)
def test_number_of_users_can_change_under_load(state: str) -> None:
    form = Form(state)
    same = {"models": "prefork", "workload": "before", "fault_for": "5"}
    assert form.send({"user_count": "9", "spawn_rate": "2.5", **same}) == {"success": True}
    assert form.asked == Namespace(**BEFORE | {"num_users": 9, "spawn_rate": 2.5})


@pytest.mark.parametrize(
    ("classes", "is_checked"),
    [([], True), (["LabUser"], True), (["LabUser", "Other"], True), (["Other"], False), (["Other", "More"], False)],
)
def test_form_with_other_users_alone_is_not_checked(classes: list[str], is_checked: bool) -> None:
    form = Form("ready", why="no such load")
    answer = form.send({"user_classes": classes})
    assert answer == ({"success": False, "message": "no such load"} if is_checked else {"success": True})


def test_other_requests_are_not_checked() -> None:
    assert Form("running", why="no such load").send({"workload": "after"}, "/stop") == {"success": True}


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        # Locust's form has more fields than there are options.
        ([("host", "x"), ("user_count", "9"), ("spawn_rate", "2.5")], {"num_users": 9, "spawn_rate": 2.5}),
        ([("models", "a,b")], {"models": ["a", "b"]}),
        ([("models", "a"), ("models", "b")], {"models": ["a", "b"]}),
        ([("is_on", "true")], {"is_on": True}),
        ([("is_on", "false")], {"is_on": False}),
        ([("seconds", "7"), ("unset", "7")], {"seconds": 7.0, "unset": "7"}),
    ],
)
def test_field_has_the_type_of_its_option(fields: list[tuple[str, str]], read: dict[str, Any]) -> None:
    options = {"models": ["c"], "num_users": 1, "spawn_rate": 1.0, "is_on": False, "seconds": 1.0, "unset": None}
    assert read_form(options, MultiDict(fields)) == options | read
    # What Locust has no value of yet has its type by its name.
    unset: dict[str, None] = {"num_users": None, "spawn_rate": None}
    assert read_form(unset, MultiDict({"user_count": "9", "spawn_rate": "2.5"})) == {"num_users": 9, "spawn_rate": 2.5}


@pytest.mark.parametrize("field", ["user_count", "spawn_rate", "seconds"])
def test_field_of_another_type_is_named(field: str) -> None:
    with pytest.raises(FormError, match=f"^{field}: 'many' is not a valid value$"):
        read_form({"num_users": 1, "spawn_rate": 1.0, "seconds": 1.0}, MultiDict({field: "many"}))
