"""Child processes: how they end, and what they inherit."""

import ctypes
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lab.base.environ import ENV_LIFELINE
from lab.servers import children
from lab.servers.catalogue import Catalogue
from lab.servers.children import close_child, die_with_lab, open_child, open_lifeline
from lab.servers.docker.command import call, end, open_process, read_lines
from lab.servers.process_helpers import ProcessHelpers

# Prints the signal that the kernel sends it when its parent dies, prctl(2), PR_GET_PDEATHSIG; and whether SIGTERM is
# blocked.
TELLS = """
import ctypes, signal
found = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(found))
print(found.value, signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.parametrize(
    ("start", "told"),
    [(open_child, "15 False\n"), (partial(open_child, has_lifeline=True), "0 True\n")],
    ids=["usual", "lifeline"],
)
def test_child_gets_sigterm_when_its_parent_dies_unless_it_has_a_lifeline(
    start: Callable[..., "subprocess.Popen[bytes]"], told: str
) -> None:
    """Also if it was started while its parent held signals back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with tempfile.TemporaryFile() as output:
            command = [sys.executable, "-c", TELLS]
            child = start(command, environ=os.environ, output=output)
            assert child.wait(60) == 0
            close_child(child)
            output.seek(0)
            assert output.read().decode() == told
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_child_that_has_ended_is_closed_with_what_it_has_not_read() -> None:
    with tempfile.TemporaryFile() as output:
        child = open_child(["/bin/true"], environ=os.environ, output=output)
        assert child.wait(60) == 0
        assert child.stdin
        child.stdin.write(b"more")
        close_child(child)
        assert child.stdin.closed


def test_process_that_still_writes_is_ended() -> None:
    process = open_process(["/bin/sh", "-c", "echo a; exec /bin/sleep 20"], environ={})
    assert process.stdout
    assert select.select([process.stdout], [], [], 20)[0]
    end(process)
    assert process.returncode == -signal.SIGTERM


def test_process_asks_the_kernel_for_sigterm_and_lets_it_in() -> None:
    """As a child does before it becomes its program."""

    def read() -> int:
        found = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(found))
        return found.value

    signal_before, mask_before = read(), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ctypes.CDLL(None).prctl(1, 0)
    try:
        die_with_lab()
        assert read() == signal.SIGTERM
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) - mask_before == {signal.SIGINT} - mask_before
    finally:
        ctypes.CDLL(None).prctl(1, signal_before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask_before)


def test_command_that_is_waited_for_gets_it_too(tmp_path: Path) -> None:
    """By both backends: `lab call`, `lab shell`, and each command of the Docker client."""
    done = ProcessHelpers(tmp_path, Catalogue.load()).run(["python", "-c", TELLS], capture=True)
    assert done.stdout == "15 False\n"
    command = [sys.executable, "-c", TELLS]
    assert call(command, capture=True, environ=os.environ).stdout == "15 False\n"
    process = open_process(command, environ=os.environ)
    assert list(filter(None, read_lines(process, math.inf))) == ["15 False"]
    end(process)


def test_child_has_its_own_folder_variables_and_stdin(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as output:
        script = 'read -r line; echo "$PWD $A $line"; echo "a complaint" >&2'
        child = open_child(["/bin/sh", "-c", script], environ={"A": "1"}, output=output, cwd=tmp_path)
        assert child.stdin
        child.stdin.write(b"said\n")
        child.stdin.flush()
        assert child.wait(60) == 0
        close_child(child)
        assert child.stdin.closed
        output.seek(0)
        assert output.read().decode() == f"{tmp_path} 1 said\na complaint\n"


@pytest.mark.parametrize(("on_term", "code"), [("exit 7", 7), ("", -signal.SIGKILL)])
def test_child_is_told_to_end_before_it_is_killed(monkeypatch: pytest.MonkeyPatch, on_term: str, code: int) -> None:
    monkeypatch.setattr(children, "STOP_SECONDS", 60.0 if on_term else 0.05)
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as ready, os.fdopen(writes, "wb") as output:
        script = f"trap '{on_term}' TERM; echo ready; while :; do /bin/sleep 0.01; done"
        child = open_child(["/bin/sh", "-c", script], environ={}, output=output)
        assert ready.readline() == b"ready\n"
        close_child(child)
    # Collected in any case, or it would be a zombie.
    assert child.returncode == code


@pytest.mark.parametrize("environ", [None, {}, {"A": "1"}])
def test_child_without_a_lifeline_has_an_empty_stdin(environ: dict[str, str] | None) -> None:
    with open_lifeline(environ) as stdin:
        assert stdin == subprocess.DEVNULL


def test_lifeline_is_closed_after_an_error() -> None:
    """A child that was started by then ends, and the lab keeps no descriptor."""
    before = {*Path("/proc/self/fd").iterdir()}
    with pytest.raises(ZeroDivisionError), open_lifeline({ENV_LIFELINE: "stdin"}):
        raise ZeroDivisionError
    assert {*Path("/proc/self/fd").iterdir()} <= before


def test_lifeline_is_open_as_long_as_its_block() -> None:
    before = {*Path("/proc/self/fd").iterdir()}
    with open_lifeline({ENV_LIFELINE: "stdin"}) as stdin:
        child = subprocess.Popen(["/bin/cat"], stdin=stdin)
        # Its end is held by this process alone: without it, the child would read the end of the file.
        assert child.poll() is None
        os.set_blocking(stdin, False)
        with pytest.raises(BlockingIOError):
            os.read(stdin, 1)
    assert child.wait(60) in (0, 1)  # at the end, or in vain: its stdin does not block
    assert {*Path("/proc/self/fd").iterdir()} <= before
