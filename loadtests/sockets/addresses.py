"""The addresses of a name, in the order in which a client tries them, and the one that worked last.

As in RFC 8305, families take turns, and an address that does not answer costs a part of the time and not all of it. One
connection is tried after the other: a server under load must not see connections that no client wants.
"""

import socket
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any

# A family, and what a socket of it connects to.
Place = tuple[int, Any]

_worked: dict[tuple[str, int | None, int], Place] = {}


def find_places(
    host: str, port: int | None, kind: int, resolve: Callable[..., Sequence[Any]] | None = None
) -> list[Place]:
    """Return the addresses of a host, at least one: the one that worked last, then a family at a time.

    Args:
        host, port: where to.
        kind: of the socket.
        resolve: in place of `socket.getaddrinfo`.

    Raises:
        socket.gaierror: the name has no address. A failure that is temporary has been tried twice.
    """
    ask = resolve or socket.getaddrinfo
    try:
        found = ask(host, port, type=kind)
    except socket.gaierror as error:
        if error.errno != socket.EAI_AGAIN:
            raise
        found = ask(host, port, type=kind)
    places = interleave((family, where) for family, _, _, _, where in found)
    last = _worked.get((host, port, kind))
    return sorted(places, key=lambda place: place != last)


def remember(host: str, port: int | None, kind: int, place: Place) -> None:
    """Have an address that has worked tried first from now on, in this process."""
    _worked[host, port, kind] = place


def interleave(places: Any) -> list[Place]:
    """Put addresses in an order in which families take turns, each address once."""
    by_family: dict[int, list[Place]] = {}
    for place in dict.fromkeys(places):
        by_family.setdefault(place[0], []).append(place)
    return [place for place in chain.from_iterable(zip_longest(*by_family.values())) if place is not None]
