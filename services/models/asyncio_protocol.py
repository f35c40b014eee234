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

from services.idle import LOOKS, IdleWatch
from services.listeners import RECEIVE_SIZE, Listener
from services.protocol import Close, Compute, Conversation, Send, StreamConversation, Wait
from services.signals import hold_stop_signals, stop_signals
from services.transports import descriptor_of, end_reading

log = logging.getLogger("services")

# asyncio accepts by itself, and does so above the limit too: there is nothing left but to refuse.
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

    @property
    def is_full(self) -> bool:
        """Whether the number of conversations is at the limit."""
        return self.count >= self.limits.connections

    def one_more(self) -> None:
        """A conversation begins."""
        self.count += 1

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
        servers = [await self.listen(listener) for listener in self._listeners if not listener.is_datagram]
        datagrams = [listener for listener in self._listeners if listener.is_datagram]
        for listener in datagrams:
            # A datagram endpoint would do for UDP, but knows no Unix datagrams on some loops, and on Python 3.11 and
            # 3.12 cannot send an empty one.
            loop.add_reader(listener.socket, self._receive, listener)
        watch = asyncio.create_task(self._watch())
        await stop.wait()
        watch.cancel()
        for server in servers:
            server.close()
        for listener in datagrams:
            loop.remove_reader(listener.socket)
        is_clean = await self._drain()
        hold_stop_signals()  # the loop is about to give up its handlers
        return is_clean

    async def listen(self, listener: Listener) -> asyncio.Server:
        """Have the loop accept from a listening socket."""
        # With no descriptor left to accept with, asyncio pauses for a second, with a line in the log; libuv accepts
        # with one that it keeps in reserve, and closes.
        return await start_server(listener, lambda: StreamProtocol(self, listener), self.limits.backlog)

    def _receive(self, listener: Listener) -> None:
        if (received := listener.receive()) and not self.is_full:
            data, peer = received
            self.one_more()
            self._advance(listener, listener.datagram(data, peer), peer)

    def _advance(self, listener: Listener, connection: Conversation, peer: object) -> None:
        while True:
            match connection.next_event():
                case Send(reply):
                    listener.reply(reply, peer)
                case Wait(seconds):
                    asyncio.get_running_loop().call_later(seconds, self._advance, listener, connection, peer)
                    return
                case Compute() as work:
                    connection.receive_digest(work.run())
                case _:
                    self.one_less()
                    return

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
        # A client that was accepted just now has no protocol yet; it gets one in the loop's next turns.
        for _ in range(3):
            await asyncio.sleep(0)
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


async def start_server(listener: Listener, factory: Callable[[], asyncio.BaseProtocol], backlog: int) -> asyncio.Server:
    """asyncio's server around a socket that is bound and listens already."""
    loop = asyncio.get_running_loop()
    if listener.address.transport.is_unix:
        return await loop.create_unix_server(factory, sock=listener.socket, backlog=backlog)
    return await loop.create_server(factory, sock=listener.socket, backlog=backlog)


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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = cast(asyncio.Transport, transport)
        if self._server.is_full:
            self._is_closing = self._peer_is_done = True
            self.transport.write(self._listener.refusal())
            self.transport.close()
            return
        # Nothing is read while anything is left to send: the transport says `pause_writing` for each byte that the
        # kernel does not take at once.
        self.transport.set_write_buffer_limits(high=0)
        self._connection: StreamConversation = self._listener.connection(transport.get_extra_info("peername"))
        self._server.one_more()
        self._server.streams.add(self)
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
