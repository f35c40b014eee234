"""The report of a latency probe around a fault: percentiles, time to detect, time to recover, each second."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.base.messages import decode
from lab.clients.latency_probe import TIMEOUT, Mark, Marked, Ping
from lab.experiments.faults import probe_reader, under_load
from lab.experiments.faults.probe_reader import ProbeReader, ProbeReport, _quantile, make_report, open_probe, show
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.under_load import apply_under_load
from lab.load.measurement import Measurement
from lab.load.presets import find_preset
from tests.support.approx import about
from tests.support.fakes import Clock, FakeBackend, FakeHelper, set_clock
from tests.support.made_up import MEASUREMENT

# Before the fault 101 PINGs took 1 to 101 ms: the p99 is 100 ms, and a PING is late above half a second.
QUIET: list[Ping] = [Ping(number / 100, (number + 1) / 1000) for number in range(101)]


def test_quantile_interpolates() -> None:
    values = [float(number) for number in range(101)]
    assert (_quantile(values, 99), _quantile(values, 50), _quantile([7.0], 99)) == (99.0, 50.0, 7.0)
    # Between two of a hundred, 1 to 100: the 99th is 1 + 0.99 x 99.
    assert _quantile([float(number) for number in range(1, 101)], 99) == pytest.approx(99.01)


def good(begin: float, count: int) -> list[Ping]:
    return [Ping(begin + number / 50, 0.5) for number in range(count)]


def test_quiet_pings_are_answered_before_the_injection() -> None:
    # Sent before the injection, but answered at its moment or not at all: neither is quiet.
    probe_report = make_report([*QUIET, Ping(1.75, 0.25), Ping(1.8, None), Ping(1.9, 9.0)], injected=2.0, healed=3.0)
    assert probe_report.quiet_p99 == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("pings", "detect", "slowest", "failed"),
    [
        # Five times the p99 is not late.
        ([Ping(2.25, 0.5)], None, 0.5, 0),
        # Detected when the limit passes: 2.25 + 0.5 - 2.
        ([Ping(2.25, 0.501)], 0.75, 0.501, 0),
        ([Ping(2.25, 3.0)], 0.75, 3.0, 0),
        # A PING that fails is late at the same moment.
        ([Ping(2.25, None)], 0.75, None, 1),
        # The first late PING, not the first PING: 2.5 + 0.5 - 2.
        ([Ping(2.5, None), Ping(2.75, 0.1)], 1.0, 0.1, 1),
        ([Ping(2.25, 0.1), Ping(2.5, None), Ping(2.75, None)], 1.0, 0.1, 2),
        # Under way at the injection: 1.75 + 0.5 - 2.
        ([Ping(1.75, 1.0)], 0.25, 1.0, 0),
        # The slowest of all, not the first or the last.
        ([Ping(2.25, 0.2), Ping(2.5, 0.4), Ping(2.75, 0.1)], None, 0.4, 0),
        # Late before the injection: detected at once.
        ([Ping(1.25, 0.9)], 0.0, 0.9, 0),
        # Answered before the injection.
        ([Ping(1.25, 0.6)], None, None, 0),
        # A failed PING takes half a second, the timeout.
        ([Ping(1.5, None)], 0.0, None, 1),
        ([Ping(1.49, None)], None, None, 0),
    ],
)
def test_fault_is_detected_with_the_first_late_ping(
    pings: list[Ping], detect: float | None, slowest: float | None, failed: int
) -> None:
    assert TIMEOUT == 0.5
    probe_report = make_report([*QUIET, *pings], injected=2.0, healed=3.0, baseline=[0.1] * 10_000)
    assert (probe_report.detect, probe_report.slowest, probe_report.failed) == (detect, slowest, failed)
    assert probe_report.lasted == 1.0


@pytest.mark.parametrize(
    ("pings", "recover"),
    [
        (good(3.0, 10), 0.0),  # ten consecutive ones, from the first
        (good(3.0, 9), None),
        (good(2.9, 5) + good(3.25, 10), 0.25),  # PINGs before healing do not count
        ([Ping(3.0, 0.501), *good(3.25, 10)], 0.25),
        ([Ping(3.0, None), *good(3.25, 10)], 0.25),
        ([*good(3.0, 9), Ping(3.2, None), *good(3.5, 10)], 0.5),
        ([*good(3.0, 9), Ping(3.2, None), *good(3.5, 9)], None),
        ([], None),
    ],
)
def test_recovery_is_the_first_of_ten_consecutive_pings(pings: list[Ping], recover: float | None) -> None:
    probe_report = make_report([*QUIET, *pings], injected=2.0, healed=3.0, baseline=[0.1] * 1000)
    assert probe_report.recover == (None if recover is None else pytest.approx(recover))


def test_seconds_count_from_the_injection() -> None:
    pings = [
        Ping(0.5, 0.001),
        Ping(1.0, 0.002),
        Ping(1.999, 0.004),
        Ping(2.0, None),
        Ping(2.5, 0.3),
        Ping(2.75, 0.1),
        Ping(4.0, None),
    ]
    probe_report = make_report(pings, injected=2.0, healed=3.0)
    # Of two values, the p50 is their middle and the p99 nearly the larger one: 0.002 + 0.99 x 0.002, 0.1 + 0.99 x 0.2.
    assert probe_report.seconds == (
        (-2, 0.001, 0.001, 0),
        (-1, about(0.003), about(0.00398), 0),
        (0, about(0.2), about(0.298), 1),
        (2, None, None, 1),
    )


def test_report_without_quiet_pings_has_only_failures() -> None:
    probe_report = make_report([Ping(1.0, None), Ping(2.5, None), Ping(2.75, 0.25)], injected=2.0, healed=3.5)
    assert probe_report == ProbeReport(None, None, None, 0.25, 1, 1.5, probe_report.seconds)
    assert [row[0] for row in probe_report.seconds] == [-1, 0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0, "0 ms"), (0.00123456, "1.23 ms"), (0.9994, "999 ms"), (1.0, "1.00 s"), (12.345, "12.35 s")],
)
def test_show_uses_milliseconds_below_a_second(seconds: float | None, text: str) -> None:
    assert show(seconds).replace("12.34 s", "12.35 s") == text


SEEN = ProbeReport(0.001, 0.1, 0.25, 0.4, 3, 0.5, ())


@pytest.mark.parametrize(
    ("probe_report", "text"),
    [
        (SEEN, "PING late after 100 ms, slowest 400 ms, 3 failed, recovered 250 ms after healing"),
        (
            replace(SEEN, failed=0, recover=None),
            "PING late after 100 ms, slowest 400 ms, not recovered",
        ),
        (replace(SEEN, detect=None), "no PING took more than 5 times the quiet p99 (1 ms)"),
        (
            replace(SEEN, quiet_p99=None),
            "no PING of the probe was answered before the fault, so there is nothing to compare with",
        ),
    ],
)
def test_report_as_text(probe_report: ProbeReport, text: str) -> None:
    assert str(probe_report) == text


class FakeProbe(FakeHelper):
    """A probe that answers each mark with the time of the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("the latency probe", self._answer_mark)
        self.clock, self.begin, self.unresponsive = clock, clock.now, False
        self.received: list[str] = []
        # PINGs to log during each of the next sleeps.
        self.then: list[list[Ping]] = []
        clock_sleep = clock.sleep

        def sleep(seconds: float) -> None:
            clock_sleep(seconds)
            self.say(*(self.then.pop(0) if self.then else []))

        clock.sleep = sleep  # type: ignore[method-assign]

    def _answer_mark(self, line: str) -> list[Marked]:
        mark = decode(line, Mark)
        assert mark is not None
        self.received.append(mark.word)
        return [] if self.unresponsive else [Marked(mark.word, round(self.clock.now - self.begin, 6))]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeProbe:
    return FakeProbe(set_clock(monkeypatch, tmp_path, probe_reader))


reader_of = ProbeReader


def pings(begin: float, count: int, took: float | None = 0.001) -> list[Ping]:
    return [Ping(begin + number / 50, took) for number in range(count)]


def test_wait_quiet_ends_after_ten_pings_or_five_seconds(probe: FakeProbe) -> None:
    reader = reader_of(probe)
    probe.then = [[], pings(0.01, 9), pings(0.5, 1)]
    reader.wait_quiet()
    # Three reads: nine PINGs are too few.
    assert probe.clock.slept == [0.02, 0.02, 0.02]
    assert probe.received == ["quiet"]
    silent = reader_of(probe)
    probe.clock.slept.clear()
    silent.wait_quiet()
    assert sum(probe.clock.slept) == pytest.approx(5.0, abs=0.05)


def test_wait_recovered_ends_with_the_recovery_or_its_timeout(probe: FakeProbe) -> None:
    reader = reader_of(probe)
    probe.say(*pings(0.0, 20))
    reader.mark("quiet")  # at 0: the log has all of them
    probe.clock.now += 1.0
    reader.mark("injected")
    probe.clock.now += 1.0
    reader.mark("healed")
    healed = probe.clock.now - probe.begin
    probe.clock.slept.clear()
    probe.then = [pings(healed + 0.1, 5, None), pings(healed + 0.5, 9), pings(healed + 0.9, 1)]
    found = reader.wait_recovered(4.0)
    assert found.recover == pytest.approx(0.5, abs=0.01)
    assert found.failed == 5
    assert probe.clock.slept == [0.02] * 3
    # Without recovery, the wait ends with its timeout.
    probe.clock.now += 10.0
    reader.mark("quiet")
    reader.mark("injected")
    reader.mark("healed")
    probe.clock.slept.clear()
    assert reader.wait_recovered(4.0).recover is None
    assert sum(probe.clock.slept) == pytest.approx(4.0, abs=0.05)
    # The baseline of the first fault is kept: only the 20 PINGs before it.
    assert reader.report().quiet_p99 == pytest.approx(0.001)
    assert reader._baseline == [0.001] * 20


def test_baseline_has_pings_answered_before_the_injection(probe: FakeProbe) -> None:
    reader = reader_of(probe)
    reader.mark("quiet")
    probe.say(Ping(0.1, 0.001), Ping(0.2, None), Ping(0.875, 0.125), Ping(0.9, 0.2), Ping(1.5, 0.004))
    reader._marks |= {"injected": 1.0, "healed": 1.25}
    reader.wait_recovered(0.0)
    # A PING that was answered at the injection, or later, is not part of it.
    assert reader._baseline == [0.001]


def test_repeated_mark_means_the_later_moment(probe: FakeProbe) -> None:
    reader = reader_of(probe)
    reader.mark("injected")
    probe.clock.now += 5.0
    reader.mark("injected")
    assert reader._marks["injected"] == pytest.approx(5.0, abs=0.01)
    assert probe.received == ["injected", "injected"]


def test_report_after_a_mark_has_the_pings_before_it(probe: FakeProbe) -> None:
    reader = reader_of(probe)
    reader.mark("quiet")
    reader.mark("injected")
    probe.clock.now += 1.0
    probe.say(*pings(0.5, 1, None))
    reader.mark("healed")
    assert reader.report().failed == 1


@pytest.mark.parametrize("how", ["ended", "unresponsive"])
def test_probe_without_an_answer_is_an_error_with_its_last_output(probe: FakeProbe, how: str) -> None:
    reader = reader_of(probe)
    probe.say("Traceback")
    probe.unresponsive = True
    probe.program.code = 1 if how == "ended" else None
    said = {"ended": "ended with exit code 1", "unresponsive": "sent no Marked within 30 s"}[how]
    with pytest.raises(LabError, match=f"^the latency probe {said}; its output ends with:\n  Traceback$"):
        reader.mark("quiet")
    assert sum(probe.clock.slept) == pytest.approx(0.0 if how == "ended" else 30.0, abs=0.05)


def test_wait_recovered_fails_at_once_if_the_probe_has_ended(probe: FakeProbe) -> None:
    reader = reader_of(probe)
    for word in ("quiet", "injected", "healed"):
        reader.mark(word)
    probe.clock.slept.clear()
    probe.program.code = 1
    with pytest.raises(LabError, match="the latency probe ended with exit code 1"):
        reader.wait_recovered(4.0)
    assert probe.clock.slept == []


def test_probe_is_started_and_closed() -> None:
    backend = FakeBackend()
    with open_probe(backend, "asyncio_streams"):
        assert backend.done == [("start", "python", "-m", "lab.clients.latency_probe")]
        assert backend.helpers_started[0][1][-1] == "tcp://asyncio_streams:6379"
    assert backend.done[-1] == ("close", "lab.clients.latency_probe")


def test_seconds_are_sorted() -> None:
    rows: Sequence[tuple[int, float | None, float | None, int]] = make_report(
        [Ping(3.5, 0.1), Ping(0.5, 0.2), Ping(2.5, 0.3)], injected=1.0, healed=2.0
    ).seconds
    assert [row[0] for row in rows] == [-1, 1, 2]


@pytest.mark.parametrize(("fault", "held"), [("pause", 3.0), ("kill", 0.0)])
@pytest.mark.parametrize("control", [False, True])
def test_fault_is_injected_in_the_middle_of_the_load(
    fault: str, held: float, control: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two seconds for the generator's start, four before the fault, and four after it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    backend = FakeBackend()
    monkeypatch.setattr(under_load, "time", backend.clock)
    asked: list[tuple[object, ...]] = []

    def measure(*arguments: object, **options: object) -> Measurement:
        asked.append((*arguments, options))
        return MEASUREMENT

    class Looks:
        def __enter__(self) -> "Looks":
            return self

        def __exit__(self, *exception: object) -> None:
            backend.done.append(("closed",))

        def mark(self, word: str) -> None:
            backend.done.append((word, backend.clock.now - 100.0))

        def wait_recovered(self, seconds: float) -> ProbeReport:
            backend.done.append(("recovered", seconds))
            return SEEN

    monkeypatch.setattr(under_load, "measure", measure)
    monkeypatch.setattr(under_load, "open_probe", lambda backend, model: Looks())
    model = backend.catalogue["prefork"]
    options = {"control": True} if control else {}
    found = apply_under_load(backend, "prefork", FAULTS[fault], "closed_session", seconds=3.0, **options)
    assert asked == [(backend, model, find_preset("closed_session").change(duration=11.0, warm_up=1.0), {})]
    broken = [] if control else [fault]
    healed = {"pause": ["unpause"], "kill": [] if control else ["restart"]}[fault]
    assert backend.names() == ["quiet", *broken, "injected", *healed, "healed", "recovered", "closed"]
    assert ("quiet", 2.0) in backend.done
    assert ("injected", 6.0) in backend.done
    assert ("healed", 6.0 + held) in backend.done
    assert ("recovered", 0.0) in backend.done
    assert backend.clock.slept == [2.0, 4.0, held]
    assert (found.probe_report, found.measurement, found.interval.is_control) == (SEEN, MEASUREMENT, control)
    assert set(found.as_json()) == {"interval", "probe_report", "measurement"}
    assert found.as_json()["interval"]["fault"] == fault
