"""A master and its workers, as processes of this machine. As containers they are in tests/lab/load/test_web_ui.py."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
from contextlib import contextmanager, suppress

import psutil
import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.clients.call import call
from lab.load.generator import open_generator
from lab.load.measure import measure
from lab.load.measurement import encode_targets
from lab.load.presets import find_preset
from lab.servers.catalogue import Catalogue
from lab.servers.process_helpers import find_port
from tests.support.processes import find_descendants
from tests.support.waiting import wait_until

MODEL = "asyncio_streams"
CATALOGUE = Catalogue.load()
RIGHT = {"username": "ann", "password": "secret"}
WRONG = RIGHT | {"password": "wrong"}


class Faulty:
    """The same helpers with other arguments for the workers, so that none joins."""

    def __init__(self, helpers, replace):
        self._helpers = helpers
        self._replace = replace

    def choose_bind(self, port):
        return self._helpers.choose_bind(port)

    def start_service(self, name, service, arguments, **options):
        if service == "locust_worker":
            arguments = self._replace(list(arguments))
        return self._helpers.start_service(name, service, arguments, **options)


def _children():
    return psutil.Process().children(recursive=True)


def test_rate_of_an_open_loop_is_shared_by_all_workers(backend):
    # If each worker sent the whole rate, twice as much would be due.
    before = _children()
    steady = find_preset("open_steady").change(users=8, duration=2, rate=400)
    # On a busy machine, users may be late, and what is due is less then: not five times.
    for _ in range(5):
        found = measure(backend, CATALOGUE[MODEL], steady, workers=2)
        if found.load.users >= 5 and (found.load.asked_rate or 0) >= 360:
            break
    assert found.load.generators == 2
    # Four users each; one may be late. If each worker had all of them, there would be 16.
    assert found.users == pytest.approx(8, abs=3)
    assert found.load.asked_rate == pytest.approx(400, rel=0.1)
    assert found.answered
    assert found.load.failures == {}
    assert set(_children()) <= set(before)


@contextmanager
def _headless(backend, **options):
    arguments = ["--headless", "--users", "2", "--window", "1", "--models", MODEL]
    environ = {"LAB_TARGETS": encode_targets(backend.targets())}
    with open_generator(options.pop("where", backend.helpers), arguments, environ=environ, **options) as found:
        yield found


def test_worker_that_cannot_start_is_named_with_its_last_lines(backend):
    where = Faulty(backend.helpers, lambda arguments: [*arguments, "--no-such-option"])
    before = _children()
    with pytest.raises(LabError) as caught, _headless(backend, where=where, workers=2):
        pass
    message = str(caught.value)
    assert message.splitlines()[0].startswith("worker ")
    assert "of 2 did not join its master: exit code 2" in message
    assert "unrecognized arguments: --no-such-option" in message
    assert _children() == before


def test_worker_that_finds_no_master_is_named(backend):
    def astray(arguments):
        arguments[arguments.index("--master-port") + 1] = str(find_port())
        return arguments

    before = _children()
    with (
        pytest.raises(LabError, match="worker 1 of 1 did not join its master within 3 s"),
        _headless(backend, where=Faulty(backend.helpers, astray), workers=1, join_seconds=3),
    ):
        pass
    assert _children() == before


def test_master_that_cannot_start_is_named(backend):
    with (
        pytest.raises(LabError, match=r"master ended before its workers had joined: exit code 2(.|\n)*no-such-option"),
        open_generator(
            backend.helpers,
            ["--no-such-option"],
            workers=1,
            environ={"LAB_TARGETS": encode_targets(backend.targets())},
        ),
    ):
        pass


def test_web_ui_with_workers_requires_a_login(backend, open_page):
    port = find_port()
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", backend.project]
    lab = subprocess.Popen(
        [*command, "load", "--preset", "closed_ping", "--workers", "2"],
        cwd=ROOT,
        env={**os.environ, "LAB_UI_PORT": str(port), "LAB_UI_LOGIN": "ann:secret"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert lab.stdout is not None
    try:
        assert f"web UI with 2 workers: http://127.0.0.1:{port}" in lab.stdout.readline()
        page = open_page(port)
        assert page.get("/")[0].partition("?")[0].endswith("/login")
        assert page.post("/lab/login", **WRONG).endswith("/login")
        for path in ("/stats/requests", "/lab/times.csv", "/lab/servers.csv"):
            assert "/login" in page.get(path)[0]
        assert page.post("/lab/login", **RIGHT) == f"{page.url}/"
        assert "Microseconds" in page.get("/")[1]

        asked = {"user_count": 4, "spawn_rate": 100, "models": MODEL, "loop": "open", "rate": 200}
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.post("/swarm", {"Origin": "http://example.org"}, **asked)
        assert refused.value.code == 403
        refused.value.close()
        assert page.statistics()["state"] == "ready"

        # All that can be reached of a running lab and its load: the page, the master, and the model.
        servers = psutil.Process(backend.pid(MODEL)).net_connections("inet")
        assert {item.laddr.ip for item in servers} == {"127.0.0.1"}
        own = [psutil.Process(lab.pid), *psutil.Process(lab.pid).children(recursive=True)]
        open_to = [item.laddr for each in own for item in each.net_connections("inet") if not item.raddr]
        assert {ip for ip, _ in open_to} == {"127.0.0.1"}
        assert len(open_to) == 2
        assert port in [each for _, each in open_to]

        page.post("/swarm", **asked)
        first = wait_until(lambda: page.table("times"))
        wait_until(lambda: page.table("times")[0]["answered"] > first[0]["answered"])
        assert wait_until(lambda: page.table("servers"))[0]["model"] == MODEL
        assert [worker["state"] for worker in page.statistics()["workers"]] == ["running", "running"]

        # One of the two dies: it is named, and the other one does its part as well.
        victim, _ = find_descendants(psutil.Process(lab.pid), "--worker")
        victim.send_signal(signal.SIGKILL)
        assert "ended during the run: exit code -9" in lab.stdout.readline()
        wait_until(lambda: len([item for item in page.statistics()["workers"] if item["state"] == "running"]) == 1)
        # All users go on, on the one that is left, and so does all of the rate.
        wait_until(lambda: page.table("times")[0]["in_flight"].endswith("of\xa04"))
        wait_until(lambda: page.table("times")[0]["rate"] > 150)

        page.post("/stop")
        wait_until(lambda: page.statistics()["state"] == "stopped")
        header, *rows = page.get("/lab/times.csv")[1].splitlines()
        assert header.startswith("model,workload,transport,loop,kind,users,rate,answered")
        assert len(rows) == 2  # of an open loop, both kinds of time
    finally:
        family = psutil.Process(lab.pid).children(recursive=True)
        lab.send_signal(signal.SIGINT)
        rest = lab.communicate(timeout=60)[0]
    assert lab.returncode == 0
    assert "ended" in rest
    psutil.wait_procs(family, timeout=30)
    assert not [process for process in family if process.is_running()]


def test_ctrl_c_heals_a_fault_requested_by_the_page(backend, open_page):
    port = find_port()
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", backend.project]
    lab = subprocess.Popen(
        [*command, "load", MODEL, "--preset", "closed_ping"],
        cwd=ROOT,
        env={**os.environ, "LAB_UI_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    page = open_page(port)

    def is_up():
        with suppress(urllib.error.URLError):
            return page.get("/")

    wait_until(is_up)
    fault = {"fault": "pause", "fault_after": 0.2, "fault_for": 300}
    page.post("/swarm", user_count=4, spawn_rate=100, models=MODEL, **fault)
    (shown,) = wait_until(lambda: page.table("faults"))
    assert (shown["model"], shown["fault"], shown["end"], shown["why_not"]) == (MODEL, "pause", "active", "")
    assert psutil.Process(backend.pid(MODEL)).status() == psutil.STATUS_STOPPED
    # As a terminal does it: to all of its foreground processes, in the middle of the load.
    os.killpg(lab.pid, signal.SIGINT)
    said = lab.communicate(timeout=60)[0]
    assert lab.returncode == 0
    assert f"{MODEL}: pause since " in said
    assert "Traceback" not in said
    address = next(item.address for item in backend.targets() if (item.service, item.transport) == ("command", "tcp"))
    assert call("command", address, ["PING"]).value == b"PONG"


def test_port_in_use_is_reported_before_anything_starts(backend):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "lab", "--backend", "process", "--project", backend.project, "load"],
            cwd=ROOT,
            env={**os.environ, "LAB_UI_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == f"lab: port {port} is not available (Address already in use): set LAB_UI_PORT to another port"
    )
