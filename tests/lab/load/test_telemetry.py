"""Telemetry for the load generator: the figures of each reading, and the encoding of the lines."""

import threading
import time
from datetime import UTC, datetime

import pytest

from lab.base.messages import decode
from lab.load import telemetry as module
from lab.load.messages import MOST_FAULT_SECONDS, FaultEvent, Telemetry, Usage
from lab.load.telemetry import Gauges, send_telemetry
from lab.metrics.sample import Sample
from tests.support.fakes import FakeHelper
from tests.support.waiting import wait_until


class Meter:
    """A meter that returns the given samples, then empty ones."""

    def __init__(self, *samples: Sample) -> None:
        self._samples = list(samples)

    def read(self) -> Sample:
        return self._samples.pop(0) if self._samples else Sample()

    def count_descriptors(self) -> int:
        return 9


class Metered:
    """Servers whose meters are made by a function."""

    project = "p"

    def __init__(self, make):
        self._make = make

    def meter(self, model):
        return self._make()


@pytest.fixture
def open_gauges(monkeypatch):
    """Gauges of one model with given meters and a given clock."""

    def start(clock: list[float], *meters: Meter) -> Gauges:
        waiting, times = list(meters), iter(clock)
        monkeypatch.setattr(time, "monotonic", lambda: next(times))
        return Gauges(Metered(lambda: waiting.pop(0) if waiting else Meter()), ["a"])

    return start


def test_cpu_usage_is_the_mean_since_the_last_reading(open_gauges):
    samples = [Sample(cpu_seconds=cpu, memory_bytes=5, processes=2, threads=3) for cpu in (10.0, 11.0, 10.5, 14.5)]
    gauges = open_gauges([100.0, 104.0, 105.0, 107.0], Meter(*samples))
    # 1 s of CPU in 4 s; less than before is no CPU; 4 s in 2.
    expected = [None, 0.25, 0.0, 2.0]
    for cores in expected:
        assert gauges.read() == [Usage("a", cores, 5, 2, 3, 9)]


def test_restarted_server_is_read_from_its_start(open_gauges):
    gauges = open_gauges(
        [1.0, 2.0, 3.0], Meter(Sample(cpu_seconds=50.0)), Meter(Sample(cpu_seconds=0.5), Sample(cpu_seconds=0.75))
    )
    assert gauges.read() == [Usage("a", None, descriptors=9)]
    assert gauges.read() == [Usage("a")]
    # Not the usage of the process before.
    assert gauges.read() == [Usage("a", None, descriptors=9)]
    assert gauges.read() == [Usage("a", 0.25, descriptors=9)]


def test_server_without_readings_has_no_cpu_usage(open_gauges):
    gauges = open_gauges([], Meter(Sample(memory_bytes=7), Sample(memory_bytes=8)))
    assert [gauges.read(), gauges.read()] == [
        [Usage("a", None, 7, descriptors=9)],
        [Usage("a", None, 8, descriptors=9)],
    ]


FAULTS = [FaultEvent("a", "kill", "then", "later", "because"), FaultEvent("b", "pause", "now", "")]


def listen():
    """A generator, and the telemetry that it gets."""
    heard: list[Telemetry | None] = []

    def hear(line):
        heard.append(decode(line, Telemetry))
        return ()

    return FakeHelper("the load generator", hear), heard


def test_telemetry_is_sent_until_the_block_ends(monkeypatch, pauses):
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    asked: list[tuple[str, datetime]] = []

    def read_faults(project, since):
        asked.append((project, since))
        return FAULTS[:1]

    monkeypatch.setattr(module, "read", read_faults)
    generator, heard = listen()
    before = datetime.now(UTC)
    with send_telemetry(Metered(lambda: Meter(*[Sample(memory_bytes=7)] * 10_000)), ["a"], generator):
        wait_until(lambda: len(heard) >= 3)
        assert "telemetry" in [thread.name for thread in threading.enumerate()]
    wait_until(lambda: "telemetry" not in [thread.name for thread in threading.enumerate()])
    # One pause before each message, and one that the end of the block has ended.
    assert pauses == [0.01] * (len(heard) + 1)
    assert heard[0] == Telemetry((Usage("a", None, 7, descriptors=9),), (FAULTS[0],))
    assert all(telemetry and telemetry.faults for telemetry in heard)
    # Those since the load started, all the time.
    ((project, since),) = set(asked)
    assert project == "p"
    assert before <= since <= datetime.now(UTC)


def test_reader_that_hangs_is_waited_for_as_long_as_two_readings(monkeypatch):
    """Locust's page asks every two seconds, so a reading each second is always there."""
    assert module._INTERVAL == 1.0
    joined = []

    class Thread(threading.Thread):
        def join(self, timeout=None):
            joined.append(timeout)
            super().join()

    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    monkeypatch.setattr(module, "read", lambda project, since: [])
    monkeypatch.setattr(threading, "Thread", Thread)
    generator, _ = listen()
    with send_telemetry(Metered(Meter), ["a"], generator):
        pass
    assert joined == [0.02]
    # The same if the load fails, or somebody ends it.
    with pytest.raises(ZeroDivisionError), send_telemetry(Metered(Meter), ["a"], generator):
        raise ZeroDivisionError
    assert joined == [0.02] * 2


def test_telemetry_ends_when_the_generator_has_ended(monkeypatch):
    generator, _ = listen()
    generator.program.code = 0
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    monkeypatch.setattr(module, "read", lambda project, since: [])
    with send_telemetry(Metered(Meter), ["a"], generator):
        wait_until(lambda: "telemetry" not in [thread.name for thread in threading.enumerate()])


def test_requested_fault_lasts_at_most_ten_minutes():
    assert MOST_FAULT_SECONDS == 10 * 60
