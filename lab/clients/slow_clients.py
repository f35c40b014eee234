"""A hostile crowd, and what it costs somebody who knows how to behave: `python -m lab.clients.slow_clients ADDRESS`, an
instrument.

Some send a byte of a request that never ends, once a second; some say nothing at all. It says `there` when as many are
connected as will be, and stays until its stdin ends. With --ping it is the other client: it connects, asks for so many
PING in turn, and prints what they took.
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

import click

from loadtests.sockets.addresses import SocketAddress, find_addresses, remember
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError
from services.protocol import Address

_COMING_SECONDS = 3.0
_SAID = b"*2\r\n$4\r\nECHO\r\n$100000\r\n"
_REQUEST, _REPLY = b"PING\r\n", b"+PONG\r\n"
_TIMEOUT = 5.0
_SPARE = 64  # descriptors for all else


def come(address: Address, count: int) -> list[socket.socket]:
    """Connect so many, all at once; those that are not let in for some seconds stay in the backlog, or before it.

    All go to one address of the host: the first one that takes at least one of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + _SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + _SPARE, hard), hard))
    places = find_addresses(address.host, address.port, socket.SOCK_STREAM)
    for number, place in enumerate(places):
        crowd = _come_to(place, count, _COMING_SECONDS / (len(places) - number))
        if any(map(_is_connected, crowd)):
            remember(address.host, address.port, socket.SOCK_STREAM, place)
            break
        if number + 1 < len(places):
            for link in crowd:
                link.close()
    return crowd


def _come_to(place: SocketAddress, count: int, seconds: float) -> list[socket.socket]:
    """Connect so many to one address; none if this machine does not know its family."""
    family, where = place
    crowd = []
    with suppress(OSError):
        for _ in range(count):
            link = socket.socket(family, socket.SOCK_STREAM)
            link.setblocking(False)
            link.connect_ex(where)
            crowd.append(link)
    poll = select.poll()
    for link in crowd:
        poll.register(link, select.POLLOUT)
    coming = {link.fileno() for link in crowd}
    deadline = time.monotonic() + seconds
    while coming and time.monotonic() < deadline:
        for descriptor, _ in poll.poll(100):
            coming.discard(descriptor)
            poll.unregister(descriptor)
    return crowd


def _is_connected(link: socket.socket) -> bool:
    try:
        link.getpeername()
    except OSError:
        return False
    return True


def bother(slow: list[socket.socket]) -> Iterator[None]:
    """Have each say one more byte; for ever."""
    for number in range(sys.maxsize):
        byte = _SAID[number : number + 1] or b"x"
        for link in slow:
            with suppress(OSError):  # it was refused, is gone, or was never let in
                link.send(byte)
        yield


def ping(address: Address, count: int, timeout: float = _TIMEOUT) -> dict[str, float]:
    """Seconds that a PING takes, of so many in turn on one connection.

    Raises:
        ClientError: one got no answer, or none in time.
    """
    times = []
    with BlockingConnection(address, timeout=timeout) as link:
        for _ in range(count):
            begin = time.perf_counter()
            link.send(_REQUEST)
            if (said := link.receive()) != _REPLY:
                raise ClientError(f"PING was answered by {said[:40]!r}")
            times.append(time.perf_counter() - begin)
            link.reset_deadline()
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "max": max(times)}


@click.command(help=__doc__)
@click.argument("address")
@click.option("--slow", default=500)
@click.option("--idle", default=500)
@click.option("--ping", "pings", default=0)
@click.option("--timeout", default=_TIMEOUT)
def main(address: str, slow: int, idle: int, pings: int, timeout: float) -> None:
    """Exit code 1: a PING got no answer."""
    where = Address.parse(address)
    if pings:
        try:
            print(json.dumps(ping(where, pings, timeout)))
        except ClientError as error:
            print(error)
            sys.exit(1)
        return
    crowd = come(where, slow + idle)
    print("there", flush=True)
    for _ in bother(crowd[:slow]):
        if select.select([sys.stdin], [], [], 1.0)[0]:
            break
    for link in crowd:
        link.close()


if __name__ == "__main__":
    main()
