"""An idle crowd: connections that are there, and ask nothing, while others are measured."""

import socket

import gevent.pool

from services.protocol import Address

# Seconds that a connection may take, and how many are made at a time: well below a listening socket's backlog, beyond
# which a SYN is dropped and sent again a second later.
_PATIENCE = 5.0
_AT_ONCE = 64


class Crowd:
    """So many connections to one server, from `gather` to `leave`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._held: list[socket.socket] = []

    def gather(self, size: int) -> int:
        """Connect so many; returns how many got in."""
        pool = gevent.pool.Pool(_AT_ONCE)
        self._held += [link for link in pool.imap_unordered(self._connect, range(size)) if link]
        return len(self._held)

    def leave(self) -> None:
        """Close them all."""
        while self._held:
            self._held.pop().close()

    def _connect(self, _: int) -> socket.socket | None:
        try:
            return socket.create_connection((self.address.host, self.address.port), _PATIENCE)
        except OSError:
            return None
