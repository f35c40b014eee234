"""Each status line, word for word, and the handshake of WebSocket."""

from collections.abc import Callable

import pytest

from fuzz.oracle import Outcome
from services.protocol import Limits
from services.protocol.http.errors import REASONS
from services.protocol.http.head import HeadReader
from tests.services.protocol.http.conftest import ManualClock, read_replies
from tests.support.ws_cases import ACCEPTED, REFUSED
from tests.support.ws_link import handshake


def ask(path: str = "/ping", method: str = "GET", fields: str = "", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: lab.test\r\n{fields}\r\n".encode()


LINES = {
    "101 Switching Protocols": handshake(),
    "200 OK": ask(),
    "204 No Content": ask(method="OPTIONS"),
    "400 Bad Request": ask(fields="A : b\r\n"),
    "403 Forbidden": handshake(more=["Origin: http://other.test"]),
    "404 Not Found": ask("/nothing"),
    "405 Method Not Allowed": ask(method="PUT"),
    "411 Length Required": ask("/echo", "POST"),
    "413 Content Too Large": ask(fields="Content-Length: 999999999999999999999999\r\n"),
    "414 URI Too Long": ask("/" + "a" * 9000),
    "417 Expectation Failed": ask(fields="Expect: more\r\n"),
    "426 Upgrade Required": ask("/ws"),
    "431 Request Header Fields Too Large": ask(fields="A: b\r\n" * 101),
    "501 Not Implemented": ask(method="BREW"),
    "505 HTTP Version Not Supported": ask(version="2.0"),
}


@pytest.mark.parametrize("line", LINES)
def test_status_line(deliver: Callable[..., Outcome], line: str) -> None:
    assert deliver(LINES[line]).sent.startswith(f"HTTP/1.1 {line}\r\nDate: ".encode())


def test_no_other_status_is_known() -> None:
    others = ["408 Request Timeout", "503 Service Unavailable"]  # of slow clients and full servers
    assert [f"{status} {reason}" for status, reason in REASONS.items()] == sorted([*LINES, *others])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_unknown_path(deliver: Callable[..., Outcome], method: str) -> None:
    (reply,) = read_replies(deliver(ask("/%6eothing", method)).sent, [method])
    assert (reply.status, reply.body) == (404, b"" if method == "HEAD" else b"there is no '/nothing' here\n")


def test_address_as_a_target_has_a_path(deliver: Callable[..., Outcome]) -> None:
    """RFC 9112, 3.2.2."""
    (reply,) = read_replies(deliver(ask("http://lab.test/ping")).sent)
    assert reply.body == b"PONG\n"


def test_reason_quotes_64_bytes(deliver: Callable[..., Outcome]) -> None:
    (reply,) = read_replies(deliver(ask("/" + "a" * 100)).sent)
    assert reply.body == b"there is no '/%b' here\n" % (b"a" * 63)


@pytest.mark.parametrize(("size", "is_kept"), [(1024, True), (1025, False)])
def test_fields_up_to_a_kilobyte_are_kept(size: int, is_kept: bool) -> None:
    """Ten thousand idle connections with large ones would hold too much."""
    reader = HeadReader(Limits(), ManualClock())
    block = b"Host: a\r\nA: %b\r\n" % (b"b" * (size - 14))
    reader.feed(b"GET / HTTP/1.1\r\n" + block + b"\r\n")
    assert reader.next_head() is not None
    assert (len(block), reader._block == block) == (size, is_kept)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, gzip, chunked\r\n", 400),
        ("Transfer-Encoding: gzip,, chunked\r\n", 400),
        ("Transfer-Encoding: gzip\r\n", 400),
        ("Content-Length: 999999999999999999\r\n", 413),
        ("Content-Length: 1234567890123456789\r\n", 413),
    ],
)
def test_framing_that_is_refused(deliver: Callable[..., Outcome], fields: str, status: int) -> None:
    (reply,) = read_replies(deliver(ask(fields=fields)).sent)
    assert reply.status == status


def test_length_of_eighteen_digits_is_a_number(deliver: Callable[..., Outcome]) -> None:
    request = ask("/echo", "POST", "Content-Length: 000000000000000003\r\n") + b"abc"
    (reply,) = read_replies(deliver(request).sent)
    assert reply.body == b"abc"


def test_empty_line_before_each_request(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver((b"\r\n" + ask()) * 3)
    assert [reply.status for reply in read_replies(outcome.sent)] == [200] * 3


def test_last_request_but_one_is_as_any(deliver: Callable[..., Outcome]) -> None:
    outcome = deliver(ask() * 2, limits=Limits(http_requests=2))
    assert [reply.fields.get("connection") for reply in read_replies(outcome.sent)] == [None, "close"]


LIMITS = Limits(http_line=64, http_headers=4, http_header_bytes=90, http_body=300, sleep_ms=70)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (ask("/" + "a" * 64), "the request line is longer than 64 bytes"),
        (ask(fields="A: b\r\n" * 4), "more than 4 header fields"),
        (ask(fields=f"A: {'b' * 90}\r\n"), "the header fields are longer than 90 bytes"),
        (ask(fields="Content-Length: 301\r\n"), "the body is over the limit of 300 bytes"),
        (
            ask(fields="Transfer-Encoding: chunked\r\n") + f"0\r\nA: {'b' * 60}\r\nC: {'d' * 60}\r\n\r\n".encode(),
            "the trailer fields are longer than 90 bytes",
        ),
        (ask("/events/1?every=71"), "71 ms between events is over the limit of 70"),
    ],
)
def test_limit_is_named_when_it_is_exceeded(deliver: Callable[..., Outcome], request_: bytes, said: str) -> None:
    (reply,) = read_replies(deliver(request_, limits=LIMITS).sent)
    assert reply.body == f"{said}\n".encode()


# RFC 6455, 4.2.

STATUSES = {name: 400 if "key" in name or "no-host" in name else 426 for name in REFUSED} | {"4.2.1-post": 405}


@pytest.mark.parametrize("name", REFUSED)
def test_handshake_that_is_refused(deliver: Callable[..., Outcome], name: str) -> None:
    (reply,) = read_replies(deliver(REFUSED[name][0]).sent)
    assert reply.status == STATUSES[name]
    if reply.status == 426:
        assert reply.fields["upgrade"] == "websocket"
        assert reply.fields["sec-websocket-version"] == "13"


@pytest.mark.parametrize("name", ACCEPTED)
def test_handshake(deliver: Callable[..., Outcome], name: str) -> None:
    (reply,) = read_replies(deliver(ACCEPTED[name]).sent)
    assert reply.status == 101
    assert {name: value for name, value in reply.fields.items() if name != "date"} == {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }


@pytest.mark.parametrize(
    ("origins", "status"),
    [
        ([], 101),
        (["http://lab.test"], 101),
        (["https://LAB.test"], 101),
        (["http://lab.test:8080"], 403),
        (["http://other.test"], 403),
        (["null"], 403),
        (["file://lab.test"], 403),
        (["http://lab.test/"], 403),
        (["http://lab.test", "http://lab.test"], 403),
        (["http://lab.test", "http://other.test"], 403),
    ],
)
def test_origin(deliver: Callable[..., Outcome], origins: list[str], status: int) -> None:
    """RFC 6455, 10.2."""
    (reply,) = read_replies(deliver(handshake(more=[f"Origin: {origin}" for origin in origins])).sent)
    assert reply.status == status


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (handshake(more=["Sec-WebSocket-Version: 8"]), 426),
        (handshake(more=["Sec-WebSocket-Version: 13"]), 426),
        # The last character of 16 bytes has four bits of zero.
        (handshake(key="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="), 400),
        (handshake(key="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", more=["Sec-WebSocket-Key:"]), 400),
    ],
    ids=["two versions", "a version twice", "bits behind a key", "a second key"],
)
def test_handshake_that_could_be_read_differently(
    deliver: Callable[..., Outcome], request_: bytes, status: int
) -> None:
    (reply,) = read_replies(deliver(request_).sent)
    assert reply.status == status


def test_head_is_no_handshake(deliver: Callable[..., Outcome]) -> None:
    (reply,) = read_replies(deliver(handshake(method="HEAD")).sent, ["HEAD"])
    assert reply.status == 426


def test_handshake_with_a_body(deliver: Callable[..., Outcome]) -> None:
    (reply,) = read_replies(deliver(handshake(more=["Content-Length: 3"]) + b"abc").sent)
    assert (reply.status, reply.body) == (400, b"a handshake with a body\n")


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", ""),
        ("permessage-deflate; server_max_window_bits=15", ""),
        ("permessage-deflate; server_max_window_bits=11", "; server_max_window_bits=11"),
        # As browsers ask.
        ("permessage-deflate; client_max_window_bits", ""),
        ("permessage-deflate; client_max_window_bits=8", ""),
        ("permessage-deflate; client_max_window_bits=15", ""),
    ],
)
def test_compression_is_agreed(deliver: Callable[..., Outcome], offer: str, answer: str) -> None:
    (reply,) = read_replies(deliver(handshake(more=[f"Sec-WebSocket-Extensions: {offer}"])).sent)
    assert reply.fields["sec-websocket-extensions"] == (
        f"permessage-deflate; server_no_context_takeover; client_no_context_takeover{answer}"
    )
