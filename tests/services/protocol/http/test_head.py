"""The reader that cuts a stream into heads and lines: what it hands out, and what it leaves."""

from collections.abc import Callable
from typing import Any

import pytest

from fuzz.oracle import Outcome
from services.protocol import Connection, Limits
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
