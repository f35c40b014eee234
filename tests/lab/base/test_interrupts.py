"""Ctrl-C, SIGTERM and SIGHUP at every stage, also repeatedly: everything that was started is taken down."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.cli import context, main
from lab.cli.commands import servers
from lab.servers.catalogue import Catalogue
from lab.servers.cleanup import Everything
from lab.servers.docker.command import call
from lab.servers.processes import Processes
from lab.servers.runtime import runtime_directory

Capture = pytest.CaptureFixture[str]
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore pytest's handlers and hook."""
    before = {number: signal.getsignal(number) for number in ENDING}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_first_signal_interrupts_and_the_next_one_prints_a_line(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupts.install()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    for each in ENDING:
        signal.raise_signal(each)
    assert capfd.readouterr().err == "lab: ending; Ctrl-\\ ends it by force, and may leave something behind\n" * 3


def test_ignored_signal_stays_ignored(capfd: Capture) -> None:
    """SIGHUP under nohup, SIGINT under a shell's `&`; also during a clean-up, and after an interrupt."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.install()
    with interrupts.uninterrupted("cleaning", "lab clean"):
        signal.raise_signal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGHUP)
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_interrupt_says_what_is_unchanged() -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^it is as it was$"), interrupts.untouched("it is as it was"):
        raise KeyboardInterrupt


def test_signals_are_ignored_at_the_end() -> None:
    interrupts.install()
    interrupts.end()
    assert [signal.getsignal(each) for each in ENDING] == [signal.SIG_IGN] * 3


def test_child_before_its_program_ends_by_the_signal(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    """By the first one and by later ones; a clean-up is not for it. This process takes the part of the child."""
    interrupts.install()
    seen: list[tuple[int, object]] = []
    send = signal.raise_signal
    monkeypatch.setattr(signal, "raise_signal", lambda number: seen.append((number, signal.getsignal(number))))
    monkeypatch.setattr(interrupts, "_pid", -1)
    by_signal = (signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    assert seen == [by_signal]
    signal.signal(signal.SIGTERM, interrupts._say)
    send(signal.SIGTERM)
    assert seen == [by_signal] * 2
    with interrupts.uninterrupted("cleaning", "lab clean"):
        send(signal.SIGTERM)
    assert seen == [by_signal] * 2
    assert "lab: cleaning, not done yet" in capfd.readouterr().err


def test_interrupt_that_is_dropped_here_comes_again_once(capfd: Capture) -> None:
    interrupts.install()

    class Deleted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def drop_and_wait() -> None:
        Deleted()
        threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        drop_and_wait()
    assert capfd.readouterr().err == ""
    signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err.startswith("lab: ending; ")


def test_other_exceptions_and_those_of_a_child_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    interrupts.install()
    monkeypatch.setattr(threading, "Timer", lambda *_: pytest.fail("it would be sent again"))
    mistake = SimpleNamespace(exc_type=ZeroDivisionError)
    sys.unraisablehook(mistake)
    assert shown == [mistake]
    monkeypatch.setattr(interrupts, "_pid", -1)
    dropped = SimpleNamespace(exc_type=KeyboardInterrupt)
    sys.unraisablehook(dropped)
    assert shown == [mistake, dropped]


def test_dropped_interrupt_that_cannot_be_sent_again_leaves_the_next_signal_its_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No thread can be started; it would not keep the process from ending either."""
    made = []

    class Timer(threading.Timer):
        def start(self) -> None:
            made.append(self)
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "Timer", Timer)
    interrupts.install()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(RuntimeError):
        sys.unraisablehook(SimpleNamespace(exc_type=KeyboardInterrupt))
    assert [timer.daemon for timer in made] == [True]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert not interrupts.take_dropped()


def test_clean_up_goes_on_if_its_line_cannot_be_printed() -> None:
    interrupts.install()
    before = os.dup(2)
    try:
        with Path("/dev/full").open("wb", buffering=0) as full:
            os.dup2(full.fileno(), 2)
        with interrupts.uninterrupted("x", "y"):
            signal.raise_signal(signal.SIGINT)
    finally:
        os.dup2(before, 2)
        os.close(before)


def test_clean_up_is_finished_and_each_signal_prints_a_line(capfd: Capture) -> None:
    interrupts.install()
    done = []
    with interrupts.uninterrupted("taking x down", "lab --project x down"):
        for each in ENDING:
            signal.raise_signal(each)
        with interrupts.uninterrupted("inner", "rm inner"):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done
    lines = capfd.readouterr().err.splitlines()
    by_force = "not done yet; Ctrl-\\ ends it by force, and then"
    outer = f"lab: taking x down, {by_force} `lab --project x down` removes what is left"
    assert lines == [outer, outer, outer, f"lab: inner, {by_force} `rm inner` removes what is left", outer]
    with pytest.raises(KeyboardInterrupt):  # afterwards they mean again what they meant before
        signal.raise_signal(signal.SIGINT)


def test_failed_clean_up_restores_the_handlers() -> None:
    interrupts.install()
    with pytest.raises(ZeroDivisionError), interrupts.uninterrupted("x", "y"):
        raise ZeroDivisionError
    assert not interrupts.are_held()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_outstanding_clean_up_is_done_after_an_interrupt() -> None:
    """The signal arrives at the latest point: between the end of the block and the call."""
    done: list[str] = []

    def fail() -> None:
        done.append("fails")
        raise LabError("cannot be removed")

    def interrupted() -> None:
        if len(done) < 2:
            done.append("interrupted")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), interrupts.sure(interrupted), interrupts.sure(lambda: done.append("first")):
        pass
    assert done == ["first", "interrupted"]
    assert list(interrupts.settle()) == []
    with pytest.raises(LabError), interrupts.sure(fail):
        pass
    assert [str(error) for error in interrupts.settle()] == ["cannot be removed"]
    assert list(interrupts.settle()) == []
    assert done == ["first", "interrupted", "fails", "fails"]


def test_outstanding_calls_are_made_from_the_last_on_though_one_fails() -> None:
    """What was started last may need what was started first."""
    done: list[str] = []

    def fail() -> None:
        raise LabError("cannot be removed")

    interrupts._owed.extend([lambda: done.append("first"), fail, lambda: done.append("last")])
    assert [str(error) for error in interrupts.settle()] == ["cannot be removed"]
    assert done == ["last", "first"]


def test_clean_up_in_another_thread_is_done(capfd: Capture) -> None:
    done = []

    def clean() -> None:
        with interrupts.uninterrupted("x", "y"):
            done.append(interrupts.are_held())

    thread = threading.Thread(target=clean)
    thread.start()
    thread.join()
    assert done == [False]


def test_child_of_a_clean_up_is_not_reached_by_ctrl_c() -> None:
    """Ctrl-C goes to all foreground processes, and would stop a `docker rm` half-way."""
    is_leader = [sys.executable, "-c", "import os; print(os.getpgid(0) == os.getpid())"]
    assert call(is_leader, capture=True).stdout == "False\n"
    with interrupts.uninterrupted("x", "y"):
        assert call(is_leader, capture=True).stdout == "True\n"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        assert call(is_leader, capture=True).stdout == "True\n"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_signal_during_down_leaves_nothing(process_project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Processes(process_project, Catalogue.load())
    backend.up(["plain_socket"])
    remove = shutil.rmtree

    def remove_late(path: Path) -> None:
        for each in ENDING:
            signal.raise_signal(each)
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", remove_late)
    interrupts.install()
    backend.down()
    assert not runtime_directory(process_project).exists()


Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(process_project: str) -> Iterator[Started]:
    """Start `lab` as the leader of a group of processes, as a shell does on a terminal."""
    running = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "lab", "--backend", "process", "--project", process_project, *arguments]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_line(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stderr
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return "".join(seen)
    pytest.fail(f"ended without {text!r}: {''.join(seen)}")


def hammer(process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGINT) -> None:
    """Send Ctrl-C until it has ended."""
    begun = time.monotonic()
    while process.poll() is None:
        passed = time.monotonic() - begun
        assert passed < 60
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        # Each prints a line, and no test reads them meanwhile: fifty a second would fill the pipe, and block it.
        time.sleep(0.02 if passed < 5 else 1.0)


# The line on stderr after which it is interrupted. process_project sees that nothing is left.
STAGES = {
    "demo": (["demo", "plain_socket"], "models up and answering"),
    "faults, at work": (["faults", "plain_socket", "--fault", "pause", "--fault", "kill"], "plain_socket: pause"),
    "soak": (["soak", "plain_socket", "--every", "1s", "--duration", "5m"], "rest 1 of"),
}


@pytest.mark.parametrize(("arguments", "line"), STAGES.values(), ids=STAGES)
def test_interrupted_command_leaves_nothing(start: Started, arguments: list[str], line: str, tmp_path: Path) -> None:
    process = start(*arguments, "--out", str(tmp_path))
    wait_for_line(process, line)
    hammer(process)
    assert process.stderr
    said = process.stderr.read()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "lab: interrupted\n" in said


# A module that each command imports before it does anything.
EARLY = {
    "up": (["plain_socket"], "lab.servers.backend"),
    "down": ([], "lab.servers.backend"),
    "ls": ([], "lab.servers.catalogue"),
    "logs": (["plain_socket"], "lab.servers.catalogue"),
    "call": (["plain_socket", "echo", "x"], "lab.clients.call"),
    "check": (["plain_socket"], "lab.experiments.conformance.suite"),
    "shell": ([], "lab.servers.backend"),
    "new": (["mine"], "lab.servers.scaffold"),
    "doctor": ([], "lab.servers.doctor"),
    "clean": ([], "lab.servers.backend"),
    "load": ([], "lab.cli.commands.load"),
    "load-file": (["plain_socket"], "lab.cli.commands.load_file"),
    "load-gallery": ([], "lab.cli.commands.load_gallery"),
    "faults": (["plain_socket"], "lab.cli.commands.faults"),
    "soak": (["plain_socket"], "lab.experiments.soak"),
    "tour": ([], "lab.cli.commands.tour"),
    "bench": ([], "lab.cli.commands.bench"),
    "compare": (["a", "b"], "lab.cli.commands.compare"),
    "advise": ([], "lab.cli.commands.advise"),
    "demo": ([], "lab.experiments.demo"),
    "xray": (["plain_socket"], "lab.cli.commands.xray"),
}

# Sends itself SIGINT when a module is about to be imported.
INTERRUPTING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def interrupt_at(tmp_path: Path, process_project: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run `lab`, and send SIGINT when it imports a module."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)

    def run(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "lab", "--backend", "process", "--project", process_project, *arguments]
        environ = {**os.environ, "PYTHONPATH": str(tmp_path), "INTERRUPTED_AT": module}
        return subprocess.run(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    return run


def test_command_is_interrupted_early() -> None:
    assert set(EARLY) == set(main.cli.commands)


@pytest.mark.parametrize("name", EARLY)
def test_command_is_interrupted_before_its_start_without_a_traceback(interrupt_at, name: str) -> None:
    arguments, module = EARLY[name]
    done = interrupt_at(module, name, *arguments)
    untouched = ": nothing was taken down, the lab is as it was" if name in ("down", "clean") else ""
    assert (done.returncode, done.stdout, done.stderr.lstrip()) == (130, "", f"lab: interrupted{untouched}\n")


@pytest.mark.parametrize("module", ["lab.cli.main", "click", "lab.base.interrupts"])
def test_lab_is_interrupted_during_its_imports_without_a_traceback(interrupt_at, module: str) -> None:
    done = interrupt_at(module, "down")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "lab: interrupted: nothing was done yet\n")


def test_down_that_is_interrupted_before_it_begins_leaves_the_lab_up(interrupt_at, process_project: str) -> None:
    backend = Processes(process_project, Catalogue.load())
    backend.up(["plain_socket"])
    try:
        assert interrupt_at("lab.servers.backend", "down").returncode == 130
        assert [state.state for state in backend.state() if state.model == "plain_socket"] == ["running"]
    finally:
        backend.down()


def test_interrupted_question_of_clean_removes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Everything(("one",), (), (), engine_is_away=False)
    monkeypatch.setattr("lab.servers.cleanup.find_everything", lambda: found)
    monkeypatch.setattr("lab.servers.cleanup.remove", lambda *_: pytest.fail("it was removed"))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))

    def interrupt(prompt: str) -> None:
        raise click.Abort

    monkeypatch.setattr(click, "confirm", interrupt)
    with pytest.raises(KeyboardInterrupt, match="nothing was removed"):
        servers.clean_all(context.Lab(None, "process", None), yes=False)


# What makes Python call `interrupt` where it prints and drops an exception.
DROPPING = {
    "__del__": "type('Deleted', (), {'__del__': lambda self: interrupt()})()",
    "weak reference": "it = type('It', (), {})(); reference = weakref.ref(it, lambda _: interrupt()); del it",
    "before a fork": "os.register_at_fork(before=interrupt); os.fork() or os._exit(0)",
    "after a fork": "os.register_at_fork(after_in_parent=interrupt); os.fork() or os._exit(0)",
}


@pytest.mark.parametrize("dropping", DROPPING.values(), ids=DROPPING)
def test_interrupt_that_python_drops_is_not_lost(dropping: str) -> None:
    """SIGINT is ignored, as under a shell's `&`: the signal that is sent again is the one that came."""
    script = (
        "import os, signal, time, weakref\n"
        "from lab.base import interrupts\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "interrupts.install()\n"
        "def interrupt(): signal.raise_signal(signal.SIGTERM)\n"
        "try:\n"
        f"    {dropping}\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


# What goes on when the signal is sent again for the first time.
BUSY = {
    "a clean-up": "with interrupts.uninterrupted('cleaning', 'lab clean'): time.sleep(0.3); print('cleaned')",
    # A busy machine: the hook waits until the thread that sends the signal has started.
    "the hook": "",
}


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)
def test_interrupt_that_python_drops_comes_when_it_can_be_raised(busy: str) -> None:
    script = (
        "import signal, threading, time\n"
        "from lab.base import interrupts\n"
        "class Slow(threading.Timer):\n"
        "    def start(self):\n"
        "        super().start()\n"
        f"        time.sleep({0 if busy else 0.3})\n"
        "threading.Timer = Slow\n"
        "interrupts.install()\n"
        "try:\n"
        "    type('Deleted', (), {'__del__': lambda self: signal.raise_signal(signal.SIGINT)})()\n"
        f"    {busy}\n"
        "    time.sleep(10)\n"
        "    print('left alone')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("cleaned\ninterrupted\n" if busy else "interrupted\n", "")


@pytest.mark.parametrize(
    ("dropped", "code", "said"), [(False, 2, "lab: it ended\n"), (True, 130, "lab: interrupted\n")]
)
def test_error_that_follows_a_dropped_interrupt_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, *, dropped: bool, code: int, said: str
) -> None:
    """Ctrl-C ends the helpers too, and the command may notice that before its own KeyboardInterrupt comes again."""

    def run(**_: object) -> None:
        raise LabError("it ended")

    monkeypatch.setattr(main.cli, "main", run)
    monkeypatch.setattr(interrupts, "_was_dropped", dropped)
    assert main._run() == code
    assert capsys.readouterr().err == said
    assert not interrupts.take_dropped()


def test_other_exceptions_that_python_drops_are_printed() -> None:
    script = (
        "from lab.base import interrupts\n"
        "interrupts.install()\n"
        "type('Deleted', (), {'__del__': lambda self: 1 / 0})()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "ZeroDivisionError" in done.stderr


def test_signal_between_the_hooks_of_a_fork_is_sent_again() -> None:
    """In the parent after the fork. The child ends by the signal, as the new program would."""
    script = (
        "import os, signal, time\n"
        "armed = False\n"
        "os.register_at_fork(before=lambda: armed and signal.raise_signal(signal.SIGINT))\n"
        "from lab.base import interrupts\n"
        "interrupts.install()\n"
        "armed = True\n"
        "try:\n"
        "    if not os.fork():\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        os._exit(7)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', os.wait()[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"interrupted {signal.SIGINT.value}\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_command_leaves_nothing(start: Started, number: signal.Signals, tmp_path: Path) -> None:
    """A closed terminal sends SIGHUP."""
    process = start("demo", "plain_socket", "--out", str(tmp_path))
    wait_for_line(process, "models up and answering")
    os.kill(process.pid, number)
    assert process.wait(60) == 130


def test_signals_during_the_clean_up_of_faults_change_nothing(start: Started, tmp_path: Path) -> None:
    """After the last score, the clean-up is finished and the report is printed."""
    process = start("faults", "plain_socket", "--fault", "pause", "--out", str(tmp_path))
    wait_for_line(process, "plain_socket: pause: held")
    hammer(process)
    assert process.stdout
    assert process.returncode in (0, 130)
    assert "\tpause\t" in process.stdout.read()
