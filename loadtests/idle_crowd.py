"""An idle crowd: connections that are there, and ask nothing, while others are measured."""

import gevent.pool

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SocketsError
from services.protocol import Address

# Seconds that a connection may take, and how many are made at a time: well below a listening socket's backlog, beyond
# which a SYN is dropped and sent again a second later.
_PATIENCE = 5.0
_AT_ONCE = 64


class Crowd:
    """So many connections to one server, from `gather` to `leave`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._held: list[BlockingConnection] = []

    def gather(self, size: int) -> int:
        """Connect so many; returns how many got in."""
        pool = gevent.pool.Pool(_AT_ONCE)
        self._held += [link for link in pool.imap_unordered(self._connect, range(size)) if link]
        return len(self._held)

    def leave(self) -> None:
        """Close them all."""
        while self._held:
            self._held.pop().close()

    def _connect(self, _: int) -> BlockingConnection | None:
        try:
            return BlockingConnection(self.address, timeout=_PATIENCE)
        except SocketsError:
            return None


def divide(size: int, worker: int, workers: int) -> int:
    """The part of a crowd that one of several workers, from 0, has to gather."""
    return size * (worker + 1) // workers - size * worker // workers
