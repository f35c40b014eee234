"""`loadtests/httpfile.py` and the guard before it: what ordinary HTTP users count, and how Locust ends with its lab."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from lab.base.paths import ROOT
from lab.load.locustfiles import HTTP_FILE, find_failures, name_files, run_headless
from lab.servers.catalogue import Catalogue
from lab.servers.process_helpers import ProcessHelpers, find_port
from tests.support.servers import Server
from tests.support.waiting import wait_until

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# A locustfile with a request that fails.
MISSING = """
from locust import FastHttpUser, constant, task
class Both(FastHttpUser):
    wait_time = constant(0.05)
    @task
    def ask(self):
        self.client.get("/ping")
        self.client.get("/nothing")
"""
HEADLESS = ("--headless", "--json", "--loglevel", "ERROR", "--users", "4", "--spawn-rate", "100", "--stop-timeout", "5")
COMMAND = (sys.executable, "-m", "locust", *name_files(HTTP_FILE))
CLASSES = ("RequestsUser", "GeventUser")
NO_PROXY = {"no_proxy": "127.0.0.1"}


@pytest.fixture
def closed_port():
    return find_port()


def say(reply):
    def behave(connection):
        while connection.recv(65536):
            connection.sendall(reply)

    return behave


# Each of the named tasks once (default: all), in a process that Locust has patched. Prints statistics and errors.
EACH_TASK_ONCE = """
import json, sys
from locust.env import Environment
from loadtests import httpfile
url, user, *names = sys.argv[1:]
chosen = getattr(httpfile, user)
chosen.host = url
environment = Environment()
environment.create_local_runner()
routes = httpfile.Routes(chosen(environment))
for task in set(routes.tasks):
    if task.__name__ in (names or [task.__name__]):
        task(routes)
routes.on_stop()
errors = [str(error.error) for error in environment.stats.errors.values()]
print(json.dumps([environment.stats.serialize_stats(), errors]))
"""


def run_once(url, user, *names):
    command = [sys.executable, "-c", EACH_TASK_ONCE, url, user, *names]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | NO_PROXY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, errors = json.loads(done.stdout)
    return {f"{row['method']} {row['name']}": (row["num_requests"], row["num_failures"]) for row in rows}, errors


@pytest.mark.parametrize("user", CLASSES)
def test_each_route_of_a_model_is_right(user, tmp_path):
    with Server("selector_loop", tmp_path / "s", {}) as server:
        address = server.address("http", "tcp")
        rows, errors = run_once(f"http://{address.host}:{address.port}", user)
        server.terminate()
        assert server.wait_end() == 0
    gets = ("/ping", "/missing", "/", "/info", "/sleep/20", "/burn/1000", "/blob/16384", "/stream/100")
    others = ("POST /echo", "GET /events/5?every=10", "WS /ws open", "WS /ws echo")
    assert set(rows) == {*others, *(f"GET {path}" for path in gets)}
    assert (set(rows.values()), errors) == ({(1, 0)}, [])


@pytest.mark.parametrize("user", CLASSES)
@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nPANG\n", r"5 bytes b'PANG\n' instead of 5 b'PONG\n'"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nPONG\n", "status 503 instead of 200"),
    ],
    ids=["body", "status"],
)
def test_wrong_reply_is_a_failure_with_its_reason(user, reply, failure, open_server):
    with open_server(say(reply)) as (host, port):
        rows, (error,) = run_once(f"http://{host}:{port}", user, "ping")
    assert rows == {"GET /ping": (1, 1)}
    assert failure in error


def test_each_task_compares_the_reply(open_server):
    """A server that gives one wrong reply to everything passes no task; `missing` expects another status."""
    with open_server(say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nPANG\n")) as (host, port):
        rows, errors = run_once(f"http://{host}:{port}", "GeventUser")
    assert len(rows) == 11
    assert set(rows.values()) == {(1, 1)}
    assert len(errors) == 11


def test_tasks_that_need_more_than_static_replies_have_the_tag():
    code = "from loadtests.httpfile import Routes\n"
    code += "print(*(task.__name__ for task in Routes.tasks if hasattr(task, 'locust_tag_set')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"info", "events", "talk", "echo", "sleep", "burn", "blob", "stream"}


EVENTS = [b"id: %d\ndata: %d\n\n" % (number, number) for number in range(1, 6)]


def make_reply(kind, body):
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


@pytest.mark.parametrize("user", CLASSES)
@pytest.mark.parametrize(
    ("task", "reply", "failure"),
    [
        ("info", make_reply(b"application/json", b"[1]"), "no JSON object: b'[1]'"),
        ("info", make_reply(b"application/json", b"{"), "no JSON object: b'{'"),
        ("events", make_reply(b"text/plain", b"".join(EVENTS)), "'text/plain' instead of text/event-stream"),
        ("events", make_reply(b"text/event-stream", b"".join(EVENTS[:4])), "4 events and b'' instead of 5 events"),
        (
            "events",
            make_reply(b"text/event-stream", b"".join(EVENTS)[:-1]),
            r"4 events and b'id: 5\ndata: 5\n' instead",
        ),
        (
            "events",
            make_reply(b"text/event-stream", EVENTS[0] + EVENTS[2]),
            r"event 2 is b'id: 3\ndata: 3' instead of b'id: 2\ndata: 2'",
        ),
    ],
    ids=["no object", "no JSON", "type", "too few", "cut off", "order"],
)
def test_wrong_information_or_event_is_a_failure(user, task, reply, failure, open_server):
    with open_server(say(reply)) as (host, port):
        rows, (error,) = run_once(f"http://{host}:{port}", user, task)
    assert list(rows.values()) == [(1, 1)]
    assert failure in error


def test_wrong_message_of_a_websocket_is_a_failure(open_server):
    def behave(connection):
        request = connection.recv(65536)
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key.split()[1] + GUID, usedforsecurity=False).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        connection.recv(65536)
        connection.sendall(b"\x81\x02no\x88\x00")
        connection.recv(65536)

    with open_server(behave) as (host, port):
        rows, (error,) = run_once(f"http://{host}:{port}", "RequestsUser", "talk")
    assert rows == {"WS /ws open": (1, 0), "WS /ws echo": (1, 1)}
    assert "'no' instead of" in error


def test_refused_websocket_is_a_failure(open_server):
    with open_server(say(make_reply(b"text/plain", b"no"))) as (host, port):
        rows, (error,) = run_once(f"http://{host}:{port}", "RequestsUser", "talk")
    assert rows == {"WS /ws open": (1, 1)}
    assert "200" in error


@pytest.mark.parametrize("user", CLASSES)
def test_refused_connection_is_named_as_the_cause(user, closed_port):
    rows, (error,) = run_once(f"http://127.0.0.1:{closed_port}", user, "ping")
    assert rows == {"GET /ping": (1, 1)}
    assert "refused" in error


def test_guarded_headless_run_prints_each_kind_of_failure(closed_port):
    done = subprocess.run(
        [*COMMAND, *HEADLESS, "--host", f"http://127.0.0.1:{closed_port}", "--run-time", "1s"],
        cwd=ROOT,
        env=os.environ | NO_PROXY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    rows = json.loads(done.stdout[done.stdout.index("[") :])
    failures = find_failures(done.stderr)
    assert failures
    # Both classes count under the same name, each with its own error.
    assert {line.partition(":")[0] for line in failures} == {f"{row['method']} {row['name']}" for row in rows}
    said = [int(line.rpartition("(")[2].removesuffix(" times)")) for line in failures]
    assert sum(said) == sum(row["num_failures"] for row in rows)
    # The most frequent first.
    assert said == sorted(said, reverse=True)
    assert said[0] > said[-1]
    assert all("refused" in line for line in failures)


def test_workers_run_the_locustfile_and_its_failures_are_reported(tmp_path, capsys):
    """A master runs no users itself: all requests are those of its workers."""
    catalogue = Catalogue.load()
    file = tmp_path / "missing.py"
    file.write_text(MISSING)
    with Server("selector_loop", tmp_path / "s", {}) as server:
        address = server.address("http", "tcp")
        steps = run_headless(
            ProcessHelpers(tmp_path, catalogue),
            name_files(str(file)),
            ["--host", f"http://{address.host}:{address.port}"],
            users=4,
            seconds=1,
            workers=2,
            environ=NO_PROXY,
        )
    rows = {step.step: step for step in steps}
    assert rows.keys() == {"/ping", "/nothing"}
    assert rows["/ping"].taken > rows["/ping"].failures == 0
    assert rows["/nothing"].failures == rows["/nothing"].taken > 0
    assert "/nothing: " in capsys.readouterr().err


@pytest.mark.parametrize("module", ["guardfile", "locustfile"])
def test_locust_keeps_three_digits_of_a_time(module):
    code = f"import loadtests.{module}, locust.stats; print(locust.stats.bucket_response_time(1.2345))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == 1.23


def test_guarded_locust_ends_with_the_lab_that_started_it():
    process = subprocess.Popen(
        [*COMMAND, *HEADLESS, "--host", "http://127.0.0.1:9"],
        cwd=ROOT,
        env=os.environ | {"LAB_LIFELINE": "stdin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 1
        finally:
            process.kill()


def test_guarded_web_ui_refuses_the_page_of_another_site(closed_port):
    command = [*COMMAND, "--web-host", "127.0.0.1", "--web-port", str(closed_port), "--host", "http://127.0.0.1:9"]
    url = f"http://127.0.0.1:{closed_port}/"

    def status(**headers):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: status() == 200)
            assert status(Origin="http://other.example") == 403
        finally:
            process.terminate()
