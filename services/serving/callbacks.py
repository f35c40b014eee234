"""What the models over callbacks share: the number of conversations, their idle times, their timers, and their end.

The only I/O here is that of datagrams. The event loop belongs to the model, which passes its own `call_later`.
"""

import logging
import socket
from collections.abc import Callable
from typing import Protocol

from services.protocol import DatagramConnection, Limits, StreamConversation
from services.serving.accepting import LOOK_AFTER, Shortage
from services.serving.closing import stop_reading, warn_cut_off
from services.serving.idle import LOOKS, IdleWatch
from services.serving.listeners import Listener
from services.serving.states import LINGERING, READING, WAITING, State

log = logging.getLogger("services")

CallLater = Callable[[float, Callable[[], object]], object]


class Stream(Protocol):
    """A conversation over a stream, as its model keeps it."""

    connection: StreamConversation
    state: State
    idle: IdleWatch

    def untaken(self) -> tuple[int, int]:
        """Return what an `IdleWatch` looks at: the socket's descriptor, and the bytes that the library holds."""

    def advance(self) -> None:
        """Do what the connection asks for, until something has to be waited for."""

    def close(self) -> None:
        """Close the connection without any more stages."""

    def break_off(self) -> None:
        """Close the connection at once, whatever is left to send."""


class Conversations:
    """The conversations of one loop.

    Args:
        limits: the largest number of conversations, and the idle time.
        call_later: calls a function once, after a number of seconds.
        on_end: called when a conversation has ended.
    """

    def __init__(self, limits: Limits, call_later: CallLater, on_end: Callable[[], object] = lambda: None) -> None:
        self.limits = limits
        self.streams: set[Stream] = set()
        self.count = 0  # streams and datagrams
        self.is_draining = False
        self._call_later = call_later
        self._on_end = on_end
        call_later(limits.idle / LOOKS, self._look)

    @property
    def has_room(self) -> bool:
        return self.count < self.limits.connections

    def begin(self, stream: Stream | None = None) -> bool:
        """Begin a conversation over a stream or a datagram; return False if their number has reached the limit."""
        if not self.has_room:
            return False
        self.count += 1
        if stream is not None:
            self.streams.add(stream)
        return True

    def end(self, stream: Stream | None = None) -> None:
        """Count the end of a conversation that has begun."""
        self.count -= 1
        if stream is not None:
            self.streams.discard(stream)
        self._on_end()

    def receive(self, listener: Listener) -> None:
        """Receive a datagram, if one has arrived, and answer it. Above the limit it is dropped."""
        if (received := listener.receive()) and self.begin():
            data, peer = received
            self._answer(listener, listener.datagram(data, peer), peer)

    def _answer(self, listener: Listener, connection: DatagramConnection, peer: object) -> None:
        seconds = listener.answer(connection, peer)
        if seconds is None:
            self.end()
        else:
            self._call_later(seconds, lambda: self._answer(listener, connection, peer))

    def _look(self) -> None:
        """Close idle connections. One check of all costs less than a timer that each read postpones."""
        for stream in list(self.streams):
            if stream.state is not WAITING and stream.idle.is_idle(*stream.untaken()):
                if stream.state.is_open:
                    log.info("closed a connection that was idle for %g s", self.limits.idle)
                stream.close()
        self._call_later(self.limits.idle / LOOKS, self._look)

    def drain(self) -> None:
        """Let each conversation answer complete requests, and end it."""
        self.is_draining = True
        for stream in list(self.streams):
            if stream.state.is_open:
                stop_reading(stream.untaken()[0], stream.connection)

    def close_in_stages(self, stream: Stream, stream_socket: socket.socket, at_eof: bool) -> None:
        """Close our half, then read what still comes, so that no reset overtakes the last reply.

        Args:
            at_eof: the client has closed its half already; nothing is left to read.
        """
        try:
            if not at_eof:
                stream_socket.shutdown(socket.SHUT_WR)
                self.linger(stream)
                return
        except OSError as error:
            log.debug("the peer is gone: %s", error.strerror)
        stream.close()

    def drain_by(self, turn: Callable[[], object]) -> bool:
        """Drain a loop that is turned by hand, until the grace period is over.

        Returns:
            Whether all conversations ended by themselves.
        """
        expired: list[bool] = []
        self.drain()
        self._call_later(self.limits.grace, lambda: expired.append(True))
        while self.count and not expired:
            turn()
        if self.count:
            self.cut_off()
            return False
        return True

    def cut_off(self) -> None:
        """End the conversations that are left at the end of the grace period."""
        warn_cut_off(self.limits.grace, self.count)
        for stream in list(self.streams):
            stream.break_off()

    def linger(self, stream: Stream) -> None:
        """Close after the linger time. It begins again while the client takes data, except in a drain."""
        stream.state = LINGERING
        stream.idle.is_taking(*stream.untaken())  # what it takes from now on

        def end() -> None:
            if stream.idle.is_taking(*stream.untaken()) and not self.is_draining:
                self._call_later(self.limits.linger, end)
            else:
                stream.close()

        self._call_later(self.limits.linger, end)


def resume(stream: Stream) -> None:
    """Continue a conversation when its timer fires, or at its next turn, unless it has been closed meanwhile."""
    stream.idle.news()
    if stream.state is WAITING:
        stream.state = READING
        try:
            stream.advance()
        except Exception:
            # An unexpected error ends its own conversation and no other; a loop's timer has no caller to raise it to.
            log.exception("a conversation ended in an error")
            stream.break_off()


def retry_accept(shortage: Shortage, call_later: CallLater, retry: Callable[[], object]) -> bool:
    """After an attempt to accept: if the process is exhausted, call `retry` when the pause is over.

    Returns:
        Whether there is a pause, in which nothing is to be accepted.
    """
    if not shortage.pause:
        return False
    call_later(shortage.pause, retry)
    call_later(LOOK_AFTER, shortage.look)
    return True
