"""Check the form of Locust's web UI: refuse invalid values with the reason.

Locust itself answers "success" to any form, and fails later in the background.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from flask import Response, jsonify, request

from loadtests.contract import FLAGS

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.runners import Runner
    from werkzeug.datastructures import MultiDict

# Locust's STATE_SPAWNING and STATE_RUNNING. An import of its runners would patch a process that only tests this page.
UNDER_LOAD = ("spawning", "running")

# Fields whose names differ from those of the options.
_RENAMED = {"user_count": "num_users"}

# Options that users read when they start: they cannot change during a run.
_FIXED = ("models", *(name for name, flag in FLAGS.items() if flag.in_form), "fault", "fault_after", "fault_for")

# The class of users with these options. A form with only other classes is not checked.
_OURS = "LabUser"


class FormError(Exception):
    """A field of the form is invalid; the message names it."""


def check_form(environment: "Environment", find_objection: Callable[[Namespace], str | None]) -> None:
    """Check each form before Locust handles it.

    Args:
        environment: Locust's, with its web UI.
        find_objection: returns why a test with these options cannot run.
    """
    web_ui: Any = environment.web_ui

    def check() -> Response | None:
        classes = request.form.getlist("user_classes")
        if request.endpoint != "locust.swarm" or (classes and _OURS not in classes):
            return None
        before = vars(environment.parsed_options)
        try:
            asked = read_form(before, request.form)
        except FormError as error:
            return _refuse(str(error))
        if cast("Runner", environment.runner).state in UNDER_LOAD:
            changed = [name for name in _FIXED if asked.get(name) != before.get(name)]
            if changed:
                return _refuse(f"stop the run first: {', '.join(changed)} cannot change during a run")
        why = find_objection(Namespace(**asked))
        return _refuse(why) if why else None

    web_ui.app.before_request(check)


def read_form(options: Mapping[str, Any], form: "MultiDict[str, str]") -> dict[str, Any]:
    """Return the options with the values of a form, converted to their types.

    Raises:
        FormError: a field cannot be converted.
    """
    asked = dict(options)
    for field, text in form.items():
        name = _RENAMED.get(field, field)
        if name not in asked:
            continue
        try:
            asked[name] = _read(name, options[name], text, form.getlist(field))
        except ValueError:
            raise FormError(f"{field}: {text!r} is not a valid value") from None
    return asked


def _read(name: str, now: Any, text: str, texts: list[str]) -> Any:
    if name == "num_users":
        return int(text)
    if name == "spawn_rate":
        return float(text)
    if name == "run_time":
        from locust.util.timespan import parse_timespan

        return parse_timespan(text) if text else None
    if isinstance(now, bool):
        return text == "true"
    if isinstance(now, list):
        return text.split(",") if "," in text else texts
    return text if now is None else type(now)(text)


def _refuse(why: str) -> Response:
    return jsonify({"success": False, "message": why})
