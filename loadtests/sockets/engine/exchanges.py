"""Exchanges on a connection: begin, receive, answer, fail, try again."""

import random
from collections.abc import Iterator
from typing import cast

from loadtests.sockets.codec import Codec
from loadtests.sockets.engine.connection import (
    AWAY,
    CONNECTING,
    FIRST_BACK_OFF,
    GREETING,
    HANDSHAKE,
    IDLE,
    LONGEST_BACK_OFF,
    WAITING,
    Connection,
)
from loadtests.sockets.exchange import Turn
from loadtests.sockets.failures import (
    TIMED,
    ClosedError,
    ConnectTimeOutError,
    ErrorReplyError,
    ExchangeError,
    ExtraReplyError,
    IdleClosedError,
    LostError,
    RefusedError,
    ShortReplyError,
    TimeOutError,
    WrongBytesError,
    translate,
)

# A request of an open loop that is sent this long after it was due is late.
_LATE_SECONDS = 0.001


class ExchangeConnection(Connection):
    """A connection whose replies are a stream of bytes."""

    __slots__ = ()

    def begin(self, now: float, intended: float | None = None) -> None:
        self.busy, self.idle = True, False
        self.started = now
        self.intended = now if intended is None else intended
        if now - self.intended > _LATE_SECONDS:
            self.group.tally.late += 1
        if self.socket is None:
            self.connect(now)
        else:
            self.send_request(now)

    def ready(self, now: float) -> None:
        self.state = IDLE
        self.on_connection = 0
        self.codec_number = 0
        self.turns = self.open_turns()
        if not self.expects_greeting():
            self._start(now)
            return
        self.state, self.received, self.buffer = GREETING, 0, b""
        self.greet(now)
        if self.tls is not None:
            # Data that came with the end of the handshake has been read from the socket already: no event will come.
            try:
                self._receive_greeting(self.tls.read(), now)
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(translate(error), now)

    def open_turns(self) -> Iterator[Turn]:
        """Return the turns of a new connection."""
        return self.group.exchange.open_turns()

    def expects_greeting(self) -> bool:
        """Whether the server says something before the first request."""
        codec = self.group.codec
        return codec is not None and codec.greeting_size is not None

    def greet(self, now: float) -> None:
        """Send what the server's greeting answers, if the protocol has it."""

    def check_greeting(self, data: bytes) -> int | None:
        """Return how many bytes of `data` are the greeting; None if it is incomplete."""
        return cast(Codec, self.group.codec).check_greeting(data)

    def send_request(self, now: float) -> None:
        """Send the next request of an exchange that has begun."""
        group = self.group
        self.received = 0
        if group.codec is not None:
            try:
                self.request, self.expected, self.buffer = group.codec.request(self.codec_number), None, b""
            except ExchangeError as error:
                self.fail(error, now)
                return
            self.codec_number += 1
        else:
            self.request, self.expected = next(self.turns)
        self.state = WAITING
        if self.request:
            self.send_all(self.request if self.tls is None else self.tls.seal(self.request), now)
        if group.exchange.half_close and self.state == WAITING:
            self.half_close()

    def receive(self, data: bytes, now: float) -> None:
        if self.state == GREETING:
            self._receive_greeting(data, now)
        elif not self.busy:
            self.fail(ExtraReplyError() if data else IdleClosedError(), now)
        elif not data:
            self.receive_end(now)
        elif self.group.codec is not None:
            self.receive_coded(self.group.codec, data, now)
        else:
            self._receive_stream(cast(bytes, self.expected), data, now)

    def receive_coded(self, codec: Codec, data: bytes, now: float) -> None:
        """Take data that a codec checks."""
        self.buffer += data
        self.received += len(data)
        if self.group.exchange.until_close:
            return
        try:
            size = codec.check(self.buffer, self.request)
        except ExchangeError as error:
            self.fail(error, now)
            return
        if size is None:
            if self.group.is_datagram:
                self.fail(WrongBytesError("the datagram is not a whole reply"), now)
        elif size != len(self.buffer):
            self.fail(ExtraReplyError(), now)
        else:
            self.answer(now)

    def answer(self, now: float) -> None:
        """Count the exchange as answered, and continue."""
        group = self.group
        self.record(now - self.started)
        if group.is_open:
            group.intended.append(now - self.intended)
        self.answered += 1
        self.on_connection += 1
        self.back_off = FIRST_BACK_OFF
        self.quick = group.is_plain
        if self.on_connection == group.exchange.per_connection:
            self.close()
        self._next(now)

    def fail(self, error: ExchangeError, now: float) -> None:
        group = self.group
        if len(group.destination.addresses) > 1 and not isinstance(error, TIMED):
            # Whether a server is at a datagram's address is known once something was sent.
            is_refused = group.is_datagram and isinstance(error, RefusedError) and not self.on_connection
            if self.state in (AWAY, CONNECTING) or is_refused:
                self._try_next(error, now)
                return
        self._give_up(error, now)

    def retry(self, now: float) -> None:
        if self.state == CONNECTING:
            self._try_next(ConnectTimeOutError(), now)
        elif self.busy:
            self.connect(now)
        elif not self.group.is_open:
            self.begin(now)
        elif self.group.exchange.holds_connection:
            self.started = now
            self.connect(now)
        else:
            self._next(now)

    def check_time(self, now: float) -> None:
        if self.state in (CONNECTING, HANDSHAKE) or (self.state == AWAY and self.busy):
            self.group.destination.avoid(self.address)
            self.group.destination.resolve(now)
            self.fail(ConnectTimeOutError(), now)
        elif self.state == GREETING:
            self.fail(TimeOutError(self._progress() or "no greeting"), now)
        elif self.busy:
            self.fail(TimeOutError(self._progress()), now)

    def _start(self, now: float) -> None:
        """Use a connection for the first time."""
        if self.busy:
            self.send_request(now)
        else:
            self._next(now)

    def _next(self, now: float) -> None:
        """Choose the next action of a connection without an exchange."""
        group = self.group
        if group.is_open:
            self.busy, self.idle = False, True
            if self.socket is not None:
                self.state = IDLE
            group.idle.append(self)
            if group.pending:
                group.dispatch(now)
        elif group.exchange.pause:
            self.busy = False
            if self.socket is not None:
                self.state = IDLE
            self.loop.set_timer(self, now + group.exchange.pause)
        else:
            self.begin(now)

    def _try_next(self, error: ExchangeError, now: float) -> None:
        if not self.try_next_address(now):
            self._give_up(error, now)

    def _give_up(self, error: ExchangeError, now: float) -> None:
        """Count the failure, close the connection and make another one after the back-off."""
        group = self.group
        group.note_failure(error)
        if self.busy and isinstance(error, TIMED):
            group.timed_out.append((now - self.started, now - self.intended))
        self.quick = False
        if isinstance(error, LostError):
            # The socket is as good as before: datagrams have no connection that could be broken.
            self._next(now)
            return
        self.busy = self.idle = False
        if self.state == CONNECTING:
            group.destination.resolve(now)
        self.close()
        spread = random.uniform(0.5, 1)  # noqa: S311  # keeps connections from returning all at once; no secret
        self.loop.set_timer(self, now + self.back_off * spread)
        self.back_off = min(self.back_off * 2, LONGEST_BACK_OFF)

    def _receive_greeting(self, data: bytes, now: float) -> None:
        if not data:
            self.fail(ShortReplyError(self._progress()) if self.received else ClosedError("no greeting"), now)
            return
        self.buffer += data
        self.received += len(data)
        try:
            size = self.check_greeting(self.buffer)
        except ExchangeError as error:
            self.fail(error, now)
            return
        if size == len(self.buffer):
            self._start(now)
        elif size is not None:
            self.fail(ExtraReplyError("behind the greeting"), now)

    def _receive_stream(self, expected: bytes, data: bytes, now: float) -> None:
        exchange = self.group.exchange
        begin, left = self.received, len(expected) - self.received
        if exchange.endless:
            data = data[:left]
        if not expected.startswith(data, begin):
            if data.startswith(expected[begin:]):
                self.fail(ExtraReplyError(), now)
            elif exchange.error_prefix and self._is_error_reply(expected, data):
                self.fail(ErrorReplyError(), now)
            else:
                self.fail(WrongBytesError(), now)
            return
        self.received += len(data)
        if self.received == len(expected) and not exchange.until_close:
            if self.unsent is not None:
                self.fail(ExtraReplyError(), now)  # a reply to a request that has not been sent completely
            else:
                self.answer(now)

    def _is_error_reply(self, expected: bytes, data: bytes) -> bool:
        """Whether the bytes that differ begin an error reply, at a place where a reply can begin."""
        prefix = self.group.exchange.error_prefix
        rest = expected[self.received :]
        # One differs, or the data would be more than was asked for.
        same = next(at for at, (a, b) in enumerate(zip(rest, data, strict=False)) if a != b)
        at = self.received + same
        return data.startswith(prefix, same) and (at == 0 or expected.endswith(b"\r\n", 0, at))

    def receive_end(self, now: float) -> None:
        """Take the end of the stream, which can be the end of a reply."""
        group = self.group
        is_whole = group.exchange.until_close and self.unsent is None
        if is_whole and group.codec is not None:
            try:
                is_whole = group.codec.check(self.buffer, self.request) == len(self.buffer)
            except ExchangeError as error:
                self.fail(error, now)
                return
        elif is_whole:
            is_whole = self.received == len(self.expected or b"")
        if is_whole:
            self.answer(now)
        else:
            self.fail(ShortReplyError(self._progress()) if self.received else ClosedError(), now)

    def _progress(self) -> str:
        """Return how much of a reply was received, for a failure's detail; empty if nothing was."""
        if not self.received:
            return ""
        # Of HTTP and WebSocket the size of a reply is not known beforehand.
        of_all = f" of {len(self.expected)}" if self.expected and not self.group.learned else ""
        return f"{self.received}{of_all} bytes received"
