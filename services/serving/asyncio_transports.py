"""What the models over asyncio's transports share."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from services.protocol import StreamConversation
from services.serving.accepting import LOOK_AFTER
from services.serving.listeners import Listener, arrived

log = logging.getLogger("services")


class Acceptor:
    """Accepts from one listening socket for a loop, in place of `create_server`.

    When there is no descriptor left, asyncio's own server tries again a second later, once for *each* client of its
    backlog, and each of these again (CPython #151615): after ten seconds it does nothing else. libuv's accepts with a
    descriptor that it keeps in reserve, and closes, in silence.

    Args:
        factory: makes the protocol of a connection.
        at_once: how many connections to accept in one turn of the loop.
    """

    def __init__(self, listener: Listener, factory: Callable[[], asyncio.BaseProtocol], at_once: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._factory = factory
        self._at_once = at_once
        self._arriving: set[asyncio.Future[object]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener.socket, self._accept)

    def close(self) -> None:
        """Accept nothing more."""
        self._listener.shortage.forget()
        if self._retry:
            self._retry.cancel()
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
        if pause := self._listener.shortage.pause:
            self._loop.remove_reader(self._listener.socket)
            self._retry = self._loop.call_later(pause, self._accept_again)
            self._loop.call_later(LOOK_AFTER, self._listener.shortage.look)

    def _accept_again(self) -> None:
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
        """Run a coroutine as far as it goes; returns what it waits for, None at its end."""
        try:
            waiter: asyncio.Future[object] = connecting.send(None)
        except StopIteration:
            return None
        except (OSError, asyncio.CancelledError) as error:
            log.debug("the peer is gone: %s", error)
            stream.close()
            return None
        return waiter


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """The descriptor of a transport's socket; -1 when it is closed."""
    owner = transport.get_extra_info("socket")
    return -1 if owner is None else int(owner.fileno())


def end_reading(transport: asyncio.BaseTransport, connection: StreamConversation) -> None:
    """Have the kernel give what has arrived, then the end of the stream: so that what was asked is answered.

    Through a copy of the descriptor, because uvloop's socket object knows no `shutdown`; there is none once the
    transport is closed.
    """
    descriptor = descriptor_of(transport)
    connection.drain(arrived(descriptor))
    if descriptor < 0:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
        copy.shutdown(socket.SHUT_RD)
