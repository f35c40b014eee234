"""Intervals of faults: when they are written, how they are read, and which requests are allowed."""

import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.base.interrupts import ENDING
from lab.base.messages import decode, encode
from lab.experiments.faults import fault as faults
from lab.experiments.faults import remote_requests
from lab.experiments.faults.fault import (
    CannotApplyError,
    Fault,
    Injection,
    find_address,
    healed_by_restart,
    injected,
    signals_held,
)
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.remote_requests import FaultRequestReader, inject_together
from lab.load.messages import MOST_FAULT_SECONDS, FaultEvent, FaultRequest
from lab.load.timeline import note, read
from lab.servers.backend import Backend
from lab.servers.runtime import find_stamps
from tests.support.fakes import Clock, FakeBackend, FakeHelper, set_clock

MODELS = ["asyncio_streams", "plain_socket"]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return set_clock(monkeypatch, tmp_path, faults, remote_requests)


@pytest.fixture
def backend(clock: Clock) -> FakeBackend:
    return FakeBackend(clock)


def read_intervals(backend: FakeBackend) -> list[FaultEvent]:
    try:
        lines = find_stamps(backend.project).read_text().splitlines()
        return [event for line in lines if (event := decode(line, FaultEvent))]
    except FileNotFoundError:
        return []


def make(inject: Any = lambda: None, heal: Any = lambda: None) -> Fault:
    return Fault("made", "for a test", lambda backend, model: Injection(inject, heal, "turn it on", "it is off"))


def test_interval_is_written_at_begin_and_end(backend: FakeBackend) -> None:
    with injected(make(), backend, MODELS[0]) as interval:
        assert interval.end_seconds is None
        (begun,) = read_intervals(backend)
        assert begun == FaultEvent(MODELS[0], "made", interval.begin, "")
    assert read_intervals(backend) == [begun, FaultEvent(MODELS[0], "made", interval.begin, interval.end)]
    assert interval.end >= interval.begin
    assert interval.end_seconds == 100.0
    # In milliseconds.
    assert len(interval.begin) == len("2026-11-28T12:00:00.000+00:00")


def test_interval_without_injection_is_not_written(backend: FakeBackend) -> None:
    with injected(make(), backend, MODELS[0], control=True):
        assert read_intervals(backend) == []

    def fail() -> None:
        raise LabError("it will not")

    with pytest.raises(LabError, match="it will not"), injected(make(inject=fail), backend, MODELS[0]):
        pytest.fail("it was applied")
    assert read_intervals(backend) == []


def test_fault_that_is_not_supported_says_so_of_a_model_that_has_ended_too(backend: FakeBackend) -> None:
    def fail() -> None:
        raise CannotApplyError("this kernel has none")

    backend.exited[MODELS[0]] = 1
    with pytest.raises(CannotApplyError, match="this kernel has none"), injected(make(fail), backend, MODELS[0]):
        pytest.fail("it was applied")


def test_interval_ends_even_if_healing_fails(backend: FakeBackend) -> None:
    def fail() -> None:
        raise OSError("it will not")

    with (
        pytest.raises(faults.NotHealedError, match="it will not\nstill broken: it is off; by hand: turn it on"),
        injected(make(heal=fail), backend, MODELS[0]),
    ):
        pass
    assert read_intervals(backend)[-1].end
    # A running model is not restarted.
    assert backend.done == []


def test_interval_lasts_until_the_restart(backend: FakeBackend, clock: Clock) -> None:
    backend.seconds = {"restart": 5.0}
    with injected(make(), backend, MODELS[0]) as interval:
        backend.exited[MODELS[0]] = 1
    assert (interval.end_seconds, interval.ended) == (105.0, 1)

    def fail() -> None:
        if MODELS[0] in backend.exited:
            raise LabError("gone")
        clock.now += 1.0

    with injected(make(heal=fail), backend, MODELS[0]) as interval:
        backend.exited[MODELS[0]] = 2
    assert (interval.begin_seconds, interval.end_seconds, interval.ended) == (105.0, 111.0, 2)


def test_failed_injection_is_healed_by_restart(backend: FakeBackend) -> None:
    def fail() -> None:
        raise LabError("it will not")

    injection = healed_by_restart(backend, MODELS[0], fail)
    injection.heal()
    assert backend.done == []
    with pytest.raises(LabError, match="it will not"):
        injection.inject()
    injection.heal()
    assert backend.done == [("restart", MODELS[0])]
    assert (injection.by_hand, injection.broken) == (f"`lab up {MODELS[0]}`, or `lab down`", f"{MODELS[0]} is down")


def test_find_address_returns_command_over_tcp(backend: FakeBackend) -> None:
    assert find_address(backend, "prefork") == "tcp://prefork:6379"
    with pytest.raises(LabError, match="nonesuch does not serve command over tcp"):
        find_address(backend, "nonesuch")


def test_fault_defaults() -> None:
    assert (make().hold, make().keeps_connections, make().needs) == (0.0, True, ())


def interval(begin: str, end: str = "", model: str = "a", fault: str = "pause") -> FaultEvent:
    return FaultEvent(model, fault, begin, end)


AT = "2026-11-28T12:00:{:02}.000+00:00"


def test_later_line_has_the_end_of_the_interval() -> None:
    since = datetime.fromisoformat(AT.format(0))
    assert read("made", since) == []
    note("made", interval(AT.format(1)))
    note("made", interval(AT.format(1), model="b"))
    note("made", interval(AT.format(2), fault="kill"))
    note("made", interval(AT.format(1), AT.format(5)))
    note("made", interval(AT.format(6)))  # the same fault once more
    note("other", interval(AT.format(1), model="c"))
    assert read("made", since) == [
        interval(AT.format(1), AT.format(5)),
        interval(AT.format(1), model="b"),
        interval(AT.format(2), fault="kill"),
        interval(AT.format(6)),
    ]
    # An incomplete line is ignored.
    with find_stamps("made").open("a") as file:
        file.write(encode(interval(AT.format(3), model="d"))[:-1])
    assert len(read("made", since)) == 4


@pytest.mark.parametrize(("since", "is_there"), [(4, True), (5, True), (6, False)])
def test_intervals_that_ended_before_are_left_out(since: int, is_there: bool) -> None:
    note("made", interval(AT.format(1), AT.format(5)))
    note("made", interval(AT.format(1), model="b"))  # not ended yet
    found = read("made", datetime.fromisoformat(AT.format(since)))
    assert [item.model for item in found] == ["a", "b"][not is_there :]


def test_intervals_are_in_a_folder_of_this_user_alone() -> None:
    folder = find_stamps("made").parent
    note("made", interval(AT.format(1)))
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(LabError, match="is not a private directory of this user"):
        note("made", interval(AT.format(2)))


def test_fault_is_injected_into_all_models_for_its_duration(backend: FakeBackend, clock: Clock) -> None:
    said: list[str] = []
    found = inject_together(
        backend, [*MODELS, MODELS[0]], FAULTS["pause"], 7.0, said.append, lambda *_: pytest.fail("no")
    )
    assert clock.slept == [7.0]
    first, second = MODELS
    # Healing runs in reverse order.
    assert backend.done == [("pause", first), ("pause", second), ("unpause", second), ("unpause", first)]
    assert [(item.model, item.begin_seconds, item.end_seconds) for item in found] == [
        (first, 100.0, 107.0),
        (second, 100.0, 107.0),
    ]
    assert said == [f"{item.model}: pause since {item.begin}, for 7 s; Ctrl-C heals it" for item in found]


def test_fault_that_ends_a_model_has_no_duration(backend: FakeBackend, clock: Clock) -> None:
    inject_together(backend, MODELS, FAULTS["kill"], 7.0, str, lambda *_: pytest.fail("no"))
    assert clock.slept == []
    assert backend.names() == ["kill", "kill", "restart", "restart"]


def test_model_that_cannot_get_the_fault_is_refused(backend: FakeBackend, clock: Clock) -> None:
    refused: list[tuple[str, str]] = []

    def prepare(backend: Backend, model: str) -> Injection:
        if model == MODELS[0]:
            raise CannotApplyError("not this one")
        return FAULTS["pause"].prepare(backend, model)

    fault = Fault("made", "", prepare, hold=0.5)
    lab = backend
    found = inject_together(lab, MODELS, fault, 7.0, str, lambda model, why: refused.append((model, str(why))))
    assert (refused, [item.model for item in found]) == ([(MODELS[0], "not this one")], [MODELS[1]])
    assert clock.slept == [7.0]
    # Without any injection there is no wait.
    clock.slept.clear()
    assert inject_together(lab, MODELS[:1], fault, 7.0, str, lambda *_: None) == []
    assert clock.slept == []


def test_failed_healing_is_not_refused(backend: FakeBackend) -> None:
    def fail() -> None:
        raise LabError("it will not")

    for fault in (make(heal=fail), make(inject=fail, heal=fail)):
        with pytest.raises(faults.NotHealedError):
            inject_together(backend, MODELS[:1], fault, 1.0, str, lambda *_: pytest.fail("it was refused"))


@pytest.fixture
def request_reader(backend: FakeBackend) -> tuple[FaultRequestReader, FakeHelper, list[str]]:
    said: list[str] = []
    generator = FakeHelper("the load generator")
    return FaultRequestReader(backend, MODELS, generator, said.append), generator, said


@pytest.mark.parametrize(
    ("seconds", "is_done"),
    [
        (0.0, False),
        (-1.0, False),
        (float("nan"), False),
        (float("inf"), False),
        (0.001, True),
        (600.0, True),
        (600.001, False),
    ],
)
def test_requested_duration_is_positive_and_at_most_ten_minutes(
    request_reader: tuple[FaultRequestReader, FakeHelper, list[str]], clock: Clock, seconds: float, is_done: bool
) -> None:
    assert MOST_FAULT_SECONDS == 600.0
    requests, generator, said = request_reader
    generator.say(FaultRequest("pause", (MODELS[0],), seconds))
    requests.advance()
    assert clock.slept == ([seconds] if is_done else [])
    if is_done:
        assert said[-1] == f"{MODELS[0]}: healed"
    else:
        assert said == [f"lab: a fault must last more than 0 and at most 600 s, not {seconds:g} s"]


def test_unknown_fault_and_foreign_model_are_refused(
    request_reader: tuple[FaultRequestReader, FakeHelper, list[str]], backend: FakeBackend
) -> None:
    requests, generator, said = request_reader
    wrong = [FaultRequest("format", (MODELS[0],), 1.0), FaultRequest("kill", ("z", MODELS[0], "b"), 1.0)]
    generator.say(*wrong)
    requests.advance()
    assert said == ["lab: unknown fault 'format'", "lab: no fault is injected into b, z: not part of this load"]
    assert backend.done == []


def test_other_output_of_the_generator_is_passed_on(
    request_reader: tuple[FaultRequestReader, FakeHelper, list[str]], backend: FakeBackend
) -> None:
    requests, generator, said = request_reader
    request = FaultRequest("pause", tuple(MODELS), 1.0)
    generator.say('{"kind": "FaultRequest"}', "one")
    requests.advance()
    assert said == ["one", said[1]]
    assert said[1].startswith("lab: the load generator sent a malformed FaultRequest: ")
    said.clear()
    generator.say(request, "last")
    requests.advance(inject=False)
    assert (said, backend.done) == (["last"], [])
    generator.say(request)
    requests.advance()
    requests.advance()
    assert [name for name, *_ in backend.done] == ["pause", "pause", "unpause", "unpause"]
    assert said[-1] == f"{', '.join(MODELS)}: healed"


def test_unsupported_fault_is_written_with_its_reason(
    request_reader: tuple[FaultRequestReader, FakeHelper, list[str]], backend: FakeBackend
) -> None:
    requests, generator, said = request_reader
    generator.say(FaultRequest("latency", (MODELS[0],), 1.0))
    begun = datetime.now(UTC)
    requests.advance()
    why = "only a container has its own network namespace"
    assert said == [f"{MODELS[0]}: latency: unknown: {why}"]
    (line,) = read_intervals(backend)
    assert (line.why_not, line.end >= line.begin) == (why, True)
    assert begun.timestamp() - 1 < datetime.fromisoformat(line.begin).timestamp()


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_held():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def read_mask() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_signals_are_held_during_injection_and_during_healing(backend: FakeBackend) -> None:
    steps: list[str] = []

    def make_step(name: str) -> Any:
        def act() -> None:
            assert read_mask() == set(ENDING)  # child processes inherit it
            signal.raise_signal(signal.SIGTERM)
            steps.append(name)

        return act

    before = signal.signal(signal.SIGTERM, lambda *_: steps.append("SIGTERM"))
    try:
        with injected(make(make_step("injected"), make_step("healed")), backend, MODELS[0]):
            steps.append("block")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps == ["injected", "SIGTERM", "block", "healed", "SIGTERM"]


def test_signals_stay_held_after_an_inner_block() -> None:
    with signals_held():
        with signals_held():
            pass
        assert read_mask() == set(ENDING)
    assert read_mask() == set()


def test_signal_delivered_to_another_thread_is_deferred() -> None:
    """The kernel delivers a signal to any thread that does not block it. The first one ends the block."""
    done = threading.Event()
    other = threading.Thread(target=done.wait, daemon=True)
    other.start()
    steps: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: steps.append("SIGTERM"))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken = signal.set_wakeup_fd(writer)

    def hold() -> None:
        with signals_held():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.pthread_kill(cast(int, other.ident), number)
                assert os.read(reader, 1) == bytes([number])  # it was delivered to the other thread
                steps.append("went on")

    try:
        with pytest.raises(KeyboardInterrupt):
            hold()
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGTERM, before)
        done.set()
        other.join()
        os.close(reader)
        os.close(writer)
    assert steps == ["went on", "went on"]
    # The mask is restored.
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
