"""What a protocol of asyncio and of Twisted asks of its transport, by itself: no loop runs."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.models import asyncio_protocol, twisted_reactor
from services.protocol import Limits
from services.serving import twisted_sockets
from services.serving.callbacks import Conversations
from services.serving.idle import LOOKS
from services.serving.listeners import Listener, open_listeners, parse_listens
from services.serving.states import CLOSED, LINGERING, READING, State
from services.serving.twisted_sockets import Gate, reactor

PEER = ("192.0.2.7", 4711)


class Transport:
    """Notes what is asked of it. Its socket is a real one, at whose other end is the client."""

    def __init__(self, ours: socket.socket) -> None:
        self.asked: list[Any] = []
        self.getPeer = lambda: SimpleNamespace(host=PEER[0], port=PEER[1])
        self._socket = ours

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(*arguments: object, **options: object) -> None:
            self.asked.append((name, *arguments, *options.items()))

        return note

    def get_extra_info(self, name: str) -> object:
        return {"socket": self._socket, "peername": PEER}[name]

    def fileno(self) -> int:
        return self._socket.fileno()


@pytest.fixture
def transport() -> Iterator[Transport]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield Transport(ours)


@pytest.fixture
def listeners() -> Iterator[list[Listener]]:
    wanted = parse_listens(["command=tcp://127.0.0.1:0", "command=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(connections=1), lambda: "") as listeners:
        yield listeners


@pytest.fixture
def conversations() -> Conversations:
    return Conversations(Limits(connections=1), lambda seconds, call: None)


Make = Callable[[], Any]


@pytest.fixture(params=["asyncio", "twisted"])
def make(
    request: pytest.FixtureRequest, conversations: Conversations, listeners: list[Listener], transport: Transport
) -> Make:
    """Return a function that makes a protocol and connects it."""

    def make_asyncio() -> asyncio_protocol.StreamProtocol:
        server = SimpleNamespace(conversations=conversations, loop=None, buffer=memoryview(bytearray(1)))
        protocol = asyncio_protocol.StreamProtocol(cast(Any, server), listeners[0])
        protocol.connection_made(cast(asyncio.BaseTransport, transport))
        return protocol

    def make_twisted() -> twisted_reactor.StreamProtocol:
        protocol = twisted_reactor.StreamProtocol(conversations, listeners[0])
        protocol.transport = transport
        protocol.connectionMade()
        return protocol

    return make_asyncio if request.param == "asyncio" else make_twisted


def test_client_that_gets_its_protocol_in_a_drain_is_read_to_its_end(
    make: Make, conversations: Conversations, transport: Transport
) -> None:
    """It was accepted just before. Otherwise a silent client would keep the server until the grace period is over."""
    conversations.drain()
    make()
    assert transport._socket.recv(1) == b""


def test_client_above_the_limit_is_refused_and_not_listened_to(
    make: Make, conversations: Conversations, listeners: list[Listener], transport: Transport
) -> None:
    conversations.begin()
    protocol = make()
    refusal = b"-ERR this server holds 1 connections, which is its limit\r\n"
    assert [asked[:2] for asked in transport.asked[:1]] == [("write", refusal)]
    assert [asked[0] for asked in transport.asked[1:]] in (["close"], ["loseConnection"])
    assert protocol.state is CLOSED
    assert conversations.count == 1


@pytest.mark.parametrize("make", ["asyncio"], indirect=True)
def test_nothing_is_read_while_one_byte_is_left_to_send(make: Make, transport: Transport) -> None:
    make()
    assert ("set_write_buffer_limits", ("high", 0)) in transport.asked


def test_client_that_takes_all_is_not_idle(make: Make) -> None:
    """If it is faster than the server, the kernel holds nothing at any look, so only this shows that it takes."""
    protocol = make()
    is_asyncio = isinstance(protocol, asyncio_protocol.StreamProtocol)
    (protocol.pause_writing if is_asyncio else protocol.pauseProducing)()
    for _ in range(LOOKS):
        assert not protocol.idle.is_idle(-1)
    (protocol.resume_writing if is_asyncio else protocol.resumeProducing)()
    assert not protocol.idle.is_idle(-1)
    assert protocol.state is READING


@pytest.mark.parametrize("state", [LINGERING, CLOSED])
def test_client_that_ends_its_half_after_the_server_is_closed_at_once(
    make: Make, transport: Transport, state: State
) -> None:
    """Otherwise it would hold a place until the linger time is over."""
    protocol = make()
    protocol.state = state
    transport.asked.clear()
    is_asyncio = isinstance(protocol, asyncio_protocol.StreamProtocol)
    (protocol.eof_received if is_asyncio else protocol.readConnectionLost)()
    assert transport.asked == [("close",) if is_asyncio else ("loseConnection",)]


@pytest.mark.parametrize("make", ["twisted"], indirect=True)
def test_client_that_takes_nothing_after_the_close_is_broken_off(make: Make, transport: Transport) -> None:
    """The first close waits until the rest has been written, which may be never."""
    protocol = make()
    transport.asked.clear()
    protocol.close()
    assert transport.asked == [("unregisterProducer",), ("loseConnection",)]
    protocol.close()
    assert transport.asked[2:] == [("abortConnection",)]


@pytest.mark.parametrize("make", ["twisted"], indirect=True)
def test_bytes_that_the_reactor_has_passed_on_are_not_held(make: Make, transport: Transport) -> None:
    protocol = make()
    vars(transport).update(dataBuffer=b"12345678", offset=3)
    assert protocol.untaken() == (transport.fileno(), 5)


def test_gate_pauses_its_port_in_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the port accepts again, unless it was closed meanwhile."""
    calls: list[Any] = []
    monkeypatch.setattr(twisted_sockets, "reactor", SimpleNamespace(callLater=lambda *call: calls.append(call)))
    for connected, disconnecting in [(True, False), (True, True), (False, False), (False, True)]:
        asked: list[str] = []
        names = ("stopReading", "startReading", "doRead")
        port = SimpleNamespace(
            connected=connected,
            disconnecting=disconnecting,
            **{name: lambda name=name, asked=asked: asked.append(name) for name in names},
        )
        shortage = SimpleNamespace(pause=0.25, look=None)
        gate = Gate(port, cast(Any, SimpleNamespace(accept=lambda: None, shortage=shortage)))
        with pytest.raises(BlockingIOError):
            gate.accept()
        assert (asked, calls[0]) == (["stopReading"], (0.25, gate._accept_again))
        gate._accept_again()
        assert asked[1:] == (["startReading", "doRead"] if (connected, disconnecting) == (True, False) else [])
        shortage.pause = 0.0
        with pytest.raises(BlockingIOError):  # there was no client
            gate.accept()
        assert asked.count("stopReading") == 1
        calls.clear()


def test_reactor_accepts_and_receives_nothing_in_a_drain(listeners: list[Listener]) -> None:
    before = set(reactor.getReaders())
    server = twisted_reactor.Server(listeners)
    try:
        server.start()
        assert len(set(reactor.getReaders()) - before) == 2
        assert listeners[0].socket.fileno() == -1  # only the reactor's copy listens
        listeners[0].shortage.failed("no descriptor")
        server.drain()
        assert set(reactor.getReaders()) == before
        assert not listeners[0].shortage
        assert not server.was_cut
    finally:
        reactor.runUntilCurrent()  # closes the port
        for call in reactor.getDelayedCalls():
            call.cancel()
