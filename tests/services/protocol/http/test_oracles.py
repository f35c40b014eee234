"""Each promise that the fuzzer of HTTP checks: a fault that breaks it is seen."""

from collections.abc import Callable
from typing import Any

import pytest

import fuzz.http_oracle
from fuzz.http_oracle import COMPRESSED, DEFLATE, HANDSHAKE, UPGRADED, check, check_cuts, check_drain
from fuzz.http_replies import check_frames, read
from services.protocol import Close, Connection, Event, Send
from services.protocol.http import Http, body, head, replies, websocket
from services.protocol.http.websocket import WebSocket
from tests.support.ws_link import BINARY, PING, TEXT, deflate, frame

PONG = b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\n\r\nPONG\n"
GET = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = (
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n"
)
SIZED = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"

STREAMS = [
    *(
        (0, stream)
        for stream in (b"", GET * 3, SIZED + GET, CHUNKED + GET, GET[:30], b"BAD\r\n\r\n", GET[:-2] + b"A" * 900)
    ),
    *((0, b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path + GET) for path in (b"burn/3", b"sleep/4", b"stream/3")),
    (0, b"HEAD /blob/9 HTTP/1.1\r\nHost: a\r\n\r\n" + GET),
    (0, b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET),
    (
        UPGRADED,
        frame(TEXT, b"BURN 3") + frame(TEXT, b"ab", bits=0) + frame(PING, b"c") + frame(0, b"d") + b"\x81\x85abc",
    ),
    (UPGRADED, frame(BINARY, bytes(140), bits=0) + b"\x80\xbcabcd" + bytes(40)),
    (UPGRADED, frame(PING, bytes(30)) * 20),
    (COMPRESSED, frame(TEXT, deflate(b"a" * 99), bits=0xC0)),
]
INPUTS = [
    b"\x03\x11\x2f\x47" + bytes((flags | bytewise, 38)) + stream for flags, stream in STREAMS for bytewise in (0, 4)
]


def check_all() -> None:
    for data in INPUTS:
        check(data)


def test_nothing_is_found_where_nothing_is_broken() -> None:
    check_all()
    check(b"short")


class Continuing(Connection):
    """Has something to say behind its Close."""

    def next_event(self) -> Event | None:
        event = super().next_event()
        was_closed, self._info = getattr(self, "_info", False), isinstance(event, Close)
        return Send(PONG) if was_closed else event


class Unending(Connection):
    """Never comes to the end of a stream."""

    def next_event(self) -> Event | None:
        event = super().next_event()
        return None if isinstance(event, Close) else event


class Forgiving(Connection):
    """Notices no mistake of a model."""

    def receive_digest(self, digest: bytes) -> None:
        if self._service._awaits_digest:  # type: ignore[attr-defined]  # of http
            super().receive_digest(digest)


def hear_pieces(self: Http, data: bytes) -> None:
    """Take a piece without its last byte if that is a CR."""
    self._reader.feed(data.removesuffix(b"\r"))


def gather(self: Http, data: bytes) -> None:
    """Take bytes; keep all of them."""
    self._reader.feed(data)
    if self._upload:
        self._upload[1]._trailer += bytes(1000)


def gather_messages(self: WebSocket, data: bytes) -> None:
    """Take bytes behind 500 that have been used."""
    self._buffer = bytes(500) + self._buffer[self._position :] + data
    self._position = 500


def miscount(patch: pytest.MonkeyPatch) -> None:
    ok = replies.ok
    patch.setattr(replies, "ok", lambda date, kind, body, fields=b"": ok(date, kind, body, fields) + b"x")


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "an event behind Close": lambda patch: patch.setattr(fuzz.http_oracle, "Connection", Continuing),
    "no Close": lambda patch: patch.setattr(fuzz.http_oracle, "Connection", Unending),
    "a mistake that is let pass": lambda patch: patch.setattr(fuzz.http_oracle, "Connection", Forgiving),
    "pieces that are misheard": lambda patch: patch.setattr(Http, "receive_data", hear_pieces),
    "a body that is gathered": lambda patch: patch.setattr(Http, "receive_data", gather),
    "messages that are gathered": lambda patch: patch.setattr(WebSocket, "receive_data", gather_messages),
    "a close that is not said": lambda patch: patch.setattr(replies, "CLOSE", b""),
    "a drain that is not said": lambda patch: patch.setattr(replies, "with_close", lambda reply: reply + b"x"),
    "a chunk without its end": lambda patch: patch.setattr(
        replies, "chunk", lambda data: b"%x\r\n%b" % (len(data), data)
    ),
    "a body of the wrong length": miscount,
    "a frame in the wrong order": lambda patch: patch.setattr(
        websocket, "_SHORT_TEXT", [bytes((128, size)) for size in range(126)]
    ),
    "another exception": lambda patch: patch.setattr(body, "_CHUNK", None),
    "a limit that is not kept": lambda patch: patch.setattr(head.HeadReader, "_check_part", lambda self: None),
}


@pytest.mark.parametrize("plant", FAULTS.values(), ids=FAULTS)
def test_fault_is_seen(plant: Callable[[pytest.MonkeyPatch], object], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, AttributeError)):
        check_all()


@pytest.mark.parametrize(
    "data",
    [
        PONG[1:],
        PONG.replace(b"Date: x\r\n", b""),
        PONG + b"x",
        PONG.replace(b"\r\n\r\n", b"\r\nDate: y\r\n\r\n"),
        PONG.replace(b"Content-Length: 5\r\n", b""),
        PONG.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        PONG.replace(b": 5\r\n", b": 5\r\nTransfer-Encoding: chunked\r\n"),
        b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n",
    ],
)
def test_reply_that_no_client_could_read_is_seen(data: bytes) -> None:
    assert len(read(PONG * 2, has_heads=False).replies) == 2
    with pytest.raises(AssertionError):
        read(data, has_heads=False)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x81abcdx",
        b"\x81\x02a",
        b"\x88\x00\x81\x00",
        b"\x80\x01a",
        b"\x01\x01a",
        b"\x01\x01a\x81\x01b",
        b"\xa1\x00",
        b"\x09\x00",
        b"\x89\x00",
        b"\x81\x7e\x00\x01a",
        b"\x8a\x7e\x00\x7e" + bytes(126),
        b"\xc8\x00",
    ],
)
def test_frame_that_no_client_could_read_is_seen(data: bytes) -> None:
    check_frames(b"\x01\x01a\x8a\x00\x80\x01b\x82\x7e\x00\x7e" + bytes(126) + b"\x88\x00")
    with pytest.raises(AssertionError):
        check_frames(data)


def test_text_that_is_not_utf_8_is_seen() -> None:
    with pytest.raises(UnicodeDecodeError):
        check_frames(b"\x81\x01\xff")


def test_handshake_fits_into_the_limits() -> None:
    connection: Any = Connection("http", limits=fuzz.http_oracle.LIMITS)
    connection.receive_data(HANDSHAKE + DEFLATE + b"\r\n")
    assert connection.next_event().data.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("offer", [b"", DEFLATE], ids=["plain", "compressed"])
def test_handshake_in_single_bytes_is_a_handshake(offer: bytes) -> None:
    """`check` takes the handshake, which is the same in each input, as one piece."""
    stream = HANDSHAKE + offer + b"\r\n" + frame(TEXT, b"ab")
    check_cuts(stream, b"", bytewise_from=0)
    for moment in range(len(stream)):
        check_drain(stream, b"", moment, bytewise_from=0)
