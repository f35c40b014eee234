"""TLS in every model: broken handshakes, and that they affect no other client."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.tls import ca_file, client_context
from tests.support.reading import read_all

pytestmark = [pytest.mark.service("echo", "stream"), pytest.mark.transport("tls")]


@contextmanager
def connect_without_tls(target) -> Iterator[socket.socket]:
    """Open a TCP connection to the TLS port, without TLS."""
    where = target.address
    with socket.create_connection((where.host, where.port), timeout=10) as link:
        yield link


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="somebody")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def read(client: ssl.SSLObject, link: socket.socket, incoming: ssl.MemoryBIO) -> bytes:
    while True:  # the first record may be a session ticket
        try:
            return client.read(100)
        except ssl.SSLWantReadError:
            incoming.write(link.recv(65536))


def is_answered(link: BlockingConnection) -> bool:
    link.send(b"hello")
    return link.receive() == b"hello"


@pytest.mark.capability("overlap")
def test_unfinished_handshakes_block_no_other_client(target, client_timeout: float) -> None:
    """With a wrapped listening socket, `accept` would do the handshake, and wait for one client."""
    hello = client_hello()
    with ExitStack() as stack:
        for number in range(40):
            silent = stack.enter_context(connect_without_tls(target))
            # Nothing, one byte, half of the first message, or all of it; then silence.
            silent.sendall(hello[: (0, 1, len(hello) // 2, len(hello))[number % 4]])
        for _ in range(3):
            with target.connect(client_timeout) as link:
                assert is_answered(link)


@pytest.mark.capability("overlap")
def test_handshake_continues_after_another_client_was_served(target, client_timeout: float) -> None:
    where = target.address
    with connect_without_tls(target) as link, target.connect(client_timeout) as other:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context().wrap_bio(incoming, outgoing, server_hostname=where.host)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        link.sendall(outgoing.read())
        assert is_answered(other)
        while True:  # continues the handshake
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                link.sendall(outgoing.read())
                incoming.write(link.recv(65536))
        client.write(b"late")
        link.sendall(outgoing.read())
        assert read(client, link, incoming) == b"late"


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", bytes(range(256)) * 300],
    ids=["http", "resp", "noise"],
)
def test_client_without_a_handshake_is_closed(target, data: bytes) -> None:
    with connect_without_tls(target) as link:
        try:
            link.sendall(data)
            # At most an alert, never a reply of the service.
            said = b"".join(iter(lambda: link.recv(65536), b""))
            assert len(said) < 100
        except ConnectionError:
            pass  # closed before all of it was read
    with target.connect() as link:
        assert is_answered(link)


def test_client_without_the_ca_refuses_the_certificate(target) -> None:
    """The client aborts the handshake with an alert; the server must serve the next."""
    where = target.address
    with connect_without_tls(target) as link:
        context = ssl.create_default_context()  # the system's CAs did not sign the certificate
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(link, server_hostname=where.host)
    with target.connect() as link:
        assert is_answered(link)


def test_old_tls_versions_are_refused(target) -> None:
    # No client library offers TLS 1.1 any more, so its first message is built by hand.
    body = b"\x03\x02" + bytes(32) + b"\0" + b"\0\x02\xc0\x13" + b"\x01\0"
    hello = b"\x16\x03\x01" + (len(body) + 4).to_bytes(2) + b"\x01" + len(body).to_bytes(3) + body
    with connect_without_tls(target) as link:
        link.sendall(hello)
        alert = link.recv(100)
        assert alert[:1] == b"\x15"  # an alert
        assert alert[5:7] == b"\x02\x46"  # fatal, protocol_version
        assert link.recv(100) == b""


def test_half_close_leaves_the_other_half_open(target) -> None:
    data = bytes(range(256)) * 2000
    with target.connect() as link:
        link.send(data[:100_000])
        link.half_close()
        assert read_all(link) == data[:100_000]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_client_of_the_ssl_module_is_served(target, version: ssl.TLSVersion) -> None:
    where = target.address
    context = ssl.create_default_context(cafile=ca_file())
    context.minimum_version = context.maximum_version = version
    with connect_without_tls(target) as link, context.wrap_socket(link, server_hostname=where.host) as secure:
        assert secure.version() == version.name.replace("_", ".")
        secure.sendall(b"hello")
        assert secure.recv(100) == b"hello"


def test_record_in_pieces_is_read(target, unit: float) -> None:
    """The record arrives byte by byte, as from a slow network."""
    where = target.address
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname=where.host)
    with connect_without_tls(target) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                link.sendall(outgoing.read())
                incoming.write(link.recv(65536))
        client.write(b"piecemeal")
        for byte in outgoing.read():
            link.sendall(bytes([byte]))
            time.sleep(unit / 200)
        assert read(client, link, incoming) == b"piecemeal"
