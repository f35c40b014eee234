"""HTTP as a raw client reads it: no parser of the server's, and nothing forgiven (RFC 9112)."""

import re
from dataclasses import dataclass

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import NoAnswerError, UnreachableError, WrongAnswerError

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2}) [\t -~\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([\t -~\x80-\xff]*?)[\t ]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:;.*)?\r\n")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply.

    Args:
        fields: by name in lower case; of several with one name, the values are joined by commas.
        chunks: the sizes of the chunks, without the last; empty if the body has none.
        minor: of its version of HTTP.
    """

    status: int
    fields: dict[str, str]
    body: bytes
    chunks: tuple[int, ...] = ()
    minor: int = 1

    @property
    def is_last(self) -> bool:
        """Whether it says that the connection ends behind it (RFC 9112, 9.3)."""
        options = [option.strip().lower() for option in self.fields.get("connection", "").split(",")]
        return "close" in options or (self.minor == 0 and "keep-alive" not in options)


class HttpLink:
    """Reads replies from a connection."""

    def __init__(self, link: BlockingConnection) -> None:
        self.link = link
        self._left = b""

    def send(self, data: bytes) -> None:
        self.link.send(data)

    def ask(self, request: bytes, method: str = "GET") -> Reply:
        """Send a request, and read its reply."""
        self.link.send(request)
        reply = self.read(method)
        assert reply is not None, f"no reply to {request!r}"
        return reply

    def read(self, method: str = "GET") -> Reply | None:
        """Read one reply; None if the stream ends before it. Interim replies (1xx) are replies too."""
        while b"\r\n\r\n" not in self._left:
            if not self._more():
                assert not self._left, f"the stream ends in {self._left!r}"
                return None
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        match = _STATUS.fullmatch(line)
        assert match, f"{line!r} is not a status line"
        minor, status = int(match[1]), int(match[2])
        fields: dict[str, str] = {}
        for each in lines:
            field = _FIELD.fullmatch(each)
            assert field, f"{each!r} is not a field"
            name, value = field[1].decode().lower(), field[2].decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        body, chunks = self._body(status, fields, method)
        return Reply(status, fields, body, chunks, minor)

    def read_bytes(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        pieces, size = [self._left], len(self._left)
        while size < count:
            pieces.append(self.link.receive())
            assert pieces[-1], f"{size} of {count} bytes came"
            size += len(pieces[-1])
        data = b"".join(pieces)
        self._left = data[count:]
        return data[:count]

    def is_at_end(self) -> bool:
        """Whether the stream has ended; waits until it has, or until something comes."""
        return not self._left and not self._more()

    def is_over(self) -> bool:
        """Whether nothing more comes: an end, or a reset. A server that keeps the connection open is none."""
        if self._left:
            return False
        try:
            return self.link.receive() == b""
        except NoAnswerError:
            return False
        except (WrongAnswerError, UnreachableError):
            return True

    def _body(self, status: int, fields: dict[str, str], method: str) -> tuple[bytes, tuple[int, ...]]:
        # RFC 9112, 6.3.
        if method == "HEAD" or status < 200 or status in (204, 304):
            return b"", ()
        if "transfer-encoding" in fields:
            assert fields["transfer-encoding"].lower() == "chunked"
            assert "content-length" not in fields
            return self._chunked()
        if "content-length" in fields:
            return self.read_bytes(int(fields["content-length"])), ()
        while self._more():
            pass
        data, self._left = self._left, b""
        return data, ()

    def _chunked(self) -> tuple[bytes, tuple[int, ...]]:
        pieces: list[bytes] = []
        sizes: list[int] = []
        while True:
            while not (match := _CHUNK.match(self._left)):
                assert b"\r\n" not in self._left, f"{self._left[:40]!r} is not a chunk"
                assert self._more(), "the stream ends between two chunks"
            self._left = self._left[match.end() :]
            size = int(match[1], 16)
            data = self.read_bytes(size + 2)
            assert data.endswith(b"\r\n"), "a chunk without its CR LF, or a trailer"
            if not size:
                return b"".join(pieces), tuple(sizes)
            pieces.append(data[:-2])
            sizes.append(size)

    def _more(self) -> bool:
        data = self.link.receive()
        self._left += data
        return bool(data)
