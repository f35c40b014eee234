"""trio: a task for each client, each in a nursery that does not end before its tasks have.

Unit of concurrency: a task in a nursery, which waits for it and gets its errors, so no task is lost.
What blocks whom: waiting blocks no client, as every `await` on the network lets the loop run other tasks. Computing
blocks all.
What runs out first: the loop's single core. At every `await`, trio checks for cancellation and lets other tasks run,
even if there is nothing to wait for. This is the cost of its guarantees.

The shutdown shows the advantage. The nursery of the conversations contains the nursery of the tasks that accept.
Cancelling the inner one stops accepting, and the outer one ends by itself after the last reply.
"""

import logging
import math
import signal
import socket
from dataclasses import dataclass, field

import trio

from services.protocol import Close, Compute, GiveWay, Send, StreamConversation, Wait
from services.serving.closing import stop_accepting, stop_reading
from services.serving.coroutines import serve_datagram, watch_idle
from services.serving.idle import IdleWatch
from services.serving.isolation import ErrorsLogged
from services.serving.listeners import RECEIVE_SIZE, Listener
from services.serving.signals import hold_stop_signals, stop_signals

log = logging.getLogger("services")

LIBRARIES = ("trio",)
LOOP = "trio"


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    # Until `run` waits for them they wait for it: a handler of before that raises inside of trio's own start would be
    # taken for an error of trio.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    if not trio.run(Server(listeners).run):
        raise SystemExit(1)


@dataclass(slots=True, eq=False)
class Stream:
    socket: trio.socket.SocketType
    connection: StreamConversation
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)  # of its conversation
    idle: IdleWatch = field(default_factory=IdleWatch)
    is_working: bool = False  # it is the server that is quiet

    def untaken(self) -> tuple[int, int]:
        """Return what an `IdleWatch` looks at: the kernel holds all that was sent."""
        return self.socket.fileno(), 0

    def close(self) -> None:
        """End the conversation wherever it waits."""
        self.scope.cancel()


class Server:
    """The conversations of one run of trio."""

    def __init__(self, listeners: list[Listener]) -> None:
        self._listeners = listeners
        self._limits = listeners[0].limits
        self._room = trio.CapacityLimiter(self._limits.connections)
        self._streams: set[Stream] = set()
        self._is_draining = False

    async def run(self) -> bool:
        """Serve until a signal; return whether all conversations ended by themselves."""
        with trio.open_signal_receiver(*stop_signals()) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
            async with trio.open_nursery() as conversations:
                async with trio.open_nursery() as accepting:
                    for listener in self._listeners:
                        serve = self._serve_datagrams if listener.is_datagram else self._accept
                        accepting.start_soon(serve, listener, conversations)
                    accepting.start_soon(watch_idle, self._streams, self._limits.idle, trio.sleep)
                    async for _ in signals:
                        accepting.cancel_scope.cancel()
                        break
                self._drain()
                conversations.cancel_scope.deadline = trio.current_time() + self._limits.grace
            hold_stop_signals()  # the receiver is about to give them back
        if conversations.cancel_scope.cancelled_caught:
            log.warning("the grace period of %g s is over: what was left is cut off", self._limits.grace)
            return False
        return True

    async def _accept(self, listener: Listener, conversations: trio.Nursery) -> None:
        while True:
            timeout = listener.shortage.timeout
            with trio.move_on_after(math.inf if timeout is None else timeout) as patience:
                await trio.lowlevel.wait_readable(listener.socket)
            if patience.cancelled_caught:
                listener.shortage.look()
                continue
            token = object()
            await self._room.acquire_on_behalf_of(token)  # while there is no room, clients wait in the backlog
            if accepted := listener.accept():
                conversations.start_soon(self._serve_stream, listener, *accepted, token)
                continue
            self._room.release_on_behalf_of(token)
            await trio.sleep(listener.shortage.pause)

    async def _serve_stream(self, listener: Listener, accepted: socket.socket, peer: object, token: object) -> None:
        try:
            with trio.socket.from_stdlib_socket(accepted) as socket_:
                stream = Stream(socket_, listener.connection(peer))
                self._streams.add(stream)
                if self._is_draining:
                    stop_reading(socket_.fileno(), stream.connection)
                try:
                    with ErrorsLogged():  # an error would end the nursery, and all of its tasks
                        await self._converse(stream)
                finally:
                    self._streams.discard(stream)
        finally:
            self._room.release_on_behalf_of(token)

    async def _converse(self, stream: Stream) -> None:
        connection = stream.connection
        with stream.scope:
            while True:
                match connection.next_event():
                    case None:
                        data = await stream.socket.recv(RECEIVE_SIZE)
                        stream.idle.news()
                        if data:
                            connection.receive_data(data)
                        else:
                            connection.receive_eof()
                    case Send() as send:
                        await self._send(stream, send.data)
                    case Wait(seconds):
                        stream.is_working = True
                        await trio.sleep(seconds)
                        stream.is_working = False
                        stream.idle.news()
                    case GiveWay():
                        pass  # each `send` and `recv` has given way already
                    case Compute() as work:
                        connection.receive_digest(work.run())
                    case Close(at_eof):
                        break
            if not at_eof:
                await self._linger(stream)

    async def _send(self, stream: Stream, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            sent += await stream.socket.send(memoryview(data)[sent:] if sent else data)
            stream.idle.news()

    async def _linger(self, stream: Stream) -> None:
        """End our half, then read what still comes, so that no reset overtakes the last reply."""
        stream.socket.shutdown(socket.SHUT_WR)
        stream.idle.is_taking(stream.socket.fileno())  # what it takes from now on
        while True:
            with trio.move_on_after(self._limits.linger):
                while await stream.socket.recv(RECEIVE_SIZE):
                    pass
                return
            if self._is_draining or not stream.idle.is_taking(stream.socket.fileno()):
                return

    async def _serve_datagrams(self, listener: Listener, conversations: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.socket)
            if received := listener.receive():
                token = object()
                await self._room.acquire_on_behalf_of(token)
                conversations.start_soon(self._serve_datagram, listener, *received, token)

    async def _serve_datagram(self, listener: Listener, data: bytes, peer: object, token: object) -> None:
        try:
            await serve_datagram(listener, data, peer, trio.sleep)
        finally:
            self._room.release_on_behalf_of(token)

    def _drain(self) -> None:
        self._is_draining = True
        stop_accepting(self._listeners)
        for stream in self._streams:
            stop_reading(stream.socket.fileno(), stream.connection)
