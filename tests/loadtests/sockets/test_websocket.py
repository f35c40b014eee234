"""WebSocket of the load engine: the opening, frames as the RFC writes them, and what each wrong one is called."""

from collections.abc import Iterator

import pytest

from loadtests.sockets.failures import ClosedError, ExchangeError, ExtraReplyError, WrongBytesError
from loadtests.sockets.http import AUTHORITY
from loadtests.sockets.websocket import (
    BINARY,
    PONG,
    TEXT,
    MessageReader,
    check_opening,
    encode_frame,
    make_opening,
)

# RFC 6455, 5.7: "Hello" in a frame of a server, in two fragments, and the ping with the same body.
_HELLO = bytes.fromhex("810548656c6c6f")
_FRAGMENTS = bytes.fromhex("010348656c80026c6f")
_PING = bytes.fromhex("890548656c6c6f")
# The key is that of `make_opening`; the answer was computed with `openssl dgst -sha1 -binary | base64`.
_KEY = b"c29ja2V0bGFiLWVuZ2luZQ=="
_ACCEPT = b"s/mz/fmjod82InRBka+BEapXlaM="
_OPENED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + _ACCEPT
    + b"\r\n\r\n"
)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture(params=[1, 3, 1 << 20], ids=["byte by byte", "three bytes", "whole"], name="size")
def _size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_masked_frame_is_that_of_the_rfc() -> None:
    # RFC 6455, 5.7: a single-frame masked text message; the mask there is the engine's.
    assert encode_frame(TEXT, b"Hello", mask=True) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert encode_frame(TEXT, b"Hello", mask=False) == _HELLO


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (256, "827e0100"),
        (65535, "827effff"),
        (65536, "827f0000000000010000"),
    ],
)
def test_length_of_a_frame_takes_the_fewest_bytes(size: int, head: str) -> None:
    assert encode_frame(BINARY, bytes(size), mask=False) == bytes.fromhex(head) + bytes(size)
    masked = encode_frame(BINARY, bytes(size), mask=True)
    assert masked[1] & 0x80
    assert len(masked) == len(head) // 2 + 4 + size
    assert masked[len(head) // 2 + 4 :] == (bytes.fromhex("37fa213d") * (size // 4 + 1))[:size]


@pytest.mark.parametrize("reply", [_HELLO, _FRAGMENTS, bytes.fromhex("0100") + bytes.fromhex("800548656c6c6f")])
def test_message_is_complete_at_its_last_byte(reply: bytes, size: int) -> None:
    reader = MessageReader()
    reader.begin(_HELLO)
    done = [reader.feed(piece) for piece in _pieces(reply, size)]
    assert done == [False] * (len(done) - 1) + [True]


@pytest.mark.parametrize("payload", [0, 125, 126, 256, 65535, 65536])
def test_length_of_a_message_is_read_at_its_last_byte(payload: int) -> None:
    frame = encode_frame(BINARY, bytes(payload), mask=False)
    reader = MessageReader()
    reader.begin(frame)
    # A pong comes first: the frame does not begin where the bytes do.
    stream = bytes.fromhex("8a00") + frame
    assert not any(reader.feed(stream[at : at + 1]) for at in range(min(12, len(stream) - 1)))
    assert reader.feed(stream[min(12, len(stream) - 1) :])


def test_pings_around_and_inside_a_message_are_answered(size: int) -> None:
    reader = MessageReader()
    reader.begin(_HELLO)
    stream = _PING + _FRAGMENTS[:5] + _PING + bytes.fromhex("8a00") + _FRAGMENTS[5:]
    done = [reader.feed(piece) for piece in _pieces(stream, size)]
    assert done[-1]
    assert reader.pongs == [encode_frame(PONG, b"Hello", mask=True)] * 2


@pytest.mark.parametrize(
    ("reply", "error", "detail"),
    [
        ("880203e9", ClosedError, "close 1001"),
        ("8800", ClosedError, "close without a code"),
        ("820548656c6c6f", WrongBytesError, "opcode 2"),
        ("800548656c6c6f", WrongBytesError, "opcode 0"),
        ("c10548656c6c6f", WrongBytesError, "frame c105"),
        ("818548656c6c6f", WrongBytesError, "frame 8185"),
        ("810448656c6c", WrongBytesError, "4 of 5 bytes"),
        ("810548656c6c70", WrongBytesError, "another message"),
        ("810648656c6c6f6f", WrongBytesError, "another message"),
        ("010348656c81026c6f", WrongBytesError, "opcode 1"),
        ("810548656c6c6f81", ExtraReplyError, ""),
        ("810548656c6c6f810548656c6c6f", ExtraReplyError, ""),
    ],
)
def test_wrong_message_is_named(reply: str, error: type[ExchangeError], detail: str) -> None:
    reader = MessageReader()
    reader.begin(_HELLO)
    with pytest.raises(error) as raised:
        reader.feed(bytes.fromhex(reply))
    assert detail in raised.value.detail


def test_any_message_is_wrong_when_none_is_due() -> None:
    reader = MessageReader()
    assert not reader.feed(_PING)
    with pytest.raises(WrongBytesError):
        reader.feed(_HELLO)
    with pytest.raises(WrongBytesError, match="opcode 1"):
        MessageReader().feed(bytes.fromhex("8100"))


def test_opening_asks_for_a_websocket() -> None:
    assert make_opening("/ws") == (
        b"GET /ws HTTP/1.1\r\nHost: " + AUTHORITY + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + _KEY + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )


def test_opening_is_accepted_at_its_last_byte() -> None:
    for size in range(len(_OPENED)):
        assert check_opening(_OPENED[:size]) is None
    assert check_opening(_OPENED) == len(_OPENED)
    assert check_opening(_OPENED + _HELLO) == len(_OPENED)


def test_opening_that_is_only_an_empty_line_is_refused() -> None:
    with pytest.raises(WrongBytesError, match="no WebSocket"):
        check_opening(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        (b"101 Switching Protocols", b"426 Upgrade Required", "no WebSocket: b'HTTP/1.1 426"),
        # Of another protocol than HTTP the first forty bytes are shown, and none reaches the terminal as it is.
        (b"HTTP/1.1 101", b"\x1b" + b"." * 38 + b"\xff!", r"no WebSocket: b'\\x1b\.{38}\\xff'\)$"),
        (_ACCEPT, _ACCEPT.swapcase(), "wrong Sec-WebSocket-Accept"),
        (b"Upgrade: ", b"Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: ", "an extension"),
    ],
)
def test_opening_that_is_refused_is_named(old: bytes, new: bytes, detail: str) -> None:
    with pytest.raises(WrongBytesError, match=detail):
        check_opening(_OPENED.replace(old, new, 1))
