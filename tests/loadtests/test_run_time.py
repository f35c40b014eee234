"""A run ends after its run time: headless, from the form, with workers, and with the users of the gallery."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.servers.process_helpers import find_port
from tests.support.scripts import run_script
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
HEADLESS = ("--headless", "--only-summary", "--loglevel", "ERROR", "--json", "--users", "2", "--spawn-rate", "100")


def lie(connection):
    while connection.recv(100):
        connection.sendall(b"+PANG\r\n")


def read_requests(done):
    """Return the number of requests in the statistics that Locust prints at its end."""
    found, _ = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("[\n"))
    return sum(entry["num_requests"] for entry in found)


def test_headless_run_ends_with_its_results(url, run_locust, encode_targets):
    done = run_locust([*HEADLESS, "--run-time", "1s"], {"LAB_TARGETS": encode_targets({"it": url})})
    assert done.returncode == 0, done.stdout
    assert read_requests(done) > 1


def test_headless_run_that_failed_ends_with_code_1(open_server, run_locust, encode_targets):
    with open_server(lie) as (host, port):
        targets = encode_targets({"it": f"tcp://{host}:{port}"})
        done = run_locust([*HEADLESS, "-t", "1s"], {"LAB_TARGETS": targets})
    assert done.returncode == 1
    assert read_requests(done) > 0


@pytest.mark.parametrize("shape", ["steady", "ramp"])
def test_run_ends_during_its_ramp(shape, url, run_locust, encode_targets):
    arguments = [*HEADLESS, "--users", "100", "--spawn-rate", "0.1", "--shape", shape, "-t", "2s"]
    done = run_locust(arguments, {"LAB_TARGETS": encode_targets({"it": url})})
    assert done.returncode == 0, done.stdout
    assert read_requests(done) > 0


def test_master_and_its_workers_end_after_the_run_time(url, encode_targets):
    # On a busy machine, two seconds can pass before a worker has made a request.
    assert any(_run_with_workers(seconds, url, encode_targets) for seconds in (2, 6, 18))


def _run_with_workers(seconds, url, encode_targets):
    """Return the number of requests of a master's two workers."""
    port = str(find_port())
    environ = os.environ | {"LAB_TARGETS": encode_targets({"it": url})}
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py"]
    leading = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2"]
    joining = ["--worker", "--master-host", "127.0.0.1", "--master-port", port, "--loglevel", "ERROR"]
    with contextlib.ExitStack() as stack:

        def start(arguments):
            process = subprocess.Popen([*command, *arguments], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        master = start([*leading, *HEADLESS, "-t", f"{seconds}s"])
        workers = [start(joining) for _ in range(2)]
        text, _ = master.communicate(timeout=60)
        assert [process.wait(60) for process in (master, *workers)] == [0, 0, 0]
    return 0 if text.endswith("[]\n") else read_requests(subprocess.CompletedProcess([], 0, text, ""))


@pytest.mark.parametrize("files", ["loadtests/galleryfile.py", "loadtests/locustfile.py,loadtests/galleryfile.py"])
def test_users_of_the_gallery_end_after_the_run_time(files, url, run_locust, encode_targets):
    # No server of the gallery is there: each step fails, and the code says so.
    arguments = ["-f", files, *HEADLESS, "--loglevel", "CRITICAL", "-t", "1s", "WebUser"]
    done = run_locust(arguments, {"LAB_TARGETS": encode_targets({"it": url})})
    assert done.returncode == 1
    assert read_requests(done) > 0


def test_run_of_the_form_ends_and_the_next_one_has_its_own_run_time(url, open_ui):
    asked = {"user_count": 1, "spawn_rate": 10, "models": "it", "workload": "ping"}
    with open_ui(url) as page:

        def is_in(state):
            return lambda: page.statistics()["state"] == state

        page.post("/swarm", run_time="1s", **asked)
        wait_until(is_in("stopped"))
        assert page.table("times")[0]["answered"] > 0
        # An empty field is no run time, and not that of the run before.
        page.post("/swarm", run_time="", **asked)
        wait_until(is_in("running"))
        assert '"run_time": null' in page.get("/")[1].replace("&#34;", '"')
        # Editing a run gives it a time, from now on.
        page.post("/swarm", run_time="1s", **asked)
        wait_until(is_in("stopped"))


def test_run_of_autostart_ends_and_the_page_stays(url, open_ui):
    arguments = ["--autostart", "--users", "1", "--spawn-rate", "10", "--run-time", "2s"]
    with open_ui(url, *arguments) as page:
        wait_until(lambda: page.statistics()["state"] == "stopped")
        page.post("/swarm", user_count=1, spawn_rate=10, models="it", workload="session", run_time="1s")
        wait_until(lambda: page.table("times") and page.table("times")[0]["load"].startswith("session"))
        wait_until(lambda: page.statistics()["state"] == "stopped")


# Which run times are begun, without the seconds.
BEGUN = """
import json
from argparse import Namespace
from flask import Blueprint, Flask, jsonify
from locust.env import Environment
from loadtests import run_time as module

begun = []

def begin(seconds, end):
    begun.append(seconds)
    return gevent.spawn(lambda: None)

gevent = module.gevent
module.gevent = Namespace(spawn_later=begin, getcurrent=gevent.getcurrent)

def make(**options):
    environment = Environment()
    environment.parsed_options = Namespace(**{"headless": False, "autostart": False, "run_time": None} | options)
    environment.create_local_runner()
    environment.shape_class = object()
    return environment
"""


def test_run_time_of_autostart_is_that_of_one_run() -> None:
    """Locust's main greenlet would wait for it again, and stop a later run."""
    told = run_script(
        BEGUN
        + """
left = []
for options in ({"autostart": True}, {"headless": True}, {}):
    environment = make(run_time=5, **options)
    module.RunTime(environment)
    for event in (environment.events.test_start, environment.events.test_stop):
        event.fire(environment=environment)
    left.append(environment.parsed_options.run_time)
print("TOLD", json.dumps([begun, left]))
"""
    )
    assert told == [[5, 5, 5], [None, 5, 5]]


def test_timer_is_that_of_the_last_start_and_ends_what_started_the_run() -> None:
    """A run that Locust's main greenlet started ends with its shape. Without a shape, Locust ends it."""
    told = run_script(
        BEGUN
        + """
done, ends = [], []

def begin(seconds, end):
    number = len(ends)
    ends.append(end)
    return Namespace(
        kill=lambda block: done.append(f"kill {number} {block}"), link_exception=lambda handler: done.append(handler)
    )

module.gevent = Namespace(spawn_later=begin, getcurrent=lambda: None)
module.locust_exception_handler = lambda environment: "linked"
told = []
for options in ({"autostart": True}, {}):
    environment = make(run_time=5, **options)
    shape = Namespace(kill=lambda: done.append("end the shape"))
    environment.runner = Namespace(shape_greenlet=shape, stop=lambda: done.append("stop"))
    module.RunTime(environment)
    for start in range(2):
        environment.events.test_start.fire(environment=environment)
    ends[-1]()
    environment.events.test_stop.fire(environment=environment)
    done.append("stopped")
    # The next one is the page's.
    environment.parsed_options.run_time = 5
    environment.events.test_start.fire(environment=environment)
    ends[-1]()
    environment.events.test_stop.fire(environment=environment)
    environment.shape_class, environment.parsed_options.run_time = None, 5
    environment.events.test_start.fire(environment=environment)
    told.append(done[:])
    done.clear()
    ends.clear()
print("TOLD", json.dumps(told))
"""
    )
    told_each = [
        ["linked", "kill 0 False", "linked", end, "kill 1 False", "stopped", "linked", "stop", "kill 2 False"]
        for end in ("end the shape", "stop")
    ]
    assert told == told_each


def test_run_time_of_the_form_begins_at_once_only_while_a_run_goes_on() -> None:
    told = run_script(
        BEGUN
        + """
environment, app, pages = make(), Flask("ui"), Blueprint("locust", "ui")

@pages.route("/swarm", methods=["POST"])
def swarm():
    environment.parsed_options.run_time = 7
    return jsonify({})

@pages.route("/other", methods=["POST"])
def other():
    return jsonify({})

environment.web_ui = Namespace(app=app)
module.RunTime(environment)
app.register_blueprint(pages)
found = {}
for state in ("ready", "spawning", "running", "stopping", "stopped"):
    environment.runner.state = state
    for path in ("/swarm", "/other"):
        begun.clear()
        app.test_client().post(path)
        found[state + path] = list(begun)
environment.runner.state = "stopped"
print("TOLD", json.dumps(found))
"""
    )
    assert {name for name, begun in told.items() if begun} == {"spawning/swarm", "running/swarm"}
    assert len(told) == 10
