"""What a model promises, over HTTP and WebSocket: a drain that loses nothing, and a word when it is full."""

import select
from contextlib import ExitStack

import pytest

from services.protocol import Address
from tests.support.http_link import HttpLink
from tests.support.servers import listens
from tests.support.waiting import wait_until
from tests.support.ws_link import TEXT, WsLink, frame

STREAMS = ("tcp", "tls", "unix")


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: lab.test\r\n\r\n".encode()


def wait_for_drain(address: Address) -> None:
    """Wait until the server listens no more."""
    wait_until(lambda: not listens(address))


def test_drain_answers_what_has_come_and_says_close(start, unit: float, is_sequential: bool) -> None:
    """Over each transport; at once, if the model serves clients at once."""
    for transports in [(each,) for each in STREAMS] if is_sequential else [STREAMS]:
        # On a busy machine the sleep may be over before the server drains: then another one, which is longer.
        for milliseconds in (5000 * unit, 15_000 * unit, 40_000 * unit):
            with start(LAB_WORKERS=str(len(STREAMS))) as server, ExitStack() as stack:
                links = [HttpLink(stack.enter_context(server.connect("http", each))) for each in transports]
                replies = []
                for link in links:
                    link.send(get("/ping") + get(f"/sleep/{milliseconds:.0f}") + get("/stream/2"))
                    replies.append([link.read()])  # so the rest has come as well, in the same segment
                server.terminate()
                wait_for_drain(server.address("http", transports[0]))
                is_in_time = not select.select([link.link.socket for link in links], [], [], 0)[0]
                for link, received in zip(links, replies, strict=True):
                    received += [link.read(), link.read()]
                    assert [reply.body if reply else None for reply in received[:2]] == [b"PONG\n", b"OK\n"]
                    assert link.read() is None
                assert server.wait_end() == 0
            if is_in_time:
                break
        # No model listens until its conversations are over: who would connect meanwhile would not be served.
        assert is_in_time
        for received in replies:
            assert [reply.fields.get("connection") for reply in received if reply] == [None, None, "close"]


def test_drain_closes_a_connection_that_is_kept_alive(start) -> None:
    with start() as server, server.connect("http") as connection:
        link = HttpLink(connection)
        assert link.ask(get("/ping")).body == b"PONG\n"
        server.terminate()
        assert link.read() is None
        assert server.wait_end() == 0


def test_drain_ends_a_websocket_with_1001(start, unit: float) -> None:
    with start() as server, server.connect("http") as connection:
        link = WsLink(connection)
        link.open()
        link.send(frame(TEXT, b"PING") + frame(TEXT, b"SLEEP %d" % (5000 * unit)) + frame(TEXT, b"last"))
        assert link.read_message() == (TEXT, b"PONG")
        server.terminate()
        assert link.read_message() == (TEXT, b"OK")
        assert link.read_message() == (TEXT, b"last")
        assert link.read_close() == 1001
        assert server.wait_end() == 0


def test_slow_head_is_refused(start, unit: float) -> None:
    """Each byte keeps the connection from being idle; the time of the head ends it."""
    with start(LAB_HTTP_HEAD_SECONDS=f"{3 * unit:.3f}") as server, server.connect("http") as connection:
        link = HttpLink(connection)
        connection.socket.settimeout(unit / 2)
        for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 1000:
            connection.socket.send(bytes((byte,)))
            try:
                first = connection.socket.recv(9)
            except TimeoutError:
                continue
            break
        assert first == b"HTTP/1.1 "
        assert link.read_bytes(3) == b"408"
        with server.connect("http") as other:
            assert HttpLink(other).ask(get("/ping")).body == b"PONG\n"


@pytest.mark.parametrize("model", ["asyncio_protocol", "asyncio_streams", "twisted_reactor"])
def test_full_server_that_refuses_says_503(start) -> None:
    with start(LAB_MAX_CONNECTIONS="1") as server, server.connect("http") as connection:
        assert server.description["when_full"] == "refuse"
        assert HttpLink(connection).ask(get("/ping")).status == 200
        with server.connect("http") as second:
            reply = HttpLink(second).read()
            assert reply is not None
            assert (reply.status, reply.fields["connection"]) == (503, "close")
