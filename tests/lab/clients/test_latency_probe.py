"""The instruments that look on, and that crowd in: what they send, what they count, and how they end."""

import contextlib
import io
import json
import os
import resource
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab.clients import latency_probe, slow_clients
from lab.clients.latency_probe import TIMEOUT, Witness
from lab.clients.slow_clients import bother, come, ping
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError
from services.protocol import Address
from tests.support.fakes import Clock
from tests.support.made_up_server import receive, served
from tests.support.waiting import wait_until

PING, PONG = b"PING\r\n", b"+PONG\r\n"


def pong(link: socket.socket) -> None:
    while receive(link, len(PING)) == PING:
        link.sendall(PONG)


# The crowd.


def test_ping_is_asked_on_one_connection_and_its_times_are_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    # 101 PINGs that take 1 to 101 s, in an order that is not theirs: p50 is 51, p99 is 100.
    took = [float((37 * number) % 101 + 1) for number in range(101)]
    ticks = iter([tick for each in took for tick in (1000.0, 1000.0 + each)])
    connections: list[socket.socket] = []

    def talk(link: socket.socket) -> None:
        connections.append(link)
        pong(link)

    renewed: list[BlockingConnection] = []
    monkeypatch.setattr(BlockingConnection, "reset_deadline", lambda link: renewed.append(link))
    with served(talk) as address:
        monkeypatch.setattr(slow_clients.time, "perf_counter", lambda: next(ticks))
        assert ping(Address.parse(address), 101) == {"p50": 51.0, "p99": 100.0, "max": 101.0}
    assert len(connections) == 1
    # Each has its own time.
    assert (len(renewed), slow_clients._TIMEOUT) == (101, 5.0)


def test_a_wrong_answer_to_a_ping_is_an_error() -> None:
    with (
        served(lambda link: [receive(link, len(PING)), link.sendall(b"-NO " + b"x" * 90)]) as address,
        pytest.raises(ClientError) as found,
    ):
        ping(Address.parse(address), 5)
    assert str(found.value) == f"PING was answered by {b'-NO ' + b'x' * 36!r}"


def test_a_crowd_is_as_many_connections_that_say_nothing() -> None:
    seen: list[socket.socket] = []
    with served(lambda link: [seen.append(link), link.recv(1)]) as address:
        links = come(Address.parse(address), 30)
        try:
            wait_until(lambda: len(seen) == 30)
            assert {link.getpeername()[1] for link in links} == {Address.parse(address).port}
            # One that is not let in would block all behind it.
            assert not any(link.getblocking() for link in links)
        finally:
            for link in links:
                link.close()


def test_a_crowd_that_is_not_let_in_is_given_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(slow_clients, "time", clock)
    polled: list[int] = []

    class Deaf:
        def register(self, link: object, event: int) -> None:
            pass

        def poll(self, milliseconds: int) -> list[Any]:
            polled.append(milliseconds)
            clock.now += milliseconds / 1000
            return []

    monkeypatch.setattr(slow_clients.select, "poll", Deaf)
    with served(lambda link: link.recv(1)) as address:
        for link in come(Address.parse(address), 3):
            link.close()
    # Thirty looks of a tenth of a second, or one more, as a tenth is not exact.
    assert set(polled) == {100}
    assert len(polled) in (30, 31)


@pytest.mark.parametrize(("soft", "hard", "wanted"), [(99, 4096, (164, 4096)), (99, 120, (120, 120)), (164, 999, None)])
def test_a_crowd_gets_the_descriptors_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: tuple[int, int] | None
) -> None:
    """A hundred, and 64 for all else; as far as it may."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(slow_clients.resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(slow_clients.resource, "setrlimit", lambda which, limits: asked.append(limits))
    with served(lambda link: link.recv(1)) as address:
        for link in come(Address.parse(address), 100):
            link.close()
    assert asked == ([wanted] if wanted else [])
    assert resource.RLIMIT_NOFILE == slow_clients.resource.RLIMIT_NOFILE


def test_the_slow_send_a_byte_at_a_time_of_a_request_that_never_ends() -> None:
    ours, theirs = socket.socketpair()
    gone, other = socket.socketpair()
    other.close()
    gone.close()
    with ours, theirs:
        turns: Iterator[None] = bother([gone, ours])
        begun = b"*2\r\n$4\r\nECHO\r\n$100000\r\n"
        for number in range(len(begun) + 3):
            next(turns)
            assert theirs.recv(10) == (begun[number : number + 1] or b"x")


def run_crowd(monkeypatch: pytest.MonkeyPatch, address: str, **options: Any) -> tuple[str, int]:
    defaults = {"address": address, "slow": 3, "idle": 4, "pings": 0, "timeout": 5.0}
    code = 0
    assert slow_clients.main.callback is not None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            slow_clients.main.callback(**{**defaults, **options})
        except SystemExit as error:
            code = int(str(error.code))
    return out.getvalue(), code


def test_the_crowd_is_there_and_stays_until_its_stdin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    waits: list[float] = []
    got: list[bytes] = []

    def wait(read: Any, write: Any, error: Any, seconds: float) -> Any:
        waits.append(seconds)
        if len(waits) == 3:
            os.close(writer)
            return read, [], []
        return [], [], []

    def take(link: socket.socket) -> None:
        got.append(receive(link, 100))

    with os.fdopen(reader) as stdin, served(take) as address:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(slow_clients.select, "select", wait)
        assert run_crowd(monkeypatch, address) == ("there\n", 0)
        wait_until(lambda: len(got) == 7)
    assert waits == [1.0] * 3
    # Three have sent a byte in each of three turns, four have said nothing.
    assert sorted(got) == [b""] * 4 + [b"*2\r"] * 3


def test_the_other_client_prints_its_percentiles_or_why_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(pong) as address:
        out, code = run_crowd(monkeypatch, address, pings=5)
        assert (set(json.loads(out)), code) == ({"p50", "p99", "max"}, 0)
    with served(lambda link: receive(link, len(PING))) as address:
        assert run_crowd(monkeypatch, address, pings=5) == ("PING was answered by b''\n", 1)
    with served(lambda link: [receive(link, 6), link.recv(1)]) as address:
        out, code = run_crowd(monkeypatch, address, pings=5, timeout=0.1)
        assert code == 1
        assert out.startswith(f"{Address.parse(address)}: waited 0.1 s for the server to answer")


def test_five_hundred_are_slow_and_five_hundred_silent() -> None:
    defaults = {parameter.name: parameter.default for parameter in slow_clients.main.params}
    assert defaults == {"address": defaults["address"], "slow": 500, "idle": 500, "pings": 0, "timeout": 5.0}


# The witness.


class Rounds:
    """What stands for the event that ends a witness: it waits for so many rounds, and notes for how long."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.left -= 1
        return self.left < 0

    def set(self) -> None:
        self.left = 0


def watch(
    address: str, rounds: int, monkeypatch: pytest.MonkeyPatch, timeout: float = 30.0
) -> tuple[list[Any], Rounds]:
    """Look so often, with the patience of a busy machine."""
    monkeypatch.setattr(latency_probe, "TIMEOUT", timeout)
    each = Rounds(rounds)
    looking = Witness(Address.parse(address))
    looking._ended = each  # type: ignore[assignment]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        looking.watch()
    assert looking._link is None
    return [json.loads(line) for line in out.getvalue().splitlines()], each


def test_a_witness_pings_every_20_ms_on_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TIMEOUT == 0.5
    connections: list[socket.socket] = []
    with served(lambda link: [connections.append(link), pong(link)]) as address:
        found, rounds = watch(address, 4, monkeypatch)
    assert rounds.waited == [0.02] * 5
    assert len(found) == 4
    assert all(when >= 0 and took > 0 for when, took in found)
    assert [when for when, _ in found] == sorted(when for when, _ in found)
    assert len(connections) == 1


def test_a_ping_is_timed_from_before_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = Witness(Address.parse("tcp://127.0.0.1:1"))
    looking._begin = 100.0
    looking._ended = Rounds(2)  # type: ignore[assignment]
    ticks = iter([103.0, 103.25, 104.0, 104.5])
    monkeypatch.setattr(latency_probe.time, "monotonic", lambda: next(ticks))

    renewed: list[bool] = []

    class Answers:
        def reset_deadline(self) -> None:
            renewed.append(True)

        def send(self, data: bytes) -> None: ...
        def receive(self) -> bytes:
            return PONG

        def close(self) -> None: ...

    looking._link = Answers()  # type: ignore[assignment]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        looking.watch()
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [[3.0, 0.25], [4.0, 0.5]]
    assert renewed == [True, True]


@pytest.mark.parametrize("how", ["wrong", "end", "silence"])
def test_a_ping_that_fails_is_null_and_the_next_has_a_connection_of_its_own(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[socket.socket] = []

    def talk(link: socket.socket) -> None:
        connections.append(link)
        if len(connections) > 1:
            pong(link)
        receive(link, len(PING))
        if how == "wrong":
            link.sendall(b"+PING\r\n")
        if how == "silence":
            link.recv(1)

    with served(talk) as address:
        found, _ = watch(address, 3, monkeypatch, 0.2 if how == "silence" else 30.0)
    assert found[0][1] is None
    if how == "silence":  # the others as well, on a machine that takes 0.2 s to answer
        return
    assert all(took is not None for _, took in found[1:])
    assert len(connections) == 2


def test_nobody_listening_is_a_failure_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        found, _ = watch(f"tcp://127.0.0.1:{nobody.getsockname()[1]}", 3, monkeypatch)
    assert [took for _, took in found] == [None] * 3


def test_a_witness_tells_the_moments_that_it_hears_of_and_ends_with_its_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("broken 1\nmended 2\n"))
    looking = Witness(Address.parse("tcp://127.0.0.1:1"))
    looking._begin = 100.0
    ticks = iter([101.0, 102.5])
    monkeypatch.setattr(latency_probe.time, "monotonic", lambda: next(ticks))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        looking.listen()
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"mark": "broken 1", "at": 1.0},
        {"mark": "mended 2", "at": 2.5},
    ]
    assert looking._ended.is_set()


def test_the_instrument_watches_until_its_stdin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.delenv("RES_OPTIONS", raising=False)
    lines: list[Any] = []

    def note(what: object) -> None:
        lines.append(what)
        if len(lines) == 3:
            os.write(writer, b"broken\n")
        if isinstance(what, dict):
            os.close(writer)

    monkeypatch.setattr(latency_probe, "_say", note)
    assert latency_probe.main.callback is not None
    with served(pong) as address, os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        latency_probe.main.callback(address)
        # A name that is not known is looked up for a second and not for ten.
        assert os.environ["RES_OPTIONS"] == "timeout:1 attempts:1"
    assert [line["mark"] for line in lines if isinstance(line, dict)] == ["broken"]
    assert all(line[1] is not None for line in lines if isinstance(line, list))
