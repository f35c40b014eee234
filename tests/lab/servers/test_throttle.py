"""The order and the lengths of what a throttle does. Its signals are real in tests/lab/experiments/faults."""

import signal
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lab.servers import throttle

STOP, GO = signal.SIGSTOP, signal.SIGCONT
Step = signal.Signals | float


def run_throttle(monkeypatch: pytest.MonkeyPatch, share: float, waits: int, *, ended: bool = False) -> list[Step]:
    """Run a throttle that is told to end during a wait; return its signals and its waits, in seconds.

    Args:
        waits: which one, from 1.
        ended: whether the process has ended by then.
    """
    steps: list[Step] = []

    class Event:
        def wait(self, seconds: float) -> bool:
            steps.append(seconds)
            return sum(isinstance(step, float) for step in steps) >= waits

    def send(pid: int, number: signal.Signals) -> None:
        assert pid == 7
        if ended:
            raise psutil.NoSuchProcess(pid)
        steps.append(number)

    monkeypatch.setattr(throttle, "threading", SimpleNamespace(Event=Event))
    monkeypatch.setattr(throttle, "signal_all", send)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    throttle.throttle(7, share)
    return [float(f"{step:.9f}") if isinstance(step, float) else step for step in steps]


def test_process_runs_for_its_share_of_each_tenth_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    # 5 % of 100 ms, and the rest of it.
    assert run_throttle(monkeypatch, 0.05, 5) == [0.005, STOP, 0.095, GO, 0.005, STOP, 0.095, GO, 0.005]
    assert run_throttle(monkeypatch, 0.75, 3) == [0.075, STOP, 0.025, GO, 0.075]


def test_process_that_is_stopped_goes_on_when_the_throttle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_throttle(monkeypatch, 0.05, 2) == [0.005, STOP, 0.095, GO, 0.005]


def test_process_goes_on_after_an_error_while_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C, or one child that this user may not signal: nobody else would wake the process again."""
    sent: list[int] = []

    def send(pid: int, number: int) -> None:
        sent.append(number)
        if number == STOP:
            raise PermissionError

    monkeypatch.setattr(throttle, "signal_all", send)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(PermissionError):
        throttle.throttle(7, 0.05)
    assert sent == [STOP, GO]


def test_throttle_ends_with_its_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_throttle(monkeypatch, 0.05, 9, ended=True) == [0.005]
    assert "Throttling" in capsys.readouterr().out


def test_signal_reaches_a_process_before_its_descendants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped parent starts no child that would be missed; a child that has ended is none any more."""
    sent: list[tuple[str, int]] = []

    class Process:
        def __init__(self, pid: int | str) -> None:
            self.name = str(pid)

        def send_signal(self, number: int) -> None:
            if self.name == "ended":
                raise psutil.NoSuchProcess(1)
            sent.append((self.name, number))

        def children(self, *, recursive: bool = False) -> list["Process"]:
            assert sent, "the children are looked for once the parent has the signal"
            return [Process(name) for name in ["child", "ended", *["grandchild"] * recursive]]

    monkeypatch.setattr(psutil, "Process", Process)
    throttle.signal_all(7, STOP)
    assert sent == [("7", STOP), ("child", STOP), ("grandchild", STOP)]


def test_sigterm_ends_a_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it has stopped goes on: the lab may have died."""
    handlers: dict[int, Any] = {}
    sent: list[int] = []
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)

    def send(pid: int, number: int) -> None:
        sent.append(number)
        handlers[signal.SIGTERM](signal.SIGTERM, None)

    monkeypatch.setattr(throttle, "signal_all", send)
    throttle.throttle(7, 0.01)
    assert sent == [STOP, GO]
