"""asyncio with its streams: a coroutine for each client, all on one loop in one thread.

Unit of concurrency: a task of a few kilobytes; a switch between tasks costs a function call.
What blocks whom: waiting blocks no client, as every `await` lets the loop run other tasks. Computing blocks all:
between two awaits the loop runs nothing else.
What runs out first: the loop's single core; if handlers compute, the latency of all clients suffers long before.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from services.protocol import SEND_SIZE, Close, Compute, GiveWay, Send, StreamConversation, Wait
from services.serving.asyncio_transports import Acceptor, accept_until_stopped, descriptor_of, run_on
from services.serving.closing import stop_reading, warn_cut_off
from services.serving.coroutines import serve_datagram, watch_idle
from services.serving.idle import IdleWatch
from services.serving.isolation import ErrorsLogged
from services.serving.listeners import RECEIVE_SIZE, Listener

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


@dataclass(slots=True, eq=False)
class Stream:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: StreamConversation
    idle: IdleWatch = field(default_factory=IdleWatch)
    is_working: bool = False  # it is the server that is quiet

    def untaken(self) -> tuple[int, int]:
        """Return what an `IdleWatch` looks at."""
        return descriptor_of(self.writer.transport), self.writer.transport.get_write_buffer_size()

    def close(self) -> None:
        """Close the connection without any more stages."""
        self.writer.transport.abort()


class Server:
    """The conversations of one loop."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self._limits = listeners[0].limits
        self._streams: set[Stream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def run(self) -> bool:
        """Serve until a signal; return whether all conversations ended by themselves."""
        watch = asyncio.create_task(watch_idle(self._streams, self._limits.idle, asyncio.sleep))
        await accept_until_stopped(self._listeners, self._listen, self._receive)
        watch.cancel()
        return await self._drain()

    def _listen(self, listener: Listener) -> Acceptor:
        def protocol() -> asyncio.StreamReaderProtocol:  # as `asyncio.start_server` makes them
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), partial(self._begin, listener))

        return Acceptor(listener, protocol, at_once=self._limits.backlog)

    async def _begin(self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Above this, `drain` waits; without it the transport would buffer whatever the client does not read.
        writer.transport.set_write_buffer_limits(high=SEND_SIZE)
        if len(self._tasks) >= self._limits.connections:
            writer.write(listener.refusal())
            writer.close()
        else:
            await self._serve(Stream(reader, writer, listener.connection(writer.get_extra_info("peername"))))
        with suppress(OSError):
            await writer.wait_closed()  # else the loop logs a reset, with a traceback

    async def _serve(self, stream: Stream) -> None:
        self._streams.add(stream)
        self._keep(cast("asyncio.Task[None]", asyncio.current_task()))
        if self._draining:
            stop_reading(descriptor_of(stream.writer.transport), stream.connection)
        try:
            with ErrorsLogged():
                await self._converse(stream)
                stream.writer.close()
                await stream.writer.wait_closed()
        finally:
            stream.close()  # does nothing after a close
            self._streams.discard(stream)

    async def _converse(self, stream: Stream) -> None:
        reader, writer, connection = stream.reader, stream.writer, stream.connection
        while True:
            match connection.next_event():
                case None:
                    data = await reader.read(RECEIVE_SIZE)
                    stream.idle.news()
                    if data:
                        connection.receive_data(data)
                    else:
                        connection.receive_eof()
                case Send() as send:
                    if writer.is_closing():
                        return  # it was cut off: `read` and `drain` do not tell, and uvloop's `write` raises
                    writer.write(send.data)
                    await writer.drain()
                    stream.idle.news()
                case Wait(seconds):
                    stream.is_working = True
                    await asyncio.sleep(seconds)
                    stream.is_working = False
                    stream.idle.news()
                case GiveWay():
                    await asyncio.sleep(0)  # `drain` does not suspend a task that need not wait
                case Compute() as work:
                    connection.receive_digest(work.run())
                case Close():
                    break
        if not reader.at_eof():
            await self._linger(stream)

    async def _linger(self, stream: Stream) -> None:
        """End our half, then read what still comes, so that no reset overtakes the last reply."""
        stream.writer.write_eof()
        stream.idle.is_taking(*stream.untaken())  # what it takes from now on
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.linger):
                    while await stream.reader.read(RECEIVE_SIZE):
                        pass
                return
            if self._draining or not stream.idle.is_taking(*stream.untaken()):
                return

    def _receive(self, listener: Listener) -> None:
        if (received := listener.receive()) and len(self._tasks) < self._limits.connections:
            self._keep(asyncio.create_task(serve_datagram(listener, *received, asyncio.sleep)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self) -> bool:
        self._draining = True
        for stream in self._streams:
            stop_reading(stream.untaken()[0], stream.connection)
        await asyncio.sleep(0)  # the task of a client that was accepted just now has not run yet
        if not self._tasks:
            return True
        _, late = await asyncio.wait(self._tasks, timeout=self._limits.grace)
        if late:
            warn_cut_off(self._limits.grace, len(late))
            for task in late:
                task.cancel()
            await asyncio.wait(late)
        return not late
