"""Non-blocking sockets and the `selectors` module: the loop that all event loops are, written out.

Unit of concurrency: an object with a socket and a method that is called when the socket is ready. It holds all that has
to be remembered: what is still to be sent, and what is waited for.
What blocks whom: waiting blocks nobody. Computing blocks everyone: while one method runs, the loop calls no other.
What runs out first: the one core that the loop has. Before that, the patience of whoever maintains it: short sends,
timers, half-closes and exhausted descriptors are all here, and asyncio has them done.
"""

import heapq
import itertools
import logging
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from services.protocol import Close, Compute, DatagramConnection, Send, Wait
from services.serving.accepting import LOOK_AFTER
from services.serving.blocking import StopSignal
from services.serving.idle import LOOKS, IdleWatch
from services.serving.isolation import isolated
from services.serving.listeners import RECEIVE_SIZE, Listener, arrived

log = logging.getLogger("services")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# A reader that is as fast as we are never leaves us with a short send. After so many events it is the others' turn.
_TURN = 4

Callback = Callable[[], object]


def event_loop() -> str:
    """What turns, for the server's first line."""
    return f"{selectors.DefaultSelector.__module__}.{selectors.DefaultSelector.__qualname__}"


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    stop = StopSignal()
    loop = Loop()
    server = Server(loop, listeners)
    loop.watch(stop, READ, lambda events: stop.clear())
    while not stop.is_set:
        loop.turn()
    is_clean = server.drain()
    loop.close()
    stop.close()
    if not is_clean:
        raise SystemExit(1)


class Loop:
    """Calls back when a socket is ready, or when a time has come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()  # of timers for the same moment; callbacks cannot be compared

    def watch(self, thing: Any, events: int, callback: Callable[[int], object]) -> None:
        """Call back with the events each time that they are there; with other events than before, or anew."""
        if thing.fileno() in self._selector.get_map():
            self._selector.modify(thing, events, callback)
        else:
            self._selector.register(thing, events, callback)

    def unwatch(self, thing: Any) -> None:
        """Call back no more; also if nothing was watched."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(thing)

    def call_later(self, seconds: float, callback: Callback) -> None:
        """Call back once."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def turn(self) -> None:
        """Wait for something to happen, then call all whom it concerns."""
        timeout = max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None
        for key, events in self._selector.select(timeout):
            key.data(events)
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Give up the descriptor."""
        self._selector.close()


class Server:
    """The conversations of one loop."""

    def __init__(self, loop: Loop, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self.loop = loop
        self.limits = listeners[0].limits
        self.streams: set[Stream] = set()
        self._datagrams = 0
        self._is_accepting = True
        self.is_draining = False
        for listener in listeners:
            self._watch(listener)
        self.loop.call_later(self.limits.idle / LOOKS, self._look)

    def drain(self) -> bool:
        """Let every conversation answer what it has been asked; returns whether all ended by themselves."""
        self.is_draining = True
        self._listeners[0].shortage.forget()
        for listener in self._listeners:
            self.loop.unwatch(listener.socket)
            if not listener.is_datagram:
                listener.socket.close()
        for stream in list(self.streams):
            stream.end_reading()
        expired: list[bool] = []
        self.loop.call_later(self.limits.grace, lambda: expired.append(True))
        while self._count() and not expired:
            self.loop.turn()
        if left := self._count():
            log.warning("the grace period of %g s is over: %d conversations are cut off", self.limits.grace, left)
            for stream in list(self.streams):
                stream.close()
        return not left

    def forget(self, stream: "Stream") -> None:
        """A stream has ended."""
        self.streams.discard(stream)
        self._has_room()

    def _count(self) -> int:
        return len(self.streams) + self._datagrams

    def _has_room(self) -> bool:
        """Whether there is room for one more; if there is again, accept again."""
        has_room = self._count() < self.limits.connections
        if has_room != self._is_accepting and not self.is_draining:
            self._is_accepting = has_room
            for listener in self._listeners:
                if has_room:
                    self._watch(listener)
                else:
                    self.loop.unwatch(listener.socket)  # clients wait in the backlog
        return has_room

    def _watch(self, listener: Listener) -> None:
        receive = self._receive if listener.is_datagram else self._accept
        self.loop.watch(listener.socket, READ, lambda events: receive(listener))

    def _accept_again(self, listener: Listener) -> None:
        if self._is_accepting and not self.is_draining:
            self._watch(listener)
            self._accept(listener)

    def _accept(self, listener: Listener) -> None:
        if not self._has_room():
            return  # the last place was taken in this very turn
        if not (accepted := listener.accept()):
            if listener.shortage.pause:
                self.loop.unwatch(listener.socket)
                self.loop.call_later(listener.shortage.pause, lambda: self._accept_again(listener))
                self.loop.call_later(LOOK_AFTER, listener.shortage.look)
            return
        accepted[0].setblocking(False)
        stream = Stream(self, listener, *accepted)
        self.streams.add(stream)
        self._has_room()
        stream.begin()

    def _receive(self, listener: Listener) -> None:
        if self._has_room() and (received := listener.receive()):
            data, peer = received
            self._datagrams += 1
            self._advance(listener, listener.datagram(data, peer), peer)

    def _advance(self, listener: Listener, connection: DatagramConnection, peer: object) -> None:
        seconds = listener.answer(connection, peer)
        if seconds is None:
            self._datagrams -= 1
            self._has_room()
        else:
            self.loop.call_later(seconds, lambda: self._advance(listener, connection, peer))

    def _look(self) -> None:
        """Close who was quiet for too long. One look around for all costs less than a timer for each read."""
        for stream in list(self.streams):
            stream.look()
        self.loop.call_later(self.limits.idle / LOOKS, self._look)


class Stream:
    """A client."""

    def __init__(self, server: Server, listener: Listener, accepted: socket.socket, peer: object) -> None:
        self._server = server
        self._loop = server.loop
        self._socket = accepted
        self._connection = listener.connection(peer)
        self._unsent = memoryview(b"")
        self._is_waiting = False  # for a timer, or for its next turn
        self._is_closing = False
        self._is_closed = False
        self._peer_is_done = False
        self._events = 0  # that the loop watches for
        self._idle = IdleWatch()

    @isolated
    def begin(self) -> None:
        """Start the conversation."""
        self._advance()

    def _advance(self) -> None:
        """Do what there is to do, until something has to be waited for."""
        left = _TURN
        while not (self._unsent or self._is_waiting or self._is_closing):
            match self._connection.next_event():
                case None:
                    self._watch(READ)
                    return
                case Send(data):
                    self._send(data)
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
        if not self._is_closing:
            self._watch(WRITE if self._unsent else 0)  # nothing is read while there is something to send

    def look(self) -> None:
        """Called several times within the idle time: end the connection if it is idle."""
        if not self._is_waiting and self._idle.is_idle(self._socket.fileno()):  # or it is we who are quiet
            if not self._is_closing:
                log.info("closed a connection that was idle for %g s", self._server.limits.idle)
            self.close()

    def end_reading(self) -> None:
        """Answer what has been asked, then close: the kernel gives what has arrived, then the end of the stream."""
        if not self._is_closing:
            self._connection.drain(arrived(self._socket.fileno()))
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Close without any more stages; also a second time."""
        if not self._is_closed:
            self._is_closing = self._is_closed = True
            self._unsent = memoryview(b"")
            self._watch(0)
            self._socket.close()
            self._server.forget(self)

    def break_off(self) -> None:
        """Part of `Breakable`."""
        self.close()

    @isolated
    def _on_ready(self, events: int) -> None:
        self._idle.news()
        if events & WRITE:
            self._send(self._unsent)
            self._advance()
            return
        try:
            data = self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if self._is_closing:
            if not data:
                self.close()
        elif data:
            self._connection.receive_data(data)
            self._advance()
        else:
            self._peer_is_done = True
            self._connection.receive_eof()
            self._advance()

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data) or self._unsent:
            self._unsent = memoryview(data)[sent:]

    def _continue_in(self, seconds: float) -> None:
        self._is_waiting = True
        self._loop.call_later(seconds, self._continue)

    @isolated
    def _continue(self) -> None:
        self._is_waiting = False
        self._idle.news()
        if not self._is_closing:
            self._advance()

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        self._events = events
        if events:
            self._loop.watch(self._socket, events, self._on_ready)
        else:
            self._loop.unwatch(self._socket)

    def _close_in_stages(self) -> None:
        """End our half, then read what still comes, so that no reset overtakes the last reply."""
        self._is_closing = True
        if self._peer_is_done:
            self.close()
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)
            return
        self._watch(READ)
        self._idle.is_taking(self._socket.fileno())  # what it takes from now on
        self._loop.call_later(self._server.limits.linger, self._end_linger)

    def _end_linger(self) -> None:
        if self._idle.is_taking(self._socket.fileno()) and not self._server.is_draining:
            self._loop.call_later(self._server.limits.linger, self._end_linger)
        else:
            self.close()

    def _lose(self, error: OSError) -> None:
        log.debug("the peer is gone: %s", error.strerror)
        self.close()
