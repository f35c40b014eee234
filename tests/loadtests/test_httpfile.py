"""`loadtests/httpfile.py` and the guard before it: what ordinary HTTP users count, and how Locust ends with its lab."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from lab.base.paths import ROOT
from lab.load.locustfiles import HTTP_FILE, find_failures, name_files
from lab.servers.process_helpers import find_port
from tests.support.servers import Server
from tests.support.waiting import wait_until

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
    gets = ("/ping", "/missing", "/sleep/20", "/burn/1000", "/blob/16384", "/stream/100")
    assert set(rows) == {"POST /echo", *(f"GET {path}" for path in gets)}
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
    assert len(rows) == 7
    assert set(rows.values()) == {(1, 1)}
    assert len(errors) == 7


def test_tasks_that_need_more_than_static_replies_have_the_tag():
    code = "from loadtests.httpfile import Routes\n"
    code += "print(*(task.__name__ for task in Routes.tasks if hasattr(task, 'locust_tag_set')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"echo", "sleep", "burn", "blob", "stream"}


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
