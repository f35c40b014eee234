"""asyncio without streams: protocols whose methods the loop calls, all in one thread.

Unit of concurrency: a protocol object, without a coroutine or a task. Its attributes keep the state between two calls.
What blocks whom: waiting blocks no client. Computing blocks all: while one method runs, the loop calls no other.
What runs out first: the loop's single core, at about twice the rate of `asyncio_streams`.

All clients share one read buffer (`BufferedProtocol`), which is filled and emptied within one call of the loop.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from services.protocol import Close, Compute, GiveWay, Send, StreamConversation, Wait
from services.serving.asyncio_transports import Acceptor, accept_until_stopped, descriptor_of, run_on
from services.serving.callbacks import Conversations, resume
from services.serving.closing import stop_reading
from services.serving.idle import IdleWatch
from services.serving.isolation import isolated
from services.serving.listeners import RECEIVE_SIZE, Listener
from services.serving.states import CLOSED, READING, SENDING, WAITING, State

log = logging.getLogger("services")

# A server of asyncio's own accepts above the limit too, and refuses; so do these models, though they accept themselves.
WHEN_FULL = "refuse"

# Named, so that what runs is known: which loop is the default depends on the platform and the policy.
LOOP = asyncio.SelectorEventLoop


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    if not run_on(LOOP, lambda: Server(listeners)):
        raise SystemExit(1)


class Server:
    """The conversations of the running loop."""

    def __init__(self, listeners: list[Listener], make: Callable[..., Conversations] = Conversations) -> None:
        self._listeners = listeners
        self._has_ended = asyncio.Event()  # a conversation
        self.limits = listeners[0].limits
        self.loop = asyncio.get_running_loop()
        self.conversations = make(self.limits, self.loop.call_later, self._has_ended.set)
        self.buffer = memoryview(bytearray(RECEIVE_SIZE))

    async def run(self) -> bool:
        """Serve until a signal; return whether all conversations ended by themselves."""
        await accept_until_stopped(self._listeners, self.listen, self.conversations.receive)
        return await self._drain()

    def listen(self, listener: Listener) -> Acceptor:
        """Have the loop accept from a listening socket."""
        return Acceptor(listener, lambda: StreamProtocol(self, listener), at_once=self.limits.backlog)

    async def _drain(self) -> bool:
        self.conversations.drain()
        try:
            async with asyncio.timeout(self.limits.grace):
                while self.conversations.count:
                    self._has_ended.clear()
                    await self._has_ended.wait()
        except TimeoutError:
            self.conversations.cut_off()
            await asyncio.sleep(0)  # connection_lost
            return False
        return True


class StreamProtocol(asyncio.BufferedProtocol):
    """A client."""

    transport: asyncio.Transport

    def __init__(self, server: Server, listener: Listener) -> None:
        self._conversations = server.conversations
        self._loop = server.loop
        self._buffer = server.buffer
        self._listener = listener
        self.idle = IdleWatch()
        self.state: State = READING

    @isolated
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._conversations.begin(self):
            self.state = CLOSED
            self.transport.write(self._listener.refusal())
            self.transport.close()
            return
        # Nothing is read while anything is left to send: the transport says `pause_writing` for each byte that the
        # kernel does not take at once.
        self.transport.set_write_buffer_limits(high=0)
        self.connection: StreamConversation = self._listener.connection(transport.get_extra_info("peername"))
        if self._conversations.is_draining:
            stop_reading(descriptor_of(transport), self.connection)
        self.advance()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.idle.news()
        if self.state.is_open:
            self.connection.receive_data(self._buffer[:nbytes].tobytes())
            self.advance()

    def eof_received(self) -> bool:
        """Note that the client has ended its half. True: the transport stays open for the replies."""
        if self.state.is_open:
            self.connection.receive_eof()
            self.advance()
        else:
            self.transport.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            log.debug("the peer is gone: %s", exc.strerror)
        self.state = CLOSED
        if self in self._conversations.streams:  # and not one that was refused
            self._conversations.end(self)

    def pause_writing(self) -> None:
        """Stop reading: the client takes less than it asks for."""
        self.state = SENDING

    @isolated
    def resume_writing(self) -> None:
        """Continue: the client has taken everything."""
        self.idle.news()
        if self.state is SENDING:
            self.state = READING
            self.advance()

    def advance(self) -> None:
        while self.state is READING:
            match self.connection.next_event():
                case None:
                    self.transport.resume_reading()
                    return
                case Send() as send:
                    self.transport.write(send.data)
                case Wait(seconds):
                    self.state = WAITING
                    self._loop.call_later(seconds, resume, self)
                case GiveWay():
                    self.state = WAITING
                    self._loop.call_soon(resume, self)
                case Compute() as work:
                    self.connection.receive_digest(work.run())
                case Close(at_eof):
                    self._close(at_eof)
                    return
        self.transport.pause_reading()  # nothing is read while replies are to be sent

    def _close(self, at_eof: bool) -> None:
        if at_eof:
            self.state = CLOSED
            self.transport.close()
        else:
            # In stages: end our half, then read what still comes, so that no reset overtakes the last reply.
            self.transport.resume_reading()
            self.transport.write_eof()
            self._conversations.linger(self)

    def untaken(self) -> tuple[int, int]:
        return descriptor_of(self.transport), self.transport.get_write_buffer_size()

    def close(self) -> None:
        self.transport.abort()

    break_off = close
