"""echo, RFC 862."""

import random
import socket
from contextlib import suppress

import pytest

stream = pytest.mark.service("echo", "stream")
datagram = pytest.mark.service("echo", "datagram")


def read_exactly(link, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = link.receive()
        assert chunk, f"the stream ended after {len(data)} of {size} bytes"
        data += chunk
    return bytes(data)


def send_until_blocked(link, chunk: bytes, most: int) -> int:
    """Send a chunk repeatedly until the socket times out; return the number of bytes sent."""
    sent = 0
    with suppress(TimeoutError):
        while sent < most:
            sent += link.send_some(chunk[sent % len(chunk) :])
    return sent


@stream
def test_data_is_returned(target) -> None:
    data = bytes(range(256))
    with target.connect() as link:
        for _ in range(3):
            link.send(data)
            assert read_exactly(link, len(data)) == data


@stream
def test_megabyte_is_returned_unchanged(target) -> None:
    """More than the buffers hold, so that the client has to send and receive at the same time."""
    data = random.Random(7).randbytes(1_000_000)
    sent, got = 0, b""
    with target.connect() as link:
        while len(got) < len(data):
            with suppress(BlockingIOError):
                while sent < len(data):
                    link.socket.setblocking(False)
                    sent += link.send_some(data[sent:])
            chunk = link.receive()
            assert chunk, f"the stream ended after {len(got)} bytes"
            got += chunk
    assert got == data


@stream
def test_data_is_returned_after_a_half_close(target) -> None:
    data = random.Random(8).randbytes(50_000)
    with target.connect() as link:
        link.send(data)
        link.half_close()
        assert read_exactly(link, len(data)) == data
        assert link.receive() == b""


@stream
def test_client_that_does_not_read_gets_back_pressure(target, unit: float) -> None:
    """Unread replies fill the buffers of both kernels. Then the server must stop reading, and not buffer more."""
    most = 64 * 1024 * 1024  # several times the maximum of a connection's buffers on Linux
    chunk = random.Random(9).randbytes(64 * 1024)
    with target.connect(30) as link:
        link.socket.settimeout(3 * unit)
        sent = send_until_blocked(link, chunk, most)
        assert sent < most, "the server read everything"
        # No byte is lost or out of order.
        link.socket.setblocking(True)
        link.half_close()
        got = 0
        while data := link.receive():
            start = got % len(chunk)
            expected = (chunk * 2)[start : start + len(data)]
            assert data == expected, f"differs within {len(data)} bytes from {got}"
            got += len(data)
        assert got == sent


@stream
def test_reset_affects_no_other_client(target) -> None:
    with target.connect() as link:
        link.send(b"x")
        assert link.receive() == b"x"
        if not target.transport.is_unix:  # SO_LINGER with zero seconds: close with a reset
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        link.send(b"y" * 10_000)
    with target.connect() as link:
        link.send(b"z")
        assert link.receive() == b"z"


@datagram
@pytest.mark.parametrize("size", [0, 1, 1400])
def test_datagram_is_returned(target, size: int) -> None:
    exchange_datagram(target, size)


@datagram
@pytest.mark.capability("large-datagrams")
@pytest.mark.parametrize("size", [9000, 65_507])
def test_large_datagram_is_returned(target, size: int) -> None:
    """65507 bytes are the largest payload of UDP; socketserver's default cuts it at 8192."""
    exchange_datagram(target, size)


def exchange_datagram(target, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with target.connect() as link:
        link.send(data)
        assert link.receive() == data
