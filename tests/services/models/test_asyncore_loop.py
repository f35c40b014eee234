"""What asyncore leaves to its user."""

import select
import socket
from collections.abc import Iterator

import pytest

from services.models import asyncore_loop
from services.models.asyncore_loop import Channel, Server
from services.protocol import Limits
from services.serving.idle import LOOKS
from services.serving.listeners import Listener, open_listeners, parse_listens
from services.serving.states import LINGERING


@pytest.fixture
def server(kept_signals: None) -> Iterator[Server]:
    with open_listeners(parse_listens(["command=tcp://127.0.0.1:0"], "m"), Limits(), lambda: "") as listeners:
        server = Server(listeners)
        yield server
        assert server.drain()


def test_urgent_data_wakes_the_loop_once(server: Server) -> None:
    """TCP's out-of-band byte. The kernel says that it is there until it is read, also to a loop that ignores it."""
    with socket.create_connection(server._listeners[0].socket.getsockname()) as client:
        server.turn()
        (stream,) = server.conversations.streams
        client.settimeout(20.0)
        client.send(b"!", socket.MSG_OOB)
        poll = select.poll()
        poll.register(stream.untaken()[0], select.POLLPRI)
        assert poll.poll(20_000)
        server.turn()
        assert not poll.poll(0)
        client.sendall(b"PING\r\n")
        server.turn()
        assert client.recv(100) == b"+PONG\r\n"


def test_time_to_wait_is_rounded_up_to_a_millisecond(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """poll(2) waits for whole milliseconds. A wait that ends before its timer is due would be repeated at once."""
    waits: list[float] = []
    monkeypatch.setattr(asyncore_loop, "LOOP", lambda timeout, channels: waits.append(timeout))
    for left in (0.0104, 0.0):
        monkeypatch.setattr(server, "timeout", lambda left=left: left)
        server.turn()
    assert waits == [pytest.approx(0.0114), 0.0]


def test_unexpected_error_in_accepting_leaves_the_listening_socket_open(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's own handler would close it."""

    def fail(listener: Listener) -> None:
        raise ZeroDivisionError("planted by a test")

    with socket.create_connection(server._listeners[0].socket.getsockname()) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Listener, "accept", fail)
            server.turn()
        assert caplog.messages == ["a conversation ended in an error"]
        server.turn()
        client.settimeout(20.0)
        client.sendall(b"PING\r\n")
        server.turn()
        assert client.recv(100) == b"+PONG\r\n"


def test_client_that_takes_all_is_not_idle(server: Server) -> None:
    """If it is faster than the server, the kernel holds nothing at any look, so only this shows that it takes."""
    with socket.create_connection(server._listeners[0].socket.getsockname()):
        server.turn()
        (stream,) = server.conversations.streams
        assert isinstance(stream, Channel)
        for _ in range(LOOKS):
            assert not stream.idle.is_idle(-1)
        stream.handle_write()
        assert not stream.idle.is_idle(-1)


def test_client_that_ends_its_half_after_the_server_leaves_at_once(server: Server) -> None:
    """Otherwise it would hold a place until the linger time is over."""
    with socket.create_connection(server._listeners[0].socket.getsockname()) as client:
        server.turn()
        (stream,) = server.conversations.streams
        client.sendall(b"QUIT\r\n")
        while stream.state is not LINGERING:
            server.turn()
        client.shutdown(socket.SHUT_WR)
        server.turn()
        assert server.conversations.count == 0
