"""The addresses that a group of connections can connect to, and the one that is tried first."""

import socket
from math import inf
from time import perf_counter

import gevent
import gevent.socket
from gevent import monkey

from loadtests.sockets.addresses import DATAGRAM_TRANSPORTS, UNIX_TRANSPORTS, Address, SocketAddress, find_addresses

# The system's own, whatever gevent has replaced in this process.
_getaddrinfo = monkey.get_original("socket", "getaddrinfo")

# Minimum time between two DNS lookups.
_RESOLVE_SECONDS = 0.5


class Destination:
    """The resolved addresses of a server.

    Failed connects resolve them again, because a restarted server may have another address.

    Args:
        address: the server's.

    Attributes:
        addresses: all of them; empty until they are known.
        preferred: the first to try; None until it is known.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._is_unix = address.transport in UNIX_TRANSPORTS
        self._kind = socket.SOCK_DGRAM if address.transport in DATAGRAM_TRANSPORTS else socket.SOCK_STREAM
        self.addresses: list[SocketAddress] = [(socket.AF_UNIX, address.path)] if self._is_unix else []
        self.preferred: SocketAddress | None = self.addresses[0] if self._is_unix else None
        self._resolving: gevent.Greenlet[[], None] | None = None
        self._resolved_at = -inf

    def resolve(self, now: float) -> None:
        """Resolve the host, in a separate greenlet unless it is an IP address. A failure keeps the old addresses."""
        if self._is_unix or self._resolving or now - self._resolved_at < _RESOLVE_SECONDS:
            return
        self._resolved_at = now
        host, port = self._address.host, self._address.port
        try:
            # A numeric host needs no resolver and no thread, getaddrinfo(3).
            found = _getaddrinfo(host, port, type=self._kind, flags=socket.AI_NUMERICHOST)
            self._use([(family, where) for family, _, _, _, where in found])
        except OSError:
            self._resolving = gevent.spawn(self._look_up)

    def wait(self) -> None:
        """Return when the first lookup has ended, well or not."""
        if self.preferred is None:
            self.resolve(perf_counter())
        if self._resolving:
            self._resolving.join()

    def avoid(self, address: SocketAddress | None) -> None:
        """Prefer the next address if `address` is the preferred one: no server answers there."""
        if address == self.preferred and address in self.addresses:
            self.preferred = self.addresses[(self.addresses.index(address) + 1) % len(self.addresses)]

    def _look_up(self) -> None:
        try:
            self._use(find_addresses(self._address.host, self._address.port, self._kind, gevent.socket.getaddrinfo))
        except OSError:
            pass  # the next connect fails, and reports it
        finally:
            self._resolving = None

    def _use(self, addresses: list[SocketAddress]) -> None:
        self.addresses = addresses
        if self.preferred not in addresses:
            self.preferred = addresses[0]
