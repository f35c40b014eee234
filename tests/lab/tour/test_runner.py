"""What the run of an exhibit says: its output and its traffic without secrets, its failures, its exit code."""

import base64
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from lab.base.messages import build
from lab.tour import registry, runner
from lab.tour.accounts import ANN, BOB
from lab.tour.dialogue import MASK
from lab.tour.faulty import Failures, breaking_off
from lab.tour.registry import Exhibit
from lab.tour.runner import ExhibitRun, Failure, run

# In the place of an exhibit: it leaves a thread that waits for ever, as one whose server does not answer may.
LEAVES_A_THREAD = """
import sys, threading, types, runpy
def visit():
    threading.Thread(target=threading.Event().wait).start()
    raise OSError("no way")
sys.modules["lab.tour.exhibits.socket_exhibit"] = types.SimpleNamespace(visit=visit)
sys.argv = ["runner", "socket"]
runpy.run_module("lab.tour.runner", run_name="__main__")
"""


def nothing() -> Failures:
    yield from ()


@pytest.fixture
def take_place(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Exhibit]:
    """Put functions in the place of an exhibit's."""
    (exhibit,) = registry.find(["socket"])

    def put(visit: Callable[[], None], failures: Callable[[], Failures] = nothing) -> Exhibit:
        monkeypatch.setitem(sys.modules, exhibit.import_name, SimpleNamespace(visit=visit, failures=failures))
        return exhibit

    return put


@pytest.fixture
def port() -> Iterator[int]:
    with breaking_off(b"ready\n", b"200 no\n") as port:
        yield port


def test_run_has_output_traffic_and_failures_without_secrets(take_place: Callable[..., Exhibit], port: int) -> None:
    def visit() -> None:
        with socket.create_connection(("127.0.0.1", port)) as stream:
            print(ANN.address, ANN.password, stream.recv(100))

    def refuse() -> None:
        raise ConnectionRefusedError(f"{base64.b64encode(BOB.password.encode()).decode()} is wrong")

    def fail_over_a_socket() -> None:
        with breaking_off(b"not of the visit\n") as other, socket.create_connection(("127.0.0.1", other)) as stream:
            stream.recv(100)
        raise socket.gaierror(-2, "unknown")

    def failures() -> Failures:
        yield "refused", refuse
        yield "unknown", fail_over_a_socket
        yield "nothing", dict

    found = run(take_place(visit, failures))
    assert found.output == f"ann@gallery.test {MASK} b'ready\\n'\n"
    assert [(each.peer, each.side, each.text) for each in found.messages] == [
        (f"127.0.0.1:{port}", "server", "ready\n")
    ]
    assert found.failures == (
        Failure("refused", "ConnectionRefusedError", f"{MASK} is wrong"),
        Failure("unknown", "socket.gaierror", "[Errno -2] unknown"),
        Failure("nothing", None, None),
    )
    assert (found.module, found.python, found.error) == ("socket", platform.python_version(), None)


def test_exhibit_that_fails_keeps_what_came_before(take_place: Callable[..., Exhibit], port: int) -> None:
    def visit() -> None:
        print("so far")
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.recv(100)
        raise LookupError("no such line")

    found = run(take_place(visit))
    assert found.error is not None
    assert found.error.endswith("LookupError: no such line\n")
    assert (found.output, [each.text for each in found.messages], found.failures) == ("so far\n", ["ready\n"], ())


@pytest.mark.parametrize(("raised", "code"), [(OSError, 0), (dict, 1)])
def test_failure_that_does_not_come_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    take_place: Callable[..., Exhibit],
    raised: type,
    code: int,
) -> None:
    def fail() -> None:
        if issubclass(raised, Exception):
            raise raised("no")

    def failures() -> Failures:
        yield "one", fail

    take_place(lambda: None, failures)
    monkeypatch.setattr(sys, "argv", ["runner", "socket"])
    assert runner.main() == code
    assert [each.what for each in build(ExhibitRun, json.loads(capsys.readouterr().out)).failures] == ["one"]


def test_thread_that_a_failed_exhibit_left_keeps_nobody() -> None:
    # Elsewhere a buffer has the result until the end.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", LEAVES_A_THREAD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert done.returncode == 1
    found = build(ExhibitRun, json.loads(done.stdout))
    assert found.error is not None
    assert found.error.endswith("OSError: no way\n")
