"""Take apart what a server of HTTP and WebSocket has sent, strictly, and without a parser of the server's.

It raises AssertionError for bytes that no client could read. The methods of the requests are not needed: a reply
without the body that its fields announce is one to HEAD.
"""

import re
import zlib
from dataclasses import dataclass, field

_HEAD = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z -]+\r\n((?:[A-Za-z-]+: [\t -~]*\r\n)*)\r\n")
_FIELD = re.compile(rb"([A-Za-z-]+): ([\t -~]*)\r\n")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")

_CONTINUATION, _TEXT, _CLOSE, _PONG = 0, 1, 8, 10


@dataclass(slots=True)
class Reply:
    """A reply.

    Args:
        body: without its chunks; empty for HEAD.
        is_whole: it has come to its end.
    """

    status: int
    fields: dict[bytes, bytes]
    body: bytes = b""
    is_whole: bool = True

    @property
    def is_echo(self) -> bool:
        """Whether it carries a body back: only such a reply may break off."""
        return self.fields.get(b"content-type") == b"application/octet-stream"

    @property
    def closes(self) -> bool:
        """Whether it is the last one."""
        return b"close" in self.fields.get(b"connection", b"").split(b", ")


@dataclass(slots=True)
class Said:
    """Everything that a server has sent on a connection.

    Args:
        replies: without those of status 100.
        frames: behind the reply 101, if there was one.
    """

    replies: list[Reply] = field(default_factory=list)
    frames: bytes | None = None


def read(data: bytes, *, has_heads: bool) -> Said:
    """Take apart everything that was sent.

    Args:
        has_heads: a request may have been HEAD.
    """
    said = Said()
    place = 0
    while place < len(data):
        match = _HEAD.match(data, place)
        assert match, f"no reply begins at {data[place : place + 60]!r}"
        place = match.end()
        fields: dict[bytes, bytes] = {}
        for name, value in ((name.lower(), value) for name, value in _FIELD.findall(match[2])):
            # RFC 9110, 5.3: of all fields that are sent, only Connection is a list.
            assert name not in fields or name == b"connection", f"a field is there twice: {match[0]!r}"
            fields[name] = fields[name] + b", " + value if name in fields else value
        reply = Reply(int(match[1]), fields)
        if reply.status == 100:
            assert not fields
            continue
        assert b"date" in fields, f"no Date: {match[0]!r}"
        said.replies.append(reply)
        if reply.status == 101:
            said.frames = data[place:]
            check_frames(said.frames)
            break
        place = _read_body(reply, data, place, has_heads=has_heads)
    return said


def _read_body(reply: Reply, data: bytes, place: int, *, has_heads: bool) -> int:
    """Read what follows a head; return where the next one begins."""
    is_bodiless = place == len(data) or data.startswith(b"HTTP/1.1 ", place)
    length = reply.fields.get(b"content-length")
    if reply.fields.get(b"transfer-encoding") == b"chunked":
        assert length is None, "two lengths"
        if has_heads and is_bodiless and not reply.is_echo:
            return place
        return _read_chunks(reply, data, place)
    if length is not None:
        if has_heads and is_bodiless and not reply.is_echo:
            return place
        end = place + int(length)
        reply.is_whole = end <= len(data)
    elif reply.status == 204:
        end = place
    else:
        assert reply.closes, "a reply up to the end of the connection, which goes on"
        end = len(data)
    reply.body = data[place:end]
    return end


def _read_chunks(reply: Reply, data: bytes, place: int) -> int:
    while place < len(data):
        match = _CHUNK.match(data, place)
        assert match, f"no chunk begins at {data[place : place + 20]!r}"
        size = int(match[1], 16)
        place = match.end() + size + 2
        assert data[place - 2 : place] == b"\r\n", "a chunk without its end"
        if not size:
            return place
        reply.body += data[match.end() : place - 2]
    reply.is_whole = False
    return place


def check_frames(data: bytes) -> None:
    """Check the frames of a server: each whole, none behind a close (RFC 6455, 5)."""
    place, opened, message, is_compressed, is_closed = 0, 0, b"", False, False
    while place < len(data):
        assert not is_closed, "a frame behind the close"
        first, size = data[place], data[place + 1]
        assert size < 128, "a frame of the server is masked"
        place += 2
        if size > 125:
            width, least = (2, 126) if size == 126 else (8, 65536)
            size = int.from_bytes(data[place : place + width], "big")
            assert size >= least, "a length that is not in its shortest form"
            place += width
        payload = data[place : place + size]
        place += size
        assert len(payload) == size, "a frame that is not whole"
        opcode, is_last = first & 15, first >= 128
        assert not first & 0x30, "a reserved bit"
        if opcode >= _CLOSE:
            assert is_last, "a control frame in fragments"
            assert not first & 0x40, "a control frame is compressed"
            assert size < 126, "a control frame of more than 125 bytes"
            assert opcode in (_CLOSE, _PONG), "an unsolicited control frame"
            is_closed = opcode == _CLOSE
            continue
        assert (opcode == _CONTINUATION) == bool(opened), "fragments out of order"
        if opcode:
            opened, message, is_compressed = opcode, b"", bool(first & 0x40)
        message += payload
        if is_last:
            if is_compressed:
                message = zlib.decompressobj(-15).decompress(message + b"\0\0\xff\xff")
            if opened == _TEXT:
                message.decode()
            opened = 0
    assert not opened, "a message that is not whole"
