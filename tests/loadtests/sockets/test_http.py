"""The reader of HTTP replies: what is a right reply, however it is delivered, and what each wrong one is called."""

from collections.abc import Iterator

import pytest

from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.failures import ErrorReplyError, ExchangeError, ExtraReplyError, WrongBytesError
from loadtests.sockets.http import AUTHORITY, ReplyReader, make_authority, make_request

_BODY = b"hello, world"
_HEAD = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _read(reply: bytes, size: int, body: bytes | None = _BODY) -> tuple[ReplyReader, list[bool]]:
    reader = ReplyReader()
    reader.begin(body)
    return reader, [reader.feed(piece) for piece in _pieces(reply, size)]


@pytest.fixture(params=[1, 3, 1 << 20], ids=["byte by byte", "three bytes", "whole"], name="size")
def _size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize(
    "reply",
    [
        _HEAD + b"Content-Length: 12\r\n\r\n" + _BODY,
        _HEAD + b"content-length:12\r\nContent-Length: 12\r\n\r\n" + _BODY,
        _HEAD + b"Connection: keep-alive, x\r\nContent-Length: 12 \r\n\r\n" + _BODY,
        _HEAD + b"Content-Length: %019d\r\n\r\n" % 12 + _BODY,
        b"HTTP/1.1 200\r\nContent-Length: 12\r\n\r\n" + _BODY,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
        + (_HEAD + b"Content-Length: 12\r\n\r\n" + _BODY),
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\r\n" + _BODY,
        _CHUNKED + b"c\r\nhello, world\r\n0\r\n\r\n",
        _CHUNKED + b"5\r\nhello\r\n007;a=b\r\n, world\r\n0\r\n\r\n",
        _CHUNKED + b"5\r\nhello\r\n7\r\n, world\r\n0;last\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
    ],
    ids=["length", "twice", "keep-alive", "19 digits", "no reason", "interim", "1.0", "chunk", "chunks", "trailers"],
)
def test_right_reply_is_complete_at_its_last_byte_and_learned(reply: bytes, size: int) -> None:
    reader, done = _read(reply, size)
    assert done == [False] * (len(done) - 1) + [True]
    assert (reader.raw, reader.closes) == (reply, False)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/2 200 OK\r\n\r\n", WrongBytesError),
        (b"+PONG\r\n\r\n", WrongBytesError),
        (b"\r\n\r\n", WrongBytesError),
        (_HEAD + b"Content-Length : 12\r\n\r\n" + _BODY, WrongBytesError),
        (_HEAD + b"Content-Length: 12\r\nContent-Length: 13\r\n\r\n" + _BODY, WrongBytesError),
        (_HEAD + b"Content-Length: +12\r\n\r\n" + _BODY, WrongBytesError),
        (_HEAD + b"Content-Length: %020d\r\n\r\n" % 12 + _BODY, WrongBytesError),
        (_HEAD + b"Content-Length: %b\r\n\r\n" % (b"9" * 5000), WrongBytesError),
        (_HEAD + b"Content-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n", WrongBytesError),
        (_HEAD + b"Transfer-Encoding: gzip\r\n\r\n", WrongBytesError),
        (_HEAD + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", WrongBytesError),
        (_HEAD + b"Content-Length: 12\r\n\r\nhello, werld", WrongBytesError),
        (_HEAD + b"Content-Length: 10\r\n\r\nhello, wor", WrongBytesError),
        (_HEAD + b"Content-Length: 13\r\n\r\nhello, world!", WrongBytesError),
        (_CHUNKED + b"c\r\nhello, worldX\r\n0\r\n\r\n", WrongBytesError),
        (_CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", WrongBytesError),
        (_CHUNKED + b"-1\r\n", WrongBytesError),
        (_CHUNKED + b"c\r\nhello, world\r\n1\r\n!\r\n0\r\n\r\n", WrongBytesError),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 12\r\n\r\n" + _BODY, ErrorReplyError),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ErrorReplyError),
    ],
)
def test_wrong_reply_is_named(reply: bytes, error: type[ExchangeError], size: int) -> None:
    with pytest.raises(error):
        _read(reply, size)


@pytest.mark.parametrize(
    "reply", [_HEAD + b"Content-Length: 12\r\n\r\nhello, world", _CHUNKED + b"c\r\nhello, world\r\n0\r\n\r\n"]
)
def test_bytes_behind_a_reply_are_more_than_was_asked_for(reply: bytes) -> None:
    with pytest.raises(ExtraReplyError):
        _read(reply + b"!", len(reply) + 1)


def test_status_is_in_the_detail() -> None:
    with pytest.raises(ErrorReplyError, match=r"error reply \(status 503\)"):
        _read(b"HTTP/1.1 503 Busy\r\n\r\n", 100)


def test_head_without_an_end_is_refused_at_64_kib() -> None:
    reader = ReplyReader()
    reader.begin(_BODY)
    assert not reader.feed(_HEAD + b"X: " + b"x" * (64 * 1024 - len(_HEAD) - 3))
    with pytest.raises(WrongBytesError, match="no end of the head in 65536 bytes"):
        reader.feed(b"x")


@pytest.mark.parametrize(
    ("fields", "closes"),
    [(b"HTTP/1.1 200 OK\r\nConnection: x, Close", True), (b"HTTP/1.0 200 OK", True), (b"HTTP/1.1 200 OK", False)],
)
def test_reply_after_which_no_request_may_follow(fields: bytes, closes: bool, size: int) -> None:
    reader, done = _read(fields + b"\r\nContent-Length: 12\r\n\r\n" + _BODY, size)
    assert done[-1]
    assert reader.closes is closes


def test_reply_without_a_length_ends_with_the_connection(size: int) -> None:
    reader, done = _read(_HEAD + b"\r\n" + _BODY, size)
    assert not any(done)
    assert reader.end()
    assert reader.closes
    assert reader.raw == _HEAD + b"\r\n" + _BODY


def test_reply_without_a_length_that_ends_early_is_wrong(size: int) -> None:
    reader, _ = _read(_HEAD + b"\r\nhello", size)
    with pytest.raises(WrongBytesError, match="5 of 12 bytes"):
        reader.end()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        _HEAD + b"Content-Length: 12\r\n\r\nhello",
        _CHUNKED + b"c\r\nhello",
    ],
)
def test_end_inside_a_reply_does_not_complete_it(reply: bytes) -> None:
    reader, _ = _read(reply, 7)
    assert not reader.end()


@pytest.mark.parametrize(("size", "is_learned"), [(65536, True), (65537, False)])
def test_reply_of_more_than_64_kib_is_checked_and_not_learned(size: int, is_learned: bool) -> None:
    body = bytes(size - len(_HEAD + b"Content-Length: 65000\r\n\r\n"))
    reply = _HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert len(reply) == size
    reader, done = _read(reply, 4096, body)
    assert done[-1]
    assert reader.raw == (reply if is_learned else b"")


def test_replies_of_a_connection_are_counted_and_learned_one_by_one() -> None:
    """Three of 30,000 bytes and more: together they are over 64 KiB."""
    body = bytes(30_000)
    reply = _HEAD + b"Content-Length: 30000\r\n\r\n" + body
    reader = ReplyReader()
    for _ in range(3):
        reader.begin(body)
        assert reader.feed(reply)
        assert reader.raw == reply


def test_chunked_reply_may_be_cut_anywhere() -> None:
    reply = _CHUNKED + b"5\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: 1\r\n\r\n"
    for at in range(1, len(reply)):
        reader = ReplyReader()
        reader.begin(_BODY)
        assert [reader.feed(reply[:at]), reader.feed(reply[at:])] == [False, True]
        assert reader.raw == reply


def test_empty_line_in_a_chunk_does_not_end_the_body(size: int) -> None:
    reply = _CHUNKED + b"6\r\na\r\n\r\nb\r\n0\r\n\r\n"
    _, done = _read(reply, size, b"a\r\n\r\nb")
    assert done == [False] * (len(done) - 1) + [True]


def test_size_of_a_chunk_is_hexadecimal(size: int) -> None:
    body = bytes(range(97, 123))
    _, done = _read(_CHUNKED + b"1a\r\n" + body + b"\r\n0\r\n\r\n", size, body)
    assert done[-1]


def test_size_of_a_chunk_without_an_end_is_refused_at_64_kib() -> None:
    reader = ReplyReader()
    reader.begin(_BODY)
    assert not reader.feed(_CHUNKED + b"c;" + b"x" * (64 * 1024 - 2))
    with pytest.raises(WrongBytesError, match="a chunk's size has no end"):
        reader.feed(b"x")


@pytest.mark.parametrize(
    "reply", [_HEAD + b"Content-Length: 12\r\n\r\n" + _BODY, _CHUNKED + b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"]
)
def test_body_that_is_not_known_beforehand_is_kept(reply: bytes, size: int) -> None:
    reader, done = _read(reply, size, None)
    assert done == [False] * (len(done) - 1) + [True]
    assert (reader.body, reader.raw) == (_BODY, reply)
    reader.begin(None)
    assert reader.body == b""


def test_body_that_is_not_known_may_end_with_the_connection(size: int) -> None:
    reader, done = _read(_HEAD + b"\r\n" + _BODY, size, None)
    assert not any(done)
    assert reader.end()
    assert reader.body == _BODY


def test_body_that_is_not_known_has_a_largest_size() -> None:
    limit = 16 * 1024 * 1024
    _, done = _read(_HEAD + b"Content-Length: %d\r\n\r\n" % limit + bytes(limit), 1 << 20, None)
    assert done[-1]
    with pytest.raises(WrongBytesError, match="more than 16777216 bytes"):
        _read(_HEAD + b"Content-Length: %d\r\n\r\n" % (limit + 1) + bytes(limit + 1), 1 << 20, None)


def test_reader_begins_anew() -> None:
    reader, _ = _read(_HEAD + b"Connection: close\r\n\r\nhello", 5)
    reader.begin(b"")
    assert not reader.closes
    assert reader.feed(_HEAD + b"Content-Length: 0\r\n\r\n")
    assert not reader.closes
    # As a new one does, which expects an empty reply.
    assert ReplyReader().feed(_HEAD + b"Content-Length: 0\r\n\r\n")


def test_request_is_written_out() -> None:
    made = make_request("POST", "/echo", b"ab", fields=[("Accept", "*/*")], close=True)
    assert made == (
        b"POST /echo HTTP/1.1\r\nHost: " + AUTHORITY + b"\r\nUser-Agent: socketlab\r\nAccept: */*\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\nab"
    )
    assert make_request("GET", "/") == b"GET / HTTP/1.1\r\nHost: " + AUTHORITY + b"\r\nUser-Agent: socketlab\r\n\r\n"
    assert b"Content-Length: 0" in make_request("POST", "/echo")
    assert make_request("PATCH", "/", b"ab").endswith(b"Content-Length: 2\r\n\r\nab")


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("tcp://a.example:80", b"a.example"),
        ("tls://a.example:443", b"a.example"),
        # RFC 9110, 7.2: any other port is named.
        ("tcp://a.example:443", b"a.example:443"),
        ("tls://a.example:80", b"a.example:80"),
        ("tcp://[::1]:8080", b"[::1]:8080"),
        ("unix:///run/a.sock", b"localhost"),
        ("tcp://b\u00fccher.example:80", b"xn--bcher-kva.example"),
    ],
)
def test_host_has_its_port_unless_it_is_the_default(url: str, authority: bytes) -> None:
    assert make_authority(Endpoint.parse(url)) == authority
