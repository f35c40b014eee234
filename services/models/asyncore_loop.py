"""asyncore and asynchat, the standard library's first event loop, as textbooks teach it: a loop of `poll()`.

Unit of concurrency: a channel, an object with a socket that is asked before each turn of the loop whether it wants to
read (`readable`) and whether it has something to write (`writable`).
What blocks whom: waiting blocks nobody. Computing blocks everyone.
What runs out first: the one core, and sooner with every client who is merely there: each turn asks *all* channels those
two questions and hands *all* descriptors to the kernel anew. The work for one request grows with the number of idle
connections; `epoll`, in every other loop here, asks about none of them.

Why nobody should start here today: that, and that the library has no timers, no half-close (the end of the client's
stream and of the connection are one call, `handle_close`), no back-pressure unless one writes it, and closes the
*listening* socket when `accept` fails for want of descriptors. Each is mended below. Python 3.12 has dropped both
modules; newer ones get them from the back-ports pyasyncore and pyasynchat. Whoever has to maintain such a server finds
its successor in `asyncio_protocol`: the same shape, method by method.
"""

import heapq
import itertools
import logging
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from services.protocol import Close, Compute, DatagramConnection, Send, Wait
from services.serving.accepting import LOOK_AFTER
from services.serving.blocking import StopSignal
from services.serving.idle import LOOKS, IdleWatch
from services.serving.isolation import isolated
from services.serving.listeners import RECEIVE_SIZE, Listener, arrived

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.11 still has them, and says that it is the last
    import asynchat
    import asyncore

log = logging.getLogger("services")

LIBRARIES = ("pyasyncore", "pyasynchat") if sys.version_info >= (3, 12) else ()

# A reader that is as fast as we are never leaves anything to wait for. After so many events it is the others' turn.
_TURN = 4

Callback = Callable[[], object]


def event_loop() -> str:
    """What turns, for the server's first line."""
    return f"{asyncore.poll2.__module__}.{asyncore.poll2.__qualname__}"


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    server = Server(listeners)
    while not server.stop.is_set:
        server.turn()
    if not server.drain():
        raise SystemExit(1)


class Server:
    """The channels of one loop, and the timers that asyncore lacks."""

    def __init__(self, listeners: list[Listener]) -> None:
        self.map: dict[int, asyncore.dispatcher] = {}
        self.limits = listeners[0].limits
        self._shortage = listeners[0].shortage
        self.streams: set[Channel] = set()
        self.datagrams = 0
        self.is_draining = False
        self.stop = StopSignal()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()  # of timers for the same moment; callbacks cannot be compared
        Waker(self)
        self._acceptors = [Acceptor(self, listener) for listener in listeners if not listener.is_datagram]
        self._receivers = [Receiver(self, listener) for listener in listeners if listener.is_datagram]
        self.call_later(self.limits.idle / LOOKS, self._look)

    @property
    def has_room(self) -> bool:
        """Whether there is room for one more conversation."""
        return self._count() < self.limits.connections

    def turn(self) -> None:
        """Wait for something to happen, then call all whom it concerns."""
        timeout = max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None
        # `asyncore.poll`, its default, is select(2), which ends at descriptor 1023. In milliseconds, rounded up.
        asyncore.poll2(0.0 if timeout == 0 else self.limits.idle if timeout is None else timeout + 0.001, self.map)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def call_later(self, seconds: float, callback: Callback) -> None:
        """Call back once."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def drain(self) -> bool:
        """Let every conversation answer what it has been asked; returns whether all ended by themselves."""
        self.is_draining = True
        self._shortage.forget()
        for acceptor in self._acceptors:
            acceptor.close()
        for receiver in self._receivers:
            receiver.del_channel(self.map)  # and not its socket, which still carries replies
        for stream in list(self.streams):
            stream.end_reading()
        expired: list[bool] = []
        self.call_later(self.limits.grace, lambda: expired.append(True))
        while self._count() and not expired:
            self.turn()
        if left := self._count():
            log.warning("the grace period of %g s is over: %d conversations are cut off", self.limits.grace, left)
            for stream in list(self.streams):
                stream.close()
        self.stop.close()
        return not left

    def _count(self) -> int:
        return len(self.streams) + self.datagrams

    def _look(self) -> None:
        """Close who was quiet for too long."""
        for stream in list(self.streams):
            stream.look()
        self.call_later(self.limits.idle / LOOKS, self._look)


class Waker(asyncore.dispatcher):
    """Has a signal wake the loop."""

    def __init__(self, server: Server) -> None:
        self._stop = server.stop
        super().__init__(map=server.map)
        self.set_file(server.stop)

    def set_file(self, stop: StopSignal) -> None:
        """As `set_socket`: the loop needs no more of it than a descriptor."""
        self._fileno = stop.fileno()
        self.add_channel()

    def writable(self) -> bool:
        """There is nothing to write."""
        return False

    def handle_read_event(self) -> None:
        """A signal has come."""
        self._stop.clear()


class Acceptor(asyncore.dispatcher):
    """A listening socket."""

    def __init__(self, server: Server, listener: Listener) -> None:
        super().__init__(listener.socket, server.map)
        self._server = server
        self._listener = listener
        self._is_paused = False
        self.accepting = True  # `listen` would set it, and listen once more

    def readable(self) -> bool:
        """Whether to accept: at the limit, clients wait in the backlog."""
        return self._server.has_room and not self._is_paused

    def writable(self) -> bool:
        """A listening socket is never written to."""
        return False

    def handle_accept(self) -> None:
        """A client has come. Not by `self.accept`: what that raises would close the listening socket."""
        if not self._server.has_room:
            return  # the last place was taken in this very turn
        if accepted := self._listener.accept():
            Channel(self._server, self._listener, *accepted).begin()
        elif pause := self._listener.shortage.pause:
            self._is_paused = True
            self._server.call_later(pause, self._accept_again)
            self._server.call_later(LOOK_AFTER, self._listener.shortage.look)

    def _accept_again(self) -> None:
        self._is_paused = False
        if not self._server.is_draining:
            self.handle_accept()

    def handle_error(self) -> None:
        """The library's own would close the listening socket."""
        log.exception("%s: an error while a client was accepted", self._listener.address)


class Receiver(asyncore.dispatcher):
    """A datagram socket."""

    def __init__(self, server: Server, listener: Listener) -> None:
        super().__init__(listener.socket, server.map)
        self._server = server
        self._listener = listener

    def readable(self) -> bool:
        """Whether to receive."""
        return self._server.has_room

    def writable(self) -> bool:
        """Replies are sent at once, or lost."""
        return False

    def handle_read_event(self) -> None:
        """There is a datagram."""
        if received := self._listener.receive():
            data, peer = received
            self._server.datagrams += 1
            self._advance(self._listener.datagram(data, peer), peer)

    def handle_error(self) -> None:
        """The library's own would close the socket."""
        log.exception("%s: an error while a datagram was answered", self._listener.address)

    def _advance(self, connection: DatagramConnection, peer: object) -> None:
        seconds = self._listener.answer(connection, peer)
        if seconds is None:
            self._server.datagrams -= 1
        else:
            self._server.call_later(seconds, lambda: self._advance(connection, peer))


class Channel(asynchat.async_chat):
    """A client. asynchat collects what comes, and keeps what could not be sent at once in `producer_fifo`."""

    producer_fifo: deque[bytes]
    ac_in_buffer_size = RECEIVE_SIZE
    ac_out_buffer_size = RECEIVE_SIZE

    def __init__(self, server: Server, listener: Listener, accepted: socket.socket, peer: object) -> None:
        super().__init__(accepted, server.map)
        self._server = server
        self._stream = accepted
        self._connection = listener.connection(peer)
        self._is_waiting = False  # for a timer, or for its next turn
        self._is_closing = False
        self._is_closed = False
        self._peer_is_done = False
        self._idle = IdleWatch()
        self.set_terminator(None)  # the protocol's core finds the requests itself
        server.streams.add(self)

    def readable(self) -> bool:
        """Whether to read: not while there is something to send."""
        return not (self.producer_fifo or self._is_waiting or self._peer_is_done)

    def writable(self) -> bool:
        """Whether there is something to send."""
        return bool(self.producer_fifo)

    def collect_incoming_data(self, data: bytes) -> None:
        """The client has sent something."""
        self._idle.news()
        if not self._is_closing:
            self._connection.receive_data(data)
            self.advance()

    def found_terminator(self) -> None:
        """Never called: there is none."""

    def handle_write(self) -> None:
        """The client has read something."""
        self._idle.news()
        self.initiate_send()
        if not self.producer_fifo:
            self.advance()

    def handle_close(self) -> None:
        """The client has ended its half, or the connection is gone: to asyncore it is the same."""
        if self._peer_is_done or self._is_closing:
            self.close()
            return
        self._peer_is_done = True
        self._connection.receive_eof()
        self.advance()

    def handle_expt(self) -> None:
        """Urgent data (TCP's out-of-band byte) means nothing in this protocol."""

    def handle_error(self) -> None:
        """Something was raised while this channel was served."""
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("the peer is gone: %s", error.strerror)
        else:
            log.exception("a conversation ended in an error")
        self.close()

    @isolated
    def begin(self) -> None:
        """Start the conversation."""
        self.advance()

    def advance(self) -> None:
        """Do what there is to do, until something has to be waited for."""
        left = _TURN
        while not (self.producer_fifo or self._is_waiting or self._is_closing):
            match self._connection.next_event():
                case None:
                    return
                case Send(data):
                    self.push(data)
                case Wait(seconds):
                    self._continue_in(seconds)
                case Compute() as work:
                    self._connection.receive_digest(work.run())
                case Close():
                    self._close_in_stages()
                    return
            left -= 1
            if not left and not self._is_waiting:
                self._continue_in(0)

    def look(self) -> None:
        """Called several times within the idle time: end the connection if it is idle."""
        if not self._is_waiting and self._idle.is_idle(self._stream.fileno()):  # or it is we who are quiet
            if not self._is_closing:
                log.info("closed a connection that was idle for %g s", self._server.limits.idle)
            self.close()

    def end_reading(self) -> None:
        """Answer what has been asked, then close: the kernel gives what has arrived, then the end of the stream."""
        if not self._is_closing:
            self._connection.drain(arrived(self._stream.fileno()))
            with suppress(OSError):
                self._stream.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Close without any more stages; also a second time."""
        if not self._is_closed:
            self._is_closing = self._is_closed = True
            self.discard_buffers()
            super().close()
            self._server.streams.discard(self)

    def _continue_in(self, seconds: float) -> None:
        self._is_waiting = True
        self._server.call_later(seconds, self._continue)

    def break_off(self) -> None:
        """Part of `Breakable`."""
        self.close()

    @isolated
    def _continue(self) -> None:
        self._is_waiting = False
        self._idle.news()
        if not self._is_closing:
            self.advance()

    def _close_in_stages(self) -> None:
        """End our half, then read what still comes, so that no reset overtakes the last reply."""
        self._is_closing = True
        if self._peer_is_done:
            self.close()
            return
        try:
            self._stream.shutdown(socket.SHUT_WR)
        except OSError as error:
            log.debug("the peer is gone: %s", error.strerror)
            self.close()
            return
        self._idle.is_taking(self._stream.fileno())  # what it takes from now on
        self._server.call_later(self._server.limits.linger, self._end_linger)

    def _end_linger(self) -> None:
        if self._idle.is_taking(self._stream.fileno()) and not self._server.is_draining:
            self._server.call_later(self._server.limits.linger, self._end_linger)
        else:
            self.close()
