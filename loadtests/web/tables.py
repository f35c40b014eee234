"""The lab's tabs in Locust's web UI, also as CSV: percentiles in microseconds, server usage, faults.

Strategy: Locust's page draws each table that is declared in the arguments of its template. The rows come from
`extended_stats` in the response with the statistics, which the page requests every two seconds. So no page code is
needed here.
"""

import csv
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any, cast

import gevent
from flask import Blueprint, Response, request
from gevent.fileobject import FileObject

from lab.base.environ import ENV_TELEMETRY
from lab.base.messages import decode
from lab.load.messages import FaultEvent, Telemetry, Usage
from loadtests.course import Course
from loadtests.sockets.histogram import PERCENTILES
from loadtests.sockets.recorder import RECORDER, Row, follow
from loadtests.web.access import AccessError, guard
from loadtests.web.live import add_page

if TYPE_CHECKING:
    from locust.env import Environment

_log = logging.getLogger(__name__)

# An unknown value, as in the lab's reports.
_UNKNOWN = "–"  # noqa: RUF001  # a dash is meant

# After this many seconds without telemetry, the values of a server show as unknown.
_STALE_SECONDS = 5.0

_MIB = 2**20
_SPACE = "\N{NO-BREAK SPACE}"

# The percentiles by their column, whose name has no dot.
_PERCENTILES = {name.removesuffix("_us").replace(".", ""): name for name in PERCENTILES}

# Column of a tab -> its title. The most compared columns come first, as a narrow window hides the others. The page
# sorts rows by `name`, which it does not show.
TIMES = {
    "model": "model",
    "kind": "time",
    **{key: f"{name.removesuffix('_us')} µs" for key, name in _PERCENTILES.items()},
    "max": "max µs",
    "rate": "requests/s",
    "in_flight": "in flight",
    "answered": "answered",
    "failed": "failed",
    "late": "late",
    "dropped": "dropped",
    "load": "load",
}
SERVERS = {
    "model": "model",
    "cpu": "CPU cores",
    "memory": "memory MiB",
    "processes": "processes",
    "threads": "threads",
    "descriptors": "open descriptors",
}
FAULTS = {
    "model": "model",
    "fault": "fault",
    "begin": "from (UTC)",
    "end": "until (UTC)",
    "lasted": "seconds",
    "why_not": "remark",
}


class Servers:
    """The latest telemetry of the lab, received on stdin."""

    def __init__(self) -> None:
        self._faults: Sequence[FaultEvent] = ()
        self._since = ""
        self._heard: dict[str, tuple[float, Usage]] = {}

    def listen(self, descriptor: int) -> None:
        """Read the lab's lines until the end of the file."""
        with FileObject(descriptor, "rb", close=False) as lines:
            for line in lines:
                try:
                    telemetry = decode(line.decode(), Telemetry)
                except ValueError as error:
                    _log.warning("the lab sent %s", error)
                    continue
                if telemetry:
                    self._faults = telemetry.faults
                    now = time.monotonic()
                    self._heard.update((usage.model, (now, usage)) for usage in telemetry.usages)

    def forget(self) -> None:
        """Hide the faults that have ended by now."""
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")

    @property
    def all_faults(self) -> list[FaultEvent]:
        """Return all faults since the lab's load started."""
        return [*self._faults]

    @property
    def faults(self) -> list[FaultEvent]:
        """Return the faults that are active, or ended after the last `forget`."""
        return [fault for fault in self._faults if _is_after(fault, self._since)]

    def usages(self) -> list[Usage]:
        """Return the usage of each known server; without values if the last telemetry is too old."""
        now = time.monotonic()
        return [usage if now - then < _STALE_SECONDS else Usage(usage.model) for then, usage in self._heard.values()]


def _is_after(fault: FaultEvent, since: str) -> bool:
    over = fault.begin if fault.why_not else fault.end
    return not (since and over) or datetime.fromisoformat(over) >= datetime.fromisoformat(since)


def extend(environment: "Environment", workloads: Sequence[str] = ()) -> None:
    """Add the lab's tabs, files and live page to Locust's web UI, if it has one.

    Args:
        environment: Locust's.
        workloads: that a button of the live page starts.
    """
    if environment.web_ui is None:
        return
    web_ui: Any = environment.web_ui  # Flask's decorators are not annotated the way that mypy asks for
    app = web_ui.app
    try:
        guard(web_ui, _base_path(environment))
    except AccessError as error:
        sys.exit(f"locustfile: {error}")
    tabs = {"times": ("Microseconds", TIMES)}
    files = {"lab/times.csv": "Download percentiles in microseconds CSV"}
    servers = None
    # Without the lab as its parent, a generator gets no telemetry, and the tabs would be empty.
    if os.environ.get(ENV_TELEMETRY):
        servers = Servers()
        gevent.spawn(servers.listen, sys.stdin.fileno())
        for name in ("reset_all", "clear_all"):
            follow(environment.stats, name, servers.forget)
        tabs |= {"servers": ("Servers", SERVERS), "faults": ("Faults", FAULTS)}
        files["lab/servers.csv"] = "Download server usage CSV"

    web_ui.template_args |= {
        "extended_tabs": [{"key": key, "title": title} for key, (title, _) in tabs.items()],
        "extended_tables": [
            {"key": key, "structure": [{"key": name, "title": title} for name, title in columns.items()]}
            for key, (_, columns) in tabs.items()
        ],
        "extended_csv_files": [{"href": f"./{path}", "title": title} for path, title in files.items()],
    }

    def add_tables(response: Response) -> Response:
        if request.endpoint != "locust.request_stats" or response.status_code != 200 or not response.is_json:
            return response
        answer = cast(dict[str, Any], response.json)
        if "extended_stats" in answer:
            # Locust caches a response for some seconds. Keep the rows of the same moment.
            return response
        tables = [{"key": "times", "data": show_times(RECORDER.rows())}]
        if servers:
            tables.append({"key": "servers", "data": show_servers(servers.usages())})
            tables.append({"key": "faults", "data": show_faults(servers.faults)})
        response.set_data(json.dumps({**answer, "extended_stats": tables}))
        return response

    app.after_request(add_tables)
    pages = Blueprint("lab", __name__, url_prefix=f"{_base_path(environment)}/lab")

    def times_csv() -> Response:
        return _csv_file("times", [row.as_json() for row in RECORDER.rows()])

    def servers_csv() -> Response:
        rows = (
            [{name: getattr(usage, name) for name in Usage.__slots__} for usage in servers.usages()] if servers else []
        )
        return _csv_file("servers", rows)

    for path, view in (("/times.csv", times_csv), ("/servers.csv", servers_csv)):
        pages.add_url_rule(path, view_func=web_ui.auth_required_if_enabled(view))
    course = Course(RECORDER, servers.usages if servers else lambda: ())
    add_page(environment, pages, course, lambda: servers.all_faults if servers else (), workloads)
    app.register_blueprint(pages)


def show_times(rows: Sequence[Row]) -> list[dict[str, float | str]]:
    """Format the recorder's rows for the page: times to three digits, unknown ones as a dash."""
    shown = []
    for number, row in enumerate(rows):
        series, gauge, tally, times = row.series, row.gauge, row.tally, row.times.percentiles()
        shown.append(
            {
                "name": f"{number:04}",
                "model": series.model,
                # Non-breaking spaces, so that a row has one line.
                "kind": f"{series.loop}{_SPACE}{row.kind}",
                **{key: _three_digits(times[name]) for key, name in _PERCENTILES.items()},
                "max": _three_digits(row.times.max_us),
                "rate": round(gauge.rate),
                # Next to the number of users, because the two are easily confused.
                "in_flight": f"{gauge.in_flight}{_SPACE}of{_SPACE}{gauge.users}",
                "answered": tally.answered,
                "failed": tally.failed,
                # A closed loop has no schedule.
                "late": tally.late if series.is_open else _UNKNOWN,
                "dropped": tally.dropped if series.is_open else _UNKNOWN,
                "load": f"{series.workload}{_SPACE}{series.transport}",
            }
        )
    return shown


def show_servers(usages: Iterable[Usage]) -> list[dict[str, float | str]]:
    """Format the usage of the servers for the page."""
    return [
        {
            "name": f"{number:04}",
            "model": usage.model,
            "cpu": _UNKNOWN if usage.cpu_cores is None else f"{usage.cpu_cores:.2f}",
            "memory": _UNKNOWN if usage.memory_bytes is None else f"{usage.memory_bytes / _MIB:.1f}",
            **{
                key: _UNKNOWN if (value := getattr(usage, key)) is None else value
                for key in ("processes", "threads", "descriptors")
            },
        }
        for number, usage in enumerate(usages)
    ]


def show_faults(faults: Iterable[FaultEvent]) -> list[dict[str, str]]:
    """Format the faults for the page, with times of day as in its charts."""
    shown = []
    for number, fault in enumerate(faults):
        begin, end = (datetime.fromisoformat(text) if text else None for text in (fault.begin, fault.end))
        assert begin  # noqa: S101 - for mypy: each fault has a begin
        shown.append(
            {
                "name": f"{number:04}",
                "model": fault.model,
                "fault": fault.fault,
                "begin": f"{begin:%H:%M:%S}",
                "end": _UNKNOWN if fault.why_not else f"{end:%H:%M:%S}" if end else "active",
                "lasted": _UNKNOWN if fault.why_not or not end else f"{(end - begin).total_seconds():.1f}",
                "why_not": fault.why_not,
            }
        )
    return shown


def _three_digits(value: float | None) -> float | str:
    """Round to three digits; return a number if possible, so that the page can sort."""
    if value is None:
        return _UNKNOWN
    rounded = float(f"{value:.3g}")
    return rounded if rounded < 100 else int(rounded)


def _csv_file(name: str, rows: Sequence[Mapping[str, object]]) -> Response:
    """Return a CSV file with full precision; unknown values are empty."""
    text = StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return Response(
        text.getvalue(),
        mimetype="text/csv",
        headers={"Content-Disposition": f'attachment; filename="socketlab-{name}-{stamp}.csv"'},
    )


def _base_path(environment: "Environment") -> str:
    return str(getattr(environment.parsed_options, "web_base_path", None) or "")
