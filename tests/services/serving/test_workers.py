"""How the parent of workers ends: whether all conversations have ended by themselves, which is its exit code."""

import errno
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.paths import ROOT
from services.protocol import Address, Limits, Transport
from services.serving import workers
from services.serving.accepting import FIRST_PAUSE, Shortage
from services.serving.listeners import open_listeners, parse_listens
from services.serving.signals import stop_signals
from services.serving.workers import Workers
from tests.support.fakes import Clock

# Two workers, and a parent that is told to stop as soon as both wait for that. It prints what `serve` returns.
PARENT = """
import os, signal, time
from services.protocol import Limits
from services.serving import workers
from services.serving.accepting import FIRST_PAUSE, Shortage
from services.serving.blocking import StopSignal
from services.serving.listeners import open_listeners, parse_listens

workers._MORE_GRACE = 0.05
reads, writes = os.pipe()
waits_for_first, first_has_ended = os.pipe()

def work(number, listeners):
    stop = StopSignal()
    os.write(writes, b".")
    while not stop.is_set:
        stop.wait(None)
    return end(number)

def end(number):
    END

class Parent(workers.Workers):
    def _start_due(self, stop, parent):
        super()._start_due(stop, parent)
        running = b""
        while len(running) < 2:
            running += os.read(reads, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    def _collect(self):
        codes = super()._collect()
        if codes:
            os.write(first_has_ended, b".")
        return codes

with open_listeners(parse_listens(["echo=tcp://127.0.0.1:0"], "m"), Limits(grace=PERIOD), lambda: "") as listeners:
    parent = Parent(listeners, 2, work)
    print(parent.serve(), flush=True)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass  # all have been collected
    else:
        print("a worker is left")
"""
# Not merely collected: the parent might find both in one look.
AFTER_THE_FIRST = "number and os.read(waits_for_first, 1)"


def run_parent(end: str, *, grace: float) -> tuple[str, str]:
    """Run a parent to its end; return what it printed and logged.

    Args:
        end: what a worker does after SIGTERM.
        grace: the grace period in seconds.
    """
    script = PARENT.replace("END", end).replace("PERIOD", str(grace))
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize("ends", [(True, True), (False, True), (True, False), (False, False)])
def test_parent_is_clean_only_if_each_worker_was_whenever_it_ended(ends: tuple[bool, bool]) -> None:
    printed, logged = run_parent(f"{AFTER_THE_FIRST}; return {ends}[number]", grace=300.0)
    assert printed == str(all(ends))
    assert logged.count("ended with exit code 1") == ends.count(False)


def test_worker_is_killed_when_its_parent_dies() -> None:
    """SIGTERM would let it finish its conversations first, without a parent and on ports that others want."""
    tells = """
import ctypes, os
from services.serving.workers import die_with
found = ctypes.c_int()
print([die_with(os.getppid()), die_with(os.getppid() + 1)])
ctypes.CDLL(None).prctl(2, ctypes.byref(found))  # PR_GET_PDEATHSIG
print(found.value)
"""
    done = subprocess.run([sys.executable, "-c", tells], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "[True, False]\n9\n"


def test_parent_that_has_to_kill_a_worker_is_not_clean() -> None:
    printed, logged = run_parent("number and time.sleep(1e6); return True", grace=0.0)
    # The other one may have been too slow as well.
    assert logged.replace(" 2 ", " 1 ") == "the grace period of 0 s is over: 1 workers are killed"
    assert printed == "False"


@pytest.mark.parametrize("late", [False, True])
def test_workers_have_a_second_more_than_their_conversations(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """A worker keeps the grace period itself, and logs what it has cut off."""
    clock = Clock()
    steps: list[Any] = []
    parent = Workers.__new__(Workers)
    parent._listeners, parent._pids, parent._grace = [], {7: 0}, 2.5

    class Stop:
        def wait(self, deadline: float | None) -> None:
            assert deadline is not None
            steps.append(deadline - clock.now)
            clock.now = deadline if late else deadline - 0.1

    def collect() -> list[int]:
        if late:
            return []
        parent._pids.clear()
        return [0]

    monkeypatch.setattr(workers, "time", clock)
    monkeypatch.setattr(parent, "_collect", collect)
    monkeypatch.setattr(os, "kill", lambda pid, number: steps.append((pid, number)))
    monkeypatch.setattr(os, "waitpid", lambda pid, options: steps.append((pid, "collected")))
    assert parent._drain(cast(Any, Stop())) is not late
    killed: list[Any] = [(7, signal.SIGKILL), (7, "collected")]
    assert steps == [(7, signal.SIGTERM), 3.5, *(killed if late else [])]


def test_worker_that_cannot_be_forked_is_tried_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the parent would do nothing else."""
    clock = Clock()

    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(workers, "time", clock)
    monkeypatch.setattr(os, "fork", fork)
    parent = Workers.__new__(Workers)
    parent._due, parent._pids, parent._shortage = {0: 0.0, 1: 101.0}, {}, Shortage(clock.monotonic)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    parent._start_due(cast(Any, None), os.getpid())
    assert parent._due == {0: 100.0 + FIRST_PAUSE, 1: 101.0}
    assert (parent._next(), parent._pids, bool(parent._shortage)) == (100.0 + FIRST_PAUSE, {}, True)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
    clock.now += FIRST_PAUSE
    parent._start_due(cast(Any, None), os.getpid())
    assert parent._due[0] == clock.now + 2 * FIRST_PAUSE


def test_worker_that_lived_less_than_a_second_is_replaced_a_second_after_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that lived longer is replaced at once. Whoever counts clients is told the number of each that has ended."""
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    forked = iter([71, 72, 73])
    ended: dict[int, int] = {71: signal.SIGKILL}
    told: list[int] = []
    monkeypatch.setattr(workers, "time", clock)
    monkeypatch.setattr(os, "fork", lambda: next(forked))
    monkeypatch.setattr(os, "waitpid", lambda pid, options: (pid, ended[pid]) if pid in ended else (0, 0))
    parent = Workers.__new__(Workers)
    parent._due, parent._started, parent._pids = dict.fromkeys(range(3), 0.0), [0.0] * 3, {}
    parent._shortage, parent._on_end = Shortage(clock.monotonic), told.append
    parent._start_due(cast(Any, None), os.getpid())
    assert (parent._pids, parent._due, parent._next()) == ({71: 0, 72: 1, 73: 2}, {}, None)
    clock.now = 100.75
    assert parent._collect() == [-signal.SIGKILL]
    clock.now, ended[72] = 101.0, 0
    assert parent._collect() == [0]
    assert (parent._pids, told) == ({73: 2}, [0, 1])
    assert (parent._due, parent._next()) == ({0: 101.75, 1: 101.0}, 101.0)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "worker 0 (process 71) ended by signal 9"),
        ("DEBUG", "worker 1 (process 72) ended with exit code 0"),
    ]


@pytest.mark.parametrize("reuse_port", [0, 1])
def test_each_worker_has_sockets_of_its_own_for_tcp_and_tls(tmp_path: Path, reuse_port: int) -> None:
    """With `LAB_REUSEPORT`. Only TCP knows it, and what is below TLS is TCP."""
    where = ["tcp://127.0.0.1:0", "tcp://127.0.0.1:0", "udp://127.0.0.1:0", f"unix://{tmp_path}/echo.sock"]
    wanted = parse_listens([f"echo={each}" for each in where], "m")
    with open_listeners(wanted, Limits(reuse_port=reuse_port), lambda: "") as listeners:
        port = listeners[1].address.port
        listeners[1] = replace(listeners[1], address=Address(Transport.TLS, host="127.0.0.1", port=port))
        parent = Workers(listeners, 3, lambda number, listeners: True)
        with parent._resources:
            first, *others = parent._listeners
            assert first == listeners
            for other in others:
                pairs = list(zip(first, other, strict=True))
                is_own = [theirs.socket is not ours.socket for ours, theirs in pairs]
                assert is_own == [bool(reuse_port), bool(reuse_port), False, False]
                assert all(theirs.socket.getsockname() == ours.socket.getsockname() for ours, theirs in pairs)
            assert len({id(own[1].socket) for own in parent._listeners}) == (3 if reuse_port else 1)
            # In a drain no worker accepts from any of them. A client that the kernel put there would wait in vain.
            assert parent._drain(cast(Any, None))
            streams = [each for own in parent._listeners for each in own if not each.is_datagram]
            assert [each.socket.fileno() for each in streams] == [-1] * 9


class ExitedError(BaseException):
    """Instead of the end of the process."""


class Closed:
    """A socket that notes its end."""

    def __init__(self, name: str, seen: list[object]) -> None:
        self._name, self._seen = name, seen

    def close(self) -> None:
        self._seen.append(self._name)


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize(
    ("ends", "code", "steps"),
    [
        (True, 0, ["closed", "another's", 1]),
        (False, 1, ["closed", "another's", 1]),
        (SystemExit(3), 3, ["closed", "another's", 1]),
        (SystemExit("a text"), 1, ["closed", "another's", 1]),
        (KeyboardInterrupt(), 1, ["closed", "another's", 1]),
        (ValueError("a bug"), 1, ["closed", "another's", 1]),
        (None, 1, ["closed", "another's"]),  # its parent has exited meanwhile
    ],
    ids=["clean", "cut off", "code", "text", "interrupt", "bug", "orphan"],
)
def test_exit_code_of_a_worker_says_how_it_ended(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ends: bool | BaseException | None,
    code: int,
    steps: list[object],
) -> None:
    """Until its work has handlers of its own, a stop signal ends it in order: nothing is in flight.

    The sockets of another worker would listen for as long as this one lives.
    """
    seen: list[object] = []
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise ExitedError

    def work(number: int, listeners: Any) -> bool:
        seen.append(number)
        assert listeners is parent._listeners[number]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint({signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD})
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            with pytest.raises(ExitedError):
                signal.raise_signal(each)
        assert codes == [0] * 4
        codes.clear()
        if isinstance(ends, BaseException):
            raise ends
        return bool(ends)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(workers, "die_with", lambda parent: parent == 7 and ends is not None)
    parent = Workers.__new__(Workers)
    shared, *others = (
        cast(Any, SimpleNamespace(socket=Closed(name, seen))) for name in ("shared", "another's", "its own")
    )
    parent._work, parent._listeners = work, [[shared, other] for other in others]
    stop = cast(Any, SimpleNamespace(close=lambda: seen.append("closed")))
    signal.pthread_sigmask(signal.SIG_BLOCK, (*stop_signals(), signal.SIGCHLD))
    try:
        with pytest.raises(ExitedError):
            parent._be_worker(1, stop, 7)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*stop_signals(), signal.SIGCHLD))
    assert (seen, codes) == (steps, [code])
    is_error = isinstance(ends, (KeyboardInterrupt, ValueError))
    assert caplog.messages == ["worker 1 ended in an error"] * is_error
