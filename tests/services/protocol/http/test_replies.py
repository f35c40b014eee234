"""Routes, bodies, order, back-pressure and the drain of http, without a model."""

import json
from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from services.protocol import SEND_SIZE, AdapterError, Close, Compute, Connection, Limits, Send, Wait
from services.protocol.http.service import Http
from tests.services.protocol.http.conftest import ManualClock, read_replies
from tests.support.events import next_event


def ask(path: str, method: str = "GET", fields: str = "", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: lab.test\r\n{fields}\r\n".encode()


PING = ask("/ping")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/ping/", 404),
        ("/PING", 404),
        ("/sleep", 404),
        ("/sleep/", 404),
        ("/sleep/x", 404),
        ("/sleep/-1", 404),
        ("/sleep/01", 404),
        ("/sleep/1/2", 404),
        ("/sleep/60001", 400),
        ("/burn/10000001", 400),
        ("/blob/67108865", 400),
        ("/stream/906877", 400),  # of 74 bytes each: more than 64 MiB
        ("/events/906877", 400),
        ("/events/1?every=60001", 400),
        ("/ws", 426),
        ("/../ping", 404),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_path_that_has_no_answer(deliver: Callable[..., Outcome], path: str, status: int, method: str) -> None:
    """The connection goes on: the request was understood."""
    outcome = deliver(ask(path, method) + PING)
    assert [reply.status for reply in read_replies(outcome.sent, [method])] == [status, 200]
    assert not outcome.closed


ROUTES = ["/", "/ping", "/sleep/5", "/burn/5", "/blob/5", "/blob/200000", "/stream/5", "/events/2", "/info"]


@pytest.mark.parametrize("path", ROUTES)
def test_head_has_the_fields_of_get_and_no_work(deliver: Callable[..., Outcome], path: str) -> None:
    of_get, of_head = deliver(ask(path)), deliver(ask(path, "HEAD") + PING)
    (reply,) = read_replies(of_get.sent)
    head, following = read_replies(of_head.sent, ["HEAD"])
    assert (head.status, head.fields, head.body) == (200, reply.fields, b"")
    assert following.body == b"PONG\n"
    assert of_head.waits == of_head.rounds == []


@pytest.mark.parametrize("path", [*ROUTES, "/echo"])
def test_options_and_other_methods(deliver: Callable[..., Outcome], path: str) -> None:
    methods = ["OPTIONS", "PUT", "DELETE", "TRACE", "PATCH"]
    replies = read_replies(deliver(b"".join(ask(path, method) for method in methods)).sent, methods)
    allow = "OPTIONS, POST" if path == "/echo" else "GET, HEAD, OPTIONS"
    assert [(reply.status, reply.fields["allow"]) for reply in replies] == [(204, allow)] + [(405, allow)] * 4


def test_events_that_are_asked_for(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver(ask("/sleep/250") + ask("/burn/7") + ask("/events/3?every=20"))
    assert outcome.waits == [0.25, 0.02, 0.02]
    assert outcome.rounds == [7]
    assert [len(reply.body) for reply in read_replies(outcome.sent)] == [3, 65, len(b"id: 1\ndata: 1\n\n") * 3]


@pytest.mark.parametrize(("path", "event"), [("/sleep/60000", Wait(60.0)), ("/burn/10000000", Compute(10_000_000))])
def test_work_at_its_limit(path: str, event: Wait | Compute) -> None:
    connection = Connection("http")
    connection.receive_data(ask(path))
    assert next_event(connection) == event


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/blob/67108864", b"Content-Length: 67108864"),
        ("/stream/906876", b"Transfer-Encoding: chunked"),
        ("/events/906876", b"Transfer-Encoding: chunked"),
        ("/events/1?every=60000", b"Transfer-Encoding: chunked"),
    ],
)
def test_sizes_at_their_limits(path: str, field: bytes) -> None:
    """64 MiB are 906,876 lines of 74 bytes."""
    connection = Connection("http")
    connection.receive_data(ask(path))
    first = next_event(connection)
    assert isinstance(first, Send)
    head = first.data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"HTTP/1.1 200 OK"
    assert field in head


@pytest.mark.parametrize("query", ["", "?every=", "?every=05", "?every=1x"])
def test_events_come_ten_times_a_second_unless_another_time_is_given(
    deliver: Callable[..., Outcome], query: str
) -> None:
    assert deliver(ask(f"/events/3{query}")).waits == [0.1, 0.1]


def test_replies_are_joined_up_to_a_send() -> None:
    """Two replies of just half a Send each; the third comes in the next one."""
    connection = Connection("http")
    connection.receive_data(ask("/blob/1"))
    first = next_event(connection)
    assert isinstance(first, Send)
    # The head has four digits more for a length of five.
    size = SEND_SIZE // 2 - (len(first.data) - 1 + 4)
    connection.receive_data(ask(f"/blob/{size}") * 3)
    joined = next_event(connection)
    assert isinstance(joined, Send)
    assert len(joined.data) == SEND_SIZE


def test_page_is_for_those_that_accept_html_among_others(deliver: Callable[..., Outcome]) -> None:
    requests = ask("/", fields="Accept: application/json, text/html;q=0.9\r\n") + ask("/", fields="Accept: */*\r\n")
    html, text = read_replies(deliver(requests).sent)
    assert (html.fields["content-type"], text.fields["content-type"]) == (
        "text/html; charset=utf-8",
        "text/plain; charset=utf-8",
    )


def test_date_is_the_clock_s(deliver: Callable[..., Outcome]) -> None:
    (reply,) = read_replies(deliver(PING).sent)
    assert reply.fields["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_info(deliver: Callable[..., Outcome]) -> None:
    text = "# Server\r\nmodel:m\r\npid:7\r\n# Limits\r\nidle:0.5\r\nwhen_full:wait\r\n"
    (reply,) = read_replies(deliver(ask("/info"), info=lambda: text).sent)
    assert json.loads(reply.body) == {
        "server": {"model": "m", "pid": 7},
        "limits": {"idle": 0.5, "when_full": "wait"},
        "connection": {"peer": "peer", "requests": 1},
    }


def test_page_escapes_the_name_of_the_model(deliver: Callable[..., Outcome]) -> None:
    text = "# Server\r\nmodel:<b>\r\n"
    (reply,) = read_replies(deliver(ask("/", fields="Accept: text/html\r\n"), info=lambda: text).sent)
    assert b"<h1>&lt;b&gt;</h1>" in reply.body
    (reply,) = read_replies(deliver(ask("/", fields="Accept: text/html\r\n")).sent)
    assert b"<h1>a server</h1>" in reply.body
    assert "default-src 'none'" in reply.fields["content-security-policy"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("path", ["/echo", "/ping"])
@pytest.mark.parametrize("closes", ["", "by its field", "by its number"])
def test_body_is_echoed_or_dropped(deliver: Callable[..., Outcome], framing: str, path: str, closes: str) -> None:
    """A close comes after all of it: of the last request that a connection may have, too."""
    body = b"0123456789" * 3
    method = "POST" if path == "/echo" else "GET"
    fields = "Connection: close\r\n" if closes == "by its field" else ""
    if framing == "length":
        request = ask(path, method, f"{fields}Content-Length: {len(body)}\r\n") + body
    else:
        chunks = b"a\r\n0123456789\r\n14\r\n" + body[10:] + b"\r\n0\r\nA: %b\r\n\r\n" % (b"b" * 200)
        request = ask(path, method, f"{fields}Transfer-Encoding: chunked\r\n") + chunks
    outcome = deliver(request + PING, limits=Limits(http_requests=1) if closes == "by its number" else None)
    first, *others = read_replies(outcome.sent)
    assert (first.status, first.body) == (200, body if path == "/echo" else b"PONG\n")
    assert first.fields.get("connection") == ("close" if closes else None)
    assert [other.body for other in others] == ([] if closes else [b"PONG\n"])
    assert outcome.closed is bool(closes)
    assert ("transfer-encoding" in first.fields) == (framing == "chunked" and path == "/echo")


@pytest.mark.parametrize(("fields", "version"), [("", "1.1"), ("Connection: close\r\n", "1.1"), ("", "1.0")])
def test_echo_needs_a_length(deliver: Callable[..., Outcome], fields: str, version: str) -> None:
    outcome = deliver(ask("/echo", "POST", fields, version) + PING)
    assert [reply.status for reply in read_replies(outcome.sent)] == [411]
    assert outcome.closed


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_echo_is_for_post(deliver: Callable[..., Outcome], method: str) -> None:
    requests = ask("/echo", method) + ask("/echo", method, "Content-Length: 3\r\n") + b"abc" + PING
    assert [reply.status for reply in read_replies(deliver(requests).sent)] == [405, 405, 200]


def test_body_that_becomes_wrong_breaks_the_echo_off(pull: Callable[..., Outcome]) -> None:
    """RFC 9112, 8: without its last chunk the reply is incomplete; a second status line would be taken for a body."""
    connection = Connection("http")
    connection.receive_data(ask("/echo", "POST", "Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n")
    outcome = pull(connection)
    connection.receive_data(b"wrong\r\n" + PING)
    pull(connection, outcome)
    assert outcome.closed
    assert outcome.sent.endswith(b"\r\n\r\n3\r\nabc\r\n")
    assert outcome.sent.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("version", "body_is_there", "continues"), [("1.1", False, True), ("1.1", True, False), ("1.0", False, False)]
)
def test_expectation(pull: Callable[..., Outcome], version: str, body_is_there: bool, continues: bool) -> None:
    """RFC 9110, 10.1.1: never to HTTP/1.0, and not if the body is there already."""
    request = ask("/echo", "POST", "Content-Length: 5\r\nExpect: 100-Continue\r\n", version)
    connection = Connection("http")
    connection.receive_data(request + (b"hello" if body_is_there else b""))
    outcome = pull(connection)
    assert outcome.sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\n") is continues
    if not body_is_there:
        connection.receive_data(b"hello")
        pull(connection, outcome)
    assert outcome.sent.endswith(b"\r\n\r\nhello")


def test_version_1_0_has_no_chunks(deliver: Callable[..., Outcome]) -> None:
    """RFC 9112, 6.1: the close ends what has no length, whatever the client has asked for."""
    outcome = deliver(ask("/stream/3", fields="Connection: keep-alive\r\n", version="1.0") + PING)
    (reply,) = read_replies(outcome.sent)
    assert reply.fields["connection"] == "close"
    assert "transfer-encoding" not in reply.fields
    assert len(reply.body) == 3 * 74
    assert outcome.closed


def test_version_1_0_is_kept_alive_and_told_so(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver(ask("/ping", fields="Connection: Keep-Alive\r\n", version="1.0") * 2 + PING)
    kept = [reply.fields.get("connection") for reply in read_replies(outcome.sent)]
    assert kept == ["keep-alive", "keep-alive", None]
    assert not outcome.closed
    # So does a reply that takes a while.
    (slept,) = read_replies(deliver(ask("/sleep/1", fields="Connection: Keep-Alive\r\n", version="1.0")).sent)
    assert slept.fields["connection"] == "keep-alive"


def test_pipeline_is_answered_in_order_and_in_one_send(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.receive_data(ask("/blob/1") + ask("/sleep/1") + ask("/burn/1") + ask("/stream/1") + PING * 100)
    outcome = pull(connection)
    sizes = [len(reply.body) for reply in read_replies(outcome.sent)]
    assert sizes == [1, 3, 65, 74] + [5] * 100
    assert outcome.sends < 10


def test_pipeline_gives_others_a_turn(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http", limits=Limits(pipeline=10))
    connection.receive_data(PING * 95)
    outcome = pull(connection)
    assert len(read_replies(outcome.sent)) == 95
    assert outcome.sends == 10


@pytest.mark.parametrize("pipeline", [1, 2, 1024])
def test_chunks_of_one_byte(pull: Callable[..., Outcome], pipeline: int) -> None:
    """All of them are read, however few are read in one turn."""
    for path, method, wanted in (("/echo", "POST", b"a" * 5000), ("/ping", "GET", b"PONG\n")):
        connection = Connection("http", limits=Limits(pipeline=pipeline))
        request = ask(path, method, "Transfer-Encoding: chunked\r\n") + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"
        connection.receive_data(request + PING)
        outcome = pull(connection)
        first, second = read_replies(outcome.sent)
        assert (first.body, second.body) == (wanted, b"PONG\n")
        if pipeline == 1 and path == "/echo":
            # One step in each turn: the size of a chunk, its data, its end.
            assert outcome.sends == 5000 + 1 + 1


@pytest.mark.parametrize("path", ["/blob/50000000", "/stream/800000"])
def test_reply_is_made_as_it_is_sent(path: str) -> None:
    """Back-pressure: nothing is computed before it is asked for, and no event is larger than a Send's worth."""
    connection = Connection("http")
    connection.receive_data(ask(path) + PING)
    for _ in range(20):
        event = next_event(connection)
        assert isinstance(event, Send)
        assert len(event.data) <= SEND_SIZE + 200


def test_upload_is_not_held(pull: Callable[..., Outcome]) -> None:
    """What comes goes out again before more is read: the bound is one read."""
    connection = Connection("http")
    connection.receive_data(ask("/echo", "POST", "Content-Length: 1000000\r\n"))
    pull(connection)
    for _ in range(10):
        connection.receive_data(b"a" * 100_000)
        outcome = pull(connection)
        assert outcome.sent[-100_000:] == b"a" * 100_000
        assert len(outcome.sent) < 100_300


# The drain.


def test_last_reply_of_a_drain_says_close(clock: ManualClock, pull: Callable[..., Outcome]) -> None:
    """RFC 9112, 9.6: no request is answered behind it, so it must be the last one."""
    connection = Connection("http", clock=clock)
    connection.receive_data(ask("/sleep/10") + PING)
    assert connection.next_event() == Wait(0.01)
    connection.drain(arrived=1000)
    outcome = pull(connection)
    assert not outcome.closed
    connection.receive_data(ask("/blob/3") + ask("/stream/1"))  # from the kernel's buffer
    pull(connection, outcome)
    connection.receive_eof()
    pull(connection, outcome)
    replies = read_replies(outcome.sent)
    assert [len(reply.body) for reply in replies] == [3, 5, 3, 74]
    assert [reply.fields.get("connection") for reply in replies] == [None, None, None, "close"]
    assert outcome.closed


@pytest.mark.parametrize("path", ["/ping", "/sleep/1", "/burn/1", "/blob/200000", "/stream/2000", "/events/2"])
def test_drain_finishes_what_has_begun(pull: Callable[..., Outcome], path: str) -> None:
    connection = Connection("http")
    connection.receive_data(ask(path))
    begun = connection.next_event()
    outcome = Outcome()
    if isinstance(begun, Send):
        outcome.sent += begun.data
    elif isinstance(begun, Compute):
        connection.receive_digest(begun.run())
    connection.drain()
    pull(connection, outcome)
    (reply,) = read_replies(outcome.sent)
    # What has begun to be sent cannot say so any more.
    assert (reply.status, reply.fields.get("connection")) == (200, None if isinstance(begun, Send) else "close")
    assert outcome.closed


def test_last_reply_for_the_client_does_not_wait_for_the_end_of_a_drain(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.drain(arrived=1000)
    connection.receive_data(ask("/ping", fields="Connection: close\r\n"))
    outcome = pull(connection)
    assert [reply.fields["connection"] for reply in read_replies(outcome.sent)] == ["close"]
    assert outcome.closed


def test_nothing_is_refused_behind_the_last_reply_of_a_drain(pull: Callable[..., Outcome]) -> None:
    stream = PING + b"wrong\r\n"
    connection = Connection("http")
    connection.drain(arrived=len(stream))
    connection.receive_data(stream)
    outcome = pull(connection)
    assert [reply.fields["connection"] for reply in read_replies(outcome.sent)] == ["close"]
    assert outcome.closed


def test_body_is_not_asked_for_in_a_drain(pull: Callable[..., Outcome]) -> None:
    """What is not on its way yet would come too late."""
    connection = Connection("http")
    connection.drain(arrived=1000)
    connection.receive_data(ask("/ping", "GET", "Content-Length: 3\r\nExpect: 100-continue\r\n"))
    outcome = pull(connection)
    assert outcome.sent == b""
    connection.receive_data(b"abc")
    connection.receive_eof()
    (reply,) = read_replies(pull(connection, outcome).sent)
    assert (reply.status, reply.fields["connection"]) == (200, "close")


def test_drain_of_version_1_0_says_only_close(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.drain(arrived=1000)
    connection.receive_data(ask("/ping", fields="Connection: keep-alive\r\n", version="1.0"))
    outcome = pull(connection)
    connection.receive_eof()
    pull(connection, outcome)
    assert [reply.fields["connection"] for reply in read_replies(outcome.sent)] == ["close"]


@pytest.mark.parametrize(
    ("fields", "body", "status"),
    [
        ("Expect: more\r\n", b"", 417),
        ("Content-Length: 2000000000\r\n", b"", 413),
        ("Transfer-Encoding: chunked\r\n", b"x\r\n", 400),
    ],
)
def test_refused_head_has_no_body(deliver: Callable[..., Outcome], fields: str, body: bytes, status: int) -> None:
    """RFC 9110, 9.3.2."""
    outcome = deliver(ask("/ping", "HEAD", fields) + body)
    assert outcome.sent.startswith(b"HTTP/1.1 %d " % status)
    assert outcome.sent.endswith(b"\r\n\r\n")
    assert outcome.closed


def test_refused_method_has_no_body_in_reply_to_head(deliver: Callable[..., Outcome]) -> None:
    (reply,) = read_replies(deliver(ask("/echo", "HEAD")).sent, ["HEAD"])
    assert (reply.status, reply.body) == (405, b"")
    assert deliver(ask("/echo", "HEAD")).sent.endswith(b"\r\n\r\n")


def test_ports() -> None:
    assert (Http.port, Http.tls_port, Http.over_datagrams) == (8080, 8443, False)


def test_drain_of_an_idle_connection(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.receive_data(PING)
    pull(connection)
    connection.drain()
    assert connection.next_event() == Close()


def test_drain_drops_a_request_that_has_come_in_part(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.receive_data(PING + PING[:20])
    connection.drain(arrived=5)
    outcome = pull(connection)
    connection.receive_eof()
    pull(connection, outcome)
    assert [reply.fields["connection"] for reply in read_replies(outcome.sent)] == ["close"]
    assert outcome.closed


def test_client_that_goes_on_does_not_hold_a_drain_up(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.drain(arrived=3 * len(PING))
    outcome = Outcome()
    received = 0
    while not outcome.closed:
        connection.receive_data(PING)
        received += 1
        pull(connection, outcome)
    assert received == 3
    assert [reply.fields.get("connection") for reply in read_replies(outcome.sent)] == [None, None, "close"]


def test_digest_is_due() -> None:
    connection = Connection("http")
    connection.receive_data(ask("/burn/1"))
    assert isinstance(connection.next_event(), Compute)
    with pytest.raises(AdapterError, match="before the digest"):
        connection.next_event()
    connection.receive_digest(b"x")
    with pytest.raises(AdapterError, match="without a Compute"):
        connection.receive_digest(b"x")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("has_begun", [False, True])
def test_drain_in_the_middle_of_an_upload(pull: Callable[..., Outcome], framing: str, has_begun: bool) -> None:
    fields = "Content-Length: 10\r\n" if framing == "length" else "Transfer-Encoding: chunked\r\n"
    pieces = [b"hello", b"world"] if framing == "length" else [b"5\r\nhello\r\n", b"5\r\nworld\r\n0\r\n\r\n"]
    connection = Connection("http")
    connection.receive_data(ask("/echo", "POST", fields) + (pieces.pop(0) if has_begun else b""))
    outcome = pull(connection)
    connection.drain(arrived=1000)
    connection.receive_data(b"".join(pieces) + PING)
    pull(connection, outcome)
    connection.receive_eof()
    pull(connection, outcome)
    first, second = read_replies(outcome.sent)
    assert (first.body, second.body) == (b"helloworld", b"PONG\n")
    assert "connection" not in first.fields
    assert second.fields["connection"] == "close"
    assert outcome.closed


def test_last_part_of_an_echo_is_what_was_sent(pull: Callable[..., Outcome]) -> None:
    """It is the last in a drain, and has no head that could say so."""
    rest = b"5\r\nworld\r\n0\r\n\r\n"
    connection = Connection("http")
    connection.receive_data(ask("/echo", "POST", "Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n")
    outcome = pull(connection)
    connection.drain(arrived=len(rest))
    connection.receive_data(rest)
    assert [reply.body for reply in read_replies(pull(connection, outcome).sent)] == [b"helloworld"]
    assert outcome.closed


def test_reply_to_an_upload_that_is_dropped_in_a_drain_says_close(pull: Callable[..., Outcome]) -> None:
    connection = Connection("http")
    connection.receive_data(ask("/nonesuch", "POST", "Content-Length: 4\r\n") + b"ab")
    outcome = pull(connection)
    connection.drain(arrived=1000)
    connection.receive_data(b"cd")
    pull(connection, outcome)
    connection.receive_eof()
    (reply,) = read_replies(pull(connection, outcome).sent, ["POST"])
    assert (reply.status, reply.fields.get("connection")) == (404, "close")
    assert outcome.closed


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_that_begins_in_a_drain_is_read_to_its_end(pull: Callable[..., Outcome], framing: str) -> None:
    """Each byte of it comes from the kernel's buffer by itself, and whether a request follows is not known."""
    fields = "Content-Length: 10\r\n" if framing == "length" else "Transfer-Encoding: chunked\r\n"
    body = b"helloworld" if framing == "length" else b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"
    stream = ask("/echo", "POST", fields) + body
    connection = Connection("http")
    connection.drain(arrived=len(stream))
    outcome = Outcome()
    for byte in stream:
        connection.receive_data(bytes((byte,)))
        pull(connection, outcome)
    assert [reply.body for reply in read_replies(outcome.sent)] == [b"helloworld"]
    assert outcome.closed


def test_head_that_never_ends_is_not_gathered_in_a_drain(pull: Callable[..., Outcome]) -> None:
    """Though the reply before it waits for its end."""
    connection = Connection("http")
    connection.receive_data(PING[:-1])
    connection.drain(arrived=10_000_000)
    connection.receive_data(PING[-1:])
    outcome = pull(connection)
    pieces = 0
    while not outcome.closed and pieces < 100:
        connection.receive_data(b"a" * 1000)
        pull(connection, outcome)
        pieces += 1
    assert pieces <= 42  # a line of 8 KiB, and fields of 32 KiB
    assert [reply.status for reply in read_replies(outcome.sent)] == [200, 414]


TEXT = "text/plain; charset=utf-8"
CHUNKS = {"transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/", {"content-type": TEXT, "content-length": "26", "vary": "Accept"}),
        ("/ping", {"content-type": TEXT, "content-length": "5"}),
        ("/sleep/0", {"content-type": TEXT, "content-length": "3"}),
        ("/burn/1", {"content-type": TEXT, "content-length": "65"}),
        ("/blob/7", {"content-type": TEXT, "content-length": "7"}),
        ("/blob/70000", {"content-type": TEXT, "content-length": "70000"}),
        ("/stream/2", {"content-type": TEXT} | CHUNKS),
        ("/events/1", {"content-type": "text/event-stream", "cache-control": "no-store"} | CHUNKS),
        ("/info", {"content-type": "application/json", "content-length": "58"}),
        ("/nothing", {"content-type": TEXT, "content-length": "28"}),
    ],
)
def test_fields_of_each_route(deliver: Callable[..., Outcome], path: str, fields: dict[str, str]) -> None:
    """The same for GET and HEAD (RFC 9110, 9.3.2), and a Date."""
    replies = read_replies(deliver(ask(path) + ask(path, "HEAD")).sent, ["GET", "HEAD"])
    for reply in replies:
        assert reply.fields.pop("date") == "Sun, 06 Nov 1994 08:49:37 GMT"
    if path == "/info":
        # The count of requests has one digit in both.
        assert replies[0].body == b'{\n "connection": {\n  "peer": "peer",\n  "requests": 1\n }\n}\n'
    assert [reply.fields for reply in replies] == [fields, fields]


def test_each_echo_has_a_head_and_what_follows_can_be_refused(deliver: Callable[..., Outcome]) -> None:
    """What has begun is over with its request."""
    echo = ask("/echo", "POST", "Content-Length: 3\r\n") + b"abc"
    outcome = deliver(echo + echo + ask("/stream/1") + b"BAD\r\n\r\n")
    assert [reply.status for reply in read_replies(outcome.sent)] == [200, 200, 200, 400]
    assert outcome.closed


@pytest.mark.parametrize(
    ("expectation", "status"),
    [("100-Continue", 200), ("100-continue, x", 417), ("x", 417), ("100-continue\r\nExpect: x", 417), ("", 417)],
)
def test_only_100_continue_can_be_expected(deliver: Callable[..., Outcome], expectation: str, status: int) -> None:
    outcome = deliver(ask("/ping", fields=f"Expect: {expectation}\r\n"))
    assert [reply.status for reply in read_replies(outcome.sent)] == [status]
    assert outcome.closed is (status == 417)
