"""asyncio with its streams: a coroutine for each client, all on one loop in one thread.

Unit of concurrency: a task, some kilobytes; switching from one to the next is a function call.
What blocks whom: waiting blocks nobody, as every `await` lets the loop turn to someone else. Computing blocks everyone:
between two awaits the loop, and with it every client, stands still.
What runs out first: the one core that the loop has; long before that, where handlers compute, everyone's latency.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from services.protocol import SEND_SIZE, Close, Compute, Send, StreamConversation, Wait
from services.serving.asyncio_transports import Acceptor, descriptor_of, end_reading
from services.serving.idle import LOOKS, IdleWatch
from services.serving.listeners import RECEIVE_SIZE, Listener
from services.serving.signals import hold_stop_signals, stop_signals

log = logging.getLogger("services")

# A server of asyncio's own accepts above the limit too, and refuses; so do these models, though they accept themselves.
WHEN_FULL = "refuse"

# `drain` does not suspend a task that need not wait. After so many events in a row it is the others' turn, or a
# pipeline of computations would keep the loop until its end.
_TURN = 4

# Named, so that what runs is known: which loop is the default depends on the platform and the policy.
LOOP = asyncio.SelectorEventLoop


def event_loop() -> str:
    """What turns, for the server's first line."""
    return f"{LOOP.__module__}.{LOOP.__qualname__}"


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    run(listeners, LOOP)


def run(listeners: list[Listener], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The same on a loop of choice."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        if not runner.run(Server(listeners).run()):
            raise SystemExit(1)


@dataclass(slots=True, eq=False)
class Stream:
    """A client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: StreamConversation
    idle: IdleWatch = field(default_factory=IdleWatch)
    is_working: bool = False  # it is we who are quiet

    @property
    def untaken(self) -> tuple[int, int]:
        """What an `IdleWatch` looks at."""
        return descriptor_of(self.writer.transport), self.writer.transport.get_write_buffer_size()


class Server:
    """The conversations of one loop."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self._limits = listeners[0].limits
        self._streams: set[Stream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def run(self) -> bool:
        """Serve until a signal; returns whether all conversations ended by themselves."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in stop_signals():
            loop.add_signal_handler(number, stop.set)
        acceptors = [self._listen(listener) for listener in self._listeners if not listener.is_datagram]
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

    def _listen(self, listener: Listener) -> Acceptor:
        async def serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve_stream(listener, reader, writer)

        def protocol() -> asyncio.StreamReaderProtocol:  # as `asyncio.start_server` makes them
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve_stream)

        return Acceptor(listener, protocol, at_once=self._limits.backlog)

    async def _serve_stream(
        self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Above this, `drain` waits; without it the transport would buffer whatever the client does not read.
        writer.transport.set_write_buffer_limits(high=SEND_SIZE)
        if len(self._tasks) >= self._limits.connections:
            writer.write(listener.refusal())
            writer.close()
            return
        stream = Stream(reader, writer, listener.connection(writer.get_extra_info("peername")))
        self._streams.add(stream)
        self._keep(cast("asyncio.Task[None]", asyncio.current_task()))
        if self._draining:
            self._end_reading(stream)
        try:
            await self._converse(stream)
            writer.close()
            await writer.wait_closed()
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, OSError):
                log.debug("the peer is gone: %s", error.strerror)
            elif isinstance(error, Exception):
                log.exception("a conversation ended in an error")
            else:
                raise
        finally:
            self._streams.discard(stream)

    async def _converse(self, stream: Stream) -> None:
        reader, writer, connection = stream.reader, stream.writer, stream.connection
        left = _TURN
        while True:
            match connection.next_event():
                case None:
                    left = _TURN
                    data = await reader.read(RECEIVE_SIZE)
                    stream.idle.news()
                    if data:
                        connection.receive_data(data)
                    else:
                        connection.receive_eof()
                case Send(data):
                    if writer.is_closing():
                        return  # it was cut off: `read` and `drain` do not tell, and uvloop's `write` raises
                    writer.write(data)
                    await writer.drain()
                    stream.idle.news()
                case Wait(seconds):
                    stream.is_working = True
                    await asyncio.sleep(seconds)
                    stream.is_working = False
                    stream.idle.news()
                case Compute() as work:
                    connection.receive_digest(work.run())
                case Close():
                    break
            left -= 1
            if not left:
                left = _TURN
                await asyncio.sleep(0)
        if not reader.at_eof():
            await self._linger(stream)

    async def _linger(self, stream: Stream) -> None:
        """In stages: end our half, then read what still comes, so that no reset overtakes the last reply."""
        stream.writer.write_eof()
        stream.idle.is_taking(*stream.untaken)  # what it takes from now on
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.linger):
                    while await stream.reader.read(RECEIVE_SIZE):
                        pass
                return
            if self._draining or not stream.idle.is_taking(*stream.untaken):
                return

    def _receive(self, listener: Listener) -> None:
        if (received := listener.receive()) and len(self._tasks) < self._limits.connections:
            self._keep(asyncio.create_task(self._serve_datagram(listener, *received)))

    async def _serve_datagram(self, listener: Listener, data: bytes, peer: object) -> None:
        connection = listener.datagram(data, peer)
        while (seconds := listener.answer(connection, peer)) is not None:
            await asyncio.sleep(seconds)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        """Close who was quiet for too long. One look around for all costs less than a timer for each read."""
        while True:
            await asyncio.sleep(self._limits.idle / LOOKS)
            for stream in self._streams:
                if not stream.is_working and stream.idle.is_idle(*stream.untaken):
                    log.info("closed a connection that was idle for %g s", self._limits.idle)
                    stream.writer.transport.abort()

    async def _drain(self) -> bool:
        self._draining = True
        for stream in self._streams:
            self._end_reading(stream)
        # A client that was accepted just now has a task that has not run yet; `_serve_stream` notes itself at once.
        await asyncio.sleep(0)
        if not self._tasks:
            return True
        _, late = await asyncio.wait(self._tasks, timeout=self._limits.grace)
        if late:
            log.warning("the grace period of %g s is over: %d conversations are cut off", self._limits.grace, len(late))
            for task in late:
                task.cancel()
            await asyncio.wait(late)
        return not late

    @staticmethod
    def _end_reading(stream: Stream) -> None:
        """Answer what has been asked, then close: the kernel gives what has arrived, then the end of the stream."""
        end_reading(stream.writer.transport, stream.connection)
