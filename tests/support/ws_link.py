"""WebSocket as a raw client writes and reads it (RFC 6455): every bit of a frame can be chosen."""

import base64
import hashlib
import zlib
from collections.abc import Sequence
from itertools import cycle
from operator import xor

from loadtests.sockets.connection import BlockingConnection
from tests.support.http_link import HttpLink, Reply

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10

# (the first byte without FIN, the data)
Frame = tuple[int, bytes]


def handshake(
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    host: str = "Host: lab.test",
    connection: str = "Connection: Upgrade",
    upgrade: str = "Upgrade: websocket",
    key: str = f"Sec-WebSocket-Key: {KEY}",
    version_field: str = "Sec-WebSocket-Version: 13",
    more: Sequence[str] = (),
) -> bytes:
    """Make a handshake; an empty field is left out."""
    lines = [f"{method} /ws {version}", host, connection, upgrade, key, version_field, *more]
    return "".join(f"{line}\r\n" for line in lines if line).encode() + b"\r\n"


def frame(
    opcode: int, data: bytes = b"", *, bits: int = FIN, key: bytes | None = b"\x01\x02\x03\x04", size: int | None = None
) -> bytes:
    """Make a frame.

    Args:
        bits: FIN and the reserved bits.
        key: the mask; None for a frame that is not masked.
        size: of the length's form in bytes (1, 2 or 8); None for the shortest.
    """
    length = len(data)
    if size is None:
        size = 1 if length < 126 else 2 if length < 65536 else 8
    mask = 0 if key is None else 0x80
    head = bytes((bits | opcode, mask | {1: length & 127, 2: 126, 8: 127}[size]))
    if size > 1:
        head += length.to_bytes(size, "big")
    if key is None:
        return head + data
    # Not as the server does it: one byte after the other.
    return head + key + bytes(map(xor, data, cycle(key)))


def deflate(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return (machine.compress(data) + machine.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(data: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(data + b"\0\0\xff\xff")


class WsLink:
    """A connection that becomes a WebSocket."""

    def __init__(self, link: BlockingConnection) -> None:
        self.http = HttpLink(link)

    def open(self, request: bytes = b"") -> Reply:
        """Shake hands, and check the answer, 4.2.2."""
        reply = self.http.ask(request or handshake())
        assert reply.status == 101, reply
        assert reply.fields["upgrade"].lower() == "websocket"
        assert "upgrade" in reply.fields["connection"].lower()
        accept = hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
        assert reply.fields["sec-websocket-accept"] == base64.b64encode(accept).decode()
        return reply

    def send(self, data: bytes) -> None:
        self.http.send(data)

    def read(self) -> Frame | None:
        """Read a frame; None at the end of the stream."""
        if self.http.is_at_end():
            return None
        first, second = self.http.read_bytes(2)
        assert second < 128, "a frame of the server is masked"
        if second == 126:
            second = int.from_bytes(self.http.read_bytes(2), "big")
            assert second > 125
        elif second == 127:
            second = int.from_bytes(self.http.read_bytes(8), "big")
            assert second > 65535
        return first, self.http.read_bytes(second)

    def read_message(self) -> Frame:
        """Read a message, in any number of fragments: its opcode and reserved bits, and its data."""
        got = self.read()
        assert got is not None, "the stream ends"
        first, data = got
        kind = first & 0x7F
        while not first & FIN:
            got = self.read()
            assert got is not None, "the stream ends within a message"
            first, piece = got
            assert first & 15 == CONTINUATION
            data += piece
        return kind, data

    def ask(self, text: bytes) -> bytes:
        """Send a text, and read the text that answers it."""
        self.send(frame(TEXT, text))
        kind, data = self.read_message()
        assert kind == TEXT
        return data

    def read_close(self) -> int | None:
        """Read to the end; the code of the close, 0 without one; None if there is no close."""
        code = None
        while (got := self.read()) is not None:
            assert code is None, "a frame behind the close"
            if got[0] == FIN | CLOSE:
                code = int.from_bytes(got[1][:2], "big")
        return code
