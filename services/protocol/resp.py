"""The request half of RESP2: arrays of bulk strings, and inline commands as a person types them.

Strategy: input is kept as the chunks that arrived. A request is cut out of the current chunk with `find` and slices, so
no Python loop handles single bytes, and only the arguments are copied. A chunk that ends inside a request is joined
with the next ones, but not before all missing bytes have arrived, if their number is known: a bulk that arrives in
thousands of fragments is joined once. The length of an incomplete line is not known, so each chunk is joined to it and
searched: at most `Limits.line` bytes, less work than the system call that read the chunk.

Each limit is checked when a length is read, before any memory is used for it. A chunk is dropped when all of it has
been cut up, so a connection that is idle between two requests holds nothing.

Source: the specification of the Redis serialization protocol. Clients also rely on what `networking.c` of Redis does:
empty lines and empty arrays are skipped; an inline command may end in LF alone, and its arguments may have quotes.
"""

import re

from services.protocol.errors import PeerError
from services.protocol.limits import Limits

# The largest size of the line with a count or a length. Ten digits and CR LF are enough; a longer one is not RESP.
_HEADER_SIZE = 16

# Most headers have one digit. One slice and one look-up in these tables check type, digit and CR LF in a third of the
# time that `find`, `isdigit` and `int` take. Other headers are read with those. The look-up uses `in` and [], not
# `get`: on Python 3.13 without the GIL, `get` takes the lock of a dictionary twice if another thread made its keys, and
# so takes ten times as long as all the rest of a PING.
_SHORT_ARRAYS = {b"*%d\r\n" % count: count for count in range(10)}
_SHORT_BULKS = {b"$%d\r\n" % length: length for length in range(10)}
_SHORT = 4

_STAR, _DOLLAR, _CR, _LF = b"*$\r\n"

# A waiting chunk has an overhead of about 50 bytes: a bulk in fragments of two bytes would need 25 times its size. So
# this many waiting chunks are joined into one, if together they are smaller than `_LOOSE_SIZE` bytes.
_LOOSE_CHUNKS = 256
_LOOSE_SIZE = 128 * _LOOSE_CHUNKS

# An argument of an inline command, as Redis splits them (sdssplitargs): an unquoted part, then an optional part in
# "double" quotes, with escapes, or in 'single' quotes, where only \' is an escape. A blank or the end of the line must
# follow. The blanks before it are possessive (*+): with backtracking, an unbalanced quote would yield empty arguments
# without end.
_ARGUMENT = re.compile(rb"""\s*+([^\s"']*)(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\'|\\(?!'))*)')?(?=\s|\Z)""", re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class RequestReader:
    """Cuts a stream of bytes into requests."""

    __slots__ = ("_buffer", "_gather_at", "_limits", "_partial", "_position", "_short", "_waiting", "_waiting_size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = b""  # the chunk that is being cut
        self._position = 0  # how far it has been cut
        self._waiting: list[bytes] = []  # the chunks behind it
        self._waiting_size = 0
        self._short = 1  # bytes that must wait before progress is possible; 0: the buffer may contain a request
        self._gather_at = _LOOSE_CHUNKS
        # An incomplete array: its arguments so far, the number of missing ones, the size of those so far in bytes.
        self._partial: tuple[list[bytes], int, int] | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived. They are looked at by `next_request`."""
        self._waiting.append(data)
        self._waiting_size += len(data)

    @property
    def is_between_requests(self) -> bool:
        """Whether there is no incomplete request: nothing is lost if the stream ends here."""
        return self._partial is None and not self._waiting_size and self._position == len(self._buffer)

    def next_request(self) -> list[bytes] | None:
        """Cut out the next request.

        Returns:
            The name and the arguments, at least one item; None if more input is needed.

        Raises:
            PeerError: the stream is malformed or over a limit, and cannot be read any further.
        """
        if self._waiting_size < self._short:
            if len(self._waiting) >= self._gather_at:
                self._gather()
            return None
        if self._short:
            self._join()

        # Local variables are faster than attributes, which are written only before a return.
        limits = self._limits
        buffer = self._buffer
        position = self._position
        needed = 1  # bytes from `position` on that are necessary for progress
        missing = 0  # arguments of the array in hand
        if self._partial is not None:
            arguments, missing, size = self._partial
            self._partial = None
        while True:
            short = needed - (len(buffer) - position)
            if short > 0:
                self._position = position
                if self._waiting_size < short:
                    self._short = short
                    if missing:
                        self._partial = arguments, missing, size
                    if position == len(buffer):
                        self._buffer, self._position = b"", 0
                    return None
                self._join()
                buffer = self._buffer
                position = 0
                needed = 1

            if not missing:
                if buffer[position] != _STAR:  # a line, as typed by a person
                    end = buffer.find(b"\n", position, position + limits.line)
                    if end < 0:
                        needed = _need_line(len(buffer) - position, limits.line, "line")
                        continue
                    arguments = _split(buffer[position:end])
                    position = end + 1
                    if not arguments:
                        continue
                    if len(arguments) > limits.array:
                        raise PeerError(f"{len(arguments)} arguments are over the limit of {limits.array}")
                    self._position = position
                    return arguments
                head = buffer[position : position + _SHORT]
                if head in _SHORT_ARRAYS:
                    count = _SHORT_ARRAYS[head]
                    position += _SHORT
                else:
                    end = buffer.find(b"\r\n", position, position + _HEADER_SIZE)
                    if end < 0:
                        needed = _need_line(len(buffer) - position, _HEADER_SIZE, "array header")
                        continue
                    count = _read_count(buffer[position + 1 : end])
                    position = end + 2
                if count > limits.array:
                    raise PeerError(f"array of {count} arguments is over the limit of {limits.array}")
                arguments = []
                missing = count
                size = 0
                continue

            # "$", the length, CR LF, the bytes, CR LF. An incomplete length is read again with the next chunk.
            head = buffer[position : position + _SHORT]
            if head in _SHORT_BULKS:
                length = _SHORT_BULKS[head]
                start = position + _SHORT
            else:
                if buffer[position] != _DOLLAR:
                    raise PeerError(f"expected '$', got {_show(buffer[position : position + 1])}")
                end = buffer.find(b"\r\n", position, position + _HEADER_SIZE)
                if end < 0:
                    needed = _need_line(len(buffer) - position, _HEADER_SIZE, "bulk header")
                    continue
                length = _read_length(buffer[position + 1 : end])
                start = end + 2
            if length > limits.bulk:
                raise PeerError(f"bulk of {length} bytes is over the limit of {limits.bulk}")
            if size + length > limits.request:
                raise PeerError(f"request of {size + length} bytes is over the limit of {limits.request}")
            end = start + length
            if len(buffer) < end + 2:
                needed = end + 2 - position
                continue
            if buffer[end] != _CR or buffer[end + 1] != _LF:
                raise PeerError(f"a bulk of {length} bytes is not followed by CR LF")
            arguments.append(buffer[start:end])
            position = end + 2
            size += length
            missing -= 1
            if not missing:
                self._position = position
                return arguments

    def _join(self) -> None:
        """Append the waiting chunks to the rest of the buffer."""
        waiting = self._waiting
        if self._position < len(self._buffer):
            self._buffer = b"".join([memoryview(self._buffer)[self._position :], *waiting])
        else:
            self._buffer = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        self._position = 0
        self._short = 0
        waiting.clear()
        self._waiting_size = 0
        self._gather_at = _LOOSE_CHUNKS

    def _gather(self) -> None:
        """Join the chunks since the last call into one, if they are small."""
        loose = self._waiting[-_LOOSE_CHUNKS:]
        if sum(map(len, loose)) < _LOOSE_SIZE:
            self._waiting[-_LOOSE_CHUNKS:] = [b"".join(loose)]
        self._gather_at = len(self._waiting) + _LOOSE_CHUNKS


def _need_line(left: int, limit: int, what: str) -> int:
    """Return how many bytes an incomplete line needs, one more than it has.

    Raises:
        PeerError: it already has `limit` bytes.
    """
    if left >= limit:
        raise PeerError(f"{what} is longer than {limit} bytes")
    return left + 1


def _read_count(digits: bytes) -> int:
    if digits.isdigit():
        return int(digits)
    if digits == b"-1":
        return 0  # the null array, which Redis skips too
    raise PeerError(f"array length {_show(digits)} is not a number of arguments")


def _read_length(digits: bytes) -> int:
    if digits.isdigit():
        return int(digits)
    raise PeerError(f"bulk length {_show(digits)} is not a number of bytes")


def _split(line: bytes) -> list[bytes]:
    if b'"' not in line and b"'" not in line:
        return line.split()
    arguments = []
    line = line.strip()
    position = 0
    while position < len(line):
        match = _ARGUMENT.match(line, position)
        if match is None:
            raise PeerError("unbalanced quotes in request")
        bare, double, single = match.groups()
        if double is not None:
            bare += _ESCAPE.sub(_unescape, double)
        elif single is not None:
            bare += single.replace(b"\\'", b"'")
        arguments.append(bare)
        position = match.end()
    return arguments


def _unescape(match: re.Match[bytes]) -> bytes:
    code: bytes = match[1]
    return bytes.fromhex(code[1:].decode("ascii")) if len(code) == 3 else _ESCAPES.get(code, code)


def _show(text: bytes) -> str:
    """Quote the start of the client's input for an error line, without CR, LF, NUL and high bytes."""
    return repr(text[:_HEADER_SIZE])[1:]
