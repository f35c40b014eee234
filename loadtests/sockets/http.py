"""HTTP/1.1 as a load test needs it: requests as bytes, and a reader that checks replies. No I/O.

Strategy: the replies to one request differ in their Date at most, so a group learns the bytes of a reply once it has
been read and checked, and compares from then on (`HttpConnection`). A reply that differs is read and checked again.
"""

import re
from collections.abc import Iterable

from loadtests.sockets.addresses import Address
from loadtests.sockets.failures import ErrorReplyError, ExtraReplyError, WrongBytesError

# Stands for the server's authority in a request that was made before its address is known.
AUTHORITY = b"\0authority\0"

_DEFAULT_PORTS = {"tcp": 80, "tls": 443}

# The largest body of a reply that is kept, if it is not known beforehand.
_LARGEST_KEPT = 16 * 1024 * 1024
# The largest head of a reply that is read; servers' own limits for requests are 8 to 64 KiB.
_LARGEST_HEAD = 64 * 1024
# Replies above this size are not learned: comparing them costs as much as reading them.
LARGEST_LEARNED = 64 * 1024

# RFC 9112, 4: the reason is optional, the blank before it is not; servers that leave it out are common, and harmless.
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\0]*)?")

# In place of a chunk's rest: its data has come, the CRLF behind it has not.
_BEHIND_CHUNK = -1

_CONTINUE = 100
_SWITCHING = 101


def make_request(
    method: str, path: str, body: bytes = b"", *, fields: Iterable[tuple[str, str]] = (), close: bool = False
) -> bytes:
    """Return a request, with `AUTHORITY` in place of the host.

    Args:
        fields: further header fields.
        close: ask the server to close after its reply.
    """
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: " + AUTHORITY, b"User-Agent: socketlab"]
    lines += [f"{name}: {value}".encode() for name, value in fields]
    if body or method in ("POST", "PUT"):
        lines.append(b"Content-Length: %d" % len(body))
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", body])


def make_authority(address: Address) -> bytes:
    """Return the value of Host for a server."""
    if not address.host:
        return b"localhost"
    host = f"[{address.host}]" if ":" in address.host else address.host
    default = _DEFAULT_PORTS.get(address.transport)
    return (host if address.port == default else f"{host}:{address.port}").encode(
        "idna" if not host.isascii() else "ascii"
    )


class ReplyReader:
    """Reads the reply to one request after the other, and compares it with what it must be.

    Attributes:
        raw: the bytes of the last complete reply; empty if there were too many.
        closes: the server closes after this reply, so the client must not send another request.
    """

    __slots__ = (
        "_at",
        "_body",
        "_buffer",
        "_chunk_left",
        "_chunked",
        "_has_head",
        "_kept",
        "_left",
        "_pieces",
        "_raw_size",
        "closes",
        "raw",
    )

    def __init__(self) -> None:
        self.raw = b""
        self.begin(b"")

    def begin(self, body: bytes | None) -> None:
        """Expect the reply to a request: status 200 and this body; None: any, which `body` has at the end."""
        self._body = body
        self._kept: list[bytes] = []
        self._at = 0  # of the body, how much has come
        self._buffer = b""
        self._has_head = False
        # Bytes of the body that are to come; None: it ends with the connection. The same for the chunk.
        self._left: int | None = 0
        self._chunk_left = 0
        self._pieces: list[bytes] = []
        self._raw_size = 0
        self.closes = False

    @property
    def body(self) -> bytes:
        """The body of a complete reply whose body was not known beforehand."""
        return b"".join(self._kept)

    def feed(self, data: bytes) -> bool:
        """Take bytes; return whether the reply is complete.

        Raises:
            WrongBytesError: it is no HTTP, or another body.
            ErrorReplyError: another status.
            ExtraReplyError: more came than the reply.
        """
        self._raw_size += len(data)
        if self._raw_size <= LARGEST_LEARNED:
            self._pieces.append(data)
        self._buffer = self._buffer + data if self._buffer else data
        if not self._has_head and not self._read_head():
            return False
        done = self._read_chunks() if self._chunked else self._read_body()
        if done:
            if self._buffer:
                raise ExtraReplyError
            self._finish()
        return done

    def end(self) -> bool:
        """Take the end of the stream; return whether it ended the reply.

        Raises:
            WrongBytesError: the body that it ends is too short.
        """
        if not self._has_head or self._left is not None:
            return False
        self._check_end()
        self._finish()
        return True

    def _finish(self) -> None:
        self.raw = b"".join(self._pieces) if self._raw_size <= LARGEST_LEARNED else b""

    def _read_head(self) -> bool:
        while True:
            size = self._buffer.find(b"\r\n\r\n")
            if size < 0:
                if len(self._buffer) > _LARGEST_HEAD:
                    raise WrongBytesError(f"no end of the head in {_LARGEST_HEAD} bytes")
                return False
            status = self._parse_head(self._buffer[:size])
            self._buffer = self._buffer[size + 4 :]
            # RFC 9110, 15.2: any number of interim replies can precede the final one.
            if not _CONTINUE <= status < 200 or status == _SWITCHING:
                break
        if status != 200:
            raise ErrorReplyError(f"status {status}")
        self._has_head = True
        return True

    def _parse_head(self, head: bytes) -> int:
        first, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise WrongBytesError(f"no status line: {first[:40]!r}")
        length: bytes | None = None
        coding = b""
        options: list[bytes] = []
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise WrongBytesError(f"no header field: {line[:40]!r}")
            name, value = field[1].lower(), field[2]
            if name == b"content-length":
                # int() fails from 4300 digits on.
                if not value.isdigit() or len(value) > 19 or length not in (None, value):
                    raise WrongBytesError(f"Content-Length {value[:40]!r}")
                length = value
            elif name == b"transfer-encoding":
                coding = coding + b", " + value if coding else value
            elif name == b"connection":
                options += [option.strip().lower() for option in value.split(b",")]
        if coding and (length is not None or coding.lower() != b"chunked"):
            raise WrongBytesError(f"Transfer-Encoding {coding[:40]!r}, Content-Length {length!r}")
        self._chunked = bool(coding)
        self._left = 0 if coding else None if length is None else int(length)
        if match[1] == b"0":
            self.closes = b"keep-alive" not in options
        else:
            self.closes = b"close" in options
        self.closes = self.closes or (self._left is None)
        return int(match[2])

    def _read_body(self) -> bool:
        data, self._buffer = self._buffer, b""
        if self._left is None:
            self._compare(data)
            return False
        if len(data) > self._left:
            data, self._buffer = data[: self._left], data[self._left :]
        self._compare(data)
        self._left -= len(data)
        if self._left:
            return False
        self._check_end()
        return True

    def _read_chunks(self) -> bool:
        buffer, at = self._buffer, 0
        while True:
            if self._chunk_left > 0:
                piece = buffer[at : at + self._chunk_left]
                self._compare(piece)
                at += len(piece)
                self._chunk_left -= len(piece)
                if self._chunk_left:
                    self._buffer = b""
                    return False
                self._chunk_left = _BEHIND_CHUNK
            end = buffer.find(b"\r\n", at)
            if end < 0:
                self._buffer = buffer[at:]
                if len(self._buffer) > _LARGEST_HEAD:
                    raise WrongBytesError("a chunk's size has no end")
                return False
            line, after = buffer[at:end], end + 2
            if self._chunk_left == _BEHIND_CHUNK:
                if line:
                    raise WrongBytesError("no CRLF behind a chunk")
                self._chunk_left, at = 0, after
                continue
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise WrongBytesError(f"no chunk size: {line[:40]!r}")
            size = int(match[1], 16)
            if size == 0:
                # The last chunk, trailer fields, an empty line: RFC 9112, 7.1.
                end = buffer.find(b"\r\n\r\n", end)
                if end < 0:
                    self._buffer = buffer[at:]
                    return False
                self._buffer = buffer[end + 4 :]
                self._check_end()
                return True
            self._chunk_left, at = size, after

    def _compare(self, piece: bytes) -> None:
        if self._body is None:
            self._at += len(piece)
            if self._at > _LARGEST_KEPT:
                raise WrongBytesError(f"a body of more than {_LARGEST_KEPT} bytes, which is too large to compare")
            self._kept.append(piece)
            return
        if not self._body.startswith(piece, self._at):
            raise WrongBytesError(f"another body, in the {len(piece)} bytes from {self._at} on")
        self._at += len(piece)

    def _check_end(self) -> None:
        if self._body is not None and self._at != len(self._body):
            raise WrongBytesError(f"{self._at} of {len(self._body)} bytes of the body")
