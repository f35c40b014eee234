"""The form of Locust's web UI, read before Locust reads it: what cannot be run is refused there, with the reason.

Locust takes a form's words as they are, says "success", and finds out in the background.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from flask import Response, jsonify, request
from locust.runners import STATE_RUNNING, STATE_SPAWNING
from locust.util.timespan import parse_timespan

if TYPE_CHECKING:
    from locust.env import Environment
    from werkzeug.datastructures import MultiDict

# The fields whose names are not those of the options.
_RENAMED = {"user_count": "num_users"}

# What users read when they start, so that it cannot be changed while a run goes on.
_FIXED = (
    *("models", "workload", "transport", "loop", "arrivals", "shape"),
    *("rate", "payload", "shape_time", "timeout", "fault", "fault_after", "fault_for"),
)

# The class whose options these are; a form with others alone is not checked.
_OURS = "LabUser"


class FormError(Exception):
    """A field of the form cannot be read; the message names it."""


def check_form(environment: "Environment", find_objection: Callable[[Any], str | None]) -> None:
    """Have each form looked at before Locust obeys it.

    Args:
        environment: Locust's, with its web UI.
        find_objection: why a test with such options cannot be run.
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
        if cast(Any, environment.runner).state in (STATE_SPAWNING, STATE_RUNNING):
            changed = [name for name in _FIXED if asked.get(name) != before.get(name)]
            if changed:
                return _refuse(f"stop the run first: it goes on with the {', '.join(changed)} that it began with")
        why = find_objection(Namespace(**asked))
        return _refuse(why) if why else None

    web_ui.app.before_request(check)


def read_form(options: Mapping[str, Any], form: "MultiDict[str, str]") -> dict[str, Any]:
    """The options with what a form says of them, in the types that they have.

    Raises:
        FormError: a field is not of that type.
    """
    asked = dict(options)
    for field, text in form.items():
        name = _RENAMED.get(field, field)
        if name not in asked:
            continue
        try:
            asked[name] = _read(name, options[name], text, form.getlist(field))
        except ValueError:
            raise FormError(f"{field} cannot be {text!r}") from None
    return asked


def _read(name: str, now: Any, text: str, texts: list[str]) -> Any:
    if name == "num_users":
        return int(text)
    if name == "spawn_rate":
        return float(text)
    if name == "run_time":
        return parse_timespan(text) if text else None
    if isinstance(now, bool):
        return text == "true"
    if isinstance(now, list):
        return text.split(",") if "," in text else texts
    return text if now is None else type(now)(text)


def _refuse(why: str) -> Response:
    return jsonify({"success": False, "message": why})
