"""asyncore and asynchat, the standard library's first event loop, as textbooks teach it: a loop of `poll()`.

Unit of concurrency: a channel, an object with a socket. Before each iteration, the loop asks it whether it wants to
read (`readable`) and to write (`writable`).
What blocks whom: waiting blocks no client. Computing blocks all.
What runs out first: the single core, and each idle connection makes it sooner: each iteration calls those two methods
of *all* channels and passes *all* descriptors to the kernel. The work per request grows with the number of idle
connections; with `epoll`, which the other loops here use, they cost nothing.

The library also lacks timers, half-close (`handle_close` ends the whole connection) and back-pressure, and it closes
the *listening* socket if `accept` fails without a free descriptor. This model fixes all four. Python 3.12 has removed
both modules; the back-ports are pyasyncore and pyasynchat. `asyncio_protocol` is the successor, with a counterpart for
each method.
"""

import socket
import sys
import warnings
from collections import deque
from contextlib import suppress

from services.protocol import Close, Compute, GiveWay, Send, Wait
from services.serving.blocking import StopSignal
from services.serving.callbacks import Conversations, resume, retry_accept
from services.serving.closing import stop_accepting
from services.serving.idle import IdleWatch
from services.serving.isolation import ErrorsLogged, isolated
from services.serving.listeners import RECEIVE_SIZE, Listener
from services.serving.states import CLOSED, READING, SENDING, WAITING, State
from services.serving.timers import Timers

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.11 still has them, and says that it is the last
    import asynchat
    import asyncore

LIBRARIES = ("pyasyncore", "pyasynchat") if sys.version_info >= (3, 12) else ()
LOOP = asyncore.poll2  # `asyncore.poll`, its default, is select(2), which ends at descriptor 1023


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


class Server(Timers):
    """The channels of one loop, and the timers that asyncore lacks."""

    def __init__(self, listeners: list[Listener]) -> None:
        super().__init__()
        self.map: dict[int, asyncore.dispatcher] = {}
        self.conversations = Conversations(listeners[0].limits, self.call_later)
        self.stop = StopSignal()
        self._listeners = listeners
        Waker(self)
        self._sockets = [Listening(self, listener) for listener in listeners]

    def turn(self) -> None:
        """Wait for an event, then call its channels and the timers that are due."""
        timeout = self.timeout()  # there always is one: the next look for idle connections
        LOOP(timeout + 0.001 if timeout else 0.0, self.map)  # in milliseconds, rounded up
        self.call_due()

    def drain(self) -> bool:
        """Let every conversation answer complete requests; return whether all ended by themselves."""
        for each in self._sockets:
            each.del_channel(self.map)
        stop_accepting(self._listeners)
        is_clean = self.conversations.drain_by(self.turn)
        self.stop.close()
        return is_clean


class Waker(asyncore.dispatcher):
    """Lets a signal wake the loop."""

    def __init__(self, server: Server) -> None:
        self._stop = server.stop
        super().__init__(map=server.map)
        self._fileno = server.stop.fileno()  # as `set_socket` does
        self.add_channel()

    def writable(self) -> bool:
        """Return False: nothing is ever written."""
        return False

    def handle_read_event(self) -> None:
        self._stop.clear()


class Listening(asyncore.dispatcher):
    """A socket that connections are accepted from, or that datagrams come to."""

    def __init__(self, server: Server, listener: Listener) -> None:
        super().__init__(listener.socket, server.map)
        self._server = server
        self._listener = listener
        self._is_paused = False

    def readable(self) -> bool:
        """Whether to accept: at the limit, clients wait in the backlog."""
        return self._server.conversations.has_room and not self._is_paused

    def writable(self) -> bool:
        """A listening socket is never written to, and a reply by datagram is sent at once, or lost."""
        return False

    def handle_read_event(self) -> None:
        """Accept or receive. Not by `self.accept`: an error in it would close the listening socket."""
        if not self._server.conversations.has_room:
            return  # the last place was taken in this very turn
        if self._listener.is_datagram:
            self._server.conversations.receive(self._listener)
        elif accepted := self._listener.accept():
            Channel(self._server, self._listener, *accepted).begin()
        else:
            self._is_paused = retry_accept(self._listener.shortage, self._server.call_later, self._end_pause)

    def _end_pause(self) -> None:
        self._is_paused = False

    def handle_error(self) -> None:
        """Log the error; the library's own would close the socket."""
        with ErrorsLogged():
            raise  # what is being handled


class Channel(asynchat.async_chat):
    """A client. asynchat collects what comes, and keeps what could not be sent at once in `producer_fifo`."""

    producer_fifo: deque[bytes]
    ac_in_buffer_size = RECEIVE_SIZE
    ac_out_buffer_size = RECEIVE_SIZE

    def __init__(self, server: Server, listener: Listener, accepted: socket.socket, peer: object) -> None:
        super().__init__(accepted, server.map)
        self._server = server
        self._stream = accepted
        self.connection = listener.connection(peer)
        self.idle = IdleWatch()
        self.state: State = READING
        self.set_terminator(None)  # the protocol's core finds the requests itself
        server.conversations.begin(self)

    def readable(self) -> bool:
        """Whether to read: not while there is something to send."""
        return self.state.reads

    def writable(self) -> bool:
        return self.state is SENDING

    def collect_incoming_data(self, data: bytes) -> None:
        self.idle.news()
        if self.state.is_open:
            self.connection.receive_data(data)
            self.advance()

    def found_terminator(self) -> None:
        """Never called: there is none."""

    def handle_write(self) -> None:
        self.idle.news()
        self.initiate_send()
        if self.state is SENDING and not self.producer_fifo:
            self.state = READING
            self.advance()

    def handle_close(self) -> None:
        """To asyncore the end of the client's half and of the connection are the same; only READING meets the first."""
        if self.state is READING:
            self.connection.receive_eof()
            self.advance()
        else:
            self.close()

    def handle_expt(self) -> None:
        """Drop urgent data (TCP's out-of-band byte): it means nothing here, and unread it would keep the loop awake."""
        with suppress(OSError):
            self._stream.recv(1, socket.MSG_OOB)

    def handle_error(self) -> None:
        """End the conversation in which an exception was raised."""
        with ErrorsLogged():
            raise  # what is being handled
        self.close()

    @isolated
    def begin(self) -> None:
        self.advance()

    def advance(self) -> None:
        while self.state is READING:
            match self.connection.next_event():
                case None:
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
                    self._server.conversations.close_in_stages(self, self._stream, at_eof)

    def _send(self, data: bytes) -> None:
        self.state = SENDING
        self.push(data)
        if self.state is SENDING and not self.producer_fifo:
            self.state = READING

    def _continue_in(self, seconds: float) -> None:
        self.state = WAITING
        self._server.call_later(seconds, lambda: resume(self))

    def untaken(self) -> tuple[int, int]:
        return self._stream.fileno(), 0

    def close(self) -> None:
        """Close without any more stages. May be called again."""
        if self.state is not CLOSED:
            self.state = CLOSED
            self.discard_buffers()
            super().close()
            self._server.conversations.end(self)

    break_off = close
