"""HTTP and WebSocket on a connection of the engine.

The bytes of a right reply are learned (`ConnectionGroup.learned`) once a reader has checked all of them. From then on
the loop's hot path serves these connections as it serves all others: one comparison of bytes for each reply.
"""

from collections.abc import Iterator
from typing import cast

from loadtests.sockets.engine.connection import GREETING, READ_SIZE, ConnectionGroup, Loop
from loadtests.sockets.engine.exchanges import ExchangeConnection
from loadtests.sockets.engine.learned import Learned
from loadtests.sockets.exchange import Body, Turn
from loadtests.sockets.failures import ClosedError, ExchangeError, ExtraReplyError, IdleClosedError, WrongBytesError
from loadtests.sockets.http import ReplyReader
from loadtests.sockets.websocket import MessageReader, check_opening

# Large enough for a head and a small body, so that such a reply comes with one read.
_SMALL_SIZE = 4096


class HttpConnection(ExchangeConnection):
    """A connection whose replies are HTTP."""

    __slots__ = ("reader",)

    def __init__(self, group: ConnectionGroup, loop: Loop) -> None:
        super().__init__(group, loop)
        self.reader = ReplyReader()
        bodies = [expected.body for _, expected in group.learned]
        is_small = all(body is not None and len(body) < _SMALL_SIZE // 2 for body in bodies)
        self.size = _SMALL_SIZE if is_small else READ_SIZE

    def open_turns(self) -> Iterator[Turn]:
        return self.group.repeat_learned()

    def receive(self, data: bytes, now: float) -> None:
        if not self.busy or not data:
            super().receive(data, now)
            return
        expected = cast(Learned, self.expected)
        if not self.received:
            if data == expected and self.unsent is None:
                self.answer(now)
                return
            self.reader.begin(expected.body)
        self.received += len(data)
        try:
            is_whole = self.reader.feed(data)
        except ExchangeError as error:
            self.fail(error, now)
            return
        if is_whole:
            self._accept(expected, now)

    def receive_end(self, now: float) -> None:
        try:
            is_whole = bool(self.received) and self.reader.end()
        except ExchangeError as error:
            self.fail(error, now)
            return
        if is_whole:
            self._accept(cast(Learned, self.expected), now)
        else:
            super().receive_end(now)

    def _accept(self, expected: Learned, now: float) -> None:
        if self.unsent is not None:
            self.fail(ExtraReplyError("before the request was sent"), now)
            return
        # Not `self.request`: the loop's hot path does not set it.
        request, latest = self.group.learned[expected.turn]
        body = expected.body
        if body is None and self.group.exchange.body is Body.FIRST:
            body = self.reader.body
            # Another connection may have had the first reply meanwhile.
            if latest.body not in (None, body):
                self.fail(WrongBytesError("another body than in the first reply"), now)
                return
        if self.reader.closes:
            # RFC 9112, 9.6: no request may follow. A new connection is part of the next exchange.
            self.close()
        raw = b"" if self.reader.closes else self.reader.raw
        if raw or body is not latest.body:
            self.group.learned[expected.turn] = request, Learned(body, expected.turn, raw or bytes(latest))
        self.answer(now)


class WebSocketConnection(ExchangeConnection):
    """A connection that begins with WebSocket's opening handshake, and whose replies are messages."""

    __slots__ = ("reader",)

    def __init__(self, group: ConnectionGroup, loop: Loop) -> None:
        super().__init__(group, loop)
        self.reader = MessageReader()

    def ready(self, now: float) -> None:
        self.reader = MessageReader()
        super().ready(now)

    def open_turns(self) -> Iterator[Turn]:
        return self.group.repeat_learned()

    def expects_greeting(self) -> bool:
        return True

    def greet(self, now: float) -> None:
        opening = self.group.opening
        self.send_all(opening if self.tls is None else self.tls.seal(opening), now)

    def check_greeting(self, data: bytes) -> int | None:
        return check_opening(data)

    def receive(self, data: bytes, now: float) -> None:
        if self.state == GREETING or not data:
            super().receive(data, now)
        elif not self.busy:
            self._receive_idle(data, now)
        else:
            self._receive_message(data, cast(bytes, self.expected), now)

    def _receive_message(self, data: bytes, expected: bytes, now: float) -> None:
        # Before the pongs, which may have to wait as well.
        is_early = self.unsent is not None
        if not self.received:
            if data == expected and not is_early:
                self.answer(now)
                return
            self.reader.begin(expected)
        self.received += len(data)
        try:
            is_whole = self.reader.feed(data)
        except ExchangeError as error:
            self.fail(error, now)
            return
        self._send_pongs(now)
        if is_whole and self.busy:
            if is_early:
                self.fail(ExtraReplyError("before the request was sent"), now)
            else:
                self.answer(now)

    def _receive_idle(self, data: bytes, now: float) -> None:
        """Take data between two exchanges: pings, which servers send to find out whether a client is still there."""
        self.reader.begin(b"")
        try:
            self.reader.feed(data)
        except ClosedError:
            self.fail(IdleClosedError(), now)
        except ExchangeError:
            self.fail(ExtraReplyError(), now)
        else:
            self._send_pongs(now)

    def _send_pongs(self, now: float) -> None:
        for pong in self.reader.pongs:
            frame = pong if self.tls is None else self.tls.seal(pong)
            if self.unsent is None:
                self.send_all(frame, now)
            else:
                # Behind the frame that is being sent.
                self.unsent = memoryview(bytes(self.unsent) + frame)
        self.reader.pongs.clear()
