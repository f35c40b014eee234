"""The reader that cuts a stream into heads and lines: what it hands out, and what it leaves."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import pytest

from fuzz.oracle import Outcome
from services.protocol import Connection, Limits
from services.protocol.http.errors import HttpError
from services.protocol.http.head import HeadReader
from tests.services.protocol.http.conftest import ManualClock, read_replies
from tests.support.ws_link import TEXT, frame, handshake

CHUNKED = b"GET /ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def reader() -> HeadReader:
    return HeadReader(Limits(http_line=64, http_header_bytes=64), ManualClock())


def test_bytes_are_handed_out_once_and_in_order(reader: HeadReader) -> None:
    reader.feed(b"0123456789")
    assert [reader.take(size) for size in (3, 4, 99, 1)] == [b"012", b"3456", b"789", b""]
    reader.feed(b"abc")
    assert (reader.take(3), reader.left) == (b"abc", 0)


def test_reader_is_full_above_the_largest_head(reader: HeadReader) -> None:
    """A line and fields of 64 bytes each; CR LF behind the line, behind the last field, and at the end."""
    reader.feed(b"a" * 134)
    assert not reader.is_full
    reader.feed(b"a")
    assert reader.is_full
    reader.take(1)
    assert not reader.is_full


def test_head_may_be_all_that_is_here(reader: HeadReader) -> None:
    reader.feed(b"\r\n\r")
    assert not reader.has_head
    reader.feed(b"\n")
    assert reader.has_head
    reader.take(1)
    assert not reader.has_head


def test_what_follows_a_line_is_no_part_of_it(reader: HeadReader) -> None:
    reader.feed(b"3\r\n\x00\x01")
    assert reader.take_line(8, "size") == b"3"
    assert reader.take(2) == b"\x00\x01"
    reader.feed(b"\r\n\x00")
    assert reader.take_line(0, "end") == b""


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (b"3\r\n\x00\x01\x7f\r\n0\r\n\r\n", [200]),
        (b"0\r\n\r\n\x01", [200, 400]),
        # As early as possible: the end of the line may never come.
        (b"3;a\0", [400]),
        (b"0\r\nA: \0", [400]),
    ],
)
def test_control_characters_are_only_in_chunks(
    deliver: Callable[..., Outcome], request_: bytes, statuses: list[int]
) -> None:
    assert [reply.status for reply in read_replies(deliver(CHUNKED + request_).sent)] == statuses


LINE = b"GET / HTTP/1.1\r\n"
HEAD = LINE + b"Host: a\r\n\r\n"

# Streams, and what comes of each: at which of its bytes, counted from 1, and a method or the status of a refusal. A
# request line has at most 20 bytes, its fields at most 40 and three.
HEADS: dict[str, tuple[bytes, list[tuple[int, str | int]]]] = {
    "one": (HEAD, [(27, "GET")]),
    "three": (HEAD + b"PUT / HTTP/1.1\r\nHost: b\r\n\r\n" + HEAD, [(27, "GET"), (54, "PUT"), (81, "GET")]),
    "same fields": (HEAD + b"A" + HEAD, [(27, "GET"), (55, "AGET")]),
    "behind an empty line": (b"\r\n" + HEAD + b"\r\n" + HEAD, [(29, "GET"), (58, "GET")]),
    "two empty lines": (b"\r\n\r\n", [(4, 400)]),
    "two empty lines behind a head": (HEAD + b"\r\n\r\n", [(27, "GET"), (31, 400)]),
    "LF first": (b"\nGET", [(1, 400)]),
    "LF behind an empty line": (b"\r\n\nGET", [(3, 400)]),
    "LF behind a head": (HEAD + b"\nGET", [(27, "GET"), (28, 400)]),
    "LF ends a line": (b"GET / HTTP/1.1\nHost: a", [(15, 400)]),
    "LF ends a field": (LINE + b"Host: a\nA: b", [(24, 400)]),
    "LF behind a line": (LINE + b"\nHost", [(17, 400)]),
    "CR in a line": (b"GET / HTTP/1.1\rHost", [(16, 400)]),
    "CR in a field": (LINE + b"Host: \ra", [(24, 400)]),
    "NUL in a line": (b"GET /\0 HTTP/1.1", [(6, 400)]),
    "NUL in a field": (LINE + b"Host: a\r\nA: \0", [(29, 400)]),
    "no request line": (b"GET /\r\nHost", [(7, 400)]),
    "another version": (b"GET / HTTP/2.0\r\nHost", [(16, 505)]),
    "no field": (LINE + b"Host a\r\n\r\n", [(26, 400)]),
    "line of 20 bytes": (b"GET /234567 HTTP/1.1\r\nHost: a\r\n\r\n", [(33, "GET")]),
    "line of 21 bytes": (b"GET /2345678 HTTP/1.1\r\nHost: a\r\n\r\n", [(21, 414)]),
    "line without an end": (b"GET /23456789012345678", [(21, 414)]),
    "line of 20 bytes and CR": (b"GET /23456789012345 \r\n", [(22, 400)]),
    "fields of 40 bytes": (LINE + b"Host: a\r\nB: " + b"b" * 26 + b"\r\n\r\n", [(58, "GET")]),
    "fields of 41 bytes": (LINE + b"Host: a\r\nB: " + b"b" * 27 + b"\r\n\r\n", [(57, 431)]),
    "field without an end": (LINE + b"Host: " + b"b" * 36, [(57, 431)]),
    "three fields": (LINE + b"Host: a\r\nB:\r\nC:\r\n\r\n", [(35, "GET")]),
    "four fields": (LINE + b"Host: a\r\nB:\r\nC:\r\nD:\r\n\r\n", [(37, 431)]),
}
# Framing fields, and the status of their refusal. int() takes no number of more than 4300 digits.
FRAMINGS = {
    b"Content-Length: 999999999999999999999": 413,
    b"Content-Length: " + b"9" * 5000: 413,
    b"Transfer-Encoding: chunked, chunked": 400,
    b"Transfer-Encoding: gzip, chunked, chunked": 400,
    b"Transfer-Encoding: chunked, gzip, chunked": 400,
    b"Transfer-Encoding: gzip, , chunked": 400,
    b"Transfer-Encoding: gzip, chunked": 501,
    b"Transfer-Encoding: chunked, gzip": 400,
}
LINES: dict[str, tuple[bytes, list[tuple[int, str | int]]]] = {
    "8 bytes": (b"12345678\r\n", [(10, "12345678")]),
    "two": (b"1\r\n\r\n23\r\n", [(3, "1"), (5, ""), (9, "23")]),
    "9 bytes": (b"123456789\r\n", [(10, 400)]),
    "no end": (b"1234567890", [(10, 400)]),
    "LF first": (b"\n1", [(1, 400)]),
    "LF": (b"12\n", [(3, 400)]),
    "LF behind a line": (b"1\r\n\n", [(3, "1"), (4, 400)]),
    "CR": (b"12\r3", [(4, 400)]),
    "CR behind 8 bytes": (b"12345678\r9", [(10, 400)]),
    "NUL": (b"1\x002", [(2, 400)]),
    "HTAB": (b"1\t2\r\n", [(5, "1\t2")]),
}


def cut(stream: bytes) -> Iterator[list[bytes]]:
    """Give a stream in all pairs of pieces, and in pieces of some sizes."""
    for middle in range(len(stream)):
        yield [stream[:middle], stream[middle:]]
    for size in (1, 2, 3, 5, 8):
        yield [stream[at : at + size] for at in range(0, len(stream), size)]


def collect(
    pieces: list[bytes], read: Callable[[HeadReader], str | None], reader: HeadReader
) -> list[tuple[int, str | int]]:
    """Return what a reader gives, and after how many bytes."""
    found: list[tuple[int, str | int]] = []
    fed = 0
    for piece in pieces:
        reader.feed(piece)
        fed += len(piece)
        try:
            while (item := read(reader)) is not None:
                found.append((fed, item))
        except HttpError as error:
            return [*found, (fed, error.status)]
    return found


@pytest.mark.parametrize(("stream", "expected"), HEADS.values(), ids=HEADS)
def test_head_comes_with_its_last_byte_and_a_refusal_with_the_first_that_is_wrong(
    stream: bytes, expected: list[tuple[int, str | int]]
) -> None:
    def read(reader: HeadReader) -> str | None:
        head = reader.next_head()
        return None if head is None else head.method.decode()

    for pieces in cut(stream):
        reader = HeadReader(Limits(http_line=20, http_header_bytes=40, http_headers=3), ManualClock())
        ends = list(accumulate(map(len, pieces)))
        # What ends in the same piece comes at the end of that piece.
        assert collect(pieces, read, reader) == [(min(e for e in ends if e >= at), item) for at, item in expected], (
            pieces
        )


@pytest.mark.parametrize(("field", "status"), FRAMINGS.items())
def test_framing_that_cannot_be_read_is_refused(field: bytes, status: int) -> None:
    reader = HeadReader(Limits(), ManualClock())
    reader.feed(LINE + b"Host: a\r\n" + field + b"\r\n\r\n")
    with pytest.raises(HttpError) as refused:
        reader.next_head()
    assert refused.value.status == status


@pytest.mark.parametrize(("stream", "expected"), LINES.values(), ids=LINES)
def test_line_comes_with_its_last_byte_and_a_refusal_with_the_first_that_is_wrong(
    stream: bytes, expected: list[tuple[int, str | int]]
) -> None:
    def read(reader: HeadReader) -> str | None:
        line = reader.take_line(8, "line")
        return None if line is None else line.decode()

    for pieces in cut(stream):
        ends = list(accumulate(map(len, pieces)))
        found = collect(pieces, read, HeadReader(Limits(), ManualClock()))
        assert found == [(min(e for e in ends if e >= at), item) for at, item in expected], pieces


@pytest.mark.parametrize(
    "stream",
    [
        b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcd",
        CHUNKED + b"2\r\na",
        CHUNKED + b"1\r\na\r\n",
        handshake(),
        handshake() + frame(TEXT, b"a"),
    ],
    ids=["request", "upload", "in a chunk", "behind a chunk", "handshake", "message"],
)
def test_idle_connection_holds_no_input(stream: bytes) -> None:
    connection: Any = Connection("http")
    connection.receive_data(stream)
    while connection.next_event() is not None:
        pass
    service = connection._service
    assert service._reader._buffer == b""
    if service._socket is not None:
        assert service._socket._buffer == b""
        assert service._reader._fields is None
