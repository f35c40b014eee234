"""What the models over asyncio's transports share: how they accept, and how they run until a stop signal."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from services.serving.callbacks import retry_accept
from services.serving.listeners import Listener
from services.serving.signals import hold_stop_signals, stop_signals

log = logging.getLogger("services")


class Server(Protocol):
    """The server of one loop."""

    async def run(self) -> bool:
        """Serve until a stop signal; return whether all conversations ended by themselves."""


def run_on(loop_factory: Callable[[], asyncio.AbstractEventLoop], make_server: Callable[[], Server]) -> bool:
    """Run a server on a loop of choice; returns what it does.

    Args:
        make_server: called when the loop runs.
    """

    async def run_server() -> bool:
        is_clean = await make_server().run()
        hold_stop_signals()  # the loop is about to give up its handlers
        return is_clean

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(run_server())


class Acceptor:
    """Accepts from one listening socket for a loop, in place of `create_server`.

    Without a free descriptor, asyncio's own server retries a second later, once for *each* client of its backlog, and
    each of these retries again (CPython #151615): after ten seconds it does nothing else. libuv accepts with a reserve
    descriptor and closes the connection without a message.

    Args:
        factory: makes the protocol of a connection.
        at_once: the most connections that one turn of the loop accepts.
    """

    def __init__(self, listener: Listener, factory: Callable[[], asyncio.BaseProtocol], at_once: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._factory = factory
        self._at_once = at_once
        self._arriving: set[asyncio.Future[object]] = set()
        self._loop.add_reader(listener.socket, self._accept)

    def close(self) -> None:
        self._listener.shortage.forget()
        self._loop.remove_reader(self._listener.socket)
        self._listener.socket.close()

    async def wait_arrived(self) -> None:
        """Wait until each connection that was accepted has its protocol."""
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _accept(self) -> None:
        for _ in range(self._at_once):
            if not (accepted := self._listener.accept()):
                break
            self._connect(accepted[0])
        if retry_accept(self._listener.shortage, self._loop.call_later, self._accept_again):
            self._loop.remove_reader(self._listener.socket)

    def _accept_again(self) -> None:
        if self._listener.socket.fileno() >= 0:  # or it was closed meanwhile
            self._loop.add_reader(self._listener.socket, self._accept)
            self._accept()

    def _connect(self, stream: socket.socket) -> None:
        # A task would need a turn of the loop more, and as much time as all else here. The coroutine waits once, for
        # the protocol's `connection_made`.
        connecting = self._loop.connect_accepted_socket(self._factory, stream)
        if waiter := self._go_on(connecting, stream):
            self._arriving.add(waiter)
            waiter.add_done_callback(partial(self._arrived, connecting, stream))

    def _arrived(
        self, connecting: Coroutine[Any, Any, object], stream: socket.socket, waiter: asyncio.Future[object]
    ) -> None:
        self._arriving.discard(waiter)
        self._go_on(connecting, stream)

    @staticmethod
    def _go_on(connecting: Coroutine[Any, Any, object], stream: socket.socket) -> asyncio.Future[object] | None:
        """Run a coroutine until it waits; return what it waits for, or None at its end."""
        try:
            waiter: asyncio.Future[object] = connecting.send(None)
        except StopIteration:
            return None
        except (OSError, asyncio.CancelledError) as error:
            log.debug("the peer is gone: %s", error)
            stream.close()
            return None
        return waiter


async def accept_until_stopped(
    listeners: list[Listener],
    listen: Callable[[Listener], Acceptor],
    receive: Callable[[Listener], object],
) -> None:
    """Accept connections and receive datagrams until a stop signal, and until each accepted one has its protocol.

    Args:
        listen: makes the acceptor of a listening socket.
        receive: called when a datagram socket is readable.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in stop_signals():
        loop.add_signal_handler(number, stop.set)
    acceptors = [listen(listener) for listener in listeners if not listener.is_datagram]
    datagrams = [listener for listener in listeners if listener.is_datagram]
    for listener in datagrams:
        # A datagram endpoint would do for UDP, but knows no Unix datagrams on some loops, and on Python 3.11 and 3.12
        # cannot send an empty one.
        loop.add_reader(listener.socket, receive, listener)
    await stop.wait()
    for acceptor in acceptors:
        acceptor.close()
    for listener in datagrams:
        loop.remove_reader(listener.socket)
    for acceptor in acceptors:
        await acceptor.wait_arrived()


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """Return the descriptor of a transport's socket; -1 if it is closed."""
    owner = transport.get_extra_info("socket")
    return -1 if owner is None else int(owner.fileno())
