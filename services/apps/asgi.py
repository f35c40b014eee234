"""The application as ASGI 3: a coroutine per request and per WebSocket, in one event loop of its server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

from services.apps import routes
from services.protocol.events import Compute

_Message = dict[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


async def application(scope: _Message, receive: _Receive, send: _Send) -> None:
    """Serve one request, one WebSocket, or the server's start and end."""
    match scope["type"]:
        case "http":
            await _serve_request(scope, receive, send)
        case "websocket":
            await _serve_websocket(scope, receive, send)
        case "lifespan":
            await _serve_lifespan(receive, send)


async def _serve_request(scope: _Message, receive: _Receive, send: _Send) -> None:
    found = routes.find(scope["method"], scope["path"])
    if isinstance(found, routes.Refusal):
        await _answer(send, found.status, routes.TEXT, found.body, found.headers)
        return
    match found.name:
        case "ping":
            await _answer(send, 200, routes.TEXT, routes.PONG)
        case "sleep":
            await asyncio.sleep(found.number / 1000)
            await _answer(send, 200, routes.TEXT, routes.OK)
        case "burn":
            # In the loop, as a handler that computes does: it blocks all others, which is what the workload shows.
            await _answer(send, 200, routes.TEXT, Compute(found.number).run() + b"\n")
        case "echo":
            await _echo(scope, receive, send)
        case "blob":
            await _stream(send, routes.BYTES, routes.pieces_of_blob(found.number), found.number)
        case "stream":
            await _stream(send, routes.TEXT, routes.lines(found.number))
        case "events":
            pause = routes.read_pause(scope.get("query_string", b"").decode("latin-1"))
            fields = (("Cache-Control", "no-store"),)
            await _stream(send, routes.EVENTS, routes.events(found.number), pause=pause, headers=fields)
        case "info":
            await _answer(send, 200, routes.JSON, routes.info(f"HTTP/{scope['http_version']}"))
        case "ws":
            headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
            await _answer(send, 426, routes.TEXT, b"a WebSocket is asked for with Upgrade\n", headers)
        case _:
            await _answer(send, 200, *routes.greet(_header(scope, b"accept").decode("latin-1")))


async def _answer(send: _Send, status: int, kind: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
    fields = [] if status == HTTPStatus.NO_CONTENT else [("Content-Type", kind), ("Content-Length", str(len(body)))]
    await _start(send, status, [*fields, *headers])
    await send({"type": "http.response.body", "body": body})


async def _stream(
    send: _Send,
    kind: str,
    pieces: Iterable[bytes],
    size: int | None = None,
    *,
    pause: float = 0.0,
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    length = [] if size is None else [("Content-Length", str(size))]
    await _start(send, 200, [("Content-Type", kind), *length, *headers])
    for number, piece in enumerate(pieces):
        if number and pause:
            await asyncio.sleep(pause)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def _echo(scope: _Message, receive: _Receive, send: _Send) -> None:
    headers = [("Content-Type", _header(scope, b"content-type").decode("latin-1") or routes.BYTES)]
    if length := _header(scope, b"content-length"):
        headers.append(("Content-Length", length.decode("latin-1")))
    await _start(send, 200, headers)
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # http.disconnect
            return
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


async def _start(send: _Send, status: int, headers: Iterable[tuple[str, str]]) -> None:
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


def _header(scope: _Message, name: bytes) -> bytes:
    value: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return value


async def _serve_websocket(scope: _Message, receive: _Receive, send: _Send) -> None:
    await receive()  # websocket.connect
    if scope["path"] != "/ws":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        if (text := message.get("text")) is not None:
            await send({"type": "websocket.send", "text": await _obey(text)})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def _obey(text: str) -> str:
    """Return the answer to a text message: a command of docs/protocol.md, or else the text itself."""
    match text.split():
        case ["PING"]:
            return "PONG"
        case ["SLEEP", number] if _is_number(number, routes.LIMITS.sleep_ms):
            await asyncio.sleep(int(number) / 1000)
            return "OK"
        case ["BURN", number] if _is_number(number, routes.LIMITS.burn):
            return Compute(int(number)).run().decode("ascii")
    return text


def _is_number(text: str, most: int) -> bool:
    return text.isdecimal() and len(text) < 20 and int(text) <= most  # int() fails from 4300 digits on


async def _serve_lifespan(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
