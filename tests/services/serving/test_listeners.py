"""The options of listening sockets, and the files of Unix sockets. No model serves them."""

import os
import socket
import struct
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.protocol import Limits
from services.serving.listeners import _unlink_own, bind_twin, open_listeners, parse_listens

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
        if reuse_port:
            twin = bind_twin(stream, stack)
            assert read_options(twin.socket) == options
            assert twin.socket.getsockname() == stream.socket.getsockname()
            assert twin.shortage is stream.shortage  # of the same process
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
    ("service", "refusal"),
    [
        ("command", b"-ERR this server holds 7 connections, which is its limit\r\n"),
        ("http", b"HTTP/1.1 503 "),
        # No error in their protocols.
        ("echo", b""),
        ("greet", b""),
    ],
)
def test_client_of_a_full_server_is_told_so_where_its_protocol_can(service: str, refusal: bytes) -> None:
    with open_listeners(parse_listens([f"{service}=tcp://127.0.0.1:0"], "m"), Limits(connections=7), str) as (
        listener,
    ):
        assert listener.refusal().startswith(refusal)
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
