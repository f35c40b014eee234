"""A server is ready when it answers a protocol exchange without an error."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from lab.base.errors import LabError
from lab.base.messages import decode
from lab.clients.call import Reply
from lab.servers import readiness
from lab.servers.readiness import Outcome, choose_targets, wait_ready
from loadtests.sockets.errors import ClientError, NoAnswerError, UnreachableError
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

LOADING = b"-LOADING the dataset is being read\r\n"
PONG = b"+PONG\r\n"

Stub = Callable[..., str]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Start a server that gives each answer to one connection, and the last one to all later ones."""
    with ExitStack() as stack:

        def start(*answers: bytes) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            left = list(answers)

            def serve() -> None:
                with suppress(OSError):
                    while True:
                        link, _ = listener.accept()
                        with link:
                            link.recv(100)
                            link.sendall(left.pop(0) if len(left) > 1 else left[0])

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            stack.callback(lambda: listener.shutdown(socket.SHUT_RDWR))
            return f"tcp://127.0.0.1:{listener.getsockname()[1]}"

        yield start


def test_server_that_answers_with_an_error_is_not_ready(stub: Stub) -> None:
    address = stub(LOADING)
    (outcome,) = wait_ready([("mine", "command", address)], 0.5)
    assert (outcome.model, outcome.ready, outcome.seconds) == ("mine", False, 0.5)
    assert outcome.error == f"{address}: LOADING the dataset is being read"


def test_server_gets_ready_when_its_errors_end(stub: Stub) -> None:
    (outcome,) = wait_ready([("mine", "command", stub(LOADING, LOADING, PONG))], 30)
    assert (outcome.ready, outcome.error) == (True, None)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], float]]:
    """Replace the exchange: record calls and timeouts, and advance a fake clock."""
    asked: list[tuple[str, tuple[str, ...], float]] = []
    now = [1000.0]
    # Those of the test before would go on with this clock.
    wait_until(lambda: not any(thread.name.startswith("ready-") for thread in threading.enumerate()))

    def call(service: str, address: str, arguments: tuple[str, ...], *, timeout: float) -> Reply:
        asked.append((service, arguments, round(timeout, 9)))
        now[0] += timeout
        if address == "answers" and len(asked) == 4:
            return Reply(b"PONG", is_error=False, seconds=0.8)
        if len(asked) == 1:
            raise UnreachableError("refused")
        raise NoAnswerError(f"nothing in {timeout:g} s")

    monkeypatch.setattr(readiness, "call", call)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return asked


def test_each_attempt_gets_twice_the_time_of_the_one_before(calls: list[tuple[str, tuple[str, ...], float]]) -> None:
    """0.1 s, 0.2, 0.4, 0.8, with 0.04 s between two: 1.5 + 3 * 0.04 = 1.62 s."""
    (outcome,) = wait_ready([("mine", "command", "answers")], 20)
    assert calls == [("command", ("PING",), each) for each in (0.1, 0.2, 0.4, 0.8)]
    assert outcome.ready
    assert outcome.seconds == pytest.approx(1.62)


def test_last_attempt_gets_the_remaining_time(calls: list[tuple[str, tuple[str, ...], float]]) -> None:
    """Seven attempts take 0.1 * (2**7 - 1) = 12.7 s, with 7 * 0.04 s between them: 7.02 s of 20 are left for one more.

    What ends that one says nothing of the server.
    """
    (outcome,) = wait_ready([("mine", "echo", "silent")], 20)
    assert calls == [("echo", ("ready?",), each) for each in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 7.02)]
    assert (outcome.ready, outcome.seconds, outcome.error) == (False, 20, "nothing in 6.4 s")


@pytest.mark.parametrize(
    ("timeout", "attempts", "error"),
    [
        # No time is left after the first attempt and the pause.
        (0.1875, [0.125], "refused"),
        # The second one has exactly its time, so what ends it counts.
        (0.4375, [0.125, 0.25], "nothing in 0.25 s"),
        (0.375, [0.125, 0.1875], "refused"),
    ],
)
def test_only_attempts_with_enough_time_count(
    calls: list[tuple[str, tuple[str, ...], float]],
    monkeypatch: pytest.MonkeyPatch,
    timeout: float,
    attempts: list[float],
    error: str,
) -> None:
    """With attempts of 1/8 s and more, and pauses of 1/16 s, which binary fractions are exact for."""
    monkeypatch.setattr(readiness, "_FIRST_TIMEOUT", 0.125)
    monkeypatch.setattr(readiness, "_RETRY_SECONDS", 0.0625)
    (outcome,) = wait_ready([("mine", "command", "silent")], timeout)
    assert [each for _, _, each in calls] == attempts
    assert (outcome.ready, outcome.error) == (False, error)


def test_every_target_of_a_model_has_to_answer(stub: Stub) -> None:
    good = stub(PONG)
    told: list[Outcome] = []
    with closed_port() as port:
        silent = f"tcp://127.0.0.1:{port}"
        targets = [("both", "command", good), ("one", "command", good), ("both", "command", silent)]
        outcomes = wait_ready(targets, 0.5, on_outcome=told.append)
    assert [(outcome.model, outcome.ready) for outcome in outcomes] == [("both", False), ("one", True)]
    assert "refused" in (outcomes[0].error or "")
    assert [outcome.model for outcome in told] == ["one", "both"]


def test_one_service_is_probed_over_tcp_and_one_over_unix_sockets() -> None:
    listeners = [
        ("a", "discard", "tcp://a:9"),
        ("a", "greet", "tcp://a:1234"),
        ("a", "command", "udp://a:6379"),
        ("a", "command", "tcp://a:6379"),
        ("a", "command", "tcp://a:6380"),
        ("a", "echo", "tcp://a:7"),
        ("a", "chargen", "unix:///a/chargen.sock"),
        ("a", "echo", "unix:///a/echo.sock"),
        ("b", "discard", "tcp://b:9"),
        ("b", "chargen", "tcp://b:19"),
        ("c", "echo", "tls://c:7007"),
        ("d", "http", "tcp://d:8080"),
        ("d", "greet", "tcp://d:1234"),
        ("d", "chargen", "tcp://d:19"),
        ("e", "http", "tcp://e:8080"),
    ]
    assert choose_targets(listeners) == [
        ("a", "command", "tcp://a:6379"),
        ("a", "echo", "unix:///a/echo.sock"),
        ("b", "chargen", "tcp://b:19"),
        ("d", "greet", "tcp://d:1234"),
        ("e", "http", "tcp://e:8080"),
    ]


def test_each_service_is_asked_as_little_as_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, tuple[str, ...]] = {}

    def call(service: str, address: str, arguments: tuple[str, ...], *, timeout: float) -> Reply:
        asked[service] = arguments
        return Reply(b"", is_error=False, seconds=0.0)

    monkeypatch.setattr(readiness, "call", call)
    services = ("command", "echo", "greet", "chargen", "http")
    assert all(outcome.ready for outcome in wait_ready([(name, name, "tcp://h:1") for name in services], 30))
    assert asked == {"command": ("PING",), "echo": ("ready?",), "greet": (), "chargen": ("1",), "http": ()}


@pytest.mark.parametrize(("answer", "code"), [(PONG, 0), (LOADING, 1)], ids=["ready", "an error"])
def test_exit_code(stub: Stub, capsys: pytest.CaptureFixture[str], answer: bytes, code: int) -> None:
    request = {"timeout": 30 if code == 0 else 0.3, "targets": [["mine", "command", stub(answer)]]}
    assert readiness.main([json.dumps(request)]) == code
    (line,) = capsys.readouterr().out.splitlines()
    outcome = decode(line, Outcome)
    assert outcome is not None
    assert (outcome.model, outcome.ready) == ("mine", code == 0)


@pytest.mark.parametrize("words", [[], ["{}"], ["no JSON"], ['{"timeout": 1, "targets": [["a"]]}']])
def test_wrong_request_is_exit_code_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert readiness.main(words) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_no_targets_are_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert readiness.main(['{"timeout": 0.2, "targets": []}']) == 0
    assert capsys.readouterr().out == ""


def test_hanging_model_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in name resolution, which has no timeout: its thread is abandoned."""
    released = threading.Event()

    def call(*_: object, **__: object) -> Reply:
        released.wait()
        return Reply(b"PONG", is_error=False, seconds=0.0)

    monkeypatch.setattr(readiness, "call", call)
    told: list[Outcome] = []
    try:
        outcomes = wait_ready([("mine", "command", "tcp://x:1")], 0.05, on_outcome=told.append)
    finally:
        released.set()
    assert outcomes == told == [Outcome("mine", False, 0.05, "no exchange has ended")]


def test_request_is_the_first_word_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["readiness", '{"timeout": 0.2, "targets": []}'])
    assert readiness.main() == 0


def test_invalid_address_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object, **__: object) -> list[Outcome]:
        raise LabError("no such address")

    monkeypatch.setattr(readiness, "wait_ready", refuse)
    assert readiness.main(['{"timeout": 0.2, "targets": []}']) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: no such address\n")


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([NoAnswerError("first")], "first"),
        # It has come by itself, and not by the end.
        ([NoAnswerError("first"), UnreachableError("refused")], "refused"),
    ],
)
def test_first_silence_is_told_though_the_end_cuts_each_exchange_short(
    monkeypatch: pytest.MonkeyPatch, errors: list[ClientError], told: str
) -> None:
    """It is all that is known of the server; silences after it say nothing new."""
    left = list(errors)

    def stay_silent(*_: object, **__: object) -> Reply:
        raise left.pop(0) if left else NoAnswerError("later")

    monkeypatch.setattr(readiness, "call", stay_silent)
    monkeypatch.setattr(readiness, "_FIRST_TIMEOUT", 1000.0)
    monkeypatch.setattr(readiness, "_RETRY_SECONDS", 0.001)
    (outcome,) = wait_ready([("it", "command", "tcp://127.0.0.1:1")], 0.5)
    assert (outcome.ready, outcome.error) == (False, told)
