"""The lab's part of Locust's web UI: access control, tables, and telemetry."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from flask import Blueprint, Flask

from lab.base.environ import ENV_TELEMETRY
from lab.base.errors import LabError
from lab.base.messages import decode, encode
from lab.load.messages import FaultEvent, Telemetry, Usage
from lab.load.origins import parse_origins
from lab.load.telemetry import Gauges, send_telemetry
from lab.load.timeline import note
from lab.load.web_ui import read_base_path, read_login
from lab.servers.runtime import forget
from loadtests.course import Course, sample_forever
from loadtests.sockets.histogram import Histogram
from loadtests.sockets.recorder import RECORDER, Gauge, Row, Series, Tally
from loadtests.web import live, tables
from loadtests.web.access import AccessError, Login, find_objection, guard
from loadtests.web.tables import FAULTS, SERVERS, TIMES, Servers, show_faults, show_servers, show_times
from tests.support.fakes import FakeHelper
from tests.support.waiting import wait_until

HERE = "127.0.0.1:8089"


@pytest.mark.parametrize(
    ("method", "host", "headers"),
    [
        ("GET", HERE, {}),
        ("POST", HERE, {"Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}),
        ("POST", HERE, {}),  # a program that is no browser
        ("GET", HERE, {"Sec-Fetch-Site": "cross-site"}),  # a followed link
        ("HEAD", HERE, {"Sec-Fetch-Site": "cross-site"}),
        ("POST", HERE, {"Sec-Fetch-Site": "none"}),  # by the user, and not by a page
        ("GET", "localhost:8089", {}),
        ("GET", "[::1]:8089", {}),
        ("POST", "socketlab-locust-run-1:8089", {}),
        ("GET", "", {}),  # a client that names no host cannot have been rebound
    ],
)
def test_request_of_the_page_itself_is_allowed(method, host, headers):
    assert find_objection(method, host, headers, has_login=False) is None


@pytest.mark.parametrize(
    ("method", "host", "headers", "why"),
    [
        ("POST", HERE, {"Origin": "https://example.org"}, "a page of https://example.org"),
        ("GET", HERE, {"Origin": "https://example.org"}, "a page of https://example.org"),
        ("POST", HERE, {"Origin": "null"}, "a page of null"),
        ("POST", HERE, {"Origin": "http://127.0.0.1:8090"}, "a page of"),
        ("POST", HERE, {"Sec-Fetch-Site": "cross-site"}, "another site"),
        ("POST", HERE, {"Sec-Fetch-Site": "same-site"}, "another site"),
        ("GET", "rebound.example.org:8089", {}, "could be rebound"),
    ],
)
def test_request_of_another_site_is_refused(method, host, headers, why):
    objection = find_objection(method, host, headers, has_login=False)
    assert objection is not None
    assert why in objection


def test_login_allows_any_hostname():
    assert find_objection("GET", "load.example.org", {}, has_login=True) is None
    assert find_objection("POST", "load.example.org", {"Origin": "https://example.org"}, has_login=True)


ORIGINS = parse_origins(
    "https://lab.example.org, http://[::1]:9000/ https://IDE.example.org:443 http://dev.example.org:9000"
)


@pytest.mark.parametrize(
    ("method", "host", "headers"),
    [
        # A proxy that hands the name on, and one that puts its own in its place.
        ("GET", "lab.example.org", {}),
        ("POST", "lab.example.org", {"Origin": "https://lab.example.org", "Sec-Fetch-Site": "same-origin"}),
        ("POST", HERE, {"Origin": "https://lab.example.org", "Sec-Fetch-Site": "same-origin"}),
        ("POST", HERE, {"Origin": "https://lab.example.org:443", "Sec-Fetch-Site": "cross-site"}),
        ("POST", "LAB.example.org:443", {"Origin": "https://lab.example.org"}),
        ("POST", HERE, {"Origin": "http://[::1]:9000"}),
        ("GET", "ide.example.org", {}),
        ("GET", "dev.example.org:9000", {}),
        # What is allowed without a list stays allowed.
        ("POST", HERE, {"Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}),
        ("POST", HERE, {}),
    ],
)
def test_allowed_origin_is_accepted(method, host, headers):
    assert find_objection(method, host, headers, has_login=False, origins=ORIGINS) is None


@pytest.mark.parametrize(
    ("method", "host", "headers"),
    [
        ("POST", HERE, {"Origin": "http://lab.example.org"}),
        ("POST", HERE, {"Origin": "https://lab.example.org:8443"}),
        ("POST", HERE, {"Origin": "https://lab.example.org.evil.test"}),
        ("POST", HERE, {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}),
        ("POST", HERE, {"Origin": "null"}),
        ("POST", HERE, {"Origin": "https://[lab"}),
        ("POST", HERE, {"Origin": "https://"}),
        ("GET", "[lab", {}),
        ("POST", HERE, {"Sec-Fetch-Site": "cross-site"}),
        ("GET", "lab.example.org:8443", {}),
        ("GET", "rebound.example.org", {}),
        ("GET", "lab.example.org@rebound.example.org", {}),
    ],
)
def test_other_origins_than_the_allowed_ones_are_refused(method, host, headers):
    assert find_objection(method, host, headers, has_login=False, origins=ORIGINS)


def test_origins_are_normalised_as_browsers_do():
    assert parse_origins("HTTP://a.test:80 https://a.test:80") == {"http://a.test", "https://a.test:80"}
    dev = "http://dev.example.org:9000"
    assert {"https://lab.example.org", "http://[::1]:9000", "https://ide.example.org", dev} == ORIGINS
    assert parse_origins("") == parse_origins(" , ") == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "https://*",
        "lab.example.org",
        "https://a.test/load",
        "ftp://a.test",
        "https://a.test?x",
        "https://u@a.test",
    ],
)
def test_invalid_origin_is_a_one_line_error(text, monkeypatch):
    with pytest.raises(ValueError, match="is not an origin such as https"):
        parse_origins(text)
    monkeypatch.setenv("LAB_UI_ORIGINS", text)
    with pytest.raises(LabError, match="LAB_UI_ORIGINS: "):
        read_base_path()


@pytest.mark.parametrize(
    ("text", "path"), [("", ""), ("/", ""), ("/load", "/load"), ("/a/b-c/", "/a/b-c"), ("/~me/x.y", "/~me/x.y")]
)
def test_base_path_is_normalised(text, path, monkeypatch):
    monkeypatch.setenv("LAB_UI_BASE_PATH", text)
    assert read_base_path() == path


@pytest.mark.parametrize("text", ["load", "/a//b", "/a b", "/a?b", "http://a/b", "/<x>"])
def test_invalid_base_path_is_a_one_line_error(text, monkeypatch):
    monkeypatch.setenv("LAB_UI_BASE_PATH", text)
    with pytest.raises(LabError, match=r"LAB_UI_BASE_PATH: .* is not a path such as /load"):
        read_base_path()


def test_login_admits_the_right_user_and_password():
    login = Login.from_environ({"LAB_UI_LOGIN": "ann:a:b"})
    assert login is not None
    assert login.admits("ann", "a:b")
    assert not login.admits("ann", "a")
    assert not login.admits("bob", "a:b")
    assert not login.admits("", "")
    assert Login.from_environ({}) is None


@pytest.mark.parametrize("text", ["ann", ":", "ann:", ":secret"])
def test_invalid_login_is_a_one_line_error(text, monkeypatch):
    with pytest.raises(AccessError, match="USER:PASSWORD"):
        Login.from_environ({"LAB_UI_LOGIN": text})
    monkeypatch.setenv("LAB_UI_LOGIN", text)
    with pytest.raises(LabError, match="LAB_UI_LOGIN is not USER:PASSWORD") as caught:
        read_login()
    assert text not in str(caught.value).replace("USER:PASSWORD", "") or len(text) == 1  # it may be a password


def _row(*, loop="open", kind="intended", times=((52.3, 50), (123.4, 40), (48_123.0, 9), (50_000.0, 1))):
    tally = Tally(answered=7, late=5, dropped=3, lost=2, failures=Counter({"closed": 4}))
    return Row(Series("prefork", "ping", "tcp", loop), kind, Gauge(7, 7, 999.6), tally, Histogram.from_pairs(times))


def test_times_have_three_digits_and_unknown_ones_are_dashes():
    shown = show_times([_row(), _row(loop="closed", kind="service", times=())])
    # Three digits below 100, whole numbers from there.
    found = [show_times([_row(times=[(value, 1)])])[0]["max"] for value in (99.96, 100.4, 150.6)]
    assert found == [100, 100, 151]
    assert str(show_times([_row(times=[(100.0, 1)])])[0]["max"]) == "100"
    assert set(TIMES) <= set(shown[0])
    assert [shown[0][key] for key in ("p50", "p90", "p99", "p999", "max")] == [52.3, 123, 48_100, 50_000, 50_000]
    assert [shown[1][key] for key in ("p50", "p90", "p99", "p999", "max")] == ["–"] * 5  # noqa: RUF001
    assert (shown[0]["rate"], shown[0]["load"], shown[0]["kind"]) == (1000, "ping\xa0tcp", "open\xa0intended")
    assert shown[0]["in_flight"] == "7\xa0of\xa07"
    assert [shown[0][key] for key in ("answered", "failed", "late", "dropped")] == [7, 4, 5, 3]
    # A closed loop has no schedule to be late for.
    assert (shown[1]["late"], shown[1]["dropped"]) == ("–", "–")  # noqa: RUF001
    assert [row["name"] for row in shown] == sorted(row["name"] for row in shown)


def test_unknown_usage_is_a_dash():
    known, unknown = show_servers([Usage("prefork", 1.234, 5 * 2**20, 3, 4, 50), Usage("plain_socket")])
    assert set(SERVERS) <= set(known)
    assert [known[key] for key in SERVERS] == ["prefork", "1.23", "5.0", 3, 4, 50]
    assert [unknown[key] for key in SERVERS] == ["plain_socket", *["–"] * 5]  # noqa: RUF001


PAUSE = FaultEvent("prefork", "pause", "2026-11-25T08:00:00.500+00:00", "2026-11-25T08:00:02.700+00:00")


def test_fault_has_a_begin_and_an_end_or_is_active():
    over, lasting = show_faults([PAUSE, replace(PAUSE, end="")])
    assert [over[key] for key in FAULTS] == ["prefork", "pause", "08:00:00", "08:00:02", "2.2", ""]
    assert [lasting[key] for key in FAULTS] == ["prefork", "pause", "08:00:00", "active", "–", ""]  # noqa: RUF001
    (refused,) = show_faults([replace(PAUSE, why_not="no netem")])
    assert [refused[key] for key in FAULTS] == ["prefork", "pause", "08:00:00", "–", "–", "no netem"]  # noqa: RUF001


def test_telemetry_is_read_until_stdin_ends(monkeypatch):
    out, into = os.pipe()
    servers = Servers()
    with os.fdopen(into, "wb") as pipe:
        pipe.write(f"{encode(Telemetry((Usage('prefork', 1.0), Usage('plain_socket'))))}\n".encode())
        pipe.write(b'nonsense\n[]\n{"kind": "Telemetry", "usages": [{"model": 1}], "faults": []}\n')
        pipe.write(f"{encode(Telemetry((Usage('prefork', 2.0),), (PAUSE,)))}\n".encode())
    try:
        servers.listen(out)
    finally:
        os.close(out)
    assert servers.usages() == [Usage("prefork", 2.0), Usage("plain_socket")]
    assert servers.faults == [PAUSE]
    monkeypatch.setattr("loadtests.web.tables._STALE_SECONDS", 0)
    assert servers.usages() == [Usage("prefork"), Usage("plain_socket")]


def test_usage_is_shown_for_five_seconds(monkeypatch):
    servers = Servers()
    servers._heard = {"prefork": (100.0, Usage("prefork", 2.0))}
    shown = []
    for now in (104.9, 105.0):
        monkeypatch.setattr("loadtests.web.tables.time.monotonic", lambda now=now: now)
        shown += servers.usages()
    assert shown == [Usage("prefork", 2.0), Usage("prefork")]


def test_malformed_telemetry_is_logged(tmp_path, caplog):
    path = tmp_path / "lines"
    path.write_bytes(b'{"kind": "Telemetry", "usages": 7}\n')
    with path.open("rb") as file:
        Servers().listen(file.fileno())
    (record,) = caplog.records
    assert record.getMessage().startswith("the lab sent a malformed Telemetry: ")


def test_fault_that_ended_at_the_moment_of_a_reset_is_shown():
    servers = Servers()
    servers._faults = [PAUSE]
    servers._since = PAUSE.end
    assert servers.faults == [PAUSE]


def make_environment(base="", web_ui=True):
    """The part of Locust that `extend` uses: a page with a response under Locust's endpoint, and others."""
    app, pages = Flask(__name__), Blueprint("locust", __name__, url_prefix=base)
    pages.add_url_rule("/stats/requests", "request_stats", lambda: {"stats": []})
    pages.add_url_rule("/kept", "other", lambda: {"stats": []})
    pages.add_url_rule("/text", "text", lambda: "no JSON")
    app.register_blueprint(pages)
    # Each page of the lab asks for the login, if there is one.
    refuses: list[bool] = []

    def require_login(view):
        def guarded():
            return ("log in first", 401) if refuses else view()

        guarded.__name__ = view.__name__
        return guarded

    page = SimpleNamespace(app=app, template_args={"known": 1}, auth_required_if_enabled=require_login, refuses=refuses)
    stats = SimpleNamespace(reset_all=lambda: None, clear_all=lambda: None)
    options = SimpleNamespace(web_base_path=base or None)
    return SimpleNamespace(web_ui=page if web_ui else None, parsed_options=options, stats=stats)


@pytest.fixture
def extended(monkeypatch):
    """The page after `extend`, with one row and one server, with or without the lab as parent."""

    def start(*, has_parent, base=""):
        environment, spawned, guarded = make_environment(base), [], []
        monkeypatch.setattr(RECORDER, "rows", lambda: [_row()])
        monkeypatch.setattr(RECORDER, "tallies", lambda: {Series("prefork", "ping"): Tally()})
        monkeypatch.setattr(tables, "guard", lambda page, path: guarded.append((page, path)))
        monkeypatch.setattr(gevent, "spawn", lambda *arguments: spawned.append(arguments))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: 7))
        monkeypatch.delenv(ENV_TELEMETRY, raising=False)
        if has_parent:
            monkeypatch.setenv(ENV_TELEMETRY, "1")
        added = []

        def add_page(*given):
            added.append(given)
            live.add_page(*given)

        monkeypatch.setattr(tables, "add_page", add_page)
        tables.extend(environment, ("session",))
        assert guarded == [(environment.web_ui, base)]
        servers = None
        # The last one samples for the live page.
        *spawned, (sample, course) = spawned
        assert (sample, type(course)) == (sample_forever, Course)
        environment.course = course
        if has_parent:
            ((listen, descriptor),) = spawned
            servers = listen.__self__
            assert (listen, descriptor) == (servers.listen, 7)
            assert course._read_usages == servers.usages
            servers._heard = {"prefork": (time.monotonic(), Usage("prefork", 1.5, 7))}
            servers._faults = [PAUSE]
        else:
            assert spawned == []
        # The live page draws the same faults.
        ((*_, read_faults, workloads),) = added
        assert list(read_faults()) == [PAUSE] * has_parent
        assert workloads == ("session",)
        return environment, environment.web_ui.app.test_client(), servers

    return start


def test_page_without_a_lab_has_percentiles_only(extended):
    environment, client, _ = extended(has_parent=False)
    arguments = environment.web_ui.template_args
    assert arguments["known"] == 1
    assert arguments["extended_tabs"] == [{"key": "times", "title": "Microseconds"}]
    assert arguments["extended_tables"][0]["structure"][1] == {"key": "kind", "title": "time"}
    assert [item["href"] for item in arguments["extended_csv_files"]] == ["./lab/times.csv"]
    answer = client.get("/stats/requests").json
    assert answer == {"stats": [], "extended_stats": [{"key": "times", "data": show_times([_row()])}]}
    assert client.get("/lab/servers.csv").data == b""


def test_page_with_a_lab_has_servers_and_faults(extended):
    environment, client, servers = extended(has_parent=True, base="/load")
    arguments = environment.web_ui.template_args
    assert [tab["key"] for tab in arguments["extended_tabs"]] == ["times", "servers", "faults"]
    assert [table["key"] for table in arguments["extended_tables"]] == ["times", "servers", "faults"]
    assert [item["href"] for item in arguments["extended_csv_files"]] == ["./lab/times.csv", "./lab/servers.csv"]
    shown = {table["key"]: table["data"] for table in client.get("/load/stats/requests").json["extended_stats"]}
    assert [row["model"] for row in shown["servers"]] == ["prefork"]
    assert [row["fault"] for row in shown["faults"]] == ["pause"]
    # The live page draws the same usage.
    environment.course.sample()
    (sample,) = environment.course.since(0)
    assert sample["models"]["prefork"]["memory_bytes"] == 7
    # Both of Locust's ways to forget are followed.
    for forget_all in (environment.stats.reset_all, environment.stats.clear_all):
        servers._since = ""
        forget_all()
        assert servers.faults == []


def test_other_responses_are_unchanged(extended, monkeypatch):
    _, client, _ = extended(has_parent=False)
    assert client.get("/kept").json == {"stats": []}
    assert client.get("/text").data == b"no JSON"
    views = client.application.view_functions
    pages: list[tuple[Callable[[], object], int, bytes]] = [
        (lambda: ('{"stats": []}', 400, {"Content-Type": "application/json"}), 400, b'{"stats": []}'),
        (lambda: {"extended_stats": "of another moment"}, 200, b'{"extended_stats":"of another moment"}\n'),
        (lambda: "no JSON", 200, b"no JSON"),
    ]
    for kept, status, data in pages:
        views["locust.request_stats"] = kept
        answer = client.get("/stats/requests")
        assert (answer.status_code, answer.data) == (status, data)


def test_rows_can_be_downloaded_as_csv(extended, monkeypatch):
    _, client, _ = extended(has_parent=True, base="/load")
    noon = time.gmtime(12 * 3600)
    clock = SimpleNamespace(gmtime=lambda: noon, strftime=time.strftime, monotonic=time.monotonic)
    monkeypatch.setattr(tables, "time", clock)
    answer = client.get("/load/lab/servers.csv")
    assert answer.mimetype == "text/csv"
    # Of UTC, as it says.
    name = "socketlab-servers-19700101T120000Z.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    # Whole figures, and nothing where nothing is known.
    assert answer.text.splitlines() == [
        "model,cpu_cores,memory_bytes,processes,threads,descriptors",
        "prefork,1.5,7,,,",
    ]
    header, row = client.get("/load/lab/times.csv").text.splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["p99_us"] == "48127.9"


def test_every_page_of_the_lab_requires_the_login(extended):
    environment, client, _ = extended(has_parent=True)
    ours = [rule for rule in environment.web_ui.app.url_map.iter_rules() if rule.rule.startswith("/lab/")]
    assert len(ours) == 5
    environment.web_ui.refuses.append(True)
    for rule in ours:
        method = "POST" if "POST" in rule.methods else "GET"
        assert client.open(rule.rule, method=method).status_code == 401, rule.rule


def test_invalid_access_settings_end_the_generator(monkeypatch):
    def refuse(page, path):
        raise AccessError("no password")

    monkeypatch.setattr(tables, "guard", refuse)
    with pytest.raises(SystemExit, match=r"^locustfile: no password$"):
        tables.extend(make_environment())


def test_generator_without_a_web_ui_is_unchanged():
    tables.extend(make_environment(web_ui=False))


def test_reset_hides_ended_faults():
    servers = Servers()
    lasting, refused = replace(PAUSE, end=""), replace(PAUSE, end="", why_not="no netem")
    later = replace(PAUSE, end="2126-11-25T08:00:02.700+00:00")
    servers._faults = [PAUSE, lasting, refused, later]
    assert servers.faults == [PAUSE, lasting, refused, later]
    servers.forget()
    assert servers.faults == [lasting, later]


def test_gauges_read_a_running_server_and_not_an_ended_one(open_model):
    server = open_model("socketserver_threading")
    gauges = Gauges(server, [server.model])
    (first,) = gauges.read()
    (second,) = gauges.read()
    assert first.cpu_cores is None  # since when?
    assert second.cpu_cores is not None
    assert second.cpu_cores >= 0
    assert second.memory_bytes is not None
    assert second.memory_bytes > 2**20
    assert second.processes == 1
    assert second.threads is not None
    assert second.threads >= 1
    assert second.descriptors is not None
    assert second.descriptors > 3
    server.close()
    assert gauges.read() == [Usage(server.model)]


def test_telemetry_is_sent_until_the_block_ends(open_model, monkeypatch):
    monkeypatch.setattr("lab.load.telemetry._INTERVAL", 0.01)
    server = open_model("socketserver_threading")
    heard: list[Any] = []

    def hear(line):
        heard.append(decode(line, Telemetry))
        return ()

    with send_telemetry(server, [server.model], FakeHelper("the load generator", hear)):
        wait_until(lambda: len(heard) >= 3)
        before = heard[:3]
        # Of a fault that another command applies: first that it is there, then that it is over.
        event = replace(PAUSE, begin="2126-01-01T00:00:00+00:00", end="")
        note(server.project, event)
        wait_until(lambda: heard[-1].faults == (event,))
        note(server.project, replace(event, end="2126-01-01T00:00:01+00:00"))
        wait_until(lambda: heard[-1].faults[0].end)
        assert len(heard[-1].faults) == 1
    wait_until(lambda: "telemetry" not in [thread.name for thread in threading.enumerate()])
    forget(server.project)
    assert all(telemetry.usages[0].memory_bytes for telemetry in before)
    assert not any(telemetry.faults for telemetry in before)


def test_session_belongs_to_the_only_user_and_to_one_start(monkeypatch):
    monkeypatch.setenv("LAB_UI_LOGIN", "ann:secret")
    loaders: list[Callable[[str], Any]] = []
    keys: list[Any] = []
    for _ in range(2):
        app = Flask(__name__)
        manager = SimpleNamespace(user_loader=loaders.append)
        page: Any = SimpleNamespace(app=app, web_login=True, login_manager=manager)
        guard(page)
        keys.append(app.secret_key)
        assert app.config["SESSION_COOKIE_SAMESITE"] == "Strict"
    assert loaders[0]("ann").id == "ann"
    assert loaders[0]("bob") is None
    # A session that was signed before the restart is no longer valid.
    assert keys[0] != keys[1]
    assert all(len(key) == 32 for key in keys)
