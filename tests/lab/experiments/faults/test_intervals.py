"""From when to when a model was broken: what is noted, what is read of it, and what may be asked for."""

import json
import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.experiments.faults import fault as faults
from lab.experiments.faults import remote_requests
from lab.experiments.faults.fault import (
    CannotApplyError,
    Fault,
    Injection,
    find_address,
    injected,
    signals_held,
    until_restarted,
)
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.remote_requests import FaultRequestReader, inject_together
from lab.load.messages import MOST_FAULT_SECONDS, FaultRequest
from lab.load.timeline import note, read
from lab.servers.backend import Backend
from lab.servers.runtime import find_stamps
from tests.support.fakes import Clock, FakeBackend, set_clock

MODELS = ["asyncio_streams", "plain_socket"]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return set_clock(monkeypatch, tmp_path, faults, remote_requests)


@pytest.fixture
def backend(clock: Clock) -> FakeBackend:
    return FakeBackend(clock)


def noted(backend: FakeBackend) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in find_stamps(backend.project).read_text().splitlines()]
    except FileNotFoundError:
        return []


def make(inject: Any = lambda: None, heal: Any = lambda: None) -> Fault:
    return Fault("made", "for a test", lambda backend, model: Injection(inject, heal, "turn it on", "it is off"))


def test_a_fault_is_noted_when_it_is_there_and_when_it_is_not(backend: FakeBackend) -> None:
    with injected(make(), cast(Backend, backend), MODELS[0]):
        (begun,) = noted(backend)
        assert (begun["fault"], begun["model"], begun["end"], begun["end_seconds"]) == ("made", MODELS[0], "", None)
    first, second = noted(backend)
    assert first == begun
    assert second["end"] >= second["begin"] == begun["begin"]
    assert second["end_seconds"] == 100.0
    # To a millisecond.
    assert len(begun["begin"]) == len("2026-11-28T12:00:00.000+00:00")


def test_what_broke_nothing_is_not_noted(backend: FakeBackend) -> None:
    with injected(make(), cast(Backend, backend), MODELS[0], control=True):
        assert noted(backend) == []

    def fail() -> None:
        raise LabError("it will not")

    with pytest.raises(LabError, match="it will not"), injected(make(inject=fail), cast(Backend, backend), MODELS[0]):
        pytest.fail("it was applied")
    assert noted(backend) == []


def test_what_could_not_be_healed_has_its_end_too(backend: FakeBackend) -> None:
    def fail() -> None:
        raise OSError("it will not")

    with (
        pytest.raises(faults.NotHealedError, match="it will not\nstill broken: it is off; by hand: turn it on"),
        injected(make(heal=fail), cast(Backend, backend), MODELS[0]),
    ):
        pass
    assert noted(backend)[-1]["end"]
    # A model that runs is not started again for that.
    assert backend.done == []


def test_a_model_that_is_started_again_was_broken_until_then(backend: FakeBackend, clock: Clock) -> None:
    backend.seconds = {"restart": 5.0}
    with injected(make(), cast(Backend, backend), MODELS[0]) as interval:
        backend.exited[MODELS[0]] = 1
    assert (interval.end_seconds, interval.ended) == (105.0, 1)

    def fail() -> None:
        if MODELS[0] in backend.exited:
            raise LabError("gone")
        clock.now += 1.0

    with injected(make(heal=fail), cast(Backend, backend), MODELS[0]) as interval:
        backend.exited[MODELS[0]] = 2
    assert (interval.begin_seconds, interval.end_seconds, interval.ended) == (105.0, 111.0, 2)


def test_what_was_begun_is_started_again_even_if_it_failed(backend: FakeBackend) -> None:
    def fail() -> None:
        raise LabError("it will not")

    injection = until_restarted(cast(Backend, backend), MODELS[0], fail)
    injection.heal()
    assert backend.done == []
    with pytest.raises(LabError, match="it will not"):
        injection.inject()
    injection.heal()
    assert backend.done == [("restart", MODELS[0])]
    assert (injection.by_hand, injection.broken) == (f"`lab up {MODELS[0]}`, or `lab down`", f"{MODELS[0]} is down")


def test_the_ledger_is_kept_where_command_is_spoken_over_tcp(backend: FakeBackend) -> None:
    assert find_address(cast(Backend, backend), "prefork") == "tcp://prefork:6379"
    with pytest.raises(LabError, match="nonesuch does not speak command over tcp"):
        find_address(cast(Backend, backend), "nonesuch")


def test_by_default_a_fault_ends_what_it_breaks_and_keeps_connections() -> None:
    assert (make().hold, make().keeps, make().needs) == (0.0, True, ())


def interval(begin: str, end: str = "", model: str = "a", fault: str = "pause") -> dict[str, object]:
    return {"model": model, "fault": fault, "begin": begin, "end": end}


AT = "2026-11-28T12:00:{:02}.000+00:00"


def test_of_two_lines_the_later_one_has_the_end() -> None:
    since = datetime.fromisoformat(AT.format(0))
    assert read("made", since) == []
    note("made", interval(AT.format(1)))
    note("made", interval(AT.format(1), model="b"))
    note("made", interval(AT.format(2), fault="kill"))
    note("made", interval(AT.format(1), AT.format(5)))
    note("other", interval(AT.format(1), model="c"))
    assert read("made", since) == [
        interval(AT.format(1), AT.format(5)),
        interval(AT.format(1), model="b"),
        interval(AT.format(2), fault="kill"),
    ]
    # A line that is being written is none yet.
    with find_stamps("made").open("a") as file:
        file.write('{"model": "d"')
    assert len(read("made", since)) == 3


@pytest.mark.parametrize(("since", "is_there"), [(4, True), (5, True), (6, False)])
def test_what_was_over_before_is_left_out(since: int, is_there: bool) -> None:
    note("made", interval(AT.format(1), AT.format(5)))
    note("made", interval(AT.format(1), model="b"))  # it lasts still
    found = read("made", datetime.fromisoformat(AT.format(since)))
    assert [item["model"] for item in found] == ["a", "b"][not is_there :]


def test_models_are_broken_at_once_for_as_long_as_is_asked(backend: FakeBackend, clock: Clock) -> None:
    said: list[str] = []
    found = inject_together(
        cast(Backend, backend), [*MODELS, MODELS[0]], FAULTS["pause"], 7.0, said.append, lambda *_: pytest.fail("no")
    )
    assert clock.slept == [7.0]
    first, second = MODELS
    # The last that was broken is the first that is healed.
    assert backend.done == [("pause", first), ("pause", second), ("unpause", second), ("unpause", first)]
    assert [(item.model, item.begin_seconds, item.end_seconds) for item in found] == [
        (first, 100.0, 107.0),
        (second, 100.0, 107.0),
    ]
    assert said == [f"{item.model}: pause since {item.begin}, for 7 s; Ctrl-C mends it" for item in found]


def test_what_ends_a_model_is_not_waited_for(backend: FakeBackend, clock: Clock) -> None:
    inject_together(cast(Backend, backend), MODELS, FAULTS["kill"], 7.0, str, lambda *_: pytest.fail("no"))
    assert clock.slept == []
    assert backend.names() == ["kill", "kill", "restart", "restart"]


def test_a_model_that_cannot_be_broken_is_refused_and_the_others_are_broken(backend: FakeBackend, clock: Clock) -> None:
    refused: list[tuple[str, str]] = []

    def prepare(backend: Backend, model: str) -> Injection:
        if model == MODELS[0]:
            raise CannotApplyError("not this one")
        return FAULTS["pause"].prepare(backend, model)

    fault = Fault("made", "", prepare, hold=0.5)
    lab = cast(Backend, backend)
    found = inject_together(lab, MODELS, fault, 7.0, str, lambda model, why: refused.append((model, str(why))))
    assert (refused, [item.model for item in found]) == ([(MODELS[0], "not this one")], [MODELS[1]])
    assert clock.slept == [7.0]
    # Where none can be, nothing is waited for.
    clock.slept.clear()
    assert inject_together(lab, MODELS[:1], fault, 7.0, str, lambda *_: None) == []
    assert clock.slept == []


def test_one_that_could_not_be_healed_ends_it_all(backend: FakeBackend) -> None:
    def fail() -> None:
        raise LabError("it will not")

    for fault in (make(heal=fail), make(inject=fail, heal=fail)):
        with pytest.raises(faults.NotHealedError):
            inject_together(
                cast(Backend, backend), MODELS[:1], fault, 1.0, str, lambda *_: pytest.fail("it was refused")
            )


@pytest.fixture
def asked(backend: FakeBackend, tmp_path: Path) -> tuple[FaultRequestReader, Path, list[str]]:
    said: list[str] = []
    log = tmp_path / "log"
    log.touch()
    return FaultRequestReader(cast(Backend, backend), MODELS, log, said.append), log, said


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
def test_a_fault_lasts_more_than_nothing_and_at_most_ten_minutes(
    asked: tuple[FaultRequestReader, Path, list[str]], clock: Clock, seconds: float, is_done: bool
) -> None:
    assert MOST_FAULT_SECONDS == 600.0
    requests, log, said = asked
    log.write_text(f"{FaultRequest('pause', (MODELS[0],), seconds).encode()}\n")
    requests.advance()
    assert clock.slept == ([seconds] if is_done else [])
    if is_done:
        assert said[-1] == f"{MODELS[0]}: mended"
    else:
        assert said == [f"lab: a fault lasts for more than 0 and at most 600 s, not for {seconds:g}"]


def test_only_faults_of_the_catalogue_and_models_of_the_load(
    asked: tuple[FaultRequestReader, Path, list[str]], backend: FakeBackend
) -> None:
    requests, log, said = asked
    wrong = [FaultRequest("format", (MODELS[0],), 1.0), FaultRequest("kill", ("z", MODELS[0], "b"), 1.0)]
    log.write_text("".join(f"{request.encode()}\n" for request in wrong))
    requests.advance()
    assert said == ["lab: there is no fault 'format'", "lab: b, z cannot be broken: not of this load"]
    assert backend.done == []


def test_all_else_that_a_generator_says_is_passed_on(
    asked: tuple[FaultRequestReader, Path, list[str]], backend: FakeBackend
) -> None:
    requests, log, said = asked
    line = FaultRequest("pause", tuple(MODELS), 1.0).encode()
    log.write_bytes(b"LOAD-FAULT {}\none\r\n\xff\n" + line[:9].encode())
    requests.advance()
    assert said == [said[0], "one", "\N{REPLACEMENT CHARACTER}"]
    assert said[0].startswith("lab: not a request for a fault")
    said.clear()
    with log.open("a") as file:
        file.write(f"{line[9:]}\nlast\n")
    requests.advance(obey=False)
    assert (said, backend.done) == (["last"], [])
    with log.open("a") as file:
        file.write(f"{line}\n")
    requests.advance()
    requests.advance()
    assert [name for name, *_ in backend.done] == ["pause", "pause", "unpause", "unpause"]
    assert said[-1] == f"{', '.join(MODELS)}: mended"


def test_what_cannot_be_had_is_noted_with_its_reason(
    asked: tuple[FaultRequestReader, Path, list[str]], backend: FakeBackend
) -> None:
    requests, log, said = asked
    log.write_text(f"{FaultRequest('latency', (MODELS[0],), 1.0).encode()}\n")
    begun = datetime.now(UTC)
    requests.advance()
    why = "only a container has a network of its own"
    assert said == [f"{MODELS[0]}: latency: unknown: {why}"]
    (line,) = noted(backend)
    assert (line["why_not"], line["is_control"], line["end"] >= line["begin"]) == (why, False, True)
    assert begun.timestamp() - 1 < datetime.fromisoformat(line["begin"]).timestamp()


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_held():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_another_thread_takes_waits_too() -> None:
    """The kernel gives it to any thread that does not block it. Of several, the first is what ends the block."""
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
                assert os.read(reader, 1) == bytes([number])  # it has come to the other thread
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
    # Its mask is what it was.
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
