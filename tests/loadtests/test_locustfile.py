"""The locustfile as Locust runs it: a child process each, with a short window."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from lab.catalogue import Catalogue
from lab.errors import LabError
from lab.measurement import encode_targets, measure, measure_together
from lab.verdict import Bound

USERS = 8


def _model(name):
    return Catalogue.load()[name]


def test_measures_a_model(open_model):
    server = open_model("socketserver_threading")
    found = measure(server, _model("socketserver_threading"), "closed_session", users=USERS, seconds=0.5, warm_up=0.2)
    assert found.failures == {}
    assert found.starved == 0
    assert found.users == USERS
    assert found.answered > 100
    assert sum(count for _, count in found.histogram) == found.answered
    # Three digits below a millisecond: nobody can have whole milliseconds only.
    assert any(value < 1000 and value != round(value, -3) for value, _ in found.histogram)
    assert found.min_us * 0.99 <= found.histogram[0][0] <= found.histogram[-1][0] <= found.max_us * 1.01
    assert found.server_cpu_us > 0
    assert found.memory_bytes > 2**20
    assert found.threads > 1
    assert found.verdict.bound not in (Bound.FAILED, Bound.STARVED, Bound.UNKNOWN)


def test_one_at_a_time_starves_held_connections_and_says_so(open_model):
    server = open_model("plain_socket")
    found = measure(server, _model("plain_socket"), "closed_ping", users=USERS, seconds=0.5, warm_up=0.2)
    assert found.starved == USERS - 1
    assert found.verdict.bound is Bound.STARVED
    assert found.failures == {}


def test_wrong_bytes_are_counted_and_back_off(load, open_server):
    def behave(connection):
        connection.recv(100)
        connection.sendall(b"+PANG\r\n")

    with open_server(behave) as (host, port):
        result = load({"bad": f"tcp://{host}:{port}"}, users=2)["bad"]
    assert result["answered"] == 0
    assert list(result["failures"]) == ["wrong bytes"]
    # Two users who wait 50 ms, 100, 200, ... (and half of it at least) cannot have tried often in a second.
    assert 1 <= result["failures"]["wrong bytes"] <= 20
    assert result["service"] == []
    assert result["mean_us"] is None


def test_measures_models_together(open_model):
    servers = [open_model(name) for name in ("asyncio_streams", "socketserver_threading")]

    class Both:
        name = "process"

        def targets(self):
            return [item for server in servers for item in server.targets()]

        def pid(self, model):
            return next(server.pid(model) for server in servers if server.model == model)

        def run_service(self, service, arguments, **options):
            return servers[0].run_service(service, arguments, **options)

    models = [_model(server.model) for server in servers]
    found = measure_together(Both(), models, "closed_sleep_20ms", users=4, seconds=0.5, warm_up=0.2)
    assert [item.model for item in found] == [model.name for model in models]
    assert [item.users for item in found] == [4, 4]
    assert all(item.answered and not item.failures for item in found)
    # 20 ms is the floor: no reply can have come sooner.
    assert all(item.min_us >= 19_900 for item in found)


def test_model_that_is_not_running(open_model):
    server = open_model("plain_socket")
    with pytest.raises(LabError, match="lab up asyncio_streams"):
        measure(server, _model("asyncio_streams"), "closed_ping", users=1, seconds=0.1)


def test_generator_that_fails_is_quoted(open_model):
    server = open_model("plain_socket")
    with pytest.raises(LabError, match="unknown scenario"):
        measure(server, _model("plain_socket"), "closed_nonsense", users=1, seconds=0.1)


@pytest.mark.parametrize("text", ["", "[", "{}", "[]", '[{"model": "x", "listeners": [{"service": "echo"}]}]'])
def test_bad_targets_are_one_line(text, run_locust):
    done = run_locust(["--headless"], {"LAB_TARGETS": text})
    assert done.returncode != 0
    assert "LAB_TARGETS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--users", "100"], "100 users need 228 open files, and this process may have 200"),
        (["--workload", "upload", "--transport", "udp"], "upload is not asked over udp"),
        (["--transport", "tls"], "no address for command of it over tls"),
        (["--workload", "think", "--loop", "open"], "there is no open loop of it"),
        (["--loop", "open", "--rate", "0"], "have to be above 0"),
        (["--loop", "open", "--rate", "inf"], "have to be above 0"),
        (["--workload", "slow_reader", "--payload", "9"], "slow_reader has no payload"),
        (["--window", "1", "--run-time", "9s"], "leave --run-time out"),
    ],
)
def test_what_cannot_be_run_is_one_line_before_any_load(arguments, said, encode_targets):
    environ = os.environ | {"LAB_TARGETS": encode_targets({"it": "tcp://127.0.0.1:1"})}
    urls = json.loads(environ["LAB_TARGETS"])
    urls[0]["listeners"] += [{"service": "discard", "address": "udp://127.0.0.1:1"}]
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--loglevel", "ERROR"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -n 200 && exec "$@"', "bash", *command, *arguments],
        cwd=Path(__file__).resolve().parents[2],
        env=environ | {"LAB_TARGETS": json.dumps(urls)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "locustfile:" in line and said in line], done.stderr
    assert "Traceback" not in done.stderr


def test_web_ui_offers_models_and_workloads(open_model):
    server = open_model("asyncio_streams")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--loglevel", "ERROR"]
    process = subprocess.Popen(
        [*command, "--web-host", "127.0.0.1", "--web-port", str(port)],
        cwd=Path(__file__).resolve().parents[2],
        env={"PATH": "", "LAB_TARGETS": encode_targets(server.targets())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.05)
        else:
            pytest.fail("the web UI did not answer")
    finally:
        process.terminate()
        process.wait(20)
    for word in ("asyncio_streams", "session", "echo_64k", "shape_time", "arrivals"):
        assert word in text
    assert "warm_up" not in text  # what only a measured run takes is not offered
