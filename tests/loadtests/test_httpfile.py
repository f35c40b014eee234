"""`loadtests/httpfile.py` and the guard before it: what ordinary HTTP users count, and how Locust ends with its lab."""

import base64
import contextlib
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
from tests.support.scripts import run_script
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


# The named tasks (default: each once), for one run after the other, in a process that Locust has patched. Prints the
# statistics and errors of each run.
RUN_TASKS = """
import json, sys
from locust.env import Environment
from loadtests import httpfile
found = []
for url, user, *names in json.loads(sys.argv[1]):
    chosen = getattr(httpfile, user)
    chosen.host = url
    environment = Environment()
    environment.create_local_runner()
    routes = httpfile.Routes(chosen(environment))
    tasks = {task.__name__: task for task in routes.tasks}
    for name in names or tasks:
        tasks[name](routes)
    socket = routes._socket
    routes.on_stop()
    # Nothing is left of the user.
    assert routes._socket is None and not (socket and socket.connected)
    errors = [str(error.error) for error in environment.stats.errors.values()]
    found.append([environment.stats.serialize_stats(), errors])
print(json.dumps(found))
"""


def run_each(runs):
    """Return the counts by name, and the errors, of each (URL, class of users, tasks)."""
    command = [sys.executable, "-c", RUN_TASKS, json.dumps(runs)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | NO_PROXY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [
        ({f"{row['method']} {row['name']}": (row["num_requests"], row["num_failures"]) for row in rows}, errors)
        for rows, errors in json.loads(done.stdout)
    ]


def run_once(url, user, *names):
    (found,) = run_each([(url, user, *names)])
    return found


def test_each_route_of_a_model_is_right(tmp_path):
    with Server("selector_loop", tmp_path / "s", {}) as server:
        address = server.address("http", "tcp")
        url = f"http://{address.host}:{address.port}"
        *found, talked = run_each([*((url, user) for user in CLASSES), (url, CLASSES[0], "talk", "talk")])
        server.terminate()
        assert server.wait_end() == 0
    gets = ("/ping", "/missing", "/", "/info", "/sleep/20", "/burn/1000", "/blob/16384", "/stream/100")
    others = ("POST /echo", "GET /events/5?every=10", "WS /ws open", "WS /ws echo")
    counts = dict.fromkeys([*others, *(f"GET {path}" for path in gets)], (1, 0))
    assert dict(zip(CLASSES, found, strict=True)) == dict.fromkeys(CLASSES, (counts, []))
    # A user keeps its WebSocket.
    assert talked == ({"WS /ws open": (1, 0), "WS /ws echo": (2, 0)}, [])


def test_each_task_compares_the_reply(open_server):
    """A server that gives one wrong reply to everything passes no task; `missing` expects another status."""

    def behave(connection):
        connection.recv(65536)
        # The server serves one connection at a time, and the WebSocket has its own.
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nPANG\n")

    with open_server(behave) as (host, port):
        rows, errors = run_once(f"http://{host}:{port}", "GeventUser")
    assert len(rows) == 11
    assert set(rows.values()) == {(1, 1)}
    assert len(errors) == 11


def test_info_is_a_json_object_with_the_right_status():
    told = run_script(
        """
import json
from loadtests.httpfile import check_info
told = []
class Reply:
    def __init__(self, status, content):
        self.status_code, self.content = status, content

    def json(self):
        return json.loads(self.content)

    def failure(self, why):
        told.append(why)

    def success(self):
        told.append("right")

for status, content in ((200, b'{"a": 1}'), (500, b'{"a": 1}'), (200, b"[1]"), (200, b"{}"), (200, b"no"), (0, b"")):
    told.append(status)
    check_info(Reply(status, content))
print("TOLD", json.dumps(told))
"""
    )
    failures = ["status 500 instead of 200", *(f"no JSON object: {content!r}" for content in (b"[1]", b"{}", b"no"))]
    # What had no reply is counted by Locust itself.
    assert told == [200, "right", 500, failures[0], 200, failures[1], 200, failures[2], 200, failures[3], 0]


def test_tasks_that_need_more_than_static_replies_have_the_tag_and_users_rest():
    tags, most_frequent, rests = run_script(
        """
import json, random
from collections import Counter
from loadtests.httpfile import GeventUser, RequestsUser, Routes
tags = {task.__name__: sorted(getattr(task, "locust_tag_set", ())) for task in Routes.tasks}
rests = []
for share in (0.0, 1.0):
    random.random = lambda: share
    rests += [kind.wait_time(None) for kind in (RequestsUser, GeventUser)]
print("TOLD", json.dumps([tags, Counter(task.__name__ for task in Routes.tasks).most_common(1), rests]))
"""
    )
    work = {name: ["work"] for name in ("info", "events", "echo", "sleep", "burn", "blob", "stream")}
    assert tags == {**work, "talk": ["websocket"], "ping": [], "missing": [], "root": []}
    assert most_frequent == [["ping", 10]]
    # Between a tenth and half of a second.
    assert rests == [0.1, 0.1, 0.5, 0.5]


EVENTS = [b"id: %d\ndata: %d\n\n" % (number, number) for number in range(1, 6)]


def make_reply(kind, body):
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


# A wrong reply, the task that has to notice it, and what it says.
WRONG = {
    "body": ("ping", make_reply(b"text/plain", b"PANG\n"), r"5 bytes b'PANG\n' instead of 5 b'PONG\n'"),
    "status": ("ping", b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nPONG\n", "status 503 instead of 200"),
    "no object": ("info", make_reply(b"application/json", b"[1]"), "no JSON object: b'[1]'"),
    "no JSON": ("info", make_reply(b"application/json", b"{"), "no JSON object: b'{'"),
    "type": ("events", make_reply(b"text/plain", b"".join(EVENTS)), "'text/plain' instead of text/event-stream"),
    "too few": (
        "events",
        make_reply(b"text/event-stream", b"".join(EVENTS[:4])),
        "4 events and b'' instead of 5 events",
    ),
    "cut off": (
        "events",
        make_reply(b"text/event-stream", b"".join(EVENTS)[:-1]),
        r"4 events and b'id: 5\ndata: 5\n' instead",
    ),
    "order": (
        "events",
        make_reply(b"text/event-stream", EVENTS[0] + EVENTS[2]),
        r"event 2 is b'id: 3\ndata: 3' instead of b'id: 2\ndata: 2'",
    ),
}


def test_wrong_reply_is_a_failure_with_its_reason(open_server):
    runs, expected = [], []
    with contextlib.ExitStack() as stack:
        for task, reply, failure in WRONG.values():
            for user in CLASSES:
                host, port = stack.enter_context(open_server(say(reply)))
                runs.append((f"http://{host}:{port}", user, task))
                expected.append(failure)
        found = run_each(runs)
    assert [list(rows.values()) for rows, _ in found] == [[(1, 1)]] * len(runs)
    for failure, run, (_, (error,)) in zip(expected, runs, found, strict=True):
        assert failure in error, run


def test_wrong_message_of_a_websocket_is_a_failure_and_ends_it(open_server):
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
        rows, errors = run_once(f"http://{host}:{port}", "RequestsUser", "talk", "talk")
    # The second call opens another one.
    assert rows == {"WS /ws open": (2, 0), "WS /ws echo": (2, 2)}
    assert all("'no' instead of" in error for error in errors)


def test_step_of_a_websocket_is_counted_in_milliseconds():
    told = run_script(
        """
import json
from types import SimpleNamespace as Stub
from locust.env import Environment
from loadtests import httpfile
times = iter([100.0, 100.25])
httpfile.time = Stub(perf_counter=lambda: next(times))
environment = Environment()
environment.create_local_runner()
httpfile.RequestsUser.host = "http://127.0.0.1:9"
with httpfile.Routes(httpfile.RequestsUser(environment))._counted("step"):
    pass
took = environment.stats.total.total_response_time
httpfile.time, opened, said = Stub(perf_counter=lambda: 0.0), [], []
def connect(url, timeout):
    opened.append([url, timeout])
    return Stub(send=said.append, recv=lambda: said[-1])

httpfile.websocket.create_connection = connect
for host in ("http://127.0.0.1:9", "https://h:8443"):
    httpfile.RequestsUser.host = host
    httpfile.Routes(httpfile.RequestsUser(environment)).talk()
print("TOLD", json.dumps([took, opened, len(set(said)), environment.stats.total.num_failures]))
"""
    )
    # It is secure if the page is, and a server that says nothing does not hold a user for ever.
    assert told == [250, [["ws://127.0.0.1:9/ws", 30.0], ["wss://h:8443/ws", 30.0]], 2, 0]


def test_refused_websocket_is_a_failure(open_server):
    with open_server(say(make_reply(b"text/plain", b"no"))) as (host, port):
        rows, (error,) = run_once(f"http://{host}:{port}", "RequestsUser", "talk")
    assert rows == {"WS /ws open": (1, 1)}
    assert "200" in error


def test_refused_connection_is_named_as_the_cause(closed_port):
    for rows, (error,) in run_each([(f"http://127.0.0.1:{closed_port}", user, "ping") for user in CLASSES]):
        assert rows == {"GET /ping": (1, 1)}
        assert "refused" in error


def test_guarded_headless_run_prints_each_kind_of_failure(closed_port):
    done = subprocess.run(
        [*COMMAND, *HEADLESS, "--host", f"http://127.0.0.1:{closed_port}", "--run-time", "3s"],
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
    assert said == sorted(said, reverse=True)
    assert all("refused" in line for line in failures)


def test_most_frequent_failures_are_printed_first():
    """Twenty at most: of 22, those that were seen once and twice are left out."""
    code = """
from argparse import Namespace
from loadtests.guardfile import print_failures
counts = [*range(11, 23), *range(1, 11)]
errors = {n: Namespace(method="GET", name=f"/{n}", error="it was\\n  refused", occurrences=n) for n in counts}
# A page shows them itself.
for page in (object(), None):
    print_failures(Namespace(web_ui=page, stats=Namespace(errors=errors)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert find_failures(done.stderr) == [f"GET /{n}: it was refused ({n} times)" for n in range(22, 2, -1)]


def test_workers_run_the_locustfile_and_its_failures_are_reported(tmp_path, capsys):
    """A master runs no users itself: all requests are those of its workers."""
    catalogue = Catalogue.load()
    file = tmp_path / "missing.py"
    file.write_text(MISSING)
    with Server("selector_loop", tmp_path / "s", {}) as server:
        address = server.address("http", "tcp")
        # On a busy machine, three seconds can pass before a worker has made a request of each kind.
        for seconds in (3, 9, 27):
            steps = run_headless(
                ProcessHelpers(tmp_path, catalogue),
                name_files(str(file)),
                ["--host", f"http://{address.host}:{address.port}"],
                users=4,
                seconds=seconds,
                workers=2,
                environ=NO_PROXY,
            )
            rows = {step.step: step for step in steps}
            if len(rows) == 2:
                break
    assert rows.keys() == {"/ping", "/nothing"}
    assert rows["/ping"].taken > rows["/ping"].failures == 0
    assert rows["/nothing"].failures == rows["/nothing"].taken > 0
    assert "/nothing: " in capsys.readouterr().err


def test_locust_keeps_three_digits_of_a_time():
    code = "import locust.stats\nplain = locust.stats.bucket_response_time\n"
    for module in ("guardfile", "locustfile"):
        code += f"locust.stats.bucket_response_time = plain\nimport loadtests.{module}\n"
        code += "print(locust.stats.bucket_response_time(1.2345))\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [float(line) for line in done.stdout.split()] == [1.23, 1.23]


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


@contextlib.contextmanager
def open_guarded_ui(port, *arguments, **environ):
    """Start Locust with its web UI behind the guard; yield a function that returns the status of a request."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path, data=None, **headers):
        url = f"http://127.0.0.1:{port}{path}"
        try:
            with opener.open(urllib.request.Request(url, data, headers), timeout=10) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    shown = ["--web-host", "127.0.0.1", "--web-port", str(port), "--host", "http://127.0.0.1:9"]
    with subprocess.Popen(
        [*COMMAND, *shown, *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield ask
        finally:
            process.terminate()


def test_guarded_web_ui_refuses_the_page_of_another_site(closed_port):
    with open_guarded_ui(closed_port) as ask:
        wait_until(lambda: ask("/") == 200)
        assert ask("/", Origin="http://other.example") == 403


def test_login_of_the_guarded_web_ui_is_below_its_base_path(closed_port):
    arguments = ["--web-base-path", "/load", "--web-login"]
    with open_guarded_ui(closed_port, *arguments, LAB_UI_LOGIN="ann:secret") as ask:
        wait_until(lambda: ask("/load/login") == 200)
        assert ask("/load/lab/login", b"username=ann&password=wrong") == 200
        assert ask("/lab/login", b"username=ann&password=wrong") == 404


def test_guarded_locust_does_not_start_with_an_invalid_origin(closed_port):
    done = subprocess.run(
        [*COMMAND, "--web-host", "127.0.0.1", "--web-port", str(closed_port), "--host", "http://127.0.0.1:9"],
        cwd=ROOT,
        env=os.environ | {"LAB_UI_ORIGINS": "everywhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "guardfile: LAB_UI_ORIGINS: 'everywhere' is not an origin" in done.stderr
