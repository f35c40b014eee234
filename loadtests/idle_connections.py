"""Connections that stay idle while others are measured."""

import gevent.pool

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SocketsError
from services.protocol import Address

_CONNECT_TIMEOUT = 5.0

# Connections opened at the same time: well below the backlog of a listening socket. Linux drops a SYN beyond the
# backlog, and the client sends it again a second later (listen(2), tcp(7)).
_AT_ONCE = 64


class IdleConnections:
    """Idle connections to one server."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._held: list[BlockingConnection] = []

    def open(self, count: int) -> int:
        """Open `count` connections; return how many the server accepted."""
        pool = gevent.pool.Pool(_AT_ONCE)
        self._held += [connection for connection in pool.imap_unordered(self._connect, range(count)) if connection]
        return len(self._held)

    def close(self) -> None:
        while self._held:
            self._held.pop().close()

    def _connect(self, _: int) -> BlockingConnection | None:
        try:
            return BlockingConnection(self.address, timeout=_CONNECT_TIMEOUT)
        except SocketsError:
            return None


def divide(count: int, worker: int, workers: int) -> int:
    """Return how many of `count` connections worker number `worker`, from 0, has to open."""
    return count * (worker + 1) // workers - count * worker // workers
