"""The application as WSGI (PEP 3333): a call per request, in a thread, a process or a greenlet of its server."""

import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from services.apps import routes
from services.protocol.events import SEND_SIZE, Compute

_Headers = list[tuple[str, str]]


def application(environ: dict[str, Any], start_response: Callable[[str, _Headers], object]) -> Iterable[bytes]:
    """Answer one request."""
    found = routes.find(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    if isinstance(found, routes.Refusal):
        return _answer(start_response, found.status, routes.TEXT, found.body, found.headers)
    match found.name:
        case "ping":
            return _answer(start_response, 200, routes.TEXT, routes.PONG)
        case "sleep":
            time.sleep(found.number / 1000)
            return _answer(start_response, 200, routes.TEXT, routes.OK)
        case "burn":
            return _answer(start_response, 200, routes.TEXT, Compute(found.number).run() + b"\n")
        case "echo":
            return _echo(environ, start_response)
        case "blob":
            start_response("200 OK", [("Content-Type", routes.BYTES), ("Content-Length", str(found.number))])
            return routes.pieces_of_blob(found.number)
        case "stream":
            start_response("200 OK", [("Content-Type", routes.TEXT)])
            return routes.lines(found.number)
        case "events":
            start_response("200 OK", [("Content-Type", routes.EVENTS), ("Cache-Control", "no-store")])
            return _pause_between(routes.events(found.number), routes.read_pause(environ.get("QUERY_STRING", "")))
        case "info":
            return _answer(start_response, 200, routes.JSON, routes.info(environ["SERVER_PROTOCOL"]))
        case "ws":
            # WSGI has no way to hand over a connection.
            return _answer(start_response, 501, routes.TEXT, b"WSGI cannot serve WebSocket\n")
    return _answer(start_response, 200, *routes.greet(environ.get("HTTP_ACCEPT", "")))


def _answer(
    start_response: Callable[[str, _Headers], object],
    status: int,
    kind: str,
    body: bytes,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    fields = [] if status == HTTPStatus.NO_CONTENT else [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", [*fields, *headers])
    return [body]


def _pause_between(pieces: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    for number, piece in enumerate(pieces):
        if number:
            time.sleep(seconds)
        yield piece


def _echo(environ: dict[str, Any], start_response: Callable[[str, _Headers], object]) -> Iterable[bytes]:
    headers = [("Content-Type", environ.get("CONTENT_TYPE") or routes.BYTES)]
    if length := environ.get("CONTENT_LENGTH"):
        headers.append(("Content-Length", length))
    start_response("200 OK", headers)
    return _pieces(environ["wsgi.input"], int(length) if length else None)


def _pieces(body: Any, left: int | None) -> Iterator[bytes]:
    # A chunked request has no length; servers end its input (wsgi.input_terminated).
    while left is None or left:
        piece = body.read(SEND_SIZE if left is None else min(SEND_SIZE, left))
        if not piece:
            return
        if left is not None:
            left -= len(piece)
        yield piece
