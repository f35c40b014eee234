"""Non-blocking sockets and the `selectors` module: an event loop, written by hand.

Unit of concurrency: an object with a socket, and a method that is called when the socket is ready. It keeps the state
of the conversation: unsent data, and the awaited event.
What blocks whom: waiting blocks no client. Computing blocks all: while one method runs, the loop calls no other.
What runs out first: the loop's single core. The code is also long: it has to handle short sends, half-closes and
exhausted descriptors, as asyncio does for its users.
"""

import logging
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from services.protocol import Close, Compute, GiveWay, Send, Wait
from services.serving.blocking import StopSignal
from services.serving.callbacks import Conversations, resume, retry_accept
from services.serving.closing import stop_accepting
from services.serving.idle import IdleWatch
from services.serving.isolation import isolated
from services.serving.listeners import RECEIVE_SIZE, Listener
from services.serving.states import CLOSED, READING, SENDING, WAITING, State
from services.serving.timers import Timers

log = logging.getLogger("services")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

LOOP = selectors.DefaultSelector


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


class Loop(Timers):
    """Calls back when a socket is ready, or when a time has come."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = LOOP()

    def watch(self, thing: Any, events: int, callback: Callable[[int], object]) -> None:
        """Call back with the events each time that they occur. A second call replaces the first."""
        if thing.fileno() in self._selector.get_map():
            self._selector.modify(thing, events, callback)
        else:
            self._selector.register(thing, events, callback)

    def unwatch(self, thing: Any) -> None:
        """Stop watching a thing, if it is watched."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(thing)

    def turn(self) -> None:
        """Wait for an event, then call the sockets and the timers that are due."""
        for key, events in self._selector.select(self.timeout()):
            key.data(events)
        self.call_due()

    def close(self) -> None:
        self._selector.close()


class Server:
    """The listening sockets of one loop, and its conversations."""

    def __init__(self, loop: Loop, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self.loop = loop
        self.conversations = Conversations(listeners[0].limits, loop.call_later, self._look_for_room)
        self._is_accepting = False
        self._look_for_room()

    def drain(self) -> bool:
        """Let every conversation answer complete requests; return whether all ended by themselves."""
        for listener in self._listeners:
            self.loop.unwatch(listener.socket)
        stop_accepting(self._listeners)
        return self.conversations.drain_by(self.loop.turn)

    def _look_for_room(self) -> None:
        """Accept while there is room; otherwise clients wait in the backlog."""
        has_room = self.conversations.has_room
        if has_room != self._is_accepting and not self.conversations.is_draining:
            self._is_accepting = has_room
            for listener in self._listeners:
                self._watch(listener)

    def _watch(self, listener: Listener) -> None:
        if self._is_accepting and not self.conversations.is_draining:
            receive = self._receive if listener.is_datagram else self._accept
            self.loop.watch(listener.socket, READ, lambda events: receive(listener))
        else:
            self.loop.unwatch(listener.socket)

    def _accept(self, listener: Listener) -> None:
        if not self.conversations.has_room:
            return  # the last place was taken in this very turn
        if accepted := listener.accept():
            Stream(self, listener, *accepted).begin()
            self._look_for_room()
        elif retry_accept(listener.shortage, self.loop.call_later, lambda: self._watch(listener)):
            self.loop.unwatch(listener.socket)

    def _receive(self, listener: Listener) -> None:
        if self.conversations.has_room:
            self.conversations.receive(listener)
            self._look_for_room()


class Stream:
    """A client."""

    def __init__(self, server: Server, listener: Listener, accepted: socket.socket, peer: object) -> None:
        self._conversations = server.conversations
        self._loop = server.loop
        self._socket = accepted
        self._unsent = memoryview(b"")
        self._events = 0  # that the loop watches for
        self.connection = listener.connection(peer)
        self.idle = IdleWatch()
        self.state: State = READING

    @isolated
    def begin(self) -> None:
        self._socket.setblocking(False)
        self._conversations.begin(self)
        self.advance()

    @isolated
    def _on_ready(self, events: int) -> None:
        self.idle.news()
        if events & WRITE:
            self._send(self._unsent)
            self.advance()
            return
        try:
            data = self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if not self.state.is_open:
            if not data:
                self.close()
            return
        if data:
            self.connection.receive_data(data)
        else:
            self.connection.receive_eof()
        self.advance()

    def advance(self) -> None:
        while self.state is READING:
            match self.connection.next_event():
                case None:
                    self._watch(READ)
                    return
                case Send() as send:
                    self._send(send.data)
                case Wait(seconds):
                    self._continue_in(seconds)
                case GiveWay():
                    self._continue_in(0)
                case Compute() as work:
                    self.connection.receive_digest(work.run())
                case Close(at_eof):
                    self._conversations.close_in_stages(self, self._socket, at_eof)
        # Nothing is read while there is something to send.
        self._watch(READ if self.state.reads else WRITE if self.state is SENDING else 0)

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self.state = SENDING
        elif self.state is SENDING:
            self._unsent = memoryview(b"")
            self.state = READING

    def _continue_in(self, seconds: float) -> None:
        self.state = WAITING
        self._loop.call_later(seconds, lambda: resume(self))

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        self._events = events
        if events:
            self._loop.watch(self._socket, events, self._on_ready)
        else:
            self._loop.unwatch(self._socket)

    def _lose(self, error: OSError) -> None:
        log.debug("the peer is gone: %s", error.strerror)
        self.close()

    def untaken(self) -> tuple[int, int]:
        """Return what an `IdleWatch` looks at: the kernel holds all that was sent."""
        return self._socket.fileno(), 0

    def close(self) -> None:
        """Close without any more stages. May be called again."""
        if self.state is not CLOSED:
            self.state = CLOSED
            self._unsent = memoryview(b"")
            self._watch(0)
            self._socket.close()
            self._conversations.end(self)

    break_off = close
