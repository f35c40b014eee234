"""Hostile clients of HTTP and WebSocket, of every model. Whatever one does, another client is answered.

Only what needs a socket, a clock or a process is here: what the protocol's core decides alone is in
`tests/services/protocol/http`. The slow body is one of those: its rate counts after twenty seconds.
"""

import select
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loadtests.sockets.connection import BlockingConnection
from tests.faults.conftest import TIMEOUT
from tests.support.http_link import HttpLink
from tests.support.reading import read_all
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.ws_link import BINARY, CLOSE, CONTINUATION, FIN, RSV1, TEXT, WsLink, frame, handshake

GET = b"GET /ping HTTP/1.1\r\nHost: lab.test\r\n"
CHUNKED = b"POST /ping HTTP/1.1\r\nHost: lab.test\r\nTransfer-Encoding: chunked\r\n\r\n"
DEFLATE = handshake(more=["Sec-WebSocket-Extensions: permessage-deflate"])

# More than any of these servers holds for a connection, and less than a bomb inflates to.
SMALL = 24_000_000


def ask(server: Server, client_timeout: float = TIMEOUT, transport: str = "tcp") -> None:
    """Send a request, as a well-behaved client."""
    with server.connect("http", transport, client_timeout) as link:
        reply = HttpLink(link).ask(GET + b"\r\n")
        assert (reply.status, reply.body) == (200, b"PONG\n")


def ask_websocket(server: Server, client_timeout: float = TIMEOUT) -> None:
    with server.connect("http", timeout=client_timeout) as link:
        socket = WsLink(link)
        socket.open()
        assert socket.ask(b"PING") == b"PONG"


def reset_peak(server: Server) -> None:
    """Forget the peaks of memory so far: proc(5), clear_refs."""
    for process in server.family():
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def measure_peak(server: Server) -> int:
    """Return the most memory that the server's processes have had, in bytes: proc(5), VmHWM."""
    statuses = (Path(f"/proc/{process.pid}/status").read_text() for process in server.family())
    lines = (line for status in statuses for line in status.splitlines() if line.startswith("VmHWM:"))
    return sum(int(line.split()[1]) * 1024 for line in lines)


UNFINISHED = {
    "head": GET,
    "field": GET + b"A: b",
    "body": b"POST /echo HTTP/1.1\r\nHost: lab.test\r\nContent-Length: 9\r\n\r\nabc",
    "chunk": CHUNKED + b"9\r\nabc",
    "expectation": b"POST /echo HTTP/1.1\r\nHost: lab.test\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    "handshake": handshake()[:-2],
    "frame": handshake() + frame(TEXT, b"a text")[:-1],
    "message": handshake() + frame(TEXT, b"a text", bits=0),
}


@pytest.mark.capability("overlap")
@pytest.mark.capability("slow-clients")
def test_unfinished_requests_block_no_other_client(roomy: Server, client_timeout: float) -> None:
    with ExitStack() as stack:
        for _ in range(9):
            for data in UNFINISHED.values():
                stack.enter_context(roomy.connect("http")).send(data)
        ask(roomy, client_timeout)
        ask(roomy, client_timeout, "tls")
        ask_websocket(roomy, client_timeout)


@pytest.mark.capability("overlap")
def test_slow_body_blocks_no_other_client(roomy: Server, client_timeout: float) -> None:
    with roomy.connect("http", timeout=10 * TIMEOUT) as link:
        slow = HttpLink(link)
        slow.send(b"POST /echo HTTP/1.1\r\nHost: lab.test\r\nContent-Length: 5\r\n\r\n")
        for byte in b"abcde":
            slow.send(bytes((byte,)))
            ask(roomy, client_timeout)
        reply = slow.read()
        assert reply is not None
        assert (reply.status, reply.body) == (200, b"abcde")


def test_slow_head_gets_408(roomy: Server) -> None:
    """A byte now and then, so that the client is never idle."""
    with roomy.connect("http") as link:
        slow = HttpLink(link)
        slow.send(GET + b"A: ")

        def is_answered() -> bool:
            link.send(b"b")
            return has_data(link)

        wait_until(is_answered)
        reply = slow.read()
        assert reply is not None
        assert (reply.status, reply.fields["connection"]) == (408, "close")
        link.half_close()
        assert slow.is_over()


def has_data(link: BlockingConnection) -> bool:
    """Whether something can be read, now or a moment later."""
    return bool(select.select([link.socket], [], [], 0.02)[0])


def repeat(start: bytes, unit: bytes) -> bytes:
    return start + unit * (300_000 // len(unit))


ENDLESS = {
    "line": (414, repeat(b"GET /", b"a")),
    "fields": (431, repeat(GET, b"A: b\r\n")),
    "field": (431, repeat(GET + b"A: ", b"b")),
    "chunks": (413, repeat(CHUNKED, b"1\r\nb\r\n")),
    "large-chunks": (413, repeat(CHUNKED, b"3e8\r\n%b\r\n" % bytes(1000))),
    "extension": (400, repeat(CHUNKED + b"1;", b"a")),
    "extensions": (400, repeat(CHUNKED, b"1;%b\r\nb\r\n" % (b"a" * 200))),
    "trailer": (431, repeat(CHUNKED + b"0\r\n", b"A: b\r\n")),
    "body": (413, repeat(GET + b"Content-Length: 100000000\r\n\r\n", b"b")),
}


def test_endless_request_is_refused(roomy: Server) -> None:
    """The reason arrives although the client continues to send, and the next client is served."""
    for name, (status, stream) in ENDLESS.items():
        with roomy.connect("http", timeout=2 * TIMEOUT) as link:
            client = HttpLink(link)
            assert client.ask(GET + b"\r\n").status == 200
            client.send(stream)
            reply = client.read()
            assert reply is not None
            assert (reply.status, reply.fields["connection"]) == (status, "close"), name
            link.half_close()
            assert client.is_over(), name
    ask(roomy)


def make_bomb(megabytes: int) -> bytes:
    """Deflate that many megabytes of zeros, which takes a thousandth of it."""
    machine = zlib.compressobj(wbits=-15)
    block = machine.compress(bytes(1_000_000)) + machine.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes


BOMB = frame(BINARY, make_bomb(300), bits=FIN | RSV1)
FLOODS = {
    "bomb": BOMB,
    "fragments": frame(BINARY, bits=0) + frame(CONTINUATION, bytes(125), bits=0) * 9000,
    "empty-fragments": frame(BINARY, bits=0) + frame(CONTINUATION, bits=0) * 9000 + BOMB,
}


def read_code(client: WsLink) -> int:
    """Read up to the server's close, and not up to the end of the stream; return its code."""
    while (got := client.read()) is not None and got[0] != FIN | CLOSE:
        pass
    assert got is not None, "the stream ends without a close"
    return int.from_bytes(got[1][:2], "big")


@pytest.mark.parametrize("name", FLOODS)
def test_flood_of_a_websocket_is_refused(roomy: Server, name: str) -> None:
    with roomy.connect("http", timeout=2 * TIMEOUT) as link:
        client = WsLink(link)
        client.open(DEFLATE)
        reset_peak(roomy)
        before = measure_peak(roomy)
        client.send(FLOODS[name])
        # The fragments that hold nothing go on for ever, so a message within them ends this test.
        code = 1002 if name == "empty-fragments" else 1009
        assert read_code(client) == code
        assert measure_peak(roomy) - before < SMALL
        link.half_close()
        assert client.http.is_over()
    ask_websocket(roomy)


OPENING = handshake()
ECHOED = frame(TEXT, b"abc", key=None)
UPGRADE = OPENING + frame(TEXT, b"abc") * 2


def cut(ends: int) -> Iterator[int]:
    yield from range(0, len(OPENING), len(OPENING) // ends)
    yield from range(len(OPENING) - 1, len(UPGRADE) + 1)


@pytest.mark.parametrize(("transport", "ends"), [("tcp", 6), ("tls", 2)])
def test_half_closed_upgrade_is_answered_as_far_as_it_came(roomy: Server, transport: str, ends: int) -> None:
    for end in cut(ends):
        with roomy.connect("http", transport) as link:
            link.send(UPGRADE[:end])
            link.half_close()
            head, _, frames = read_all(link).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ") is (end >= len(OPENING)), f"after {end} bytes"
            whole = max(end - len(OPENING), 0) // (len(frame(TEXT, b"abc")))
            assert frames == ECHOED * whole, f"after {end} bytes"
