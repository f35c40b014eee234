"""WebSocket (RFC 6455) with compression (RFC 7692), after the handshake.

A text message whose first word is one of `_WORDS` is a request, as in `command`; every other message is echoed. Section
numbers are those of RFC 6455, unless another RFC is named.
"""

from collections.abc import Callable, Iterator
from functools import cache

from services.protocol.command import blob_bytes
from services.protocol.errors import AdapterError
from services.protocol.events import SEND_SIZE, Close, Compute, Event, Send, Wait
from services.protocol.http.deflate import Deflate, InflateError
from services.protocol.limits import Limits

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_FIN, _RSV1, _MASKED = 0x80, 0x40, 0x80

# Codes of a close frame, 7.4.1. GOING_AWAY: this server stops.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1000, 1001, 1002, 1007, 1009

# The codes that a client may send, 7.4. 1004 to 1006 and 1015 are never sent; others below 3000 are not assigned.
_CODES = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))

# The heads of short frames by size: most messages are short.
_SHORT_TEXT = tuple(bytes((_FIN | _TEXT, size)) for size in range(126))
_SHORT_BINARY = tuple(bytes((_FIN | _BINARY, size)) for size in range(126))

# From this size on, a table for each byte of the key unmasks faster than a number.
_LARGE = 768

# The least size in bytes of a message that is compressed: shorter ones are not worth the time.
_COMPRESSED_FROM = 64


class WebSocketError(Exception):
    """The client broke the protocol or a limit, so the connection is closed.

    Attributes:
        code: of the close frame, 7.4.1.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class WebSocket:
    """One connection after its handshake.

    Args:
        limits: the sizes of frames and messages, and what a message may ask for.
        info: returns the reply to INFO.
        deflate: the compression of messages; None without permessage-deflate.
    """

    __slots__ = (
        "_awaits_digest",
        "_buffer",
        "_closing",
        "_deflate",
        "_digest",
        "_info",
        "_is_compressed",
        "_limits",
        "_message",
        "_opcode",
        "_position",
        "_replies",
        "_work",
    )

    def __init__(self, limits: Limits, info: Callable[[], bytes], deflate: Deflate | None) -> None:
        self._limits = limits
        self._info = info
        self._deflate = deflate
        self._buffer: bytes | bytearray = b""
        self._position = 0  # everything before it has been used
        self._opcode = 0  # of an incomplete message; 0 between messages
        self._message = bytearray()  # the fragments of an incomplete message
        self._is_compressed = False  # whether the message in hand came compressed, so its reply may be, too
        self._replies: list[bytes] = []  # not yet handed out
        self._work: Iterator[Event] | None = None  # makes a reply, after those in `_replies`
        self._awaits_digest = False
        self._digest = b""
        self._closing = False

    def receive_data(self, data: bytes) -> None:
        """Take bytes that have arrived.

        An incomplete frame is collected in a bytearray: appending to it does not copy what is there.
        """
        buffer = self._buffer
        if self._position == len(buffer):
            self._buffer = data
        elif isinstance(buffer, bytearray):
            del buffer[: self._position]
            buffer += data
        else:
            self._buffer = bytearray(buffer[self._position :])
            self._buffer += data
        self._position = 0

    def receive_digest(self, digest: bytes) -> None:
        """Take the result of the last `Compute`.

        Raises:
            AdapterError: no `Compute` waits for its result.
        """
        if not self._awaits_digest:
            raise AdapterError("receive_digest without a Compute")
        self._awaits_digest = False
        self._digest = digest

    def end(self, *, going_away: bool) -> Event:
        """Return the last event, after all messages are answered.

        Args:
            going_away: whether this server stops: then a close frame with 1001 comes before Close, 7.4.1.
        """
        if not going_away:
            return Close()
        self._closing = True
        return Send(_close_frame(GOING_AWAY, "the server stops"))

    def next_event(self) -> Event | None:
        """Return the next event.

        Returns:
            The replies to complete messages, up to about `SEND_SIZE` bytes; the work that a message asks for; Close
            after the close frame; None if more input is needed.

        Raises:
            AdapterError: the last `Compute` was not answered by `receive_digest`.
        """
        if self._awaits_digest:
            raise AdapterError("next_event before the digest of a Compute was received")
        if self._work is not None:
            event = next(self._work, None)
            if event is not None:
                return event
            self._work = None
        replies = self._replies
        if not self._closing:
            size = 0
            try:
                for _ in range(self._limits.pipeline):
                    reply = self._next_reply()
                    if reply is None:
                        break
                    replies.append(reply)
                    size += len(reply)
                    if size >= SEND_SIZE or self._closing:
                        break
            except WebSocketError as error:
                replies.append(_close_frame(error.code, str(error)))
                self._closing = True
        if replies:
            data = replies[0] if len(replies) == 1 else b"".join(replies)
            replies.clear()
            return Send(data)
        if self._work is not None:
            return next(self._work)
        return Close() if self._closing else None

    def _next_reply(self) -> bytes | None:
        """Return the next reply; None if more input is needed, or if `_work` makes the reply.

        Raises:
            WebSocketError: the stream cannot be read any further.
        """
        while True:
            buffer = self._buffer
            start = self._position
            left = len(buffer) - start
            if left < 2:
                if not left:
                    self._buffer, self._position = b"", 0  # as in `HeadReader`
                return None
            first, second = buffer[start], buffer[start + 1]
            # The usual frame, read faster: a short message in one frame, masked and not compressed.
            if second < 254 and second >= _MASKED and (first == 0x81 or first == 0x82) and not self._opcode:  # faster
                size = second - _MASKED
                end = start + 6 + size
                if left < 6 + size:
                    return None
                self._position = end
                data = _unmask(buffer[start + 6 : end], buffer[start + 2 : start + 6], size)
                self._is_compressed = False
                return self._answer(first & 15, data)
            frame = self._next_frame(start, left, first, second)
            if frame is None:
                return None
            reply = self._take_frame(*frame)
            if reply or self._work is not None:
                return reply

    def _next_frame(self, start: int, left: int, first: int, second: int) -> tuple[int, bool, bytes] | None:
        """Cut out a frame, 5.2.

        Args:
            start: its place in the buffer.
            left: the number of bytes in the buffer from there on.
            first, second: its first two bytes.

        Returns:
            Its opcode, whether it is the last of its message, and its unmasked data; None if it is incomplete.

        Raises:
            WebSocketError: it is malformed, or over a limit. A limit is checked before the data arrives.
        """
        opcode = first & 15
        self._check_head(first, second, opcode)
        buffer = self._buffer
        size = second & 127
        head = 2
        if size >= 126:
            head = 4 if size == 126 else 10
            if left < head:
                return None
            least = 126 if size == 126 else 65536
            size = int.from_bytes(buffer[start + 2 : start + head], "big")
            if size < least or size >= 2**63:
                raise WebSocketError(PROTOCOL_ERROR, "the length is not in its shortest form")  # 5.2
            if size > self._limits.ws_frame:
                raise WebSocketError(TOO_BIG, f"a frame is over the limit of {self._limits.ws_frame} bytes")
        if opcode < _CLOSE and len(self._message) + size > self._limits.ws_message:
            raise WebSocketError(TOO_BIG, f"a message is over the limit of {self._limits.ws_message} bytes")
        end = start + head + 4 + size
        if start + left < end:
            return None
        self._position = end
        data = _unmask(buffer[end - size : end], buffer[start + head : start + head + 4], size)
        return opcode, first >= _FIN, data

    def _check_head(self, first: int, second: int, opcode: int) -> None:
        """Check the first two bytes of a frame, 5.2 to 5.5, and note whether its message is compressed.

        Raises:
            WebSocketError: 1002.
        """
        reason = ""
        if second < _MASKED:
            reason = "a frame of the client is not masked"  # 5.1
        elif opcode >= _CLOSE:
            if opcode > _PONG:
                reason = "an unknown opcode"
            elif first < _FIN:
                reason = "a control frame in fragments"
            elif second > _MASKED + 125:
                reason = "a control frame of more than 125 bytes"
            elif first & 0x70:
                reason = "a reserved bit in a control frame"
        elif opcode > _BINARY:
            reason = "an unknown opcode"
        elif first & 0x30 or (first & _RSV1 and (self._deflate is None or not opcode)):
            reason = "a reserved bit that was not agreed upon"
        elif opcode and self._opcode:
            reason = "a message within the fragments of another one"
        elif not opcode and not self._opcode:
            reason = "a fragment without a first one"
        elif opcode:
            self._is_compressed = bool(first & _RSV1)
        if reason:
            raise WebSocketError(PROTOCOL_ERROR, reason)

    def _take_frame(self, opcode: int, is_last: bool, data: bytes) -> bytes | None:
        """Return the reply to a frame.

        Returns:
            Nothing for a pong or a fragment before the last one; None if `_work` makes the reply.
        """
        if opcode == _PING:
            return _frame(_PONG, data)
        if opcode == _PONG:
            return b""  # 5.5.3
        if opcode == _CLOSE:
            self._closing = True
            return _closing_reply(data)
        if opcode and not is_last:
            self._opcode = opcode
            self._message += data
            return b""
        if not opcode:
            self._message += data
            if not is_last:
                return b""
            opcode, self._opcode = self._opcode, 0
            data = bytes(self._message)
            self._message = bytearray()
        if self._is_compressed and self._deflate is not None:
            try:
                data = self._deflate.inflate(data, self._limits.ws_inflated)
            except InflateError as error:
                code = TOO_BIG if error.is_too_big else INVALID_DATA
                raise WebSocketError(code, str(error)) from None
        return self._answer(opcode, data)

    # Messages. A result is the reply, or None if `_work` makes it.

    def _answer(self, opcode: int, data: bytes) -> bytes | None:
        if opcode == _TEXT:
            try:
                str(data, "utf-8")
            except UnicodeDecodeError:
                raise WebSocketError(INVALID_DATA, "a text is not UTF-8") from None  # 8.1
            word = data[:6].partition(b" ")[0]  # not all of a long message, which would be hashed
            if word in _WORDS:
                return _WORDS[word](self, data[len(word) + 1 :])
        if self._is_compressed:
            return self._compressed(opcode, data)
        size = len(data)
        if size < 126:
            return (_SHORT_TEXT if opcode == _TEXT else _SHORT_BINARY)[size] + data
        return _frame(opcode, data)

    def _compressed(self, opcode: int, data: bytes) -> bytes:
        """Return a message as a frame: compressed, unless it is short or compression was not agreed."""
        if self._deflate is None or len(data) < _COMPRESSED_FROM:
            return _frame(opcode, data)
        return _frame(opcode | _RSV1, self._deflate.deflate(data))

    def _text(self, data: bytes) -> bytes:
        return self._compressed(_TEXT, data) if self._is_compressed else _frame(_TEXT, data)

    def _ping(self, rest: bytes) -> bytes:
        return self._text(rest or b"PONG")

    def _echo(self, rest: bytes) -> bytes:
        return self._text(rest)

    def _sleep(self, rest: bytes) -> bytes | None:
        return self._start(rest, self._limits.sleep_ms, "SLEEP", "ms", self._sleeping)

    def _sleeping(self, milliseconds: int) -> Iterator[Event]:
        yield Wait(milliseconds / 1000)
        yield Send(self._text(b"OK"))

    def _burn(self, rest: bytes) -> bytes | None:
        return self._start(rest, self._limits.burn, "BURN", "rounds", self._burning)

    def _burning(self, rounds: int) -> Iterator[Event]:
        self._awaits_digest = True
        yield Compute(rounds)
        yield Send(self._text(self._digest))

    def _blob(self, rest: bytes) -> bytes | None:
        return self._start(rest, self._limits.blob, "BLOB", "bytes", _blob_frames)

    def _info_text(self, rest: bytes) -> bytes:
        return self._text(self._info())

    def _quit(self, rest: bytes) -> bytes:
        self._closing = True
        return self._text(b"OK") + _close_frame(NORMAL, "")

    def _start(
        self, digits: bytes, most: int, word: str, unit: str, work: Callable[[int], Iterator[Event]]
    ) -> bytes | None:
        if not (digits.isdigit() and len(digits) < 19 and int(digits) <= most):
            return self._text(f"ERR {word} takes 0 to {most} {unit}".encode())
        self._work = work(int(digits))
        return None


def _unmask(data: bytes | bytearray, key: bytes | bytearray, size: int) -> bytes:
    """Return data of `size` bytes, each XORed with one of the four bytes of the key, 5.3.

    Short data is fastest as one integer, longer data with a table of 256 bytes for each byte of the key.
    """
    if size >= _LARGE:
        result = bytearray(data)  # slicing and translating it is faster than doing so with bytes
        for index in range(4):
            result[index::4] = result[index::4].translate(_xor_table(key[index]))
        return bytes(result)
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(data, "little") ^ mask).to_bytes(size, "little")


def _frame(opcode: int, data: bytes, *, fin: int = _FIN) -> bytes:
    """Return an unmasked frame, 5.2. `opcode` may include reserved bits; `fin` is 0 for all fragments but the last."""
    size = len(data)
    if size < 126:
        return bytes((fin | opcode, size)) + data
    if size < 65536:
        return bytes((fin | opcode, 126)) + size.to_bytes(2, "big") + data
    return bytes((fin | opcode, 127)) + size.to_bytes(8, "big") + data


def _close_frame(code: int, reason: str) -> bytes:
    """Return a close frame, 5.5.1. The reason has at most 123 bytes."""
    return _frame(_CLOSE, code.to_bytes(2, "big") + reason.encode())


def _closing_reply(data: bytes) -> bytes:
    """Return the answer to a close frame, 5.5.1: the same code, or none if there was none.

    Raises:
        WebSocketError: 1002 for an invalid code, 1007 for a reason that is not UTF-8.
    """
    if not data:
        return _frame(_CLOSE, b"")
    code = int.from_bytes(data[:2], "big")
    if code not in _CODES:
        raise WebSocketError(PROTOCOL_ERROR, "a close without a valid code")
    try:
        str(data[2:], "utf-8")
    except UnicodeDecodeError:
        raise WebSocketError(INVALID_DATA, "the reason of a close is not UTF-8") from None
    return _frame(_CLOSE, data[:2])


@cache
def _xor_table(byte: int) -> bytes:
    return bytes(byte ^ each for each in range(256))


_PATTERN = blob_bytes(SEND_SIZE // 95 * 95)


def _blob_frames(size: int) -> Iterator[Event]:
    """Yield a text message of `size` bytes in fragments, so none of it is held in memory."""
    opcode = _TEXT
    while size > len(_PATTERN):
        yield Send(_frame(opcode, _PATTERN, fin=0))
        size -= len(_PATTERN)
        opcode = 0
    yield Send(_frame(opcode, _PATTERN[:size]))


_WORDS: dict[bytes, Callable[[WebSocket, bytes], bytes | None]] = {
    b"PING": WebSocket._ping,
    b"ECHO": WebSocket._echo,
    b"SLEEP": WebSocket._sleep,
    b"BURN": WebSocket._burn,
    b"BLOB": WebSocket._blob,
    b"INFO": WebSocket._info_text,
    b"QUIT": WebSocket._quit,
}
