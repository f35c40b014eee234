"""What the lab adds to Locust's web UI: tabs with percentiles in microseconds, what the servers use, faults; CSV.

Strategy: Locust's page draws any table that it is told of in its template's arguments, from `extended_stats` in the
answer with its statistics, which it asks for every other second of a run. So nothing is drawn here, and a new version
of the page needs no new code.
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

from lab.load.messages import VARIABLE, Fault, Usage, decode
from loadtests.sockets.recorder import RECORDER, follow
from loadtests.web.access import AccessError, guard

if TYPE_CHECKING:
    from locust.env import Environment

_log = logging.getLogger(__name__)

# What is not known, as in the lab's reports: never 0.
_UNKNOWN = "–"  # noqa: RUF001  # a dash is meant

# A server that was not heard of for so long (s) shows as unknown: whoever read it has ended, or cannot read it.
_STALE_SECONDS = 5.0

_MIB = 2**20
_SPACE = "\N{NO-BREAK SPACE}"

# Column of a tab -> its title; what is compared comes first, as a narrow window shows no more. A row's `name` orders
# the rows and is not shown: the page sorts by it unless told.
TIMES = {
    "model": "model",
    "kind": "time",
    "p50": "p50 µs",
    "p90": "p90 µs",
    "p99": "p99 µs",
    "p999": "p99.9 µs",
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
    """What the servers use and when they were broken, as the lab last told on this process's stdin."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._since = ""
        self._heard: dict[str, tuple[float, Usage]] = {}

    def listen(self, descriptor: int) -> None:
        """Take the lab's lines, to their end."""
        with FileObject(descriptor, "rb", close=False) as lines:
            for line in lines:
                try:
                    usages, self._faults = decode(line)
                except ValueError as error:
                    _log.warning("the lab's line about the servers cannot be read: %s", error)
                    continue
                now = time.monotonic()
                self._heard.update((model, (now, usage)) for model, usage in usages.items())

    def forget(self) -> None:
        """Leave out the faults that are over by now."""
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")

    @property
    def faults(self) -> list[Fault]:
        """Those that last, or have ended since `forget`."""
        return [fault for fault in self._faults if _is_after(fault, self._since)]

    def usages(self) -> list[Usage]:
        """One of each server that was ever heard of; empty of values if that is too long ago."""
        now = time.monotonic()
        return [usage if now - then < _STALE_SECONDS else Usage(usage.model) for then, usage in self._heard.values()]


def _is_after(fault: Fault, since: str) -> bool:
    over = fault.begin if fault.why_not else fault.end
    return not (since and over) or datetime.fromisoformat(over) >= datetime.fromisoformat(since)


def extend(environment: "Environment", **_: Any) -> None:
    """Called by Locust at its start: give its web UI, where it has one, what the lab has to say."""
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
    # Without the lab as its parent a generator knows nothing of the servers, and has no tab that says nothing.
    if os.environ.get(VARIABLE):
        servers = Servers()
        gevent.spawn(servers.listen, sys.stdin.fileno())
        for name in ("reset_all", "clear_all"):
            follow(environment.stats, name, servers.forget)
        tabs |= {"servers": ("Servers", SERVERS), "faults": ("Faults", FAULTS)}
        files["lab/servers.csv"] = "Download what the servers use CSV"

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
            # Locust keeps an answer for some seconds, and gives it again: ours must be of the same moment.
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
        return _csv_file("times", RECORDER.rows())

    def servers_csv() -> Response:
        rows = (
            [{name: getattr(usage, name) for name in Usage.__slots__} for usage in servers.usages()] if servers else []
        )
        return _csv_file("servers", rows)

    for path, view in (("/times.csv", times_csv), ("/servers.csv", servers_csv)):
        pages.add_url_rule(path, view_func=web_ui.auth_required_if_enabled(view))
    app.register_blueprint(pages)


def show_times(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The recorder's rows as the page shows them: times to three digits, unknown ones as a dash."""
    shown = []
    for number, row in enumerate(rows):
        percentiles = {"p50": row["p50_us"], "p90": row["p90_us"], "p99": row["p99_us"], "p999": row["p99.9_us"]}
        shown.append(
            {
                "name": f"{number:04}",
                **{key: row[key] for key in TIMES if key in row},
                # Unbroken, or a row would be three lines high.
                "kind": f"{row['loop']}{_SPACE}{row['kind']}",
                "load": f"{row['workload']}{_SPACE}{row['transport']}",
                "rate": round(row["rate"]),
                # Beside the users, for whom it is so easily taken.
                "in_flight": f"{row['in_flight']}{_SPACE}of{_SPACE}{row['users']}",
                **{key: _three_digits(value) for key, value in (percentiles | {"max": row["max_us"]}).items()},
                # Only an open loop has a schedule to be late for.
                **({} if row["loop"] == "open" else {"late": _UNKNOWN, "dropped": _UNKNOWN}),
            }
        )
    return shown


def show_servers(usages: Iterable[Usage]) -> list[dict[str, Any]]:
    """What the servers use, as the page shows it."""
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


def show_faults(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    """When the servers were broken, as the page shows it: to be laid beside its charts, which have a clock."""
    shown = []
    for number, fault in enumerate(faults):
        begin, end = (datetime.fromisoformat(text) if text else None for text in (fault.begin, fault.end))
        assert begin  # noqa: S101 - for mypy: a fault has a beginning
        shown.append(
            {
                "name": f"{number:04}",
                "model": fault.model,
                "fault": fault.fault,
                "begin": f"{begin:%H:%M:%S}",
                "end": _UNKNOWN if fault.why_not else f"{end:%H:%M:%S}" if end else "lasts",
                "lasted": _UNKNOWN if fault.why_not or not end else f"{(end - begin).total_seconds():.1f}",
                "why_not": fault.why_not,
            }
        )
    return shown


def _three_digits(value: float | None) -> float | str:
    """A number where there is one, so that the page can sort by it."""
    if value is None:
        return _UNKNOWN
    rounded = float(f"{value:.3g}")
    return rounded if rounded < 100 else int(rounded)


def _csv_file(name: str, rows: Sequence[Mapping[str, Any]]) -> Response:
    """Rows for another program: whole precision, and nothing where nothing is known."""
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
