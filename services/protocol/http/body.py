"""The body of a request: a number of bytes, or chunks (RFC 9112, 6 and 7.1). It is passed on as it arrives."""

import re

from services.protocol.clock import Clock
from services.protocol.http.errors import HttpError, quote
from services.protocol.http.head import CHUNKED, HeadReader, read_fields
from services.protocol.limits import Limits

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9112, 7.1 and 7.1.1: a size of up to 64 bits, and extensions, which are checked and ignored.
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rb"[\t ]*;[\t ]*%b(?:[\t ]*=[\t ]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})((?:%b)*)" % _EXTENSION)
# Limits in bytes of the line of a chunk, and of all extensions of a body. They do not count for the size of the body,
# and no client is known to use them.
_CHUNK_LINE = 256
_EXTENSIONS = 4096

# The age of a body in seconds from which on its rate counts: a slow start is not an attack.
RATE_GRACE = 20.0


class Body:
    """The rest of a body.

    Args:
        length: in bytes, or `CHUNKED`.
        reader: the stream, at the beginning of the body.

    Attributes:
        is_over: whether all of it has been read.
        is_starved: whether the next `read` needs more input.

    Raises:
        HttpError: 413, if the length is over its limit.
    """

    __slots__ = (
        "_clock",
        "_extensions",
        "_is_chunked",
        "_is_in_chunk",
        "_is_in_trailer",
        "_left",
        "_limits",
        "_reader",
        "_received",
        "_since",
        "_trailer",
        "is_over",
        "is_starved",
    )

    def __init__(self, length: int, reader: HeadReader, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._reader = reader
        self._clock = clock
        self._is_chunked = length == CHUNKED
        self._left = 0 if self._is_chunked else length  # bytes of the body, or of the chunk in hand
        self._is_in_chunk = False  # at least the CR LF of the chunk is missing
        self._is_in_trailer = False
        self._trailer = b""
        self._extensions = 0
        self._received = 0
        self._since = clock.elapsed()
        self.is_over = length == 0
        self.is_starved = False
        if length > limits.http_body:
            raise self._too_large()

    def read(self) -> bytes:
        """Return the bytes of the body that have arrived since the last call, without the framing of chunks.

        Returns:
            Nothing if none have arrived. With chunks, at most `Limits.pipeline` steps are made at once.

        Raises:
            HttpError: 400 if it is malformed, 408 if it is too slow, 413 if it is too large, 431 for its trailer.
        """
        if self._is_chunked:
            data = self._read_chunks()
        else:
            data = self._reader.take(self._left)
            self._left -= len(data)
            self.is_over = not self._left
            self.is_starved = True
        self._received += len(data)
        if not self.is_over:
            elapsed = self._clock.elapsed() - self._since
            if self._received < (elapsed - RATE_GRACE) * self._limits.http_body_rate:
                raise HttpError(408, f"the body comes slower than {self._limits.http_body_rate} bytes per second")
        return data

    def _read_chunks(self) -> bytes:
        reader = self._reader
        pieces = []
        self.is_starved = True
        # As with a pipeline: a read full of chunks of one byte must not make other clients wait.
        for _ in range(self._limits.pipeline):
            if self._left:
                piece = reader.take(self._left)
                pieces.append(piece)
                self._left -= len(piece)
                if self._left:
                    break
            elif self._is_in_chunk:
                line = reader.take_line(0, "end of a chunk")
                if line is None:
                    break
                self._is_in_chunk = False
            elif self._is_in_trailer:
                if not self._read_trailer():
                    break
                self.is_over = True
                break
            else:
                line = reader.take_line(_CHUNK_LINE, "size of a chunk")
                if line is None:
                    break
                self._start_chunk(line, sum(map(len, pieces)))
        else:
            self.is_starved = False
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _start_chunk(self, line: bytes, pending: int) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise HttpError(400, f"{quote(line)} is not the size of a chunk")
        self._extensions += len(match[2])
        if self._extensions > _EXTENSIONS:
            raise HttpError(400, f"the chunk extensions are longer than {_EXTENSIONS} bytes")
        self._left = int(match[1], 16)
        self._is_in_chunk = self._left > 0
        self._is_in_trailer = not self._is_in_chunk
        if self._received + pending + self._left > self._limits.http_body:
            raise self._too_large()

    def _read_trailer(self) -> bool:
        """Check the trailer fields and drop them (RFC 9110, 6.5.1); return whether the trailer is complete."""
        while (line := self._reader.take_line(self._limits.http_line, "trailer")) is not None:
            if not line:
                read_fields(self._trailer, self._limits)
                return True
            self._trailer += line + b"\r\n"
            if len(self._trailer) > self._limits.http_header_bytes:
                raise HttpError(431, f"the trailer fields are longer than {self._limits.http_header_bytes} bytes")
        return False

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is over the limit of {self._limits.http_body} bytes")
