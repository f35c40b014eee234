"""The live page beside Locust's: a line for each model, the last five minutes, updated every second.

Strategy: `Course` samples the recorder and the telemetry once a second and keeps the samples. The page asks for those
that it has not seen (`/lab/live.json?after=NUMBER`) and draws them. Everything it needs is in live.html.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gevent
from flask import Blueprint, Response, jsonify, request

from lab.load.messages import FaultEvent, Usage
from loadtests.sockets.histogram import Histogram
from loadtests.sockets.recorder import Recorder, Series, Tally
from loadtests.web import faults

if TYPE_CHECKING:
    from locust.env import Environment

# What the page shows.
SECONDS = 300

# A figure covers this many samples. Workers' reports arrive at other moments than the samples: the rate of one second
# alone would jump between 0 and twice its value.
_COVERED = 3

# Locust's STATE_SPAWNING and STATE_RUNNING. An import of its runners would patch a process that only tests this page.
_UNDER_LOAD = ("spawning", "running")

_PAGE = Path(__file__).with_name("live.html")
_STYLE = "position:fixed;right:16px;bottom:12px;z-index:2000;font:14px sans-serif;color:#15803d"
_LINK = f'<a href="./lab/live" target="lab-live" style="{_STYLE}">Live charts</a>'.encode()


@dataclass(frozen=True, slots=True)
class Point:
    """One model over the last three seconds; None if unknown.

    Args:
        rate: right replies per second; of pipelined requests, each counts.
        p50_us, p99_us: response times in microseconds: in an open loop from when the request was due.
        failures: failed exchanges per second.
        cpu_us: CPU time of the server for each request, in microseconds.
        memory_bytes: of the server.
        connections: of the load generator.
    """

    rate: float
    p50_us: float | None
    p99_us: float | None
    failures: float
    cpu_us: float | None
    memory_bytes: int | None
    connections: int


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The counts of a model's series at one moment, and the CPU cores in use."""

    at: float
    requests: int
    failed: int
    times: tuple[Mapping[int, int], ...]
    cores: float | None


@dataclass(slots=True)
class _Past:
    """The last snapshots of a model, of the same series and without a reset in between."""

    series: tuple[Series, ...]
    snapshots: deque[_Snapshot]


class Course:
    """Figures of each model over time.

    Args:
        recorder: the results so far.
        read_usages: returns the current usage of the servers.
        clock: monotonic, in seconds.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        recorder: Recorder,
        read_usages: Callable[[], Iterable[Usage]] = lambda: (),
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._recorder, self._read_usages = recorder, read_usages
        self._clock, self._now = clock, now
        self._past: dict[str, _Past] = {}
        self._number = 0
        self._samples: deque[tuple[int, float, dict[str, Point]]] = deque(maxlen=SECONDS)

    def sample(self) -> None:
        """Add a point for each model that has a series; none if there is no model."""
        usages = {usage.model: usage for usage in self._read_usages()}
        found: dict[str, dict[Series, Tally]] = {}
        for series, tally in self._recorder.tallies().items():
            found.setdefault(series.model, {})[series] = tally
        points = {model: self._measure(model, tallies, usages.get(model)) for model, tallies in found.items()}
        # A model that is forgotten by Locust starts again without a past.
        self._past = {model: past for model, past in self._past.items() if model in found}
        if points:
            self._number += 1
            self._samples.append((self._number, self._now(), points))

    def since(self, number: int) -> list[dict[str, Any]]:
        """Return the samples after the one with this number, oldest first."""
        return [
            {"number": own, "at": round(at, 3), "models": {model: asdict(point) for model, point in points.items()}}
            for own, at, points in self._samples
            if own > number
        ]

    def _measure(self, model: str, tallies: Mapping[Series, Tally], usage: Usage | None) -> Point:
        past = self._past.setdefault(model, _Past((), deque(maxlen=_COVERED + 1)))
        histograms = [_times(series, tally) for series, tally in tallies.items()]
        snapshot = _Snapshot(
            self._clock(),
            sum(tally.requests for tally in tallies.values()),
            sum(tally.failed for tally in tallies.values()),
            tuple(dict(histogram.counts) for histogram in histograms),
            usage.cpu_cores if usage else None,
        )
        latest = past.snapshots[-1] if past.snapshots else None
        if past.series != tuple(tallies) or (latest and _is_reset(latest, snapshot)):
            past.series = tuple(tallies)
            past.snapshots.clear()
        past.snapshots.append(snapshot)
        first, seconds = past.snapshots[0], snapshot.at - past.snapshots[0].at
        times = Histogram()
        for histogram, before in zip(histograms, first.times, strict=True):
            times.merge(histogram.since(before))
        rate = (snapshot.requests - first.requests) / seconds if seconds else 0.0
        cores = _mean(item.cores for item in list(past.snapshots)[1:])
        return Point(
            rate=rate,
            p50_us=times.percentile(0.5),
            p99_us=times.percentile(0.99),
            failures=(snapshot.failed - first.failed) / seconds if seconds else 0.0,
            cpu_us=cores / rate * 1e6 if cores is not None and rate else None,
            memory_bytes=usage.memory_bytes if usage else None,
            connections=sum(self._recorder.gauge(series).users for series in tallies),
        )


def _times(series: Series, tally: Tally) -> Histogram:
    return tally.intended if series.loop == "open" else tally.service


def _is_reset(before: _Snapshot, after: _Snapshot) -> bool:
    return after.requests < before.requests or after.failed < before.failed


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def add_page(
    environment: "Environment",
    pages: Blueprint,
    course: Course,
    read_faults: Callable[[], Sequence[FaultEvent]],
    workloads: Sequence[str],
) -> None:
    """Add the page, its figures and its buttons to the web UI, and a link to Locust's page.

    Args:
        environment: Locust's, with its web UI.
        pages: takes the routes, below its prefix.
        course: is sampled every second from now on.
        read_faults: returns the injected faults.
        workloads: that a button starts.
    """
    web_ui: Any = environment.web_ui
    options = cast(Any, environment.parsed_options)

    def show_page() -> Response:
        return Response(_PAGE.read_bytes(), headers={"Cache-Control": "no-store"})

    def send_figures() -> Response:
        after = request.args.get("after", "0")
        if not after.isdecimal():
            return Response("after: not the number of a sample\n", 400, mimetype="text/plain")
        answer = {
            "samples": course.since(int(after)),
            "faults": [asdict(fault) for fault in read_faults()],
            "state": cast(Any, environment.runner).state,
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
        if request.endpoint == "locust.index" and response.status_code == 200:
            response.set_data(response.get_data().replace(b"</body>", _LINK + b"</body>"))
        return response

    web_ui.app.after_request(add_link)
    gevent.spawn(_sample_forever, course)


def _find_fault_objection(environment: "Environment", form: Mapping[str, str]) -> str | None:
    """Return why a fault cannot be injected now; None if it can."""
    loaded = cast(Any, environment.parsed_options).models
    models = cast(Any, form).getlist("models")
    if cast(Any, environment.runner).state not in _UNDER_LOAD:
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


def _sample_forever(course: Course) -> None:
    while True:
        gevent.sleep(1.0)
        course.sample()
