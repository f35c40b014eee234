"""The latency probe and the slow clients: what they send, what they count, and how they end."""

import contextlib
import io
import json
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.base.messages import Message, decode, encode
from lab.clients import latency_probe, slow_clients
from lab.clients.latency_probe import TIMEOUT, LatencyProbe, Mark, Marked, Ping
from lab.clients.slow_clients import Connected, connect_all, ping, send_slowly
from loadtests.sockets.addresses import SocketAddress
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError, NoAnswerError
from services.protocol import Address
from tests.support.fakes import Clock
from tests.support.made_up_server import receive, served
from tests.support.ports import closed_port
from tests.support.waiting import wait_until

PING, PONG = b"PING\r\n", b"+PONG\r\n"


def pong(link: socket.socket) -> None:
    while receive(link, len(PING)) == PING:
        link.sendall(PONG)


# Slow clients.


def test_ping_uses_one_connection_and_returns_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    # 101 PINGs that take 1 to 101 s, shuffled: p50 is 51, p99 is 100.
    took = [float((37 * number) % 101 + 1) for number in range(101)]
    ticks = iter([tick for each in took for tick in (1000.0, 1000.0 + each)])
    connections: list[socket.socket] = []

    def talk(link: socket.socket) -> None:
        connections.append(link)
        pong(link)

    reset: list[BlockingConnection] = []
    monkeypatch.setattr(BlockingConnection, "reset_deadline", lambda link: reset.append(link))
    with served(talk) as address:
        monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
        assert ping(Address.parse(address), 101) == {"p50": 51.0, "p99": 100.0, "max": 101.0}
    assert len(connections) == 1
    # Each PING has its own deadline.
    assert (len(reset), slow_clients._TIMEOUT) == (101, 5.0)


def test_ping_with_a_wrong_answer_is_an_error() -> None:
    def talk(link: socket.socket) -> None:
        receive(link, len(PING))
        link.sendall(b"-NO " + b"x" * 90)

    with served(talk) as address, pytest.raises(ClientError) as found:
        ping(Address.parse(address), 5)
    assert str(found.value) == f"PING was answered by {b'-NO ' + b'x' * 36!r}"


def test_connect_all_opens_silent_connections() -> None:
    seen: list[socket.socket] = []

    def talk(link: socket.socket) -> None:
        seen.append(link)
        link.recv(1)

    with served(talk) as address:
        links = connect_all(Address.parse(address), 30)
        try:
            wait_until(lambda: len(seen) == 30)
            assert {link.getpeername()[1] for link in links} == {Address.parse(address).port}
            # A blocking connection that is not accepted would delay all others.
            assert not any(link.getblocking() for link in links)
        finally:
            for link in links:
                link.close()


def test_connect_all_waits_three_seconds_for_the_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
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

    monkeypatch.setattr(select, "poll", Deaf)
    with served(lambda link: link.recv(1)) as address:
        for link in connect_all(Address.parse(address), 3):
            link.close()
    # Thirty polls of a tenth of a second, or 31, as 0.1 is not exact.
    assert set(polled) == {100}
    assert len(polled) in (30, 31)


def test_connect_all_waits_for_the_last_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the server accepts early does not stand for the others: they are what keeps it busy."""
    clock = Clock()
    monkeypatch.setattr(slow_clients, "time", clock)
    waiting: list[int] = []

    class OneByOne:
        def register(self, link: socket.socket, event: int) -> None:
            assert event == select.POLLOUT
            waiting.append(link.fileno())

        def unregister(self, descriptor: int) -> None:
            waiting.remove(descriptor)

        def poll(self, milliseconds: int) -> list[tuple[int, int]]:
            clock.now += milliseconds / 1000
            return [(waiting[0], select.POLLOUT)]

    monkeypatch.setattr(select, "poll", OneByOne)
    with served(lambda link: link.recv(1)) as address:
        for link in connect_all(Address.parse(address), 3):
            link.close()
    assert not waiting
    # A poll for each, and none afterwards.
    assert round(clock.now - 100, 3) == 0.3


def test_addresses_of_a_host_share_the_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second for each of three that accept nothing."""
    clock = Clock()
    monkeypatch.setattr(slow_clients, "time", clock)
    begun: list[float] = []

    class Deaf:
        def __init__(self) -> None:
            begun.append(clock.now - 100)

        def register(self, link: object, event: int) -> None:
            pass

        def poll(self, milliseconds: int) -> list[Any]:
            clock.now += milliseconds / 1000
            return []

    monkeypatch.setattr(select, "poll", Deaf)
    with closed_port() as port:
        places = [(socket.AF_INET, ("127.0.0.1", port))] * 3
        monkeypatch.setattr(slow_clients, "find_addresses", lambda *_: places)
        (link,) = connect_all(Address.parse(f"tcp://many:{port}"), 1)
        assert link.fileno() >= 0  # in the backlog of the last one
        link.close()
    # Each may be a poll of a tenth of a second late, as 0.1 is not exact.
    assert [int(second + 0.01) for second in begun] == [0, 1, 2]
    assert 3 <= clock.now - 100 + 0.01 < 3.2


def test_first_address_that_accepts_gets_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[SocketAddress, list[socket.socket]]] = []
    remembered: list[tuple[object, ...]] = []
    connect = slow_clients._connect_to

    def note(place: SocketAddress, count: int, seconds: float) -> list[socket.socket]:
        tried.append((place, connect(place, count, seconds)))
        return tried[-1][1]

    monkeypatch.setattr(slow_clients, "_connect_to", note)
    monkeypatch.setattr(slow_clients, "remember", lambda *what: remembered.append(what))
    with closed_port() as port, served(lambda link: link.recv(1)) as address:
        open_port = Address.parse(address).port
        assert open_port is not None
        missing = (255, ("", 0))  # a family that no kernel supports
        places = [missing, *((socket.AF_INET, ("127.0.0.1", number)) for number in (port, open_port, open_port))]
        monkeypatch.setattr(slow_clients, "find_addresses", lambda *_: places)
        links = connect_all(Address.parse("tcp://many:7"), 2)
        assert [place for place, _ in tried] == places[:3]
        assert links is tried[2][1]
        assert [link.getpeername()[1] for link in links] == [open_port] * 2
        assert [[link.fileno() for link in opened] for _, opened in tried[:2]] == [[], [-1, -1]]
        for link in links:
            link.close()
    assert remembered == [("many", 7, socket.SOCK_STREAM, places[2])]


@pytest.mark.parametrize(("soft", "hard", "wanted"), [(99, 4096, (164, 4096)), (99, 120, (120, 120)), (164, 999, None)])
def test_connect_all_raises_the_limit_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: tuple[int, int] | None
) -> None:
    """A hundred for the clients and 64 for everything else, at most the hard limit."""
    asked: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_NOFILE: (soft, hard)}.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append((which, limits)))
    with served(lambda link: link.recv(1)) as address:
        for link in connect_all(Address.parse(address), 100):
            link.close()
    assert asked == ([(resource.RLIMIT_NOFILE, wanted)] if wanted else [])


def test_slow_clients_send_an_endless_request_byte_by_byte() -> None:
    ours, theirs = socket.socketpair()
    gone, other = socket.socketpair()
    other.close()
    gone.close()
    with ours, theirs:
        turns: Iterator[None] = send_slowly([gone, ours])
        begun = b"*2\r\n$4\r\nECHO\r\n$100000\r\n"
        for number in range(len(begun) + 3):
            next(turns)
            assert theirs.recv(10) == (begun[number : number + 1] or b"x")


def run_slow_clients(monkeypatch: pytest.MonkeyPatch, address: str, **options: Any) -> tuple[str, int]:
    defaults = {"address": address, "slow": 3, "idle": 4, "pings": 0, "timeout": 5.0}
    code = 0
    assert slow_clients.main.callback is not None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            slow_clients.main.callback(**{**defaults, **options})
        except SystemExit as error:
            code = int(str(error.code))
    return out.getvalue(), code


def test_slow_clients_stay_until_stdin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
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
        monkeypatch.setattr(select, "select", wait)
        assert run_slow_clients(monkeypatch, address) == (f"{encode(Connected())}\n", 0)
        wait_until(lambda: len(got) == 7)
    assert waits == [1.0] * 3
    # Three have sent a byte in each of three steps; four have sent nothing.
    assert sorted(got) == [b""] * 4 + [b"*2\r"] * 3


def test_ping_command_prints_percentiles_or_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(pong) as address:
        out, code = run_slow_clients(monkeypatch, address, pings=5)
        assert (set(json.loads(out)), code) == ({"p50", "p99", "max"}, 0)
    with served(lambda link: receive(link, len(PING))) as address:
        assert run_slow_clients(monkeypatch, address, pings=5) == ("PING was answered by b''\n", 1)
    with served(lambda link: [receive(link, 6), link.recv(1)]) as address:
        out, code = run_slow_clients(monkeypatch, address, pings=5, timeout=0.1)
        assert code == 1
        assert out.startswith(f"{Address.parse(address)}: waited 0.1 s for the server to answer")


def test_default_is_five_hundred_slow_and_five_hundred_idle_clients() -> None:
    defaults = {parameter.name: parameter.default for parameter in slow_clients.main.params}
    assert defaults == {"address": defaults["address"], "slow": 500, "idle": 500, "pings": 0, "timeout": 5.0}


# The latency probe.


class Rounds:
    """A stand-in for the event that stops the probe: it stops it after a number of rounds, and records each timeout."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.left -= 1
        return self.left < 0

    def set(self) -> None:
        self.left = 0


def run_probe(
    address: str, rounds: int, monkeypatch: pytest.MonkeyPatch, timeout: float = 30.0
) -> tuple[list[Ping | None], Rounds]:
    """Run the probe for a number of rounds, with a timeout for a busy machine."""
    monkeypatch.setattr(latency_probe, "TIMEOUT", timeout)
    each = Rounds(rounds)
    probe = LatencyProbe(Address.parse(address))
    probe._ended = each  # type: ignore[assignment]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        probe.run()
    assert probe._connection is None
    return [decode(line, Ping) for line in out.getvalue().splitlines()], each


def test_probe_pings_every_20_ms_on_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TIMEOUT == 0.5
    connections: list[socket.socket] = []

    def talk(link: socket.socket) -> None:
        connections.append(link)
        pong(link)

    with served(talk) as address:
        found, rounds = run_probe(address, 4, monkeypatch)
    assert rounds.waited == [0.02] * 5
    assert len(found) == 4
    sent = [ping.at for ping in found if ping and ping.took]
    assert sent == sorted(sent)
    assert (len(sent), sent[0] >= 0) == (4, True)
    assert len(connections) == 1


def test_probe_times_a_ping_from_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = LatencyProbe(Address.parse("tcp://127.0.0.1:1"))
    probe._begin = 100.0
    probe._ended = Rounds(2)  # type: ignore[assignment]
    ticks = iter([103.0, 103.25, 104.0, 104.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))

    reset: list[bool] = []

    class Answers:
        def reset_deadline(self) -> None:
            reset.append(True)

        def send(self, data: bytes) -> None: ...
        def receive(self) -> bytes:
            return PONG

        def close(self) -> None: ...

    probe._connection = Answers()  # type: ignore[assignment]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        probe.run()
    assert [decode(line, Ping) for line in out.getvalue().splitlines()] == [Ping(3.0, 0.25), Ping(4.0, 0.5)]
    assert reset == [True, True]


@pytest.mark.parametrize("how", ["wrong", "end", "silence", "late"])
def test_failed_ping_is_null_and_the_next_one_uses_a_new_connection(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the old one, a late reply would be taken for that of the next PING."""
    connections: list[socket.socket] = []
    receive_reply = BlockingConnection.receive

    def miss_the_reply(link: BlockingConnection) -> bytes:
        monkeypatch.setattr(BlockingConnection, "receive", receive_reply)
        raise NoAnswerError("it takes longer")

    if how == "late":
        monkeypatch.setattr(BlockingConnection, "receive", miss_the_reply)

    def talk(link: socket.socket) -> None:
        connections.append(link)
        if len(connections) > 1 or how == "late":
            pong(link)
        receive(link, len(PING))
        if how == "wrong":
            link.sendall(b"+PING\r\n")
        if how == "silence":
            link.recv(1)

    with served(talk) as address:
        found, _ = run_probe(address, 3, monkeypatch, 0.2 if how == "silence" else 30.0)
    assert found[0] is not None
    assert found[0].took is None
    if how == "silence":  # on a busy machine, the others may take more than 0.2 s too
        return
    assert all(ping and ping.took is not None for ping in found[1:])
    assert len(connections) == 2


def test_refused_connection_is_a_failed_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as port:
        found, _ = run_probe(f"tcp://127.0.0.1:{port}", 3, monkeypatch)
    assert [ping and ping.took for ping in found] == [None] * 3


def test_probe_prints_marks_and_ends_with_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [Mark("injected"), Mark("healed")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{encode(mark)}\n" for mark in marks)))
    probe = LatencyProbe(Address.parse("tcp://127.0.0.1:1"))
    probe._begin = 100.0
    ticks = iter([101.0, 102.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        probe.read_marks()
    found = [decode(line, Marked) for line in out.getvalue().splitlines()]
    assert found == [Marked("injected", 1.0), Marked("healed", 2.5)]
    assert probe._ended.is_set()


def test_command_runs_until_stdin_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.delenv("RES_OPTIONS", raising=False)
    said: list[Message] = []

    def record(message: Message) -> None:
        said.append(message)
        if len(said) == 3:
            os.write(writer, f"{encode(Mark('injected'))}\n".encode())
        if isinstance(message, Marked):
            os.close(writer)

    monkeypatch.setattr(latency_probe, "say", record)
    assert latency_probe.main.callback is not None
    with served(pong) as address, os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        latency_probe.main.callback(address)
        # The resolver gives up on an unknown name after one second, not ten.
        assert os.environ["RES_OPTIONS"] == "timeout:1 attempts:1"
    assert [item.word for item in said if isinstance(item, Marked)] == ["injected"]
    assert all(item.took is not None for item in said if isinstance(item, Ping))
