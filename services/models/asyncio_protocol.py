"""asyncio without streams: protocols whose methods the loop calls, all in one thread.

Unit of concurrency: a protocol object; there is no coroutine to suspend and no task to schedule. What has to be
remembered between two calls is an attribute.
What blocks whom: waiting blocks nobody. Computing blocks everyone: while one method runs, the loop calls no other.
What runs out first: the one core that the loop has, after about twice the requests that streams get out of it.

Reading goes into one buffer for all clients (`BufferedProtocol`): it is filled and emptied within one call of the loop.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from services.protocol import Close, Compute, DatagramConnection, Send, StreamConversation, Wait
from services.serving.asyncio_transports import Acceptor, descriptor_of, end_reading
from services.serving.idle import LOOKS, IdleWatch
from services.serving.isolation import isolated
from services.serving.listeners import RECEIVE_SIZE, Listener
from services.serving.signals import hold_stop_signals, stop_signals

log = logging.getLogger("services")

# A server of asyncio's own accepts above the limit too, and refuses; so do these models, though they accept themselves.
WHEN_FULL = "refuse"

# Named, so that what runs is known: which loop is the default depends on the platform and the policy.
LOOP = asyncio.SelectorEventLoop

# A reader that is as fast as we are never fills the transport's buffer. After so many events in a row it is the other
# clients' turn, and the loop gets to see that this one has gone.
_TURN = 4


def event_loop() -> str:
    """What turns, for the server's first line."""
    return f"{LOOP.__module__}.{LOOP.__qualname__}"


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    run(Server(listeners), LOOP)


def run(server: "Server", loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The same on a loop of choice."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        if not runner.run(server.run()):
            raise SystemExit(1)


class Server:
    """The conversations of one loop."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self.limits = listeners[0].limits
        self.streams: set[StreamProtocol] = set()
        self.count = 0
        self.buffer = memoryview(bytearray(RECEIVE_SIZE))
        self.is_draining = False
        self._nobody_left = asyncio.Event()

    def take_place(self) -> bool:
        """Begin a conversation, unless the number of them is at the limit."""
        if self.count >= self.limits.connections:
            return False
        self.count += 1
        return True

    def one_less(self) -> None:
        """A conversation has ended."""
        self.count -= 1
        if self.is_draining and not self.count:
            self._nobody_left.set()

    async def run(self) -> bool:
        """Serve until a signal; returns whether all conversations ended by themselves."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in stop_signals():
            loop.add_signal_handler(number, stop.set)
        acceptors = [self.listen(listener) for listener in self._listeners if not listener.is_datagram]
        datagrams = [listener for listener in self._listeners if listener.is_datagram]
        for listener in datagrams:
            # A datagram endpoint would do for UDP, but knows no Unix datagrams on some loops, and on Python 3.11 and
            # 3.12 cannot send an empty one.
            loop.add_reader(listener.socket, self._receive, listener)
        watch = asyncio.create_task(self._watch())
        await stop.wait()
        watch.cancel()
        for acceptor in acceptors:
            acceptor.close()
        for listener in datagrams:
            loop.remove_reader(listener.socket)
        for acceptor in acceptors:
            await acceptor.wait_arrived()
        is_clean = await self._drain()
        hold_stop_signals()  # the loop is about to give up its handlers
        return is_clean

    def listen(self, listener: Listener) -> Acceptor:
        """Have the loop accept from a listening socket."""
        return Acceptor(listener, lambda: StreamProtocol(self, listener), at_once=self.limits.backlog)

    def _receive(self, listener: Listener) -> None:
        if (received := listener.receive()) and self.take_place():
            data, peer = received
            self._advance(listener, listener.datagram(data, peer), peer)

    def _advance(self, listener: Listener, connection: DatagramConnection, peer: object) -> None:
        seconds = listener.answer(connection, peer)
        if seconds is None:
            self.one_less()
        else:
            asyncio.get_running_loop().call_later(seconds, self._advance, listener, connection, peer)

    async def _watch(self) -> None:
        """Close who was quiet for too long. One look around for all costs less than a timer for each read."""
        while True:
            await asyncio.sleep(self.limits.idle / LOOKS)
            for stream in list(self.streams):
                stream.look()

    async def _drain(self) -> bool:
        self.is_draining = True
        for stream in list(self.streams):
            stream.end_reading()
        if not self.count:
            return True
        try:
            await asyncio.wait_for(self._nobody_left.wait(), self.limits.grace)
        except TimeoutError:
            log.warning("the grace period of %g s is over: %d conversations are cut off", self.limits.grace, self.count)
            for stream in list(self.streams):
                stream.transport.abort()
            await asyncio.sleep(0)
            return False
        return True


class StreamProtocol(asyncio.BufferedProtocol):
    """A client."""

    transport: asyncio.Transport

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener
        self._buffer = server.buffer
        self._is_full = False  # the transport holds replies that the client has not taken
        self._is_waiting = False  # for a timer, or for its next turn
        self._is_reading = True
        self._is_closing = False
        self._peer_is_done = False
        self._idle = IdleWatch()

    @isolated
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = cast(asyncio.Transport, transport)
        if not self._server.take_place():
            self._is_closing = self._peer_is_done = True
            self.transport.write(self._listener.refusal())
            self.transport.close()
            return
        self._server.streams.add(self)
        # Nothing is read while anything is left to send: the transport says `pause_writing` for each byte that the
        # kernel does not take at once.
        self.transport.set_write_buffer_limits(high=0)
        self._connection: StreamConversation = self._listener.connection(transport.get_extra_info("peername"))
        if self._server.is_draining:
            self.end_reading()
        self._advance()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what the client sends next."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The client has sent something."""
        self._idle.news()
        if not self._is_closing:
            self._connection.receive_data(self._buffer[:nbytes].tobytes())
            self._advance()

    def eof_received(self) -> bool:
        """The client has ended its half; it still gets its replies. Returns True: the transport stays open."""
        self._peer_is_done = True
        if self._is_closing:
            self.transport.close()
        else:
            self._connection.receive_eof()
            self._advance()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        if isinstance(exc, OSError):
            log.debug("the peer is gone: %s", exc.strerror)
        self._is_closing = True
        if self in self._server.streams:  # and not one that was refused
            self._server.streams.discard(self)
            self._server.one_less()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        self._is_full = True

    @isolated
    def resume_writing(self) -> None:
        """The client has read what there was."""
        self._is_full = False
        self._idle.news()
        if not self._is_closing:
            self._advance()

    def look(self) -> None:
        """Called several times within the idle time: end the connection if it is idle."""
        if self._is_waiting:
            return  # it is we who are quiet
        if self._idle.is_idle(descriptor_of(self.transport), self.transport.get_write_buffer_size()):
            if not self._is_closing:
                log.info("closed a connection that was idle for %g s", self._server.limits.idle)
            self.transport.abort()

    def end_reading(self) -> None:
        """Answer what has been asked, then close."""
        if not self._is_closing:
            end_reading(self.transport, self._connection)

    def _advance(self) -> None:
        left = _TURN
        while not (self._is_full or self._is_waiting or self._is_closing):
            match self._connection.next_event():
                case None:
                    self._read(True)
                    return
                case Send(data):
                    self.transport.write(data)
                case Wait(seconds):
                    self._continue_in(seconds)
                case Compute() as work:
                    self._connection.receive_digest(work.run())
                case Close():
                    self._close()
                    return
            left -= 1
            if not left and not self._is_waiting:
                self._continue_in(0)
        self._read(False)

    def _continue_in(self, seconds: float) -> None:
        self._is_waiting = True
        loop = asyncio.get_running_loop()
        if seconds:
            loop.call_later(seconds, self._continue)
        else:
            loop.call_soon(self._continue)

    def break_off(self) -> None:
        """Part of `Breakable`."""
        self.transport.abort()

    @isolated
    def _continue(self) -> None:
        self._is_waiting = False
        self._idle.news()
        if not self._is_closing:
            self._advance()

    def _read(self, wanted: bool) -> None:
        """Have the loop read from the client, or not: nothing is read while replies are to be sent."""
        if wanted != self._is_reading and not self._peer_is_done:
            self._is_reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _close(self) -> None:
        self._is_closing = True
        if self._peer_is_done:
            self.transport.close()
            return
        # In stages: end our half, then read what still comes, so that no reset overtakes the last reply.
        self._read(True)
        self.transport.write_eof()
        self._is_taking()  # what it takes from now on
        asyncio.get_running_loop().call_later(self._server.limits.linger, self._end_linger)

    def _end_linger(self) -> None:
        if self._is_taking() and not self._server.is_draining:
            asyncio.get_running_loop().call_later(self._server.limits.linger, self._end_linger)
        else:
            self.transport.abort()

    def _is_taking(self) -> bool:
        return self._idle.is_taking(descriptor_of(self.transport), self.transport.get_write_buffer_size())
