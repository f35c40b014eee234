"""Addresses of servers, and the order in which a client tries the addresses of a host.

As in RFC 8305, address families alternate, and an address that does not answer costs a part of the timeout and not all
of it. Unlike there, one connection is tried after the other: a server under load must not see connections that no
client wants.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol, Self

from loadtests.sockets.errors import SetupError

DATAGRAM_TRANSPORTS = frozenset({"udp", "unixgram"})
UNIX_TRANSPORTS = frozenset({"unix", "unixgram"})
_INET_TRANSPORTS = frozenset({"tcp", "tls", "udp"})

# An address family, and the argument of `socket.connect`.
SocketAddress = tuple[int, Any]

_worked: dict[tuple[str, int | None, int], SocketAddress] = {}


class Address(Protocol):
    """The address of a server; its `str` is a URL.

    Attributes:
        transport: tcp, tls, udp, unix or unixgram.
        host, port: of the first three.
        path: of the last two.
    """

    @property
    def transport(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    @property
    def path(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An `Address`."""

    transport: str
    host: str = ""
    port: int | None = None
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `tcp://host:port`, `tls://`, `udp://`, `unix:///path` or `unixgram:///path`.

        Raises:
            ValueError: it is none of these.
        """
        transport, _, rest = url.partition("://")
        if transport in UNIX_TRANSPORTS and rest.startswith("/"):
            return cls(transport, path=rest)
        host, _, port = rest.rpartition(":")
        if transport in _INET_TRANSPORTS and host and port.isdecimal() and len(port) < 6 and int(port) < 65536:
            return cls(transport, host.removeprefix("[").removesuffix("]"), int(port))
        raise ValueError(f"{url!r} is not tcp://HOST:PORT, tls://..., udp://..., unix:///PATH or unixgram:///PATH")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{self.path or f'{host}:{self.port}'}"


def find_addresses(
    host: str, port: int | None, kind: int, getaddrinfo: Callable[..., Sequence[Any]] | None = None
) -> list[SocketAddress]:
    """Return the addresses of a host, at least one: first the one that worked last, then alternating families.

    Args:
        kind: `SOCK_STREAM` or `SOCK_DGRAM`.
        getaddrinfo: replaces `socket.getaddrinfo`.

    Raises:
        socket.gaierror: the name has no address. A temporary failure has been retried once.
    """
    resolve = getaddrinfo or socket.getaddrinfo
    try:
        found = resolve(host, port, type=kind)
    except socket.gaierror as error:
        if error.errno != socket.EAI_AGAIN:
            raise
        found = resolve(host, port, type=kind)
    last = _worked.get((host, port, kind))
    return sorted(interleave((family, where) for family, _, _, _, where in found), key=lambda address: address != last)


def remember(host: str, port: int | None, kind: int, address: SocketAddress) -> None:
    """Remember the address that worked: this process tries it first from now on."""
    _worked[host, port, kind] = address


def refuse_itself(stream: socket.socket, where: Any) -> None:
    """Refuse a socket that is connected to itself, as a server that is not there does.

    The kernel chooses a client's port among those that are free, and that may be the very one that the client connects
    to: one connect of UDP in some ten thousand; in TCP a simultaneous open, RFC 9293, section 3.5, with one socket for
    both ends. A server that echoes would seem to be there, and could not bind its port again.

    Args:
        stream: connected, by TCP or UDP.
        where: what it was connected to.

    Raises:
        ConnectionRefusedError: it is. Its port is free as soon as it is closed.
    """
    own = stream.getsockname()
    if own[1] == where[1] and own == stream.getpeername():
        # Without TIME_WAIT, which would hold the port for a minute.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def interleave(addresses: Iterable[SocketAddress]) -> list[SocketAddress]:
    """Alternate address families; keep each address once."""
    by_family: dict[int, list[SocketAddress]] = {}
    for address in dict.fromkeys(addresses):
        by_family.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*by_family.values())) if address is not None]


@contextmanager
def reply_path(server: str) -> Iterator[str]:
    """Provide a path for a Unix datagram socket to receive replies at, and remove it afterwards.

    Strategy: an unbound Unix datagram socket has no address that a reply could be sent to (unix(7)). The path is in the
    server's directory if that is writable, else in its parent, else in the one for temporary files. Client and server
    may be in different containers that share only the directory with the sockets (and run as the same user), so a path
    in /tmp may mean nothing to the server.

    Raises:
        SetupError: no directory can be made.
    """
    import tempfile  # not above: importing it takes longer than an exchange

    here = Path(server).parent
    writable = [path for path in (here, here.parent) if os.access(path, os.W_OK | os.X_OK)]
    try:
        directory = tempfile.mkdtemp(prefix="c-", dir=writable[0] if writable else None)
    except OSError as error:
        raise SetupError(f"no reply path can be made next to {server}: {error.strerror}") from None
    path = Path(directory) / "r"
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)
        Path(directory).rmdir()
