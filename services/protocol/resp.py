"""The request half of RESP2: arrays of bulk strings, and the inline commands that a person types.

Strategy. Input is kept as the immutable chunks that arrived. A request is cut out of the current chunk with `find` and
slices, so no Python loop sees a byte, and nothing is copied but the arguments themselves. Only when the current chunk
ends inside a request is it joined with those behind it, and not before as many bytes have come as are known to be
missing: a bulk that arrives in thousands of fragments is joined once. (A line that is cut off does not say how long it
will be, so each chunk is joined to it and searched: at most `Limits.line` bytes, less work than the call that brought
the chunk.) Each limit is checked when a length is read, that is, before any memory is spent on it, and no chunk is held
once it has been cut up: a connection that waits between two requests holds nothing.

Source: the Redis serialization protocol specification, and `networking.c` of redis for what clients rely on beyond it
(empty lines and empty arrays are skipped, an inline command may end in a bare LF and may quote its arguments).
"""

import re

from services.protocol.errors import PeerError
from services.protocol.limits import Limits

# A count or length has at most ten digits; a longer header is not RESP.
_HEADER_SIZE = 16

# Most headers have one digit. One slice and one look-up here check the type, the digit and the CR LF of such a header
# in a third of the time that `find`, `isdigit` and `int` take; whatever is not found here takes that way. With `in` and
# [], not `get`: on 3.13 without the GIL that asks twice for the lock of a dictionary whose keys another thread made,
# waits for itself, and takes ten times as long as all else that a PING needs.
_SHORT_ARRAYS = {b"*%d\r\n" % count: count for count in range(10)}
_SHORT_BULKS = {b"$%d\r\n" % length: length for length in range(10)}
_SHORT = 4

_STAR, _DOLLAR, _CR, _LF = b"*$\r\n"

# A chunk that waits costs some 50 bytes beside its content: a bulk sent in fragments of two bytes would cost its
# receiver twenty-five times its size. So every so many chunks are put together, unless they are large.
_LOOSE_CHUNKS = 256
_LOOSE_SIZE = 128 * _LOOSE_CHUNKS

# The arguments of an inline command, as redis splits them (sdssplitargs): bare, then perhaps a "double" part with
# escapes or a 'single' one in which only \' is an escape, which a blank or the end of the line must follow. The blanks
# before it are possessive (*+): given back, they would make empty arguments before an unbalanced quote, for ever.
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
        self._short = 1  # bytes that must wait before there can be progress; 0 while the buffer may hold a request
        self._gather_at = _LOOSE_CHUNKS
        # Of an array that has not arrived in full: its arguments so far, how many are missing, the bytes of all.
        self._partial: tuple[list[bytes], int, int] | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes off the wire. Costs nothing until `next_request` wants them."""
        self._waiting.append(data)
        self._waiting_size += len(data)

    @property
    def is_between_requests(self) -> bool:
        """Whether no request has been started: nothing is lost if the stream ends here."""
        return self._partial is None and not self._waiting_size and self._position == len(self._buffer)

    def next_request(self) -> list[bytes] | None:
        """Cut out the next request.

        Returns:
            Its arguments, at least one; None if it has not arrived in full.

        Raises:
            PeerError: the stream cannot be followed from here on.
        """
        if self._waiting_size < self._short:
            if len(self._waiting) >= self._gather_at:
                self._gather()
            return None
        if self._short:
            self._join()

        # The state lives in local variables and goes back to the attributes only on the way out.
        limits = self._limits
        buffer = self._buffer
        position = self._position
        needed = 1  # bytes from position on without which there is no progress
        missing = 0  # arguments, of the array that has been begun
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

            # "$", the length, CR LF, the bytes, CR LF. A length that is cut off is read again with the next chunk.
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
        """Put what waits behind what is left of the buffer."""
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
        """Make one chunk of those that have come since the last time, if they are small."""
        loose = self._waiting[-_LOOSE_CHUNKS:]
        if sum(map(len, loose)) < _LOOSE_SIZE:
            self._waiting[-_LOOSE_CHUNKS:] = [b"".join(loose)]
        self._gather_at = len(self._waiting) + _LOOSE_CHUNKS


def _need_line(left: int, limit: int, what: str) -> int:
    """How many bytes to wait for when `left` of them hold no end of line."""
    if left >= limit:
        raise PeerError(f"{what} is longer than {limit} bytes")
    return left + 1


def _read_count(digits: bytes) -> int:
    if digits.isdigit():
        return int(digits)
    if digits == b"-1":
        return 0  # the null array, skipped as redis skips it
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
    """Quote what the peer sent so that it cannot break out of an error line: no CR, LF, NUL or high byte survives."""
    return repr(text[:_HEADER_SIZE])[1:]
