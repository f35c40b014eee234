"""Each check of the fuzzers sees what it is there for: one fault for each, which no other check can see."""

import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest

import fuzz.oracle
import lab.clients.reference
import services.protocol.command
from fuzz.live import UnlikeTheReferenceError, bombard
from fuzz.oracle import CUTS, check, pull
from lab.clients.reference import Answer
from services.protocol import Address, Connection, DatagramConnection, Limits, Send, Transport
from services.protocol.resp import RequestReader

# With the bytes that say where they are cut.
INPUTS = (
    b"\x03\x0b\x0f\x15PING\r\n*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n",
    b"\x09\x09\x09\x09BURN 12\nBURN 12\nSLEEP 20\nSLEEP 40\n",
    b"\x01\x02\x03\x04MULTI\nPING\nEXEC\nNOPE 'x'\n*1\r\n$-1\r\n",
    b"\x09\x09\x09\x09*2\r\n$4\r\nECHO\r\n$3\r\nABC\r\n*1\r\n$4\r\nPI",
    b"\x00\x00\x00\x00PING\nQUIT\n",
)


class OtherLastByte(RequestReader):
    """Changes the last argument of every request that has several."""

    def next_request(self) -> list[bytes] | None:
        request = super().next_request()
        return [*request[:-1], request[-1][:-1] + b"?"] if request and len(request) > 1 else request


class Hoarder(RequestReader):
    """Holds more than it was sent."""

    def next_request(self) -> list[bytes] | None:
        request = super().next_request()
        if request is None:
            self._buffer = bytes(1000)
        return request


class Shouter(Connection):
    """Takes what it is sent for upper case."""

    def receive_data(self, data: bytes) -> None:
        super().receive_data(data.upper())


class Mishearing(Connection):
    """Takes `hello` for `jello`, unless the piece holds the beginning of the stream as well."""

    def receive_data(self, data: bytes) -> None:
        super().receive_data(data.replace(b"hello", b"jello") if not data.startswith(b"PING") else data)


class Unending(Connection):
    """Never comes to the end of a stream."""

    def next_event(self) -> Any:
        event = super().next_event()
        return None if event == services.protocol.Close() else event


def torn_pong(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(services.protocol.command, "_PONG", b"+PONG\n")
    patch.setattr(lab.clients.reference._Redis, "do_ping", lambda self, request: b"+PONG\n")


def torn_end(patch: pytest.MonkeyPatch) -> None:
    def quit_torn(self: Any, request: list[bytes]) -> None:
        self._replies.append(b"+OK\r")
        self._closing = True

    def say_torn(self: Any, request: list[bytes]) -> bytes:
        self.answer.ended = True
        return b"+OK\r"

    patch.setitem(services.protocol.command._HANDLERS, b"QUIT", quit_torn)
    patch.setattr(lab.clients.reference._Redis, "do_quit", say_torn)


FAULTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], object]]] = {
    "a wrong reply": ("check_stream", lambda patch: patch.setattr(fuzz.oracle, "Connection", Shouter)),
    "a wrong piece": ("check_cuts", lambda patch: patch.setattr(fuzz.oracle, "Connection", Mishearing)),
    "a reply without its end": ("check_replies", torn_pong),
    "a last reply without its end": ("check_replies", torn_end),
    "a wrong request": ("check_requests", lambda patch: patch.setattr(fuzz.oracle, "RequestReader", OtherLastByte)),
    "too much memory": ("check_requests", lambda patch: patch.setattr(fuzz.oracle, "RequestReader", Hoarder)),
    "work without bounds": (
        "check_datagram",
        lambda patch: patch.setattr(DatagramConnection, "_excess", lambda self, work: b""),
    ),
}


def failing_checks() -> set[str]:
    found = set()
    for data in INPUTS:
        stream = data[CUTS:]
        for name, arguments in (
            ("check_stream", (stream,)),
            ("check_cuts", (stream, data[:CUTS])),
            ("check_replies", (stream,)),
            ("check_requests", (stream,)),
            ("check_datagram", ("command", stream)),
        ):
            try:
                getattr(fuzz.oracle, name)(*arguments)
            except (AssertionError, hiredis.ProtocolError):
                found.add(name)
    return found


def test_checks_find_nothing_where_nothing_is_broken() -> None:
    assert failing_checks() == set()


@pytest.mark.parametrize(("name", "plant"), FAULTS.values(), ids=FAULTS)
def test_fault_is_seen_by_its_own_check_alone(
    name: str, plant: Callable[[pytest.MonkeyPatch], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert failing_checks() == {name}


@pytest.mark.parametrize("name", ["check_stream", "check_cuts", "check_replies", "check_requests", "check_datagram"])
def test_campaign_makes_every_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(fuzz.oracle, name, lambda *arguments: made.append(arguments))
    check(b"\x01\x02\x03\x04PING\n")
    streams = {"check_stream": [(b"PING\n",)], "check_cuts": [(b"PING\n", b"\x01\x02\x03\x04")]}
    datagrams = [(service, b"PING\n") for service in ("greet", "echo", "discard", "command")]
    assert made == streams.get(name, datagrams if name == "check_datagram" else [(b"PING\n",)])


def test_stream_without_an_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.oracle, "Connection", Unending)
    with pytest.raises(AssertionError):
        fuzz.oracle.check_stream(b"PING\n")


def test_answer_in_two_datagrams_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Send(b"+"), Send(b"PONG\r\n"), services.protocol.Close()]
    conversation = iter(parts)
    monkeypatch.setattr(
        fuzz.oracle,
        "DatagramConnection",
        lambda *arguments, **limits: SimpleNamespace(next_event=lambda: next(conversation)),
    )
    with pytest.raises(AssertionError, match="2 <= 1"):
        fuzz.oracle.check_datagram("command", b"PING\n")


def test_answer_that_is_larger_than_a_datagram_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the reference has made the same mistake."""
    monkeypatch.setattr(services.protocol.connection, "DATAGRAM_SIZE", 100_000)
    monkeypatch.setattr(lab.clients.reference, "DATAGRAM", 100_000)
    fuzz.oracle.check_datagram("echo", bytes(65_507))
    with pytest.raises(AssertionError, match="65508 <= 65507"):
        fuzz.oracle.check_datagram("echo", bytes(65_508))


# The live fuzzing: a server of a few lines, which says what `spoil` makes of what it should.

Spoil = Callable[[bytes, bytes], bytes]
LIMITS = Limits(sleep_ms=5, burn=50)


def is_behaved(received: bytes) -> bool:
    """Whether it is the client that must get each of its replies; all others are sent inputs."""
    return received.endswith(b" of 7\r\n")


class StandIn:
    """Serves `command` on loopback, over TCP and UDP, one client after the other."""

    def __init__(self, spoil: Spoil) -> None:
        self._spoil = spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=target) for target in (self._serve_streams, self._serve_datagrams)]
        self.addresses = [
            Address(Transport.TCP, host="127.0.0.1", port=self._listener.getsockname()[1]),
            Address(Transport.UDP, host="127.0.0.1", port=self._datagrams.getsockname()[1]),
        ]

    def __enter__(self) -> "StandIn":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with socket.create_connection(self._listener.getsockname()) as last:
            last.sendall(b"STOP")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"STOP", self._datagrams.getsockname())
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self._datagrams.close()

    def _serve_streams(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client:
                connection, received = Connection("command", limits=LIMITS), b""
                outcome = pull(connection)
                while not outcome.closed:
                    data = client.recv(65536)
                    if data == b"STOP":
                        return
                    received += data
                    if data:
                        connection.receive_data(data)
                    else:
                        connection.receive_eof()
                    pull(connection, outcome)
                    if is_behaved(received):
                        break
                client.sendall(self._spoil(outcome.sent, received))
                client.shutdown(socket.SHUT_WR)
                while not is_behaved(received) and client.recv(65536):
                    pass

    def _serve_datagrams(self) -> None:
        while True:
            data, peer = self._datagrams.recvfrom(65536)
            if data == b"STOP":
                return
            self._datagrams.sendto(
                self._spoil(pull(DatagramConnection("command", data, limits=LIMITS)).sent, data), peer
            )


def other_last_byte(sent: bytes) -> bytes:
    return sent[:-1] + bytes([sent[-1] ^ 1]) if len(sent) > 20 else sent


SPOILED: dict[str, Spoil] = {
    "last byte": lambda sent, received: sent if is_behaved(received) else other_last_byte(sent),
    "one byte more": lambda sent, received: sent if is_behaved(received) else sent + b"\n",
    "one byte less": lambda sent, received: sent if is_behaved(received) else sent[:-1],
    "nothing": lambda sent, received: sent if is_behaved(received) else b"",
    "to the behaved client": lambda sent, received: other_last_byte(sent + b"\r\n") if is_behaved(received) else sent,
    "less to the behaved client": lambda sent, received: sent[:-1] if is_behaved(received) else sent,
}


def test_server_that_answers_as_it_must_passes() -> None:
    with StandIn(lambda sent, received: sent) as server:
        found = bombard(server.addresses[:1], seed=7, inputs=30, overlaps=False)
    assert found.inputs == 30
    assert 15 < found.compared <= 30


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_server_that_answers_otherwise_is_found(spoil: Spoil) -> None:
    with StandIn(spoil) as server, pytest.raises(UnlikeTheReferenceError):
        bombard(server.addresses[:1], seed=7, inputs=30, overlaps=False)


def test_both_implementations_have_the_same_small_limits() -> None:
    """An input of a few dozen bytes reaches each; a limit that is in one alone would be a difference."""
    names = ("line", "bulk", "array", "request", "transaction", "sleep_ms", "burn", "blob")
    expected = (80, 60, 6, 100, 700, 50, 20, 200)
    for limits in (fuzz.oracle.LIMITS, fuzz.oracle.BOUNDS):
        assert tuple(getattr(limits, name) for name in names) == expected
    assert fuzz.oracle.LIMITS.pipeline == 7


@pytest.mark.parametrize("part", ["sent", "waits", "rounds"])
@pytest.mark.parametrize("service", ["greet", "echo", "discard", "command"])
def test_each_part_of_an_answer_is_compared(service: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each service, over a stream and as a datagram."""

    def spoil(right: Callable[..., Answer]) -> Callable[..., Answer]:
        def answer(asked: str, *arguments: Any) -> Answer:
            found = right(asked, *arguments)
            if asked == service:
                setattr(found, part, getattr(found, part) + type(getattr(found, part))([1]))
            return found

        return answer

    for name in ("answer", "answer_datagram"):
        monkeypatch.setattr(fuzz.oracle, name, spoil(getattr(fuzz.oracle, name)))
    with pytest.raises(AssertionError, match=f"^{service}$"):
        fuzz.oracle.check_stream(b"PING\n")
    with pytest.raises(AssertionError, match=f"^{service}$"):
        fuzz.oracle.check_datagram(service, b"PING\n")
