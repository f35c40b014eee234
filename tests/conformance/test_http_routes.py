"""The service http: the routes of this lab in every model, and what a model can get wrong with a correct core."""

import hashlib
import json
import select

import pytest

from lab.clients.reference import blob, chargen
from tests.support.http_link import HttpLink
from tests.support.reading import count_unread
from tests.support.waiting import settled

pytestmark = [pytest.mark.service("http", "stream"), pytest.mark.ours]


def once(*values):
    """Return a case that the shared protocol code decides. It runs for one model only."""
    return pytest.param(*values, marks=pytest.mark.once)


def get(path: str, method: str = "GET", fields: str = "", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: lab.test\r\n{fields}\r\n".encode()


def burn(rounds: int) -> bytes:
    digest = bytes(32)
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    return digest.hex().encode() + b"\n"


PING = get("/ping")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ping", b"PONG\n"),
        once("/ping?anything=1", b"PONG\n"),
        once("/%70ing", b"PONG\n"),
        once("/", b"Thank you for connecting\r\n"),
        ("/sleep/1", b"OK\n"),
        once("/sleep/0", b"OK\n"),
        ("/burn/100", burn(100)),
        once("/burn/0", burn(0)),
        once("/blob/0", b""),
        once("/blob/95", blob(95)),
        ("/blob/300000", blob(300_000)),
        once("/stream/0", b""),
        ("/stream/2000", chargen(2000 * 74)),
        ("/events/2?every=1", b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"),
    ],
)
def test_route_answers(target, path: str, body: bytes) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        reply = link.ask(get(path))
        assert (reply.status, reply.body) == (200, body)
        assert link.ask(PING).body == b"PONG\n"  # and goes on


@pytest.mark.parametrize(
    ("framing", "size"),
    [once("length", 0), once("length", 1), ("length", 150_000), once("chunked", 0), ("chunked", 150_000)],
)
def test_echo_streams_the_body(target, framing: str, size: int) -> None:
    body = blob(size)
    with target.connect() as connection:
        link = HttpLink(connection)
        if framing == "length":
            request = get("/echo", "POST", f"Content-Length: {size}\r\n") + body
        else:
            pieces = [body[start : start + 7000] for start in range(0, size, 7000)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
            request = get("/echo", "POST", "Transfer-Encoding: chunked\r\n") + chunks
        reply = link.ask(request)
        assert (reply.status, reply.body) == (200, body)
        assert link.ask(PING).body == b"PONG\n"


def test_echo_answers_before_the_body_is_over(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(get("/echo", "POST", "Content-Length: 10\r\n") + b"first")
        while True:  # the head, then the first part of the body
            if link.read_bytes(1) == b"\n" and link.read_bytes(2) == b"\r\n":
                break
        assert link.read_bytes(5) == b"first"
        link.send(b"later")
        assert link.read_bytes(5) == b"later"


def test_expectation_is_answered_before_the_body_is_sent(target) -> None:
    """RFC 9110, 10.1.1."""
    with target.connect() as connection:
        link = HttpLink(connection)
        assert link.ask(get("/echo", "POST", "Content-Length: 5\r\nExpect: 100-continue\r\n")).status == 100
        assert link.ask(b"hello").body == b"hello"


def test_pipeline_is_answered_in_order(target) -> None:
    """RFC 9112, 9.3.2: also if an earlier request takes longer."""
    paths = ["/sleep/20", "/ping", "/burn/10", "/stream/1", "/blob/100000", "/ping"] * 3
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(b"".join(map(get, paths)))
        replies = [link.read() for _ in paths]
        sizes = [len(reply.body) if reply else None for reply in replies]
        assert sizes == [3, 5, 65, 74, 100_000, 5] * 3


def test_long_pipeline(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(PING * 3000)
        assert all((reply := link.read()) and reply.body == b"PONG\n" for _ in range(3000))


@pytest.mark.parametrize("fields", ["Connection: close\r\n", "connection: Keep-Alive, CLOSE\r\n"])
def test_close_is_announced_and_done(target, fields: str) -> None:
    """RFC 9112, 9.6."""
    with target.connect() as connection:
        link = HttpLink(connection)
        reply = link.ask(get("/ping", fields=fields) + PING)
        assert reply.fields["connection"] == "close"
        assert link.is_over()


def test_half_close_gets_its_replies(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(get("/sleep/20") + PING)
        connection.half_close()
        assert [reply.body if (reply := link.read()) else None for _ in range(3)] == [b"OK\n", b"PONG\n", None]


def test_info_is_json(target) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        link.ask(PING)
        reply = link.ask(get("/info"))
    assert reply.fields["content-type"] == "application/json"
    info = json.loads(reply.body)
    assert info["connection"]["requests"] == 2
    if target.is_ours:
        assert info["server"]["model"] == target.model
        assert info["limits"]["http_line"] == 8192


def test_page_for_people(target) -> None:
    with target.connect() as connection:
        reply = HttpLink(connection).ask(get("/", fields="Accept: text/html, */*;q=0.8\r\n"))
    assert reply.fields["content-type"] == "text/html; charset=utf-8"
    assert reply.fields["vary"] == "Accept"
    if target.is_ours:
        assert f"<title>{target.model}</title>" in reply.body.decode()


@pytest.mark.capability("overlap")
def test_sleep_blocks_no_other_client(target, client_timeout: float) -> None:
    # On a busy machine the PING may take longer than the sleep: then try one that is longer.
    assert any(overtakes(target, client_timeout, sleep) for sleep in (30, 500, 3000))


def overtakes(target, client_timeout: float, sleep: int) -> bool:
    """Return whether a PING is answered before a sleep that was asked for earlier."""
    with target.connect(client_timeout) as sleeper, target.connect(client_timeout) as other:
        sleeping = HttpLink(sleeper)
        assert sleeping.ask(PING).body == b"PONG\n"  # over TLS, tickets have been read then
        sleeping.send(get(f"/sleep/{sleep}"))
        assert HttpLink(other).ask(PING).body == b"PONG\n"
        is_first = not select.select([sleeper.socket], [], [], 0)[0]
        reply = sleeping.read()
        assert reply is not None
        assert reply.body == b"OK\n"
    return is_first


def test_slow_reader_gets_a_large_blob(target, unit: float) -> None:
    with target.connect() as connection:
        link = HttpLink(connection)
        link.send(get("/blob/2000000") + PING)
        settled(lambda: count_unread(connection), unit / 10)
        reply = link.read()
        assert reply is not None
        assert reply.body == blob(2_000_000), "another body"
        assert link.ask(b"").body == b"PONG\n"
