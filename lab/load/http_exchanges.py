"""The exchanges of the workloads over HTTP and WebSocket, as data."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from loadtests.sockets.exchange import Body, Exchange, Framing, Turn
from loadtests.sockets.http import make_request
from loadtests.sockets.websocket import BINARY, encode_frame, make_opening
from services.protocol import Compute
from services.protocol.command import blob_bytes

_PATH_OF_WEBSOCKET = "/ws"

# As large as those of RESP's `burn`, so that the two can be compared.
_BURN_ROUNDS = 1000

http = partial(Exchange, framing=Framing.HTTP)
PING: Turn = (make_request("GET", "/ping"), b"PONG\n")
# A browser or a client without keep-alive: a connection for each request.
PING_AND_CLOSE: Turn = (make_request("GET", "/ping", close=True), b"PONG\n")
SLEEP: Turn = (make_request("GET", "/sleep/20"), b"OK\n")
BURN: Turn = (make_request("GET", f"/burn/{_BURN_ROUNDS}"), Compute(_BURN_ROUNDS).run() + b"\n")


def ask_page(exchange: Exchange, path: str, *, any_body: bool) -> Exchange:
    """Return an exchange that asks another page than `/ping`, of a server without this lab's routes.

    Args:
        path: with its query.
        any_body: the replies may differ; by default each must have the body of the first.

    Raises:
        ValueError: the exchange asks other routes.
    """
    if exchange.turns not in ((PING,), (PING_AND_CLOSE,)):
        raise ValueError("it asks routes that only this lab's servers have")
    request = make_request("GET", path, close=exchange.turns == (PING_AND_CLOSE,))
    return replace(exchange, turns=((request, b""),), body=Body.ANY if any_body else Body.FIRST)


def _echo(body: bytes) -> Turn:
    return make_request("POST", "/echo", body), body


def _blob(size: int) -> Turn:
    return make_request("GET", f"/blob/{size}"), blob_bytes(size)


# Eighteen of twenty requests are small, one sleeps, one computes: as `mixed` over RESP.
MIXED: Sequence[Turn] = (
    *[PING] * 10,
    *[_echo(b"%02d" % number * 50) for number in range(6)],
    _blob(16384),
    _blob(4096),
    (make_request("GET", "/sleep/5"), b"OK\n"),
    (make_request("GET", "/burn/100"), Compute(100).run() + b"\n"),
)


def echo_over_http(body: bytes) -> Exchange:
    """Return the exchange that posts a body and gets it back."""
    return http((_echo(body),))


def echo_over_websocket(payload: bytes, *, pause: float = 0.0) -> Exchange:
    """Return the exchange of a binary message and its echo.

    Args:
        pause: seconds between two messages of a connection.
    """
    turn = encode_frame(BINARY, payload, mask=True), encode_frame(BINARY, payload, mask=False)
    return Exchange((turn,), pause=pause, framing=Framing.WEBSOCKET, opening=make_opening(_PATH_OF_WEBSOCKET))
