"""Open loops: what is due is sent, late or dropped, and counted in each case, on one process and on several."""

import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lab.foreign import Foreign
from lab.measurement import measure, percentile

ROOT = Path(__file__).resolve().parents[2]
PONG = b"+PONG\r\n"
OPEN = ("--loop", "open", "--arrivals", "even")


def test_what_was_asked_is_answered(open_model, load):
    server = open_model("asyncio_streams")
    found = load({"it": server.url("command", "tcp")}, *OPEN, "--rate", "200", users=4, seconds=2.0)["it"]
    assert found["asked"] == pytest.approx(200 * found["seconds"], abs=5)
    # Whatever is not answered is in flight when the window ends: one on each connection, or it was dropped.
    assert abs(found["asked"] - found["answered"] - found["dropped"]) <= 4
    assert found["failures"] == {}
    assert len(found["intended"]) > 1


def test_a_stall_shows_in_the_time_from_when_it_was_due_and_hides_in_the_other(load, open_server):
    stalls = []

    def behave(connection):
        for number in range(10_000):
            if not connection.recv(100):
                return
            if number == 300:
                stalls.append(time.monotonic())
                time.sleep(0.5)
            connection.sendall(PONG)

    with open_server(behave) as (host, port):
        urls = {"it": f"tcp://{host}:{port}"}
        found = load(urls, *OPEN, "--rate", "400", users=1, seconds=2.0)["it"]
    assert len(stalls) == 1
    # 200 of 800 were due while it slept and waited for up to half a second; one was under way.
    assert percentile([tuple(pair) for pair in found["intended"]], 0.9) > 200_000
    assert sum(count for value, count in found["service"] if value > 400_000) == 1
    assert found["late"] >= 150


def test_distances_of_random_arrivals_are_not_alike(open_server):
    """As the server sees them, asked for by a scenario and not by the generator's own option."""
    came = []

    def behave(connection):
        while connection.recv(100):
            came.append(time.monotonic())
            connection.sendall(PONG)

    with open_server(behave) as (host, port):
        target = Foreign([f"command=tcp://{host}:{port}"])
        found = measure(target, target.model, "open_poisson", users=1, rate=300, seconds=1.5, warm_up=0.0)
    assert found.failures == {}
    distances = [after - before for before, after in itertools.pairwise(came)]
    # The middle one of an exponential distribution is ln 2 = 0.69 of the mean; of even distances it is the mean. A
    # generator or a server that stands still makes it less.
    assert statistics.median(distances) < 0.85 * statistics.mean(distances)


def test_what_cannot_be_sent_in_time_is_dropped_and_never_skipped(load, open_server):
    def behave(connection):
        while connection.recv(100):
            time.sleep(0.1)
            connection.sendall(PONG)

    with open_server(behave) as (host, port):
        urls = {"it": f"tcp://{host}:{port}"}
        found = load(urls, *OPEN, "--rate", "100", "--timeout", "0.5", users=1, seconds=3.0)["it"]
    assert found["dropped"] > 100
    assert abs(found["asked"] - found["answered"] - found["dropped"]) <= 1
    # Nothing was sent that was older than the time-out when its turn came.
    assert max(value for value, _ in found["intended"]) < 1_000_000


def test_a_rate_follows_its_shape(open_model, load):
    server = open_model("asyncio_streams")
    arguments = [*OPEN, "--rate", "1000", "--shape", "ramp", "--shape-time", "2"]
    found = load({"it": server.url("command", "tcp")}, *arguments, users=4, seconds=2.0)["it"]
    # The area under a ramp is half of the rectangle around it.
    assert found["asked"] == pytest.approx(1000, rel=0.1)


@contextlib.contextmanager
def open_workers(count, url, *arguments):
    """A master with workers; gives the master and the workers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listeners = [{"service": "command", "address": url}]
    environ = os.environ | {"LAB_TARGETS": json.dumps([{"model": "it", "listeners": listeners}])}
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--loglevel", "ERROR"]
    leading = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)]
    master = subprocess.Popen(
        [*command, *leading, "--headless", "--only-summary", "--expect-workers", str(count), *arguments],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = [*command, "--worker", "--master-host", "127.0.0.1", "--master-port", str(port)]
    workers = [subprocess.Popen(worker, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield master, workers
    finally:
        for process in (*workers, master):
            process.kill()
            process.communicate()


def is_connected(process, url):
    port = int(url.rpartition(":")[2])
    return any(item.raddr and item.raddr.port == port for item in psutil.Process(process.pid).net_connections("tcp"))


def read_result(master):
    text, _ = master.communicate(timeout=60)
    return json.loads(text.partition("LOAD-RESULT ")[2].splitlines()[0])


def test_workers_together_do_what_was_asked(open_model):
    server = open_model("asyncio_streams")
    arguments = [*OPEN, "--rate", "300", "--users", "6", "--spawn-rate", "100", "--window", "3", "--warm-up", "2"]
    with open_workers(3, server.url("command", "tcp"), *arguments) as (master, _):
        found = read_result(master)
    assert found["generators"] == 3
    assert found["users"] == pytest.approx(6, abs=0.5)
    assert found["asked"] == pytest.approx(300 * found["seconds"], rel=0.05)
    assert found["failures"] == {}


def test_the_others_take_over_the_share_of_a_worker_that_goes(open_model):
    url = open_model("asyncio_streams").url("command", "tcp")
    arguments = [*OPEN, "--rate", "300", "--users", "4", "--spawn-rate", "100", "--window", "3", "--warm-up", "6"]
    with open_workers(2, url, *arguments) as (master, workers):
        while not all(is_connected(worker, url) for worker in workers):
            time.sleep(0.1)
        workers[0].send_signal(signal.SIGTERM)  # it says good-bye
        workers[0].wait(10)
        found = read_result(master)
    assert found["generators"] == 1
    assert found["asked"] == pytest.approx(300 * found["seconds"], rel=0.05)
