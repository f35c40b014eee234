"""Replies whose bytes are known only once a right one has come."""

import os
from typing import Self

from loadtests.sockets.addresses import Address
from loadtests.sockets.exchange import Body, Exchange, Framing
from loadtests.sockets.http import AUTHORITY, make_authority

# What no server sends: the bytes of a reply that has not come yet.
_UNKNOWN = os.urandom(32)


class Learned(bytes):
    """The bytes of the last right reply to a request, for the comparison in the loop's hot path.

    Attributes:
        body: what a reply must carry: a body of HTTP, or a frame of WebSocket; None: any body.
        turn: its place in the exchange.
    """

    body: bytes | None
    turn: int

    def __new__(cls, body: bytes | None, turn: int, raw: bytes = _UNKNOWN) -> Self:
        """Make it of `raw`."""
        made = super().__new__(cls, raw)
        made.body, made.turn = body, turn
        return made


def learn_nothing(exchange: Exchange, address: Address) -> list[tuple[bytes, Learned]]:
    """Return the turns of an exchange with a server; none if all bytes of its replies are known beforehand."""
    if exchange.framing is Framing.BYTES:
        return []
    authority = make_authority(address)
    # A message is one frame, as long as a server does not split it.
    is_known = exchange.framing is Framing.WEBSOCKET
    has_body = exchange.body is Body.GIVEN
    return [
        (
            request.replace(AUTHORITY, authority, 1),
            Learned(reply if has_body else None, index, reply if is_known else _UNKNOWN),
        )
        for index, (request, reply) in enumerate(exchange.turns)
    ]
