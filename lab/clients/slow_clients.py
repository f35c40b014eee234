"""Occupy a server with slow and silent clients: `python -m lab.clients.slow_clients ADDRESS`.

The slow clients send one byte per second of a request that never ends; the idle ones send nothing. The command sends
`Connected` to its parent when the clients are connected, and keeps them until its stdin ends.

With --ping it is the well-behaved client instead: it sends that number of PINGs, one after the other, over one
connection, and prints percentiles of the time that they took.
"""

import json
import resource
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import click

from lab.base.messages import Message, say
from loadtests.sockets.addresses import SocketAddress, find_addresses, remember
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError
from services.protocol import Address

_CONNECT_SECONDS = 3.0
_ENDLESS_REQUEST = b"*2\r\n$4\r\nECHO\r\n$100000\r\n"
_REQUEST, _REPLY = b"PING\r\n", b"+PONG\r\n"
_TIMEOUT = 5.0
_SPARE = 64  # descriptors for everything else


@dataclass(frozen=True, slots=True)
class Connected(Message):
    """The clients are connected, or wait in the server's backlog."""


def connect_all(address: Address, count: int) -> list[socket.socket]:
    """Open connections at the same time; after three seconds the unaccepted ones stay in the backlog.

    All connect to the same address of the host: the first one that accepts at least one connection. The addresses
    share the three seconds.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + _SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + _SPARE, hard), hard))
    places = find_addresses(address.host, address.port, socket.SOCK_STREAM)
    deadline = time.monotonic() + _CONNECT_SECONDS
    for number, place in enumerate(places):
        clients = _connect_to(place, count, (deadline - time.monotonic()) / (len(places) - number))
        if any(map(_is_connected, clients)):
            remember(address.host, address.port, socket.SOCK_STREAM, place)
            break
        if number + 1 < len(places):
            for client in clients:
                client.close()
    return clients


def _connect_to(place: SocketAddress, count: int, seconds: float) -> list[socket.socket]:
    """Connect to one address; return no sockets if this machine does not support its family."""
    family, where = place
    clients = []
    with suppress(OSError):
        for _ in range(count):
            client = socket.socket(family, socket.SOCK_STREAM)
            client.setblocking(False)
            client.connect_ex(where)
            clients.append(client)
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLOUT)
    pending = {client.fileno() for client in clients}
    deadline = time.monotonic() + seconds
    while pending and time.monotonic() < deadline:
        for descriptor, _ in poll.poll(100):
            pending.discard(descriptor)
            poll.unregister(descriptor)
    return clients


def _is_connected(client: socket.socket) -> bool:
    try:
        client.getpeername()
    except OSError:
        return False
    return True


def send_slowly(clients: list[socket.socket]) -> Iterator[None]:
    """Send one more byte from each client per step, without end."""
    for number in range(sys.maxsize):
        byte = _ENDLESS_REQUEST[number : number + 1] or b"x"
        for client in clients:
            with suppress(OSError):  # refused, closed by the server, or still in the backlog
                client.send(byte)
        yield


def ping(address: Address, count: int, timeout: float = _TIMEOUT) -> dict[str, float]:
    """Return percentiles, in seconds, of PINGs sent one after the other over one connection.

    Raises:
        ClientError: a PING got no answer, a late one, or a wrong one.
    """
    times = []
    with BlockingConnection(address, timeout=timeout) as connection:
        for _ in range(count):
            begin = time.perf_counter()
            connection.send(_REQUEST)
            if (reply := connection.receive()) != _REPLY:
                raise ClientError(f"PING was answered by {reply[:40]!r}")
            times.append(time.perf_counter() - begin)
            connection.reset_deadline()
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "max": max(times)}


@click.command(help=__doc__)
@click.argument("address")
@click.option("--slow", default=500)
@click.option("--idle", default=500)
@click.option("--ping", "pings", default=0)
@click.option("--timeout", default=_TIMEOUT)
def main(address: str, slow: int, idle: int, pings: int, timeout: float) -> None:
    """Exit with code 1 if a PING got no answer."""
    where = Address.parse(address)
    if pings:
        try:
            print(json.dumps(ping(where, pings, timeout)))
        except ClientError as error:
            print(error)
            sys.exit(1)
        return
    clients = connect_all(where, slow + idle)
    say(Connected())
    for _ in send_slowly(clients[:slow]):
        if select.select([sys.stdin], [], [], 1.0)[0]:
            break
    for client in clients:
        client.close()


if __name__ == "__main__":
    main()
