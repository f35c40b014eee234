"""WebSocket (RFC 6455) as a load test needs it: the opening handshake, and messages as frames. No I/O."""

import base64
import hashlib

from loadtests.sockets.failures import ClosedError, ExtraReplyError, WrongBytesError
from loadtests.sockets.http import AUTHORITY

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0
_OPCODE = 0x0F
# No frame has it: no message is expected.
_NONE = -1
_FINAL = 0x80
_MASKED = 0x80
_RESERVED = 0x70

# RFC 6455, 4.1: sixteen bytes that are chosen at random. No cache stands between the generator and a server under
# test, so these are the same for each connection. So is the mask of a frame (5.3), which makes a request constant.
_KEY = base64.b64encode(b"socketlab-engine")
_MASK = b"\x37\xfa\x21\x3d"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ACCEPT = base64.b64encode(hashlib.sha1(_KEY + _MAGIC).digest())  # noqa: S324 - what RFC 6455, 4.2.2, asks for


def make_opening(path: str) -> bytes:
    """Return the request of the opening handshake, with `AUTHORITY` in place of the host."""
    lines = [
        f"GET {path} HTTP/1.1".encode(),
        b"Host: " + AUTHORITY,
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + _KEY,
        b"Sec-WebSocket-Version: 13",
    ]
    return b"\r\n".join([*lines, b"", b""])


def check_opening(data: bytes) -> int | None:
    """Return how many bytes of `data` are the reply to the opening; None if it is incomplete.

    Raises:
        WrongBytesError: the server does not switch protocols, or not to this one.
    """
    size = data.find(b"\r\n\r\n")
    if size < 0:
        return None
    first, *lines = data[:size].split(b"\r\n")
    if not first.startswith(b"HTTP/1.1 101"):
        raise WrongBytesError(f"no WebSocket: {first[:40]!r}")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    if fields.get(b"sec-websocket-accept") != _ACCEPT:
        raise WrongBytesError("wrong Sec-WebSocket-Accept")
    if b"sec-websocket-extensions" in fields:
        raise WrongBytesError("an extension that was not asked for")
    return size + 4


def encode_frame(opcode: int, payload: bytes, *, mask: bool) -> bytes:
    """Return a frame that is a whole message: a client's are masked, a server's are not."""
    flag = _MASKED if mask else 0
    size = len(payload)
    if size < 126:
        head = bytes((_FINAL | opcode, flag | size))
    elif size < 65536:
        head = bytes((_FINAL | opcode, flag | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FINAL | opcode, flag | 127)) + size.to_bytes(8, "big")
    return head + _MASK + _mask(payload) if mask else head + payload


def _mask(payload: bytes) -> bytes:
    size = len(payload)
    pad = (_MASK * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


class MessageReader:
    """Reads a server's frames, and compares the messages with what they must be.

    Attributes:
        pongs: frames that answer pings of the server and are to be sent.
    """

    __slots__ = ("_at", "_buffer", "_opcode", "_payload", "_started", "pongs")

    def __init__(self) -> None:
        self._buffer = b""
        self.pongs: list[bytes] = []
        self.begin(b"")

    def begin(self, frame: bytes) -> None:
        """Expect a message, given as the frame that a server sends if it does not split it; empty: none."""
        head = _parse_head(frame, 0)
        self._opcode, self._payload = (_NONE, b"") if head is None else (head[0] & _OPCODE, frame[head[1] :])
        self._at = 0
        self._started = False

    def feed(self, data: bytes) -> bool:
        """Take bytes; return whether the message is complete.

        Raises:
            WrongBytesError: it is another message, or the frame is not allowed.
            ClosedError: the server closes.
            ExtraReplyError: more came than the message.
        """
        self._buffer = buffer = self._buffer + data if self._buffer else data
        at = 0
        done = False
        while (head := _parse_head(buffer, at)) is not None:
            flags, start, size = head
            if len(buffer) - start < size:
                break
            payload = buffer[start : start + size]
            opcode = flags & _OPCODE
            if opcode == CLOSE:
                raise ClosedError(f"close {int.from_bytes(payload[:2], 'big') if size > 1 else 'without a code'}")
            if opcode == PING:
                self.pongs.append(encode_frame(PONG, payload, mask=True))
            elif opcode != PONG:
                if done:
                    raise ExtraReplyError
                done = self._take(opcode, payload, is_final=bool(flags & _FINAL))
            at = start + size
        self._buffer = buffer[at:]
        if done and self._buffer:
            raise ExtraReplyError
        return done

    def _take(self, opcode: int, payload: bytes, *, is_final: bool) -> bool:
        if opcode != (_CONTINUATION if self._started else self._opcode):
            raise WrongBytesError(f"opcode {opcode}")
        self._started = True
        end = self._at + len(payload)
        if not self._payload.startswith(payload, self._at):
            raise WrongBytesError(f"another message, in the {len(payload)} bytes from {self._at} on")
        self._at = end
        if is_final and end != len(self._payload):
            raise WrongBytesError(f"{end} of {len(self._payload)} bytes of the message")
        return is_final


def _parse_head(buffer: bytes, at: int) -> tuple[int, int, int] | None:
    """Return the first byte of a frame, where its payload begins, and its size; None if the head is incomplete."""
    if len(buffer) - at < 2:
        return None
    flags, length = buffer[at], buffer[at + 1]
    if flags & _RESERVED or length & _MASKED:
        raise WrongBytesError(f"frame {buffer[at : at + 2].hex()}")
    if length < 126:
        return flags, at + 2, length
    more = 2 if length == 126 else 8
    if len(buffer) - at < 2 + more:
        return None
    return flags, at + 2 + more, int.from_bytes(buffer[at + 2 : at + 2 + more], "big")
