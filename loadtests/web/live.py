"""The live page beside Locust's: a line for each model, the last five minutes, updated every second.

Strategy: `Course` samples the recorder and the telemetry once a second and keeps the samples. The page asks for those
that it has not seen (`/lab/live.json?after=NUMBER`) and draws them. Everything it needs is in live.html.
"""

import json
import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gevent
from flask import Blueprint, Response, jsonify, request

from lab.load.messages import FaultEvent
from loadtests.course import Course, sample_forever
from loadtests.web import faults
from loadtests.web.form import UNDER_LOAD

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.runners import Runner
    from werkzeug.datastructures import MultiDict

_PAGE = Path(__file__).with_name("live.html")
_STYLE = "position:fixed;left:16px;bottom:12px;z-index:2000;font:14px sans-serif;color:#15803d"
_LINK = f'<a href="./lab/live" target="lab-live" style="{_STYLE}">Live charts</a>'.encode()


def add_page(
    environment: "Environment",
    pages: Blueprint,
    course: Course,
    read_faults: Callable[[], Sequence[FaultEvent]],
    workloads: Sequence[str],
) -> None:
    """Add the page, its figures and its buttons to the web UI, and a link to Locust's page.

    Args:
        pages: takes the routes, below its prefix.
        course: is sampled every second from now on.
        workloads: that a button starts.
    """
    web_ui: Any = environment.web_ui
    options = cast(Namespace, environment.parsed_options)

    def show_page() -> Response:
        return Response(_PAGE.read_bytes(), headers={"Cache-Control": "no-store"})

    def send_figures() -> Response:
        after = request.args.get("after", "0")
        if not after.isdecimal() or len(after) > 19:  # int() fails from 4300 digits on
            return Response("after: not the number of a sample\n", 400, mimetype="text/plain")
        answer = {
            "samples": course.since(int(after)),
            # The charts have a band for each: one that could not be injected has none.
            "faults": [asdict(fault) for fault in read_faults() if not fault.why_not],
            "state": cast("Runner", environment.runner).state,
            "offered": faults.list_offered(),
            "workloads": list(workloads),
            "options": {name: getattr(options, name) for name in ("workload", "transport", "loop", "models")}
            | {"users": options.num_users or 1, "spawn_rate": options.spawn_rate or 1},
        }
        return Response(json.dumps(answer), mimetype="application/json", headers={"Cache-Control": "no-store"})

    def inject_fault() -> tuple[Response, int]:
        if why := _find_fault_objection(environment, request.form):
            return jsonify({"success": False, "message": why}), 400
        models = request.form.getlist("models")
        faults.ask(request.form["fault"], models, float(request.form["seconds"]))
        return jsonify({"success": True, "message": f"{request.form['fault']} on {', '.join(models)}"}), 200

    for path, view, methods in (
        ("/live", show_page, ["GET"]),
        ("/live.json", send_figures, ["GET"]),
        ("/live/fault", inject_fault, ["POST"]),
    ):
        pages.add_url_rule(path, view_func=web_ui.auth_required_if_enabled(view), methods=methods)

    def add_link(response: Response) -> Response:
        if request.endpoint == "locust.index":
            response.set_data(response.get_data().replace(b"</body>", _LINK + b"</body>"))
        return response

    web_ui.app.after_request(add_link)
    gevent.spawn(sample_forever, course)


def _find_fault_objection(environment: "Environment", form: "MultiDict[str, str]") -> str | None:
    """Return why a fault cannot be injected now; None if it can."""
    loaded = cast(Namespace, environment.parsed_options).models
    models = form.getlist("models")
    if cast("Runner", environment.runner).state not in UNDER_LOAD:
        return "no load is running: start one first"
    if form.get("fault") not in faults.list_offered():
        return f"unknown fault {form.get('fault')!r}: one of {', '.join(faults.list_offered()) or 'none'}"
    if not models or not set(models) <= set(loaded):
        return f"choose models of this load: {', '.join(loaded)}"
    try:
        seconds = float(form.get("seconds", ""))
    except ValueError:
        seconds = math.nan
    return faults.find_duration_objection(seconds)
