"""Frames, and what RFC 6455 says of them. Each case is named after its section: `5.1-frame-is-not-masked`."""

from dataclasses import dataclass

from tests.support.ws_link import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Frame,
    frame,
    handshake,
)

EURO = "€".encode()
ALL = bytes(range(256))
BROKEN = {  # 8.1, RFC 3629
    "lone-continuation": b"\x80",
    "start-without-continuation": b"ab\xc3",
    "two-starts": b"\xc3\xc3\xa9",
    "overlong": b"\xc0\xaf",
    "overlong-nul": b"\xe0\x80\x80",
    "surrogate": b"\xed\xa0\x80",
    "above-unicode": b"\xf4\x90\x80\x80",
    "five-bytes": b"\xf8\x88\x80\x80\x80",
    "ff": b"\xff",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """Frames, and the messages that answer them, in order; control frames count as messages."""

    name: str
    sent: bytes
    messages: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Frames that fail the connection, with one of these codes in its close, if there is one (7.1.7)."""

    name: str
    sent: bytes
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """A close, and the code that answers it; 0 for none."""

    name: str
    data: bytes
    code: int


def _echo(name: str, opcode: int, data: bytes, **form: object) -> Answered:
    return Answered(name, frame(opcode, data, **form), ((opcode, data),))  # type: ignore[arg-type]


ANSWERED = [
    _echo("5.6-text", TEXT, b"hello"),
    _echo("5.6-binary", BINARY, ALL),
    _echo("5.6-empty-text", TEXT, b""),
    _echo("5.6-empty-binary", BINARY, b""),
    _echo("8.1-text-in-utf-8", TEXT, "é€𝄞".encode()),
    _echo("8.1-text-with-nul", TEXT, b"a\0b"),
    *(_echo(f"5.2-length-{size}", BINARY, b"x" * size) for size in (1, 125, 126, 127, 65535, 65536, 100_000)),
    _echo("5.3-mask-of-zeros", TEXT, b"hello", key=bytes(4)),
    _echo("5.3-mask-of-ones", TEXT, b"hello", key=b"\xff" * 4),
    *(_echo(f"5.3-mask-of-{size}-bytes", BINARY, ALL[:size], key=b"\xa5\x5a\x0f\xf0") for size in (2, 3, 4, 5, 7)),
    Answered(
        "5.4-three-fragments", frame(TEXT, b"ab", bits=0) + frame(0, b"cd", bits=0) + frame(0, b"ef"), ((1, b"abcdef"),)
    ),
    Answered(
        "5.4-empty-fragments", frame(TEXT, bits=0) + frame(0, bits=0) + frame(0, b"a", bits=0) + frame(0), ((1, b"a"),)
    ),
    Answered("5.4-binary-fragments", frame(BINARY, ALL, bits=0) + frame(0, ALL), ((2, ALL + ALL),)),
    Answered(
        "5.4-fragments-of-one-byte",
        frame(TEXT, b"a", bits=0) + frame(0, b"a", bits=0) * 500 + frame(0),
        ((1, b"a" * 501),),
    ),
    Answered("5.4-character-in-two-fragments", frame(TEXT, EURO[:1], bits=0) + frame(0, EURO[1:]), ((1, EURO),)),
    Answered(
        "5.4-ping-between-fragments",
        frame(TEXT, b"a", bits=0) + frame(PING, b"p") + frame(0, b"b"),
        ((10, b"p"), (1, b"ab")),
    ),
    Answered("5.5.2-ping", frame(PING, b"data"), ((PONG, b"data"),)),
    Answered("5.5.2-empty-ping", frame(PING), ((PONG, b""),)),
    Answered("5.5.2-ping-of-125-bytes", frame(PING, b"p" * 125), ((PONG, b"p" * 125),)),
    Answered("5.5.2-ping-that-is-not-text", frame(PING, b"\xff\0"), ((PONG, b"\xff\0"),)),
    Answered("5.5.3-unsolicited-pong", frame(PONG, b"p") + frame(TEXT, b"a"), ((1, b"a"),)),
    Answered(
        "5.4-messages-in-order",
        b"".join(frame(TEXT, b"%d" % number) for number in range(50)),
        tuple((1, b"%d" % number) for number in range(50)),
    ),
]


def _close(data: bytes) -> bytes:
    return frame(CLOSE, data)


def _code(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


FAILED = [
    Failed("5.1-text-is-not-masked", frame(TEXT, b"a", key=None), (1002,)),
    Failed("5.1-empty-text-is-not-masked", frame(TEXT, key=None), (1002,)),
    Failed("5.1-ping-is-not-masked", frame(PING, key=None), (1002,)),
    Failed("5.1-close-is-not-masked", frame(CLOSE, key=None), (1002,)),
    Failed("5.2-rsv1", frame(TEXT, b"a", bits=FIN | RSV1), (1002,)),
    Failed("5.2-rsv2", frame(TEXT, b"a", bits=FIN | RSV2), (1002,)),
    Failed("5.2-rsv3", frame(TEXT, b"a", bits=FIN | RSV3), (1002,)),
    Failed("5.2-rsv-in-ping", frame(PING, bits=FIN | RSV1), (1002,)),
    Failed("5.2-rsv-in-fragment", frame(TEXT, b"a", bits=0) + frame(0, b"b", bits=FIN | RSV1), (1002,)),
    *(Failed(f"5.2-opcode-{opcode}", frame(opcode, b"a"), (1002,)) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    Failed("5.2-length-of-8-bytes-with-first-bit", b"\x82\xff\x80" + bytes(7) + b"abcd", (1002, 1009)),
    Failed("5.4-fragment-without-a-first", frame(CONTINUATION, b"a"), (1002,)),
    Failed("5.4-fragment-without-a-first-that-goes-on", frame(CONTINUATION, b"a", bits=0), (1002,)),
    Failed("5.4-fragment-behind-a-whole-message", frame(TEXT, b"PONG") + frame(0, b"b"), (1002,)),
    Failed("5.4-text-within-fragments", frame(TEXT, b"a", bits=0) + frame(TEXT, b"b"), (1002,)),
    Failed("5.4-binary-within-fragments", frame(TEXT, b"a", bits=0) + frame(BINARY, b"b", bits=0), (1002,)),
    Failed("5.5-ping-in-fragments", frame(PING, b"a", bits=0), (1002,)),
    Failed("5.5-close-in-fragments", frame(CLOSE, bits=0), (1002,)),
    Failed("5.5-pong-in-fragments", frame(PONG, bits=0), (1002,)),
    Failed("5.5-ping-of-126-bytes", frame(PING, b"p" * 126), (1002,)),
    Failed("5.5-close-of-126-bytes", _close(_code(1000, b"r" * 124)), (1002,)),
    Failed("5.5.1-close-of-one-byte", _close(b"\x03"), (1002,)),
    Failed("5.5.1-reason-is-not-utf-8", _close(_code(1000, b"\xff")), (1007, 1002)),
    *(
        Failed(f"7.4-code-{code}", _close(_code(code)), (1002,))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    *(Failed(f"8.1-{name}", frame(TEXT, data), (1007,)) for name, data in BROKEN.items()),
    Failed("8.1-broken-in-the-last-fragment", frame(TEXT, b"a", bits=0) + frame(0, b"\xff"), (1007,)),
    Failed("8.1-character-that-never-ends", frame(TEXT, EURO[:1], bits=0) + frame(0, EURO[1:2]), (1007,)),
]

# 5.2: "the minimal number of bytes MUST be used", but no word on what becomes of a frame that does not.
FAILED_OURS = [
    Failed("5.2-length-of-2-bytes-for-5", frame(TEXT, b"hello", size=2), (1002,)),
    Failed("5.2-length-of-8-bytes-for-5", frame(TEXT, b"hello", size=8), (1002,)),
    Failed("5.2-length-of-8-bytes-for-300", frame(TEXT, b"a" * 300, size=8), (1002,)),
    Failed("10.4-frame-over-the-limit", frame(BINARY, b"a" * 1_048_577)[:20], (1009,)),
    Failed("10.4-frame-of-an-exabyte", b"\x82\xff\x10" + bytes(7) + b"abcd", (1009,)),
    Failed(
        "10.4-message-over-the-limit", frame(BINARY, b"a" * 600_000, bits=0) + frame(0, b"a" * 600_000)[:20], (1009,)
    ),
]

CLOSED = [
    Closed("5.5.1-close-without-a-code", b"", 0),
    *(Closed(f"7.4-code-{code}", _code(code), code) for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011)),
    *(Closed(f"7.4.2-code-{code}", _code(code), code) for code in (3000, 3999, 4000, 4999)),
    Closed("5.5.1-reason", _code(1000, b"enough"), 1000),
    Closed("5.5.1-reason-of-123-bytes", _code(1000, b"r" * 123), 1000),
    Closed("5.5.1-reason-in-utf-8", _code(1000, "€".encode()), 1000),
]

# 4.2.1: handshakes that must not succeed, and the statuses that fit.
REFUSED = {
    "4.2.1-no-key": (handshake(key=""), (400,)),
    "4.2.1-empty-key": (handshake(key="Sec-WebSocket-Key:"), (400,)),
    "4.2.1-key-of-15-bytes": (handshake(key="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"), (400,)),
    "4.2.1-key-of-17-bytes": (handshake(key="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE="), (400,)),
    "4.2.1-key-is-not-base64": (handshake(key="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!!=="), (400,)),
    "4.2.1-two-keys": (handshake(more=["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]), (400,)),
    "4.2.1-no-version": (handshake(version_field=""), (400, 426)),
    "4.2.2-version-8": (handshake(version_field="Sec-WebSocket-Version: 8"), (400, 426)),
    "4.2.2-version-in-words": (handshake(version_field="Sec-WebSocket-Version: new"), (400, 426)),
    "4.2.1-no-upgrade": (handshake(upgrade=""), (400, 404, 426)),
    "4.2.1-other-upgrade": (handshake(upgrade="Upgrade: h2c"), (400, 404, 426)),
    "4.2.1-no-connection": (handshake(connection=""), (400, 404, 426)),
    "4.2.1-connection-without-upgrade": (handshake(connection="Connection: keep-alive"), (400, 404, 426)),
    "4.2.1-post": (handshake(method="POST", more=["Content-Length: 0"]), (400, 404, 405, 426)),
    "4.2.1-version-1.0-of-http": (handshake(version="HTTP/1.0"), (400, 404, 426, 505)),
    "4.2.1-no-host": (handshake(host=""), (400,)),
}
ACCEPTED = {
    "4.2.1-as-the-rfc-has-it": handshake(),
    "4.2.1-upgrade-in-capitals": handshake(upgrade="Upgrade: WebSocket"),
    "4.2.1-connection-in-lower-case": handshake(connection="connection: upgrade"),
    "4.2.1-connection-is-a-list": handshake(connection="Connection: keep-alive, Upgrade"),
    "4.2.1-names-in-lower-case": handshake(key="sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="),
    "4.2.1-blanks-around-the-key": handshake(key="Sec-WebSocket-Key:  dGhlIHNhbXBsZSBub25jZQ== "),
    "4.2.2-unknown-extension": handshake(more=["Sec-WebSocket-Extensions: x-unknown; a=b"]),
    "10.2-origin-is-this-host": handshake(more=["Origin: http://lab.test"]),
}
