"""How reading ends in a drain, by the descriptor alone; and what the states of a conversation say."""

import resource
import signal
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from services.models import plain_socket, socketserver_sequential
from services.protocol import Close, Connection, Limits, Send
from services.serving import blocking
from services.serving.closing import stop_accepting, stop_reading
from services.serving.listeners import open_listeners, parse_listens
from services.serving.states import CLOSED, LINGERING, READING, SENDING, WAITING, State


def test_what_has_arrived_is_read_and_then_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"ECHO last\r\n")
        connection = Connection("command")
        stop_reading(ours.fileno(), connection)
        data = ours.recv(100)
        connection.receive_data(data)
        assert connection.next_event() == Send(b"$4\r\nlast\r\n")
        assert connection.next_event() is None  # more may have arrived
        assert ours.recv(100) == b""
        connection.receive_eof()
        assert connection.next_event() == Close()
        ours.send(b"the other half is open")
        assert theirs.recv(100) == b"the other half is open"


def test_reading_stops_though_no_descriptor_is_left() -> None:
    ours, theirs = socket.socketpair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ours, theirs:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            stop_reading(ours.fileno(), Connection("command"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ours.recv(100) == b""


def test_descriptor_of_a_client_that_is_gone_stays_its_owners() -> None:
    """The kernel refuses to end the reading of what is not connected; the next client would get the same number."""
    with socket.socket() as gone:
        stop_reading(gone.fileno(), Connection("command"))
        assert gone.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM


def test_stop_leaves_datagram_sockets_open_and_forgets_a_shortage() -> None:
    """Datagram sockets still carry replies. Nothing is accepted any more, so no line says that the shortage is over."""
    wanted = parse_listens(["echo=tcp://127.0.0.1:0", "echo=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), lambda: "") as listeners:
        stream, datagrams = listeners
        stream.shortage.failed("no descriptor")
        stop_accepting(listeners)
        assert not stream.shortage
        stop_accepting([datagrams])
        assert (stream.socket.fileno(), datagrams.socket.fileno() >= 0) == (-1, True)


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("model", [plain_socket, socketserver_sequential])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_nothing_listens_while_the_only_client_is_served_to_its_end(
    monkeypatch: pytest.MonkeyPatch, model: Any, transport: str
) -> None:
    closed: list[bool] = []

    def serve(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        closed.extend(each.socket.fileno() == -1 for each in listeners)

    monkeypatch.setattr(blocking, "serve_datagram", serve)
    monkeypatch.setattr(blocking, "serve_stream", lambda *_, **__: serve())
    wanted = parse_listens(["echo=tcp://127.0.0.1:0", "echo=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as listeners, ExitStack() as stack:
        listener = next(each for each in listeners if each.address.transport == transport)
        client = stack.enter_context(socket.socket(type=listener.socket.type))
        client.connect(listener.socket.getsockname())
        client.send(b"hello")
        model.serve(listeners)
    assert closed == [True, False]


@pytest.mark.parametrize("is_closed", [False, True])
def test_connection_without_a_socket_ends(is_closed: bool) -> None:
    ours, theirs = socket.socketpair()
    descriptor = ours.fileno()
    ours.close()
    theirs.close()
    connection = Connection("command")
    stop_reading(descriptor if is_closed else -1, connection)
    assert connection.next_event() == Close()


def test_socket_is_read_only_where_bytes_have_a_use_or_must_be_dropped() -> None:
    assert {state for state in State if state.reads} == {READING, LINGERING}
    assert {state for state in State if state.is_open} == {READING, SENDING, WAITING}
    assert set(State) == {READING, SENDING, WAITING, LINGERING, CLOSED}
