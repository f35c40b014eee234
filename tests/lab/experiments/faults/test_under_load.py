"""A fault in the middle of a load: time to detect and time to recover."""

import os
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.clients.latency_probe import TIMEOUT, Ping
from lab.experiments.faults import fault as faults
from lab.experiments.faults import under_load
from lab.experiments.faults.judge import Verdict, judge_times
from lab.experiments.faults.probe_reader import ProbeReader, ProbeReport, make_report, open_probe
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.under_load import apply_under_load
from lab.load.measurement import Measurement
from lab.load.presets import Preset
from lab.servers.backend import Backend
from lab.servers.catalogue import Model
from lab.servers.processes import Processes
from tests.faults.conftest import CATALOGUE
from tests.support.approx import about
from tests.support.fakes import FakeBackend, set_clock
from tests.support.made_up import MEASUREMENT
from tests.support.waiting import wait_until

MODEL = "asyncio_streams"


def every_tenth(begin: float, end: float, took: float | None) -> list[Ping]:
    return [Ping(begin + number / 10, took) for number in range(round((end - begin) * 10))]


QUIET = every_tenth(0.0, 2.0, 0.001)


@pytest.mark.parametrize(
    ("during", "after", "detect", "recover"),
    [
        (every_tenth(2.0, 3.0, 0.001), every_tenth(3.0, 5.0, 0.001), None, 0.0),
        (every_tenth(2.0, 3.0, 0.1), every_tenth(3.0, 5.0, 0.001), 0.005, 0.0),
        (every_tenth(2.0, 3.0, None), every_tenth(3.0, 3.5, None) + every_tenth(3.5, 5.0, 0.001), 0.005, 0.5),
        (every_tenth(2.0, 3.0, 0.001), every_tenth(3.0, 5.0, None), 1.005, None),
        # Too few consecutive ones.
        (every_tenth(2.0, 3.0, None), every_tenth(3.0, 3.5, 0.001), 0.005, None),
    ],
)
def test_report_has_baseline_detection_and_recovery(
    during: list[Ping], after: list[Ping], detect: float | None, recover: float | None
) -> None:
    probe_report = make_report(QUIET + during + after, injected=2.0, healed=3.0)
    assert (probe_report.quiet_p99, probe_report.detect, probe_report.recover) == (
        about(0.001),
        None if detect is None else about(detect),
        None if recover is None else about(recover),
    )


def test_ping_under_way_at_the_injection_can_be_late() -> None:
    probe_report = make_report([*QUIET, Ping(1.99, None), *every_tenth(2.5, 5.0, 0.001)], injected=2.0, healed=2.4)
    assert probe_report.detect == 0.0
    assert (probe_report.failed, probe_report.slowest, probe_report.lasted) == (1, 0.001, about(0.4))


def test_baseline_includes_earlier_quiet_pings() -> None:
    pings = [*every_tenth(1.8, 2.0, 0.001), *every_tenth(2.0, 5.0, 0.008)]
    assert make_report(pings, injected=2.0, healed=3.0).detect is not None
    assert make_report(pings, injected=2.0, healed=3.0, baseline=[0.002] * 20).detect is None


QUIET_TIMES = ProbeReport(0.001, 0.1, 0.2, 0.4, 3, 0.5, ())


@pytest.mark.parametrize(
    ("probe_report", "verdict", "said"),
    [
        (replace(QUIET_TIMES, quiet_p99=None, detect=None, recover=None), Verdict.HELD, "nothing to compare with"),
        (replace(QUIET_TIMES, detect=None, recover=0.0), Verdict.HELD, "no PING took more than 5 times"),
        (QUIET_TIMES, Verdict.HELD, "late after 100 ms, slowest 400 ms, 3 failed, recovered 200 ms after healing"),
        (
            replace(QUIET_TIMES, recover=1.5),
            Verdict.DEGRADED,
            "recovered 1.50 s after healing, more than the allowed 1.00 s",
        ),
        (replace(QUIET_TIMES, recover=None), Verdict.DEGRADED, "not recovered within 4 s"),
    ],
)
def test_late_recovery_is_degraded(probe_report: ProbeReport | None, verdict: Verdict, said: str) -> None:
    found, reason = judge_times(probe_report, 1.0, lasted=0.5, silence=9.0)
    assert found is verdict
    assert said in reason


@pytest.mark.parametrize(
    ("lasted", "silence", "verdict", "said"),
    [
        (0.5, 1.4, Verdict.HELD, "those of the request log waited 1.40 s at most"),
        (0.5, 1.6, Verdict.DEGRADED, "1.60 s at most, more than the fault's 500 ms and the allowed 1.00 s"),
        (0.0, 1.6, Verdict.HELD, "1.60 s at most"),
    ],
)
def test_silence_decides_without_a_probe(lasted: float, silence: float, verdict: Verdict, said: str) -> None:
    found, reason = judge_times(None, 1.0, lasted=lasted, silence=silence)
    assert found is verdict
    assert said in reason


def test_unanswered_probe_has_no_baseline() -> None:
    probe_report = make_report(every_tenth(0.0, 4.0, None), injected=2.0, healed=3.0)
    assert (probe_report.quiet_p99, probe_report.detect, probe_report.recover) == (None, None, None)
    assert probe_report.seconds == tuple((second, None, None, 10) for second in (-2, -1, 0, 1))


def test_pause_under_load_is_detected_and_recovered() -> None:
    backend = Processes(f"around-{os.getpid()}", CATALOGUE)
    try:
        backend.up([MODEL])
        seen = apply_under_load(backend, MODEL, FAULTS["pause"], "closed_session", seconds=6 * TIMEOUT)
    finally:
        backend.down()
    assert seen.measurement.answered
    assert seen.probe_report.detect is not None
    assert seen.probe_report.recover is not None
    assert any(failed for second, *_, failed in seen.probe_report.seconds if second >= 0)
    # There is at least a second before the fault, and one during it.
    assert {second for second, *_ in seen.probe_report.seconds} >= {-1, 0}


@pytest.mark.parametrize(
    ("fault", "control", "done"),
    [
        (
            "pause",
            False,
            [("mark", "quiet", 102.0), "pause", ("mark", "injected", 106.0), "unpause", ("mark", "healed", 107.5)],
        ),
        # A fault that ends the model lasts no time.
        (
            "kill",
            False,
            [("mark", "quiet", 102.0), "kill", ("mark", "injected", 106.0), "restart", ("mark", "healed", 106.0)],
        ),
        ("kill", True, [("mark", "quiet", 102.0), ("mark", "injected", 106.0), ("mark", "healed", 106.0)]),
    ],
)
def test_fault_lasts_in_the_middle_of_the_load_and_a_control_run_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, control: bool, done: list[Any]
) -> None:
    clock = set_clock(monkeypatch, tmp_path, under_load, faults)
    backend = FakeBackend(clock)
    steps: list[Any] = []
    asked: list[tuple[str, Preset]] = []
    report = ProbeReport(0.001, None, None, None, 0, 0.0, ())

    class Probe:
        def mark(self, word: str) -> None:
            steps.extend(backend.names())
            backend.done.clear()
            steps.append(("mark", word, clock.now))

        def wait_recovered(self, seconds: float) -> ProbeReport:
            steps.append(("recovered", seconds))
            return report

    def measure(backend: Backend, model: Model, load: Preset) -> Measurement:
        asked.append((model.name, load))
        return MEASUREMENT

    monkeypatch.setattr(under_load, "measure", measure)
    monkeypatch.setattr(under_load, "open_probe", lambda backend, model: nullcontext(Probe()))
    found = apply_under_load(backend, MODEL, FAULTS[fault], "closed_session", seconds=1.5, control=control)
    # The load has ended by then: there is nothing to wait for.
    assert steps == [*done, ("recovered", 0.0)]
    assert (found.probe_report, found.measurement, found.interval.is_control) == (report, MEASUREMENT, control)
    # Four seconds before the fault, 1.5 for it, and four after.
    ((name, load),) = asked
    assert (name, load.name, load.spec.window, load.spec.warm_up) == (MODEL, "closed_session", 9.5, 1.0)


def has_failed(reader: ProbeReader) -> bool:
    """Return whether a PING has failed since the mark `injected`. The mark `healed` may be set again."""
    reader.mark("healed")
    return reader.report().failed > 0


def test_probe_measures_several_faults() -> None:
    backend = Processes(f"watch-{os.getpid()}", CATALOGUE)
    try:
        backend.up([MODEL])
        with open_probe(backend, MODEL) as reader:
            seen = []
            for seconds in (0.0, 0.7):
                reader.wait_quiet()
                backend.faults.kill(MODEL, signal.SIGSTOP)
                reader.mark("injected")
                time.sleep(seconds)
                if seconds:
                    wait_until(lambda: has_failed(reader))
                backend.faults.kill(MODEL, signal.SIGCONT)
                reader.mark("healed")
                seen.append(reader.wait_recovered(10.0))
            # The baseline is kept: this fault has no quiet time before it.
            for word in ("quiet", "injected", "healed"):
                reader.mark(word)
            assert reader.report().quiet_p99 is not None
    finally:
        backend.down()
    long = seen[1]
    # The probe's timeout is half a second.
    assert long.failed > 0
    assert long.detect is not None
    assert long.recover is not None
    assert long.lasted >= 0.7
    # Each report starts at its own quiet time.
    assert sum(failed for *_, failed in long.seconds) == long.failed
