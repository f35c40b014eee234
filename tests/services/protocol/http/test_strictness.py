"""Each case of RFC 9110 and RFC 9112, in three deliveries: where the stream is cut changes nothing."""

from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from services.protocol import Close, Connection, Limits, Send
from tests.services.protocol.http.conftest import ManualClock, read_replies
from tests.support.http_cases import CASES, NEXT, Case

LARGE = 20_000

CHUNKED = b"GET /ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
# A chunk whose extensions have 255 bytes, and the largest line of a chunk: 256.
EXTENDED = b"1;%b\r\na\r\n" % (b"a" * 254)


@pytest.mark.parametrize("case", [case for case in CASES if len(case.request) < LARGE], ids=lambda case: case.name)
def test_case(deliver: Callable[..., Outcome], case: Case) -> None:
    outcome = deliver(case.request + NEXT)
    replies = [reply for reply in read_replies(outcome.sent) if reply.status != 100]
    assert replies[0].status in case.statuses
    assert outcome.closed is not case.goes_on
    assert [reply.status for reply in replies[1:]] == ([200] if case.goes_on else [])
    if not case.goes_on:
        assert replies[0].fields["connection"] == "close"


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) > 160


@pytest.mark.parametrize(
    ("limit", "request_", "status"),
    [
        ({"http_line": 64}, b"GET /%b HTTP/1.1\r\n" % (b"a" * 60), 414),
        ({"http_line": 64}, b"GET /" + b"a" * 60, 414),
        ({"http_headers": 2}, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n", 431),
        ({"http_headers": 2}, b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n", 431),
        ({"http_header_bytes": 64}, b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 60, 431),
        ({"http_body": 2}, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", 413),
        ({"http_body": 2}, b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n", 413),
        (
            {"http_body": 2},
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\na\r\n1\r\n",
            413,
        ),
        ({"http_body": 3}, CHUNKED + b"1\r\na\r\n2\r\nbc\r\n1\r\n", 413),
        ({}, CHUNKED + b"1;%b\r\n" % (b"a" * 255), 400),
        # 16 * 255 + 17 = 4097.
        ({}, CHUNKED + EXTENDED * 16 + b"1;%b\r\n" % (b"a" * 16), 400),
        ({"http_header_bytes": 64}, CHUNKED + b"0\r\nA: %b\r\nB: %b\r\n" % (b"a" * 30, b"b" * 25), 431),
    ],
)
def test_limit_is_enforced_before_the_request_is_complete(
    deliver: Callable[..., Outcome], limit: dict[str, int], request_: bytes, status: int
) -> None:
    outcome = deliver(request_, limits=Limits(**limit))
    assert [reply.status for reply in read_replies(outcome.sent)] == [status]
    assert outcome.closed


@pytest.mark.parametrize(
    ("limit", "request_"),
    [
        ({"http_line": 64}, b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"?" + b"a" * 49)),
        ({"http_headers": 2}, b"GET /ping HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"),
        ({"http_header_bytes": 64}, b"GET /ping HTTP/1.1\r\nHost: a\r\nA: %b\r\n\r\n" % (b"b" * 50)),
        ({"http_body": 3}, b"GET /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
        ({"http_body": 3}, CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
        # 16 * 255 + 16 = 4096.
        ({}, CHUNKED + EXTENDED * 16 + b"1;%b\r\na\r\n0\r\n\r\n" % (b"a" * 15)),
        ({"http_header_bytes": 64}, CHUNKED + b"0\r\nA: %b\r\nB: %b\r\n\r\n" % (b"a" * 30, b"b" * 24)),
    ],
)
def test_request_at_its_limit_is_answered(
    deliver: Callable[..., Outcome], limit: dict[str, int], request_: bytes
) -> None:
    outcome = deliver(request_, limits=Limits(**limit))
    assert [reply.status for reply in read_replies(outcome.sent)] == [200]
    assert not outcome.closed


LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# RFC 9110, 5.6.2; RFC 3986, 2.2 and 2.3.
TOKEN = frozenset(LETTERS + b"!#$%&'*+-.^_`|~")
UNRESERVED = frozenset(LETTERS + b"-._~!$&'()*+,;=")
VISIBLE = frozenset((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        (b"A%bB / HTTP/1.1\r\nHost: a\r\n\r\n", TOKEN),
        (b"GET /a%bb HTTP/1.1\r\nHost: a\r\n\r\n", UNRESERVED | frozenset(b":@/?")),
        (b"GET http://a%bb/ HTTP/1.1\r\nHost: a\r\n\r\n", UNRESERVED | frozenset(b"/?")),
        (b"GET / HTTP/1.1\r\nHost: a%bb\r\n\r\n", UNRESERVED),
        (b"GET / HTTP/1.1\r\nHost: a:%b\r\n\r\n", frozenset(b"0123456789 \t")),
        (b"GET / HTTP/1.1\r\nHost: [:%b]\r\n\r\n", frozenset(b"0123456789abcdefABCDEF:.")),
        (b"GET /%%4%b HTTP/1.1\r\nHost: a\r\n\r\n", frozenset(b"0123456789abcdefABCDEF")),
        (b"GET / HTTP/1.%b\r\nHost: a\r\n\r\n", frozenset(b"0123456789")),
        # Behind a colon, the name has ended.
        (b"GET / HTTP/1.1\r\nHost: a\r\nA%bB: c\r\n\r\n", TOKEN | frozenset(b":")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b%bc\r\n\r\n", VISIBLE),
        (CHUNKED + b"1%b\r\n", frozenset(b"0123456789abcdefABCDEF")),
        (CHUNKED + b"1;a%bb\r\n", TOKEN | frozenset(b";=")),
        (CHUNKED + b"1;a=b%bc\r\n", TOKEN | frozenset(b";")),
        (CHUNKED + b'1;a="b%bc"\r\n', VISIBLE - frozenset(b'"')),
        (CHUNKED + b'1;a="b\\%b"\r\n', VISIBLE),
    ],
    ids=[
        *("method", "target", "address", "host", "port", "ipv6", "escape", "minor version", "name", "value"),
        *("chunk size", "extension", "its value", "quoted value", "escaped in quotes"),
    ],
)
def test_each_byte_is_taken_only_where_the_rfc_has_it(request_: bytes, allowed: frozenset[int]) -> None:
    taken = set()
    for byte in range(256):
        connection = Connection("http")
        connection.receive_data(request_ % bytes((byte,)))
        event = connection.next_event()
        if not (isinstance(event, Send) and event.data.startswith(b"HTTP/1.1 400 ")):
            taken.add(byte)
    assert taken == allowed


def test_last_request_of_a_connection_says_so(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver(NEXT * 4, limits=Limits(http_requests=3))
    replies = read_replies(outcome.sent)
    assert [reply.fields.get("connection") for reply in replies] == [None, None, "close"]
    assert outcome.closed


def test_line_feed_behind_a_body_that_ends_in_a_carriage_return(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n\r\n")
    assert [reply.status for reply in read_replies(outcome.sent)] == [200, 400]
    assert outcome.closed


def test_line_feed_behind_a_chunk_that_ends_in_a_carriage_return(deliver: Callable[..., Outcome]) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    outcome = deliver(head + b"2\r\na\r\n")
    assert [reply.status for reply in read_replies(outcome.sent)] == [400]


def test_second_carriage_return_in_a_trailer_is_refused_before_the_trailer_ends(
    deliver: Callable[..., Outcome],
) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    outcome = deliver(head + b"0\r\nA: b\r\r\n")
    assert [reply.status for reply in read_replies(outcome.sent)] == [400]


@pytest.mark.parametrize("step", [0.5, 6.0])
def test_slow_head_is_refused(clock: ManualClock, pull: Callable[..., Outcome], step: float) -> None:
    """However slow its bytes come: what counts is the time since the first."""
    connection = Connection("http", limits=Limits(http_head_seconds=10), clock=clock)
    outcome = Outcome()
    received = 0
    while not outcome.closed:
        connection.receive_data(NEXT[received : received + 1])
        received += 1
        pull(connection, outcome)
        clock.now += step
    (reply,) = read_replies(outcome.sent)
    assert (reply.status, reply.body) == (408, b"the head took longer than 10 seconds\n")
    assert received == int(10 / step) + 2


def test_time_of_a_head_begins_with_its_first_byte(clock: ManualClock, pull: Callable[..., Outcome]) -> None:
    connection = Connection("http", limits=Limits(http_head_seconds=10), clock=clock)
    for _ in range(5):
        clock.now += 100  # between two requests a client may take its time
        connection.receive_data(NEXT[:5])
        assert pull(connection).sent == b""
        clock.now += 9
        connection.receive_data(NEXT[5:])
        assert [reply.status for reply in read_replies(pull(connection).sent)] == [200]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_slow_body_is_refused(clock: ManualClock, pull: Callable[..., Outcome], is_chunked: bool) -> None:
    connection = Connection("http", limits=Limits(http_body_rate=100), clock=clock)
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 1000000"
    connection.receive_data(b"GET /ping HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
    outcome = pull(connection)
    data = b"a" * 100
    for second in range(60):
        connection.receive_data(b"64\r\n" + data + b"\r\n" if is_chunked else data)
        assert not pull(connection, outcome).closed, second
        clock.now += 1  # as fast as it must be
    for _ in range(30):
        connection.receive_data(b"1\r\na\r\n" if is_chunked else b"a")
        if pull(connection, outcome).closed:
            break
        clock.now += 1
    (reply,) = read_replies(outcome.sent)
    assert (reply.status, reply.body) == (408, b"the body comes slower than 100 bytes per second\n")


@pytest.mark.parametrize(("received", "statuses"), [(100, []), (99, [408])])
def test_body_has_its_rate_after_twenty_seconds(
    clock: ManualClock, pull: Callable[..., Outcome], received: int, statuses: list[int]
) -> None:
    """100 bytes per second: after 21 s, 100 bytes must be here."""
    connection = Connection("http", limits=Limits(http_body_rate=100), clock=clock)
    connection.receive_data(b"GET /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    outcome = pull(connection)
    clock.now += 21
    connection.receive_data(b"a" * received)
    assert [reply.status for reply in read_replies(pull(connection, outcome).sent)] == statuses


def test_client_of_tls_is_reported() -> None:
    said: list[str] = []
    connection = Connection("http", "peer", report=said.append)
    connection.receive_data(b"\x16\x03\x01\x02\x00\x01\x00")
    connection.next_event()
    assert said == ["closed a connection from 'peer': it speaks TLS to the port of http"]


@pytest.mark.parametrize(
    "stream", [b"\x00", b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01"], ids=["other", "later"]
)
def test_client_that_did_not_begin_with_tls_is_not_reported(stream: bytes) -> None:
    said: list[str] = []
    connection = Connection("http", "peer", report=said.append)
    connection.receive_data(stream)
    while connection.next_event() not in (None, Close()):
        pass
    assert said == []


def test_reason_cannot_forge_a_reply(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver(b"GET /\xe9\x1b[31m HTTP/1.1\r\n\r\n")
    (reply,) = read_replies(outcome.sent)
    assert reply.body.isascii()
    assert reply.body.decode().rstrip("\n").isprintable()
