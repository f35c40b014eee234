"""A blocking connection by itself: its socket, the time that it has left, and the names of its failures."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from loadtests.sockets import connection as module
from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError, NoAnswerError, UnreachableError, WrongAnswerError
from tests.support.fakes import Clock


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def connect(listener: socket.socket, timeout: float = 20.0) -> BlockingConnection:
    host, port = listener.getsockname()
    return BlockingConnection(Endpoint("tcp", host, port), timeout=timeout)


def test_small_request_does_not_wait_for_an_acknowledgement(listener: socket.socket) -> None:
    with connect(listener) as link:
        assert link.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_received_bytes_are_those_of_all_reads(listener: socket.socket) -> None:
    with connect(listener) as link, listener.accept()[0] as server:
        assert link.describe_received() == ""
        for data in (b"ab", b"c"):
            server.sendall(data)
            assert link.receive() == data
        server.close()
        assert link.receive() == b""
        assert link.describe_received() == "; 3 bytes received"


def test_steps_share_a_deadline_until_it_is_reset(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    with connect(listener, 8.0) as link:
        clock.now += 3.0
        link.send(b"x")
        assert link.socket.gettimeout() == pytest.approx(5.0)
        link.reset_deadline()
        link.send(b"x")
        assert link.socket.gettimeout() == pytest.approx(8.0)
        clock.now += 8.0
        with pytest.raises(NoAnswerError, match=r": waited 8 s for the server to take what was sent$"):
            link.send(b"x")
        with pytest.raises(NoAnswerError, match=r": waited 8 s for the server to answer; nothing received$"):
            link.receive()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (errno.ECONNRESET, WrongAnswerError, "the server broke the connection off (Connection reset by peer)"),
        (errno.EPIPE, WrongAnswerError, "the server broke the connection off (Broken pipe)"),
        (errno.EHOSTUNREACH, UnreachableError, "No route to host"),
        (errno.ETIMEDOUT, NoAnswerError, "waited 20 s for the server to take what was sent"),
    ],
)
def test_failure_says_whether_there_is_a_server(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, error: int, kind: type[ClientError], text: str
) -> None:
    class Failing(socket.socket):
        def sendall(self, *_: object) -> None:
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(socket, "socket", Failing)
    with connect(listener) as link, pytest.raises(kind) as raised:
        link.send(b"x")
    assert text in str(raised.value)
    assert isinstance(raised.value.cause, OSError)


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_connection_that_fails_leaves_no_socket(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            made.append(self)

    host, port = listener.getsockname()
    if scheme == "tcp":
        listener.close()
    monkeypatch.setattr(socket, "socket", Noted)
    # Nobody answers the handshake.
    with pytest.raises(ClientError):
        BlockingConnection(Endpoint(scheme, host, port), timeout=0.05 if scheme == "tls" else 20.0)
    assert [each.fileno() for each in made] == [-1]


def test_datagrams_that_were_refused_go_to_the_next_address_which_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtests.sockets.addresses._worked", {})
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        places = [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        with BlockingConnection(Endpoint("udp", "a-name", port), timeout=20.0) as link:
            link.send(b"first")
            link.send(b"second")
            assert {server.recv(100), server.recv(100)} == {b"first", b"second"}
            server.sendto(b"answer", link.socket.getsockname())
            assert link.receive() == b"answer"
        with BlockingConnection(Endpoint("udp", "a-name", port), timeout=20.0) as link:
            assert link.socket.getpeername() == ("127.0.0.1", port)


def test_datagram_that_is_refused_when_the_time_is_over_had_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is left is not asked, so nothing is known about a server there."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    class Late(socket.socket):
        def recv(self, *_: object) -> bytes:
            clock.now += 8.0
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    monkeypatch.setattr(socket, "socket", Late)
    monkeypatch.setattr("loadtests.sockets.addresses._worked", {})
    places = [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (host, 9)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
    with BlockingConnection(Endpoint("udp", "a-name", 9), timeout=8.0) as link:
        link.send(b"x")
        with pytest.raises(NoAnswerError, match=r": waited 8 s for the server to answer; nothing received$"):
            link.receive()


def test_each_address_gets_its_part_of_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    given: list[object] = []

    class Unanswered(socket.socket):
        def connect(self, where: object) -> None:
            given.append((where, self.gettimeout()))
            clock.now += self.gettimeout() or 0.0
            raise TimeoutError

    monkeypatch.setattr(socket, "socket", Unanswered)
    monkeypatch.setattr("loadtests.sockets.addresses._worked", {})
    places = [("127.0.0.3", 9), ("127.0.0.2", 9), ("127.0.0.1", 9)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(NoAnswerError):
        BlockingConnection(Endpoint("tcp", "a-name", 9), timeout=12.0)
    assert given == [(where, pytest.approx(4.0)) for where in places]


def test_refused_datagram_is_not_sent_to_the_same_address_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []

    class Refused(socket.socket):
        def send(self, data: object, *_: object) -> int:
            sent.append((self.getpeername()[0], data))
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    monkeypatch.setattr(socket, "socket", Refused)
    monkeypatch.setattr("loadtests.sockets.addresses._worked", {})
    places = [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (host, 9)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
    refused = pytest.raises(UnreachableError, match="Connection refused")
    with BlockingConnection(Endpoint("udp", "a-name", 9), timeout=20.0) as link, refused:
        link.send(b"x")
    assert sent == [("127.0.0.2", b"x"), ("127.0.0.1", b"x")]
