"""The locustfile as Locust runs it, in child processes with a short window."""

import json
import resource
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.load.external_server import ExternalServer
from lab.load.measure import measure, measure_together
from lab.load.measurement import encode_targets
from lab.load.presets import find_preset
from lab.metrics.verdict import Limit
from lab.servers.catalogue import Catalogue
from tests.support.waiting import wait_until

USERS = 8
# The descriptors that a generator may have.
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _model(name):
    return Catalogue.load()[name]


# Serves one client, uses 2 ms of CPU for each PING, and prints its counts at the end: how many PINGs,
# the CPU seconds of the process since it was ready, and its memory.
_BURNER = """
import contextlib, re, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
count, began = 0, time.process_time()
client, _ = listener.accept()
with contextlib.suppress(OSError):  # in the end it may be reset
    while client.recv(100):
        due = time.process_time() + 0.002
        while time.process_time() < due:
            pass
        count += 1
        client.sendall(b"+PONG\\r\\n")
cpu = time.process_time() - began
print(count, cpu, 1024 * int(re.search(r"Pss: *([0-9]+)", open("/proc/self/smaps_rollup").read())[1]), flush=True)
sys.stdin.read()
"""


def test_locust_measures_a_model(generator):
    """Each figure agrees with the server's own counts."""
    with subprocess.Popen(
        [sys.executable, "-c", _BURNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        target = ExternalServer([f"command=tcp://127.0.0.1:{server.stdout.readline().strip()}"])
        found = measure(
            target,
            target.model,
            find_preset("closed_ping").change(users=1, duration=3.0, warm_up=0.0),
            generator=generator,
        )
        count, cpu, memory = map(float, server.stdout.readline().split())
        server.stdin.close()
    assert found.load.failures == {}
    assert found.server.cpu_us is not None
    assert found.server.user_us is not None
    assert found.server.system_us is not None
    assert found.load.service.min_us is not None
    assert found.load.service.mean_us is not None
    assert found.load.service.max_us is not None
    assert (found.users, found.load.starved, found.load.depth, found.server.threads, found.server.processes) == (
        1,
        0,
        1,
        1,
        1,
    )
    assert sum(number for _, number in found.load.times.pairs()) == found.answered
    # What it answered before the window and when that was over is not counted, and is a moment's.
    assert 0.5 * count <= found.answered <= count
    # Two accounts in ticks of 10 ms, each read twice; how much CPU there was is up to the machine.
    assert found.server.cpu_us == pytest.approx(1e6 * cpu / count, rel=0.1, abs=40_000 / count)
    assert found.server.user_us + found.server.system_us == pytest.approx(found.server.cpu_us)
    assert found.server.cores == pytest.approx(found.server.cpu_us * found.rate / 1e6)
    assert found.rate == pytest.approx(found.answered / found.load.seconds)
    # A reply takes 2 ms of CPU at least; exchanges follow each other, and the first may have begun before the window.
    assert 2000 <= found.load.service.min_us <= found.load.service.mean_us <= found.load.service.max_us
    assert found.load.service.mean_us * found.answered <= 1e6 * found.load.seconds + found.load.service.max_us
    assert found.load.in_flight == pytest.approx(found.rate * found.load.service.mean_us / 1e6, rel=0.01)
    # Three digits below a millisecond: not whole milliseconds only.
    assert any(value != round(value, -3) for value, _ in found.load.times.pairs())
    # Its share of pages that others have as well, which come and go.
    assert found.server.memory_bytes == pytest.approx(memory, rel=0.5)
    assert found.verdict.bound not in (Limit.FAILED, Limit.WRONG, Limit.STARVED, Limit.UNKNOWN, Limit.INCONSISTENT)


def test_model_that_serves_one_client_at_a_time_starves_held_connections(open_model, generator):
    server = open_model("plain_socket")
    found = measure(
        server,
        _model("plain_socket"),
        find_preset("closed_ping").change(users=USERS, duration=0.5, warm_up=0.2),
        generator=generator,
    )
    assert found.load.starved == USERS - 1
    assert found.verdict.bound is Limit.STARVED
    assert found.load.failures == {}


def test_wrong_replies_are_counted_and_back_off(load, open_server):
    def behave(connection):
        connection.recv(100)
        connection.sendall(b"+PANG\r\n")

    with open_server(behave) as (host, port):
        result = load({"bad": f"tcp://{host}:{port}"}, users=2)["bad"]
    assert result.answered == 0
    assert list(result.failures) == ["wrong bytes"]
    # Two users who wait 50 ms, 100, 200, ... (and half of it at least) cannot have tried often in a second.
    assert 1 <= result.failures["wrong bytes"] <= 20
    assert result.service.pairs() == []
    assert result.service.mean_us is None


def test_locust_measures_models_together(open_model):
    servers = [open_model(name) for name in ("asyncio_streams", "socketserver_threading")]

    class Both:
        name = "process"
        in_containers = False
        helpers = servers[0].helpers

        def targets(self):
            return [item for server in servers for item in server.targets()]

        def meter(self, model):
            return next(server.meter(model) for server in servers if server.model == model)

    models = [_model(server.model) for server in servers]
    found = measure_together(
        Both(), models, find_preset("closed_sleep_20ms").change(users=4, duration=0.5, warm_up=0.2)
    )
    assert [item.model for item in found] == [model.name for model in models]
    assert [item.users for item in found] == [4, 4]
    assert all(item.answered and not item.load.failures for item in found)
    # 20 ms is the floor: no reply can have come sooner.
    assert all(item.load.service.min_us is not None and item.load.service.min_us >= 19_900 for item in found)


def test_model_that_is_not_running_is_an_error(open_model):
    server = open_model("plain_socket")
    with pytest.raises(LabError, match="lab up asyncio_streams"):
        measure(server, _model("asyncio_streams"), find_preset("closed_ping").change(users=1, duration=0.1))


def test_failing_generator_is_quoted(open_model):
    server = open_model("plain_socket")
    with pytest.raises(LabError, match="unknown preset"):
        measure(server, _model("plain_socket"), find_preset("closed_nonsense").change(users=1, duration=0.1))


@pytest.mark.parametrize("text", ["", "[", "{}", "[]", '[{"model": "x", "listeners": [{"service": "echo"}]}]'])
def test_invalid_targets_are_a_one_line_error(text, run_locust):
    done = run_locust(["--headless"], {"LAB_TARGETS": text})
    assert done.returncode != 0
    assert "LAB_TARGETS" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("cores", "said"),
    [("all", "invalid literal for int() with base 10: 'all'"), ("4095", "[Errno 22] Invalid argument")],
)
def test_invalid_cores_are_a_one_line_error(cores, said, run_locust):
    done = run_locust(["--headless"], {"LAB_GENERATOR_CORES": cores})
    assert done.returncode == 1
    assert f"locustfile: LAB_GENERATOR_CORES='{cores}': {said}\n" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--users", str(FILES)], f"{FILES} users need {FILES + 128} open files, and this process may open {FILES}"),
        (["--workload", "upload", "--transport", "udp"], "upload does not work over udp"),
        (["--transport", "tls"], "no address for command of it over tls"),
        (["--workload", "think", "--loop", "open"], "has no open loop"),
        (["--loop", "open", "--rate", "0"], "have to be above 0"),
        (["--loop", "open", "--rate", "inf"], "have to be above 0"),
        (["--workload", "slow_reader", "--payload", "9"], "slow_reader has no payload"),
        (["--window", "1", "--run-time", "9s"], "omit --run-time"),
    ],
)
def test_invalid_options_are_a_one_line_error_before_any_load(arguments, said, run_locust, encode_targets):
    (target,) = json.loads(encode_targets({"it": "tcp://127.0.0.1:1"}))
    target["listeners"].append({"service": "discard", "address": "udp://127.0.0.1:1"})
    done = run_locust(["--headless", "--loglevel", "ERROR", *arguments], {"LAB_TARGETS": json.dumps([target])})
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if "locustfile:" in line and said in line], done.stdout
    assert "Traceback" not in done.stdout


def test_web_ui_offers_models_and_workloads(server):
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

        def read_page() -> str:
            assert process.poll() is None
            with suppress(OSError):  # it is not there yet
                page: bytes = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                return page.decode()
            return ""

        text = wait_until(read_page)
    finally:
        process.terminate()
        process.wait(20)
    for word in ("asyncio_streams", "session", "echo_64k", "shape_time", "arrivals"):
        assert word in text
    assert "warm_up" not in text  # what only a measured run takes is not offered
