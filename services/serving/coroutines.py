"""What the models over coroutines share. Each passes the `sleep` of its own library."""

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import NoReturn, Protocol

from services.serving.idle import LOOKS, IdleWatch
from services.serving.listeners import Listener

log = logging.getLogger("services")

Sleep = Callable[[float], Awaitable[object]]


class Stream(Protocol):
    """A conversation over a stream, as its model keeps it."""

    idle: IdleWatch
    is_working: bool  # it is the server that is quiet

    def untaken(self) -> tuple[int, int]:
        """Return what an `IdleWatch` looks at: the socket's descriptor, and the bytes that the library holds."""

    def close(self) -> None:
        """Close the connection without any more stages."""


async def watch_idle(streams: Collection[Stream], idle: float, sleep: Sleep) -> NoReturn:
    """Close idle connections. One check of all costs less than a timer that each read postpones."""
    while True:
        await sleep(idle / LOOKS)
        for stream in list(streams):
            if not stream.is_working and stream.idle.is_idle(*stream.untaken()):
                log.info("closed a connection that was idle for %g s", idle)
                stream.close()


async def serve_datagram(listener: Listener, data: bytes, peer: object, sleep: Sleep) -> None:
    connection = listener.datagram(data, peer)
    while (seconds := listener.answer(connection, peer)) is not None:
        await sleep(seconds)
