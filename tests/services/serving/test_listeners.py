"""What `--listen` means; the sockets, their options and files; and what becomes of a client. No model serves it."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.servers.certificates import SERVER, ensure_certificates
from services.protocol import SERVICES, Address, Connection, Limits, Send, StreamConversation
from services.serving import blocking, coroutines, listeners
from services.serving.clock import SystemClock
from services.serving.listeners import (
    Listener,
    ListenError,
    _is_abandoned,
    _unlink_own,
    bind_twin,
    open_listeners,
    parse_listens,
)

# struct tcp_info of linux/tcp.h: eight bytes, then numbers of four. The sixth is the backlog of a socket that listens.
_BACKLOG_AT = 8 + 4 * 5


def read_options(found: socket.socket) -> dict[str, int]:
    (backlog,) = struct.unpack_from("I", found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), _BACKLOG_AT)
    return {
        "backlog": backlog,
        "reuse_port": found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
        "reuse_address": found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR),
        "no_delay": found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "blocks": int(found.getblocking()),
    }


@pytest.mark.parametrize("reuse_port", [0, 1])
def test_listening_sockets_have_the_options_of_the_limits(reuse_port: int) -> None:
    limits = Limits(backlog=37, reuse_port=reuse_port)
    wanted = parse_listens(["echo=tcp://127.0.0.1:0", "echo=udp://127.0.0.1:0"], "m")
    options = {"backlog": 37, "reuse_port": reuse_port, "reuse_address": 1, "no_delay": 1, "blocks": 0}
    with open_listeners(wanted, limits, lambda: "") as (stream, datagrams), ExitStack() as stack:
        assert read_options(stream.socket) == options
        assert not datagrams.socket.getblocking()
        assert datagrams.shortage is stream.shortage  # of the same process
        if reuse_port:
            twin = bind_twin(stream, stack)
            assert twin.socket.fileno() != stream.socket.fileno()
            assert read_options(twin.socket) == options
            assert twin.socket.getsockname() == stream.socket.getsockname()
            assert twin.shortage is stream.shortage
    assert stream.socket.fileno() == datagrams.socket.fileno() == -1


def test_file_of_a_socket_is_removed_by_its_own_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()
    inode, own = path.stat().st_ino, os.getpid()
    _unlink_own(path, inode, own + 1)  # as a worker, which has inherited the socket
    assert path.exists()
    _unlink_own(path, inode + 1, own)  # as the server before, if another one listens in its place now
    assert path.exists()
    _unlink_own(path, inode, own)
    assert not path.exists()
    _unlink_own(path, inode, own)


@pytest.mark.parametrize(
    ("service", "refusal", "reason"),
    [
        ("command", b"-ERR ", b"this server holds 7 connections, which is its limit\r\n"),
        ("http", b"HTTP/1.1 503 ", b"\r\n\r\nthis server holds 7 connections, which is its limit\n"),
        # No error in their protocols.
        ("echo", b"", b""),
        ("greet", b"", b""),
    ],
)
def test_client_of_a_full_server_is_told_so_where_its_protocol_can(service: str, refusal: bytes, reason: bytes) -> None:
    with open_listeners(parse_listens([f"{service}=tcp://127.0.0.1:0"], "m"), Limits(connections=7), str) as (
        listener,
    ):
        assert listener.refusal().startswith(refusal)
        assert listener.refusal().endswith(reason)
        assert (b"\r\nConnection: close\r\n" in listener.refusal()) == (service == "http")
        assert bool(listener.refusal()) == bool(refusal)
        # Behind TLS there is no handshake yet.
        secure: Any = object()
        assert replace(listener, secure=secure).refusal() == b""


def test_datagram_without_a_sender_or_with_one_that_is_gone_has_no_reply(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with open_listeners(parse_listens(["echo=udp://127.0.0.1:0"], "m"), Limits(), str) as (listener,):
        assert listener.receive() is None
        listener.reply(b"x", None)
        listener.reply(b"x", "")
        listener.reply(b"x" * 70_000, listener.socket.getsockname())  # too long: it is lost, as any may be
        assert listener.receive() is None
        listener.reply(b"x", listener.socket.getsockname())
        assert listener.receive() == (b"x", listener.socket.getsockname())
    assert "a datagram came from a socket without a name; no reply" in caplog.text
    assert "was lost: Message too long" in caplog.text


def test_all_means_every_service_that_the_transport_carries() -> None:
    names = {
        scheme: [service for service, _ in parse_listens([f"all={scheme}"], "m")]
        for scheme in ("tcp://[::1]", "udp://127.0.0.1:0", "unix:///x/{model}", "unixgram:///x/{model}")
    }
    everything = list(SERVICES)
    datagrams = [name for name in everything if name not in ("chargen", "http")]
    assert list(names.values()) == [everything, datagrams, everything, datagrams]
    assert str(dict(parse_listens(["all=tcp://[::1]"], "m"))["echo"]) == "tcp://[::1]:7"
    assert str(dict(parse_listens(["all=unixgram:///x/{model}"], "m"))["echo"]) == "unixgram:///x/m/echo.dgram.sock"


def test_a_path_is_checked_with_the_name_of_the_service() -> None:
    with pytest.raises(ListenError, match="107 bytes"):
        parse_listens(["all=unix:///" + "x" * 100], "m")


@pytest.mark.parametrize(
    ("spec", "address"),
    [
        ("echo=tcp://127.0.0.1", "tcp://127.0.0.1:7"),
        ("echo=tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
        ("http=tls://127.0.0.1", "tls://127.0.0.1:8443"),
        ("echo=unix:///s/{model}/e", "unix:///s/m/e"),
    ],
)
def test_service_without_a_port_has_its_own(spec: str, address: str) -> None:
    ((_, found),) = parse_listens([spec], "m")
    assert str(found) == address


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("echo", "'echo' does not start with one of greet, .* or all, and '='"),
        ("ohce=tcp://127.0.0.1:0", "does not start with"),
        ("echo=sctp://127.0.0.1:0", "does not start with tcp://"),
        ("chargen=udp://127.0.0.1:0", "chargen is not offered over datagrams"),
        ("greet=tls://127.0.0.1:0", "greet is not offered over tls"),
        ("all=tcp://127.0.0.1:7", "all services cannot share port 7"),
    ],
)
def test_invalid_value_of_listen_is_named(spec: str, said: str) -> None:
    with pytest.raises(ListenError, match=said):
        parse_listens([spec], "m")


@pytest.mark.parametrize("scheme", ["unix", "unixgram"])
def test_file_of_a_socket_is_replaced_only_if_no_process_listens_there(tmp_path: Path, scheme: str) -> None:
    kind = socket.SOCK_STREAM if scheme == "unix" else socket.SOCK_DGRAM
    path = tmp_path / "new" / "folder" / "s"
    wanted = parse_listens([f"echo={scheme}://{path}"], "m")
    with open_listeners(wanted, Limits(), str) as (listener,):
        assert (listener.socket.type, listener.socket.getsockname()) == (kind, str(path))
        # In use: the file is that of the first one.
        with pytest.raises(ListenError, match="Address already in use"), open_listeners(wanted, Limits(), str):
            pass
        assert path.exists()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX, kind) as killed:
        killed.bind(str(path))
    with open_listeners(wanted, Limits(), str), socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(str(path))
    path.write_text("precious")
    with pytest.raises(ListenError, match="Address already in use"), open_listeners(wanted, Limits(), str):
        pass
    assert path.read_text() == "precious"
    # Where no socket can be made, the reason is the system's, and not that there is no file to replace.
    nowhere = parse_listens([f"echo={scheme}:///sys/s"], "m")
    refused = "not permitted|Permission denied|Read-only file system"
    with pytest.raises(ListenError, match=refused), open_listeners(nowhere, Limits(), str):
        pass


def test_socket_with_a_full_backlog_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        assert not _is_abandoned(path, socket.SOCK_STREAM)


def test_abandoned_socket_may_be_removed_by_another_server_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    path.touch()

    def remove(path: Path, kind: socket.SocketKind) -> bool:
        path.unlink()
        return True

    monkeypatch.setattr(listeners, "_is_abandoned", remove)
    with open_listeners(parse_listens([f"echo=unix://{path}"], "m"), Limits(), str) as (listener,):
        assert listener.socket.getsockname() == str(path)


def test_name_without_an_address_is_named() -> None:
    wanted = parse_listens(["echo=tcp://no.such.host.invalid:0"], "m")
    named = r"^cannot listen on echo=tcp://no\.such\.host\.invalid:0: "
    with pytest.raises(ListenError, match=named), open_listeners(wanted, Limits(), str):
        pass


def test_only_sockets_of_tls_have_its_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TLS_CERT", str(ensure_certificates([], tmp_path / "tls") / SERVER))
    wanted = parse_listens(["http=tls://127.0.0.1:0", "http=tcp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as (secure, plain):
        assert (bool(secure.secure), bool(plain.secure)) == (True, False)
        assert not isinstance(secure.connection(("127.0.0.1", 5)), Connection)
        for listener in (secure, plain):
            host, port = listener.socket.getsockname()
            assert listener.address == Address(listener.address.transport, host, port)
            assert port


def ask(listener: Listener, data: bytes, peer: object) -> list[bytes]:
    """Return the reply to a request over a connection, and to a datagram."""
    connection = listener.connection(peer)
    connection.receive_data(data)
    events = [connection.next_event(), listener.datagram(data, peer).next_event()]
    assert all(isinstance(event, Send) for event in events)
    return [event.data for event in events if isinstance(event, Send)]


def open_listener(url: str, **limits: int) -> Any:
    return open_listeners(parse_listens([url], "m"), Limits(**limits), lambda: "# Ours\r\nours:1\r\n")


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        (("127.0.0.1", 5), "127.0.0.1:5"),
        (("::1", 5, 0, 0), "[::1]:5"),
        ("/s/c", "/s/c"),
        (b"/s/c", "/s/c"),
        (None, ""),
    ],
)
def test_connection_knows_its_server_and_its_peer(peer: object, name: str) -> None:
    with open_listener("command=tcp://127.0.0.1:0", sleep_ms=7) as (listener,):
        for reply in ask(listener, b"INFO\r\n", peer):
            assert b"\r\nours:1\r\n" in reply
            assert f"\r\npeer:{name}\r\n".encode() in reply
        assert all(reply.startswith(b"-ERR") for reply in ask(listener, b"SLEEP 8\r\n", peer))


def test_stranger_is_a_line_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(listeners._strangers, "warning", lines.append)
    with open_listener("command=tcp://127.0.0.1:0") as (listener,):
        ask(listener, b"GET / HTTP/1.1\r\n", ("127.0.0.1", 5))
    assert [line.partition(" from ")[2] for line in lines] == [
        "'127.0.0.1:5': it speaks HTTP to the port of command"
    ] * 2


def test_reply_of_http_has_the_date_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "date", lambda self: b"today")
    with open_listener("http=tcp://127.0.0.1:0") as (listener,):
        connection = listener.connection(("h", 1))
        connection.receive_data(b"GET /ping HTTP/1.0\r\n\r\n")
        reply = connection.next_event()
        assert isinstance(reply, Send)
        assert b"\r\nDate: today\r\n" in reply.data


def test_recorder_gets_the_port_of_the_client_and_tls_its_name() -> None:
    given: list[object] = []

    def record(connection: StreamConversation, port: int) -> StreamConversation:
        given.append((type(connection), port))
        return connection

    def secure(connection: StreamConversation, name: str) -> Any:
        given.append((type(connection), name))
        return connection

    with open_listener("command=tcp://127.0.0.1:0") as (listener,):
        for peer in (("127.0.0.1", 5), "/s/c"):
            replace(listener, recorder=record, secure=secure).connection(peer)
    assert given == [(Connection, 5), (Connection, "127.0.0.1:5"), (Connection, 0), (Connection, "/s/c")]


@pytest.fixture
def datagrams() -> Iterator[tuple[Listener, socket.socket]]:
    """A listener of `command`, and a client's socket that is connected to it."""
    with (
        open_listener("command=udp://127.0.0.1:0") as (listener,),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(20.0)
        client.bind(("127.0.0.1", 0))
        client.connect(listener.socket.getsockname())
        yield listener, client


def test_datagram_is_answered_after_what_it_waits_for(
    datagrams: tuple[Listener, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    listener, client = datagrams
    peer = client.getsockname()
    sleep = listener.datagram(b"SLEEP 250\r\n", peer)
    assert listener.answer(sleep, peer) == 0.25
    assert listener.answer(sleep, peer) is None
    assert client.recv(100) == b"+OK\r\n"
    assert listener.answer(listener.datagram(b"BURN 1\r\n", peer), peer) is None
    assert client.recv(100).startswith(b"$64\r\n66687aad")
    assert caplog.text == ""
    # It has no `next_event`: an error in the conversation, as a bug would raise.
    broken: Any = object()
    assert listener.answer(broken, peer) is None
    assert "a conversation ended in an error" in caplog.text
    slept: list[float] = []
    blocking.serve_datagram(listener, b"SLEEP 250\r\n", peer, slept.append)

    async def sleep_then(seconds: float) -> None:
        slept.append(seconds)

    asyncio.run(coroutines.serve_datagram(listener, b"SLEEP 500\r\n", peer, sleep_then))
    assert slept == [0.25, 0.5]
    assert [client.recv(100), client.recv(100)] == [b"+OK\r\n"] * 2
    blocking.serve_datagram(listener, b"INFO\r\n", peer)
    asyncio.run(coroutines.serve_datagram(listener, b"INFO\r\n", peer, sleep_then))
    assert [b"\r\npeer:%s:%d\r\n" % (peer[0].encode(), peer[1]) in client.recv(1000) for _ in range(2)] == [True] * 2
