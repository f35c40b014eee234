"""The recorder's rows, of one process and combined from workers."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from loadtests.sockets.histogram import Histogram
from loadtests.sockets.recorder import Gauge, Recorder, Series, Tally, follow

if TYPE_CHECKING:  # importing Locust would patch this process
    from locust.env import Environment

ROOT = Path(__file__).resolve().parents[3]
CLOSED = Series("asyncio_streams", "ping")
OPEN = Series("asyncio_streams", "ping", "tcp", "open")


def figures(recorder: Recorder) -> list[dict[str, Any]]:
    return [row.as_json() for row in recorder.rows()]


def make_tally(**counts):
    found = Tally(**counts)
    found.service.record([0.0001, 0.0002])
    found.intended.record([0.0001, 0.5])
    found.failures["closed"] += 1
    return found


def test_each_kind_of_time_has_a_row():
    recorder = Recorder()
    recorder.add(OPEN, make_tally(answered=2, late=1, dropped=5), users=1, in_flight=0)
    recorder.add(CLOSED, make_tally(answered=2), users=4, in_flight=3)
    closed, service, intended = figures(recorder)
    assert (closed["kind"], closed["users"], closed["in_flight"], closed["failed"]) == ("service", 4, 3, 1)
    assert (service["kind"], intended["kind"]) == ("service", "intended")
    assert service["p99_us"] == pytest.approx(200, rel=0.001)
    assert intended["p99_us"] == pytest.approx(500_000, rel=0.001)
    assert (intended["late"], intended["dropped"]) == (1, 5)


def test_rate_is_that_of_the_last_seconds(monkeypatch):
    now = 0.0
    monkeypatch.setattr("loadtests.sockets.recorder.time.monotonic", lambda: now)
    recorder = Recorder()
    for second in range(20):
        now = second / 2
        recorder.add(CLOSED, Tally(requests=50 if second < 10 else 500), users=1, in_flight=1)
    assert figures(recorder)[0]["rate"] == pytest.approx(1000)
    now += 100  # nothing has come since
    assert figures(recorder)[0]["rate"] < 20


def test_reset_clears_counts_and_keeps_users():
    recorder = Recorder()
    recorder.add(CLOSED, make_tally(answered=2), users=4, in_flight=3)
    recorder.reset()
    (row,) = figures(recorder)
    assert (row["answered"], row["failed"], row["p50_us"], row["users"], row["in_flight"]) == (0, 0, None, 4, 3)
    recorder.clear()
    assert figures(recorder) == []
    assert recorder.gauge(CLOSED).users == 0


def test_recorder_is_reset_with_locusts_statistics():
    class Statistics:
        def __init__(self):
            self.called = []

        def reset_all(self):
            self.called.append("reset_all")

    statistics = Statistics()
    follow(statistics, "reset_all", lambda: statistics.called.append("ours"))
    statistics.reset_all()
    assert statistics.called == ["reset_all", "ours"]


def make_full_tally():
    """A different number in every field."""
    counts: dict[str, Any] = {name: number for number, name in enumerate(Tally.COUNTS, 2)}
    tally = Tally(**counts, failures=Counter({"closed": 20, "refused": 21}))
    tally.service.record([0.001] * 3)
    tally.intended.record([0.004] * 5)
    return tally


def test_empty_tally_is_zero():
    assert [getattr(Tally(), name) for name in Tally.COUNTS] == [0] * 9
    assert (Tally().failed, Tally().service.total, Tally().intended.total) == (0, 0, 0)
    assert Gauge() == Gauge(0, 0, 0.0)


def test_tally_is_decoded_as_it_was_encoded():
    tally = make_full_tally()
    found = Tally.decode(json.loads(json.dumps(tally.encode())))
    assert [getattr(found, name) for name in Tally.COUNTS] == list(range(2, 11))
    assert found.failures == {"closed": 20, "refused": 21}
    assert (found.service.pairs(), found.intended.pairs()) == (tally.service.pairs(), tally.intended.pairs())
    assert (found.service.total, found.intended.total) == (3, 5)


def test_merged_tally_is_the_sum_of_each_field():
    tally = make_full_tally()
    tally.merge(make_full_tally())
    assert [getattr(tally, name) for name in Tally.COUNTS] == list(range(4, 22, 2))
    assert tally.failures == {"closed": 40, "refused": 42}
    assert tally.failed == 82
    assert (tally.service.total, tally.intended.total) == (6, 10)


def test_row_has_each_count_in_its_column():
    recorder = Recorder()
    tally = make_full_tally()
    # A thousand times from 1 to 1000 µs: the percentiles are known.
    tally.service = Histogram()
    tally.service.record([number / 1_000_000 for number in range(1, 1001)])
    recorder.add(Series("m", "w", "udp", "open"), tally, users=30, in_flight=31)
    service, intended = figures(recorder)
    expected: dict[str, object] = {"model": "m", "workload": "w", "transport": "udp", "loop": "open", "kind": "service"}
    expected |= {"users": 30, "in_flight": 31, "rate": 0.0, "failed": 41, "answered": 2, "late": 5, "dropped": 6}
    expected |= {"lost": 7, "duplicates": 8, "reordered": 9}
    times = {"p50_us": 500, "p90_us": 900, "p99_us": 990, "p99.9_us": 999, "max_us": 1000}
    assert {name: value for name, value in service.items() if name not in times} == expected
    assert {name: service[name] for name in times} == pytest.approx(times, rel=0.001)
    assert intended["kind"] == "intended"
    assert {name: intended[name] for name in times} == pytest.approx(dict.fromkeys(times, 4000), rel=0.001)


def test_rate_is_counted_over_three_seconds(monkeypatch):
    now = 10.0
    monkeypatch.setattr("loadtests.sockets.recorder.time.monotonic", lambda: now)
    recorder = Recorder()
    rates = []
    for second in range(6):
        now = 10.0 + second
        recorder.add(CLOSED, Tally(requests=100 * (second + 1)), users=1, in_flight=1)
        rates.append(recorder.gauge(CLOSED).rate)
    # Of one batch nothing is known. Then (200) / 1, (200 + 300) / 2, ... and at 5 s what came in the 4 s since 1 s.
    assert rates == [0.0, 200.0, 250.0, 300.0, 350.0, (300 + 400 + 500 + 600) / 4]
    now = 100.0
    assert recorder.gauge(CLOSED).rate == 600 / (100 - 14)


def test_rate_is_shown_after_half_a_second(monkeypatch):
    now = 0.0
    monkeypatch.setattr("loadtests.sockets.recorder.time.monotonic", lambda: now)
    recorder = Recorder()
    recorder.add(CLOSED, Tally(requests=7), users=1, in_flight=1)
    now = 0.5
    recorder.add(CLOSED, Tally(requests=200), users=1, in_flight=1)
    assert recorder.gauge(CLOSED).rate == 400.0


class Event:
    def __init__(self):
        self.listeners = []

    def add_listener(self, listener):
        self.listeners.append(listener)

    def fire(self, **arguments):
        for listener in self.listeners:
            listener(**arguments)


class Statistics:
    def reset_all(self):
        pass

    def clear_all(self):
        pass


class LocalRunner:
    def __init__(self):
        self.clients = {}


class MasterRunner(LocalRunner):
    pass


class WorkerRunner(LocalRunner):
    pass


@pytest.fixture
def attach(monkeypatch):
    """A recorder attached to a fake runner. Locust itself would patch this process."""
    runners = ModuleType("locust.runners")
    vars(runners).update(MasterRunner=MasterRunner, WorkerRunner=WorkerRunner)
    monkeypatch.setitem(sys.modules, "locust", ModuleType("locust"))
    monkeypatch.setitem(sys.modules, "locust.runners", runners)

    def attach(runner):
        events = SimpleNamespace(report_to_master=Event(), worker_report=Event())
        environment = SimpleNamespace(runner=runner, events=events, stats=Statistics())
        recorder = Recorder()
        recorder.attach(cast("Environment", environment))
        return recorder, environment

    return attach


def test_recorder_follows_resets_of_the_statistics(attach):
    recorder, environment = attach(LocalRunner())
    recorder.add(CLOSED, make_tally(answered=2), users=4, in_flight=3)
    environment.stats.reset_all()
    assert [(row["answered"], row["users"]) for row in figures(recorder)] == [(0, 4)]
    environment.stats.clear_all()
    assert figures(recorder) == []
    assert environment.events.report_to_master.listeners == environment.events.worker_report.listeners == []


def test_workers_reports_arrive_complete_and_once(attach):
    worker, here = attach(WorkerRunner())
    runner = MasterRunner()
    runner.clients = {"a": object()}
    master, there = attach(runner)
    assert here.events.worker_report.listeners == there.events.report_to_master.listeners == []

    def report():
        data: dict[str, object] = {}
        here.events.report_to_master.fire(client_id="a", data=data)
        there.events.worker_report.fire(client_id="a", data=json.loads(json.dumps(data)))

    worker.add(CLOSED, make_full_tally(), users=4, in_flight=3)
    report()
    report()  # of nothing new
    (row,) = figures(master)
    assert (row["answered"], row["failed"], row["users"], row["in_flight"]) == (2, 41, 4, 3)
    # The worker's own account goes on, whatever it has reported.
    assert worker.tallies()[CLOSED].answered == 2
    worker.add(CLOSED, make_full_tally(), users=5, in_flight=1)
    report()
    assert [(row["answered"], row["users"]) for row in figures(master)] == [(4, 5)]
    # What is reset before it was reported is not reported; users stay.
    for forget in (here.stats.reset_all, here.stats.clear_all):
        worker.add(CLOSED, make_full_tally(), users=6, in_flight=1)
        forget()
        report()
        assert [row["answered"] for row in figures(master)] == [4]
    worker.add(CLOSED, make_full_tally(), users=6, in_flight=1)
    report()
    assert [row["answered"] for row in figures(master)] == [6]
    # One that has gone has no users any more.
    runner.clients.clear()
    assert [(row["answered"], row["users"], row["in_flight"]) for row in figures(master)] == [(6, 0, 0)]


def test_counts_before_a_clear_are_not_reported(attach):
    worker, here = attach(WorkerRunner())
    worker.add(CLOSED, make_tally(answered=2), users=4, in_flight=3)
    here.stats.clear_all()
    worker.add(CLOSED, make_tally(answered=5), users=4, in_flight=3)
    data: dict[str, Any] = {}
    here.events.report_to_master.fire(client_id="a", data=data)
    assert [tally["answered"] for found in data.values() for _, tally, _ in found] == [5]


def test_report_without_the_recorders_part_is_accepted(attach):
    master, there = attach(MasterRunner())
    there.events.worker_report.fire(client_id="a", data={})
    assert figures(master) == []


# Locust patches the process that imports it, so its runners have one of their own.
WORKERS = """
import json
from locust.env import Environment
from locust.runners import WorkerNode
from loadtests.sockets.recorder import Recorder, Series, Tally

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
seen = [row.as_json() for row in master.rows()]
del runner.clients["a"]
seen += [row.as_json() for row in master.rows()]
print(json.dumps([[row["answered"], row["users"], row["in_flight"]] for row in seen]))
runner.quit()
"""


def test_master_combines_its_workers_and_drops_lost_ones():
    done = subprocess.run([sys.executable, "-c", WORKERS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # What a worker that has gone has answered stays answered; its users are gone.
    assert json.loads(done.stdout) == [[14, 7, 2], [14, 4, 1]]
