"""What is recorded comes out as rows: alone, and put together from workers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.recorder import Recorder, Series, Tally, follow

ROOT = Path(__file__).resolve().parents[2]
CLOSED = Series("asyncio_streams", "ping")
OPEN = Series("asyncio_streams", "ping", "tcp", "open")


def make_tally(**counts):
    found = Tally(**counts)
    found.service.record([0.0001, 0.0002])
    found.intended.record([0.0001, 0.5])
    found.failures["closed"] += 1
    return found


def test_a_row_for_each_kind_of_time():
    recorder = Recorder()
    recorder.add(CLOSED, make_tally(answered=2), users=4, in_flight=3)
    recorder.add(OPEN, make_tally(answered=2, late=1, dropped=5), users=1, in_flight=0)
    closed, service, intended = recorder.rows()
    assert (closed["kind"], closed["users"], closed["in_flight"], closed["failed"]) == ("service", 4, 3, 1)
    assert (service["kind"], intended["kind"]) == ("service", "intended")
    assert service["p99_us"] == pytest.approx(200, rel=0.001)
    assert intended["p99_us"] == pytest.approx(500_000, rel=0.001)
    assert (intended["late"], intended["dropped"]) == (1, 5)


def test_the_rate_is_that_of_the_last_seconds(monkeypatch):
    now = 0.0
    monkeypatch.setattr("loadtests.recorder.time.monotonic", lambda: now)
    recorder = Recorder()
    for second in range(20):
        now = second / 2
        recorder.add(CLOSED, Tally(requests=50 if second < 10 else 500), users=1, in_flight=1)
    assert recorder.rows()[0]["rate"] == pytest.approx(1000)
    now += 100  # nothing has come since
    assert recorder.rows()[0]["rate"] < 20


def test_a_reset_forgets_counts_and_not_users():
    recorder = Recorder()
    recorder.add(CLOSED, make_tally(answered=2), users=4, in_flight=3)
    recorder.reset()
    (row,) = recorder.rows()
    assert (row["answered"], row["failed"], row["p50_us"], row["users"], row["in_flight"]) == (0, 0, None, 4, 3)
    recorder.clear()
    assert recorder.rows() == []
    assert recorder.gauge(CLOSED).users == 0


def test_recorder_forgets_when_locust_does():
    class Statistics:
        def __init__(self):
            self.called = []

        def reset_all(self):
            self.called.append("reset_all")

    statistics = Statistics()
    follow(statistics, "reset_all", lambda: statistics.called.append("ours"))
    statistics.reset_all()
    assert statistics.called == ["reset_all", "ours"]


# Locust patches the process that imports it, so its runners have one of their own.
WORKERS = """
import json
from locust.env import Environment
from locust.runners import WorkerNode
from loadtests.recorder import Recorder, Series, Tally

def report(name, answered):
    worker = Environment()
    recorder = Recorder()
    recorder._unreported = {}
    recorder.add(Series("m", "ping"), Tally(answered=answered), users=answered, in_flight=1)
    data = {}
    recorder._report(name, data)
    assert recorder._unreported == {}
    return data

environment = Environment()
runner = environment.create_master_runner("127.0.0.1", 0)
master = Recorder()
master.attach(environment)
for name, answered in (("a", 3), ("b", 4)):
    runner.clients[name] = WorkerNode(name)
    master._receive(name, report(name, answered))
    master._receive(name, report(name, answered))
seen = master.rows()
del runner.clients["a"]
seen += master.rows()
print(json.dumps([[row["answered"], row["users"], row["in_flight"]] for row in seen]))
runner.quit()
"""


def test_a_master_puts_its_workers_together_and_forgets_who_has_gone():
    done = subprocess.run([sys.executable, "-c", WORKERS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # What a worker that has gone has answered stays answered; its users are gone.
    assert json.loads(done.stdout) == [[14, 7, 2], [14, 4, 1]]
