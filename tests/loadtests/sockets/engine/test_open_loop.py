"""Open loops: each due request is sent, late or dropped, and counted, with one process and with several."""

import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.load.external_server import ExternalServer
from lab.load.measure import measure
from lab.load.presets import find_preset
from lab.servers.process_helpers import find_port
from loadtests.contract import LoadResult
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[4]
PONG = b"+PONG\r\n"
# A rate is compared within 20 %: the faults double or halve it, and a busy machine is late at the edges of a window.
# test_schedule.py has the exact figures; here each exchange that was due has an end.
OPEN = ("--loop", "open", "--arrivals", "even")


def test_open_loop_reaches_the_requested_rate(server, load):
    found = load({"it": server.url("command", "tcp")}, *OPEN, "--rate", "200", users=4, seconds=2.0)["it"]
    assert found.asked == pytest.approx(200 * found.seconds, rel=0.2)
    # Whatever is not answered is in flight when the window ends: one on each connection, or it was dropped. A generator
    # that has no core is late: what was due before the window is then answered in it.
    assert abs(found.asked - found.answered - found.dropped) <= 4 + found.late
    assert found.failures == {}
    assert len(found.intended.pairs()) > 1


def test_stall_shows_in_the_intended_times_and_not_in_the_service_times(load, open_server):
    stalls = []

    def behave(connection):
        for number in range(10_000):
            if not connection.recv(100):
                return
            if number == 50:
                stalls.append(number)
                time.sleep(1)
            connection.sendall(PONG)

    with open_server(behave) as (host, port):
        urls = {"it": f"tcp://{host}:{port}"}
        found = load(urls, *OPEN, "--rate", "100", users=1, seconds=2.5)["it"]
    assert len(stalls) == 1
    # 100 were due while it slept, and of these 70 in its first 0.7 s: they wait for 0.3 s or more. One was under way.
    waited, was_under_way = (
        sum(count for value, count in times.pairs() if value > 300_000) for times in (found.intended, found.service)
    )
    assert waited >= 50
    assert 1 <= was_under_way < waited / 2
    assert found.late >= 50


def test_random_arrivals_have_different_intervals(open_server):
    """As the server sees them, with the arrivals of a preset."""
    came = []

    def behave(connection):
        while connection.recv(100):
            came.append(time.monotonic())
            connection.sendall(PONG)

    with open_server(behave) as (host, port):
        target = ExternalServer([f"command=tcp://{host}:{port}"])
        found = measure(
            target, target.model, find_preset("open_poisson").change(users=1, rate=300, duration=1.5, warm_up=0.0)
        )
    assert found.load.failures == {}
    distances = [after - before for before, after in itertools.pairwise(came)]
    # The middle one of an exponential distribution is ln 2 = 0.69 of the mean; of even distances it is the mean. A
    # generator or a server that stands still makes it less.
    assert statistics.median(distances) < 0.85 * statistics.mean(distances)


def test_timeouts_count_in_both_times_and_unsent_requests_are_dropped(load, open_server):
    def behave(connection):
        connection.recv(100)
        connection.sendall(PONG)
        while connection.recv(100):  # and of these none is answered
            pass

    with open_server(behave) as (host, port):
        urls = {"it": f"tcp://{host}:{port}"}
        found = load(urls, *OPEN, "--rate", "100", "--timeout", "0.3", users=1, seconds=4.0)["it"]
    timed_out = found.failures.pop("time-out: no reply")
    assert timed_out >= 2
    assert found.answered >= 2
    assert found.failures == {}
    for times in (found.service, found.intended):
        assert times.total == found.answered + timed_out
        assert sum(count for value, count in times.pairs() if value >= 299_000) >= timed_out
    # Each that was due has one of these ends, or is under way at the end of the window. At its beginning at most those
    # of 0.3 s were due already.
    assert found.dropped > 100
    assert abs(found.asked - found.answered - timed_out - found.dropped) <= 1 + 30
    # Nothing is sent that is older than the time-out when its turn comes: after 4 s there would be times above 3 s.
    assert max(value for value, _ in found.intended.pairs()) < 2_500_000


def test_rate_of_a_pipeline_counts_requests(server, load):
    arguments = [*OPEN, "--workload", "throughput", "--rate", "1600"]
    found = load({"it": server.url("command", "tcp")}, *arguments, users=4, seconds=2.0)["it"]
    assert found.depth == 16
    # 1600 requests per second are 100 exchanges of 16.
    assert found.asked == pytest.approx(100 * found.seconds, rel=0.2)


def test_rate_follows_its_shape(server, load):
    arguments = [*OPEN, "--rate", "1000", "--shape", "ramp", "--shape-time", "2"]
    found = load({"it": server.url("command", "tcp")}, *arguments, users=4, seconds=2.0)["it"]
    # The area under a ramp is half of the rectangle around it. A window that begins late sees more of its top.
    assert 0.4 < found.asked / (1000 * found.seconds) < 0.8


@contextlib.contextmanager
def open_workers(count, url, *arguments):
    """Start a master with workers; yield the master and the workers."""
    port = find_port()
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
        processes: list[subprocess.Popen[Any]] = [*workers, master]
        for process in processes:
            process.kill()
            process.communicate()


def is_connected(process, url):
    port = int(url.rpartition(":")[2])
    return any(item.raddr and item.raddr.port == port for item in psutil.Process(process.pid).net_connections("tcp"))


def read_result(master):
    text, _ = master.communicate(timeout=60)
    (found,) = LoadResult.find_all(text)
    return found


def test_share_of_a_lost_worker_goes_to_the_others(server):
    url = server.url("command", "tcp")
    arguments = [*OPEN, "--rate", "300", "--users", "4", "--spawn-rate", "100", "--window", "3", "--warm-up", "6"]
    with open_workers(2, url, *arguments) as (master, workers):
        wait_until(lambda: all(is_connected(worker, url) for worker in workers))
        workers[0].send_signal(signal.SIGTERM)  # it says good-bye
        workers[0].wait(60)
        found = read_result(master)
    assert found.generators == 1
    assert found.asked == pytest.approx(300 * found.seconds, rel=0.2)
