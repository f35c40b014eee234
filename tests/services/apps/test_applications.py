"""The applications behind HTTP servers: WSGI, ASGI and http.server give the same answers, which are the models'."""

import asyncio
import http.client
import io
import json
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.apps import asgi, routes, threading_http_server, wsgi, wsgiref_server
from services.protocol import Connection, Limits, Send
from tests.support.events import next_event

_DIGEST = b"66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an application says."""

    status: int
    body: bytes
    fields: Mapping[str, str] = field(default_factory=dict)


Ask = Callable[..., Answer]


class Dribble(io.BytesIO):
    """An input that gives less than it is asked for, as io.RawIOBase.read may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1000 if size is None or size < 0 else min(size, 1000))


def ask_wsgi(method: str, path: str, body: bytes = b"", **fields: str) -> Answer:
    started: list[Any] = []
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(body),
        **{f"HTTP_{name.upper()}": value for name, value in fields.items()},
    }
    # These two have no prefix, PEP 3333, "environ Variables".
    environ |= {name.upper(): fields[name] for name in ("content_type", "content_length") if name in fields}
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
        # The input may have no end, PEP 3333, "Input and Error Streams".
        environ["wsgi.input"] = Dribble(body + b"the next request")
    found = b"".join(wsgi.application(environ, lambda *line: started.append(line)))
    ((status, headers),) = started
    code = int(status.split()[0])
    assert status == f"{code} {http.client.responses[code]}"
    return Answer(code, found, {name.lower(): value for name, value in headers})


def ask_asgi(method: str, path: str, body: bytes = b"", **fields: str) -> Answer:
    sent: list[dict[str, Any]] = []
    # In two pieces, as a server that streams gives it. The last one may be without `more_body`.
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": body[:3], "more_body": True},
        {"type": "http.request", "body": body[3:]},
    ]
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    headers += [(b"content-length", b"%d" % len(body))] if body else []
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": headers,
        "http_version": "1.1",
    }

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asgi.application(scope, receive, send))
    start, *rest = sent
    assert [item.get("more_body", False) for item in rest] == [True] * (len(rest) - 1) + [False]
    found = b"".join(item.get("body", b"") for item in rest)
    return Answer(start["status"], found, {name.decode(): value.decode() for name, value in start["headers"]})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The library's server, at a port of its own."""
    with threading_http_server.Server(("127.0.0.1", 0), threading_http_server.Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(params=["wsgi", "asgi", "http.server"])
def ask(request: pytest.FixtureRequest, port: int) -> Ask:
    def ask_server(method: str, path: str, body: bytes = b"", **fields: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(
                method, path, body or None, {name.replace("_", "-"): value for name, value in fields.items()}
            )
            reply = connection.getresponse()
            found = reply.read()
            return Answer(reply.status, found, {name.lower(): value for name, value in reply.getheaders()})
        finally:
            connection.close()

    known: dict[str, Ask] = {"wsgi": ask_wsgi, "asgi": ask_asgi, "http.server": ask_server}
    return known[request.param]


ROUTES = {
    "/": b"Thank you for connecting\r\n",
    "/ping": b"PONG\n",
    "/sleep/1": b"OK\n",
    "/burn/1": _DIGEST,
    "/blob/0": b"",
    "/blob/200000": (bytes(range(32, 127)) * 2200)[:200000],
    "/stream/2": bytes(range(32, 104)) + b"\r\n" + bytes(range(33, 105)) + b"\r\n",
    "/events/2": b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n",
}


KINDS = {"/blob": "application/octet-stream", "/events": "text/event-stream"}


@pytest.mark.usefixtures("slept")
@pytest.mark.parametrize("path", ROUTES)
def test_route_answers(ask: Ask, path: str) -> None:
    found = ask("GET", path)
    assert (found.status, found.body) == (200, ROUTES[path])
    # A client knows the size of each body beforehand, also of none, but for those that are made line by line.
    size = None if path.startswith(("/stream", "/events")) else str(len(ROUTES[path]))
    kind = KINDS.get(path.rpartition("/")[0], "text/plain; charset=utf-8")
    assert (found.fields["content-type"], found.fields.get("content-length")) == (kind, size)


@pytest.mark.parametrize("path", [path for path in ROUTES if not path.startswith(("/sleep", "/burn", "/events"))])
def test_body_is_that_of_the_models(path: str) -> None:
    connection = Connection("http")
    connection.receive_data(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
    sent = b""
    while isinstance(event := next_event(connection), Send):
        sent += event.data
    assert sent.partition(b"\r\n\r\n")[2] == ROUTES[path]


def test_page_is_for_browsers(ask: Ask) -> None:
    found = ask("GET", "/", accept="text/html,*/*")
    assert found.fields["content-type"] == "text/html; charset=utf-8"
    links = b"".join(
        b"<li><a href='/%b'>/%b</a>" % (path, path) for path in (b"ping", b"sleep/100", b"burn/1000", b"info")
    )
    name = routes.SERVER.encode()
    assert found.body == (
        b"<!doctype html><html lang=en><title>%b</title><h1>%b</h1><ul>%b</ul></html>\n" % (name, name, links)
    )


def test_echo_returns_its_body(ask: Ask) -> None:
    large = bytes(range(256)) * 1000
    for fields, kind, body in (
        ({}, "application/octet-stream", large),
        ({"content_type": "text/css"}, "text/css", b"small"),
        ({"content_length": "0"}, "application/octet-stream", b""),
        ({"content_type": "text/\xe9"}, "text/\xe9", b"not ASCII"),
    ):
        found = ask("POST", "/echo", body, **fields)
        assert (found.status, found.body) == (200, body)
        assert (found.fields["content-type"], found.fields["content-length"]) == (kind, str(len(body)))


def test_echo_ends_with_its_client() -> None:
    """The reply is not ended: it would pass for the whole body."""
    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": []}
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.disconnect"},
    ]
    assert play(scope, incoming)[1:] == [{"type": "http.response.body", "body": b"a", "more_body": True}]


@pytest.mark.parametrize("ask", ["http.server"], indirect=True)
@pytest.mark.parametrize("length", ["", "x", "-1", "\N{SUPERSCRIPT TWO}", "9" * 5000], ids=range(5))
def test_echo_refuses_what_is_no_length(ask: Ask, length: str) -> None:
    assert ask("POST", "/echo", content_length=length).status == 411


@pytest.mark.parametrize("ask", ["wsgi", "asgi"], indirect=True)
def test_echo_of_a_body_of_unknown_length_has_none(ask: Ask) -> None:
    """A chunked one, whose end the server knows."""
    found = ask("POST", "/echo")
    assert (found.status, found.body, found.fields.get("content-length")) == (200, b"", None)


def test_input_without_a_length_is_read_to_its_end() -> None:
    body = bytes(range(256)) * 1000
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/echo", "wsgi.input": Dribble(body)}
    assert b"".join(wsgi.application(environ, lambda *_: None)) == body


def test_info_is_json_with_the_limits(ask: Ask) -> None:
    found = ask("GET", "/info")
    shown = json.loads(found.body)
    assert (found.status, found.fields["content-type"]) == (200, "application/json")
    assert shown["limits"] == {"sleep_ms": 60_000, "burn": 10_000_000, "blob": 67_108_864}
    assert (shown["protocol"], shown["python"]) == ("HTTP/1.1", platform.python_version())
    assert (shown["model"], shown["pid"]) == (routes.SERVER, os.getpid())


@pytest.mark.parametrize(
    ("method", "path", "status", "said", "allow"),
    [
        ("GET", "/nothing", 404, b"no such route\n", None),
        ("GET", "/sleep", 404, b"no such route\n", None),
        ("GET", "/ping/3", 404, b"no such route\n", None),
        ("GET", "/sleep/x", 404, b"no such route\n", None),
        ("GET", "/sleep/-1", 404, b"no such route\n", None),
        ("OPTIONS", "/sleep", 404, b"no such route\n", None),
        ("GET", "/sleep/60001", 400, b"at most 60000\n", None),
        ("GET", "/burn/10000001", 400, b"at most 10000000\n", None),
        ("GET", "/blob/67108865", 400, b"at most 67108864\n", None),
        ("GET", "/echo", 405, b"method not allowed\n", "POST, OPTIONS"),
        ("DELETE", "/ping", 405, b"method not allowed\n", "GET, HEAD, OPTIONS"),
        ("DELETE", "/sleep/60001", 405, b"method not allowed\n", "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/ping", 204, b"", "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/echo", 204, b"", "POST, OPTIONS"),
        ("OPTIONS", "/ws", 204, b"", "GET, OPTIONS"),
    ],
)
def test_request_without_a_route_is_refused(
    ask: Ask, method: str, path: str, status: int, said: bytes, allow: str | None
) -> None:
    found = ask(method, path)
    assert (found.status, found.body, found.fields.get("allow")) == (status, said, allow)
    # RFC 9110, 8.6: no Content-Length with status 204.
    wanted = ("text/plain; charset=utf-8", str(len(said))) if said else (None, None)
    assert (found.fields.get("content-type"), found.fields.get("content-length")) == wanted


@pytest.mark.parametrize(("name", "largest"), [("sleep", 60_000), ("stream", 1_000_000), ("events", 1_000_000)])
def test_largest_number_of_a_route_is_allowed(name: str, largest: int) -> None:
    assert routes.find("GET", f"/{name}/{largest}") == routes.Work(name, largest)
    refusal = routes.find("GET", f"/{name}/{largest + 1}")
    assert refusal == routes.Refusal(400, b"at most %d\n" % largest)


@pytest.mark.parametrize(("ask", "status"), [("wsgi", 501), ("asgi", 426)], indirect=["ask"])
def test_path_of_websocket_is_no_page(ask: Ask, status: int) -> None:
    found = ask("GET", "/ws")
    assert (found.status, found.fields["content-type"]) == (status, routes.TEXT)
    # RFC 9110, 7.8: who sends Upgrade names it in Connection, for a proxy.
    upgrade = (found.fields.get("upgrade"), found.fields.get("connection"))
    assert upgrade == (("websocket", "Upgrade") if status == 426 else (None, None))


def play(scope: dict[str, Any], incoming: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give messages to the ASGI application; return those that it sends."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asgi.application(scope, receive, send))
    return sent


def carry(message: str | bytes) -> dict[str, str | bytes]:
    return {"text" if isinstance(message, str) else "bytes": message}


def test_websocket_echoes_and_obeys(monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> None:
    monkeypatch.setattr(routes, "LIMITS", replace(routes.LIMITS, burn=1, sleep_ms=250))
    answers: list[tuple[str | bytes, str | bytes]] = [
        ("hello", "hello"),
        ("", ""),
        (b"\0\xff", b"\0\xff"),
        (b"", b""),
        ("PING", "PONG"),
        ("SLEEP 250", "OK"),
        ("SLEEP 251", "SLEEP 251"),
        ("SLEEP x", "SLEEP x"),
        ("SLEEP " + "0" * 5000, "SLEEP " + "0" * 5000),
        ("BURN 1", _DIGEST.decode().strip()),
        ("BURN 2", "BURN 2"),
        ("BURN x", "BURN x"),
    ]
    # The other key may be there with None, ASGI, "Receive - receive event".
    messages = [{"type": "websocket.receive", "text": None, **carry(said)} for said, _ in answers]
    incoming: list[dict[str, Any]] = [{"type": "websocket.connect"}, *messages, {"type": "websocket.disconnect"}]
    first, *sent = play({"type": "websocket", "path": "/ws"}, incoming)
    assert first == {"type": "websocket.accept"}
    assert sent == [{"type": "websocket.send", **carry(answer)} for _, answer in answers]
    assert slept == [0.25]


def test_websocket_at_another_path_is_refused() -> None:
    assert play({"type": "websocket", "path": "/ping"}, [{"type": "websocket.connect"}]) == [
        {"type": "websocket.close"}
    ]


def test_start_and_end_of_the_server_are_confirmed() -> None:
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = play({"type": "lifespan"}, incoming)
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_events_are_not_cached(ask: Ask) -> None:
    found = ask("GET", "/events/1")
    assert (found.fields["content-type"], found.fields["cache-control"]) == ("text/event-stream", "no-store")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list to which the applications add the seconds for which they would sleep."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    for module in (wsgi, threading_http_server):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=found.append))
    monkeypatch.setattr(asgi, "asyncio", SimpleNamespace(sleep=sleep))
    return found


def test_request_sleeps_for_its_milliseconds(ask: Ask, slept: list[float]) -> None:
    assert ask("GET", "/sleep/250").body == b"OK\n"
    assert slept == [0.25]


def test_events_have_their_pause_between_them(ask: Ask, slept: list[float]) -> None:
    ask("GET", "/events/3?every=50")
    ask("GET", "/events/2")
    ask("GET", "/stream/3")
    # Before the second and the third, and the default.
    assert [seconds for seconds in slept if seconds] == [0.05, 0.05, 0.1]


@pytest.mark.parametrize("ask", ["wsgi", "asgi"], indirect=True)
def test_query_and_fields_may_have_other_bytes_than_ascii(ask: Ask) -> None:
    assert ask("GET", "/events/1?every=\xe9").body == b"id: 1\ndata: 1\n\n"
    assert ask("GET", "/", accept="text/\xe9").body == ROUTES["/"]


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("", 0.1), ("every=0", 0.0), ("every=2000", 2.0), ("every=x", 0.1), ("every=5x", 0.1), ("xevery=5", 0.1)],
)
def test_pause_between_events_is_that_of_the_query(query: str, seconds: float) -> None:
    assert routes.read_pause(query) == seconds


def test_pause_between_events_has_a_limit() -> None:
    assert routes.read_pause("every=999999999") == 60.0


PING = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "bodies"),
    [
        # The whole body, and nothing of the request behind it.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + PING, 200, [b"abc", b"PONG\n"]),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc" + PING, 200, [b"abc"]),
        # A body that nobody reads would be taken for the next request.
        (
            b"POST /ping HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(PING) + PING,
            405,
            [b"method not allowed\n"],
        ),
        (
            b"POST /ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + PING,
            405,
            [b"method not allowed\n"],
        ),
        # Chunks have no length, and of two lengths a proxy would believe the other one.
        (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
            + PING,
            411,
            [b"this server needs Content-Length\n"],
        ),
        (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(PING) + PING,
            411,
            [b"this server needs Content-Length\n"],
        ),
        *[
            (b"%b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (line, len(PING)) + PING, status, [body])
            for line, status, body in (
                (b"GET /blob/2", 200, b" !"),
                (b"GET /events/1", 200, b"f\r\nid: 1\ndata: 1\n\n\r\n0\r\n\r\n"),
                (b"OPTIONS /ping", 204, b""),
            )
        ],
        # Without a body, it goes on.
        (b"POST /echo HTTP/1.1\r\nHost: a\r\n\r\n" + PING, 411, [b"this server needs Content-Length\n", b"PONG\n"]),
        (b"OPTIONS /ping HTTP/1.1\r\nHost: a\r\n\r\n" + PING, 204, [b"", b"PONG\n"]),
        *[
            (b"HEAD %b HTTP/1.1\r\nHost: a\r\n\r\n" % path + PING, 200, [b"", b"PONG\n"])
            for path in (b"/ping", b"/blob/2", b"/events/1")
        ],
        # The body is in chunks, as its head says, though the connection ends.
        (
            b"GET /events/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + PING,
            200,
            [b"f\r\nid: 1\ndata: 1\n\n\r\n0\r\n\r\n"],
        ),
        # HTTP/1.0 knows no chunks: the end of the connection is the end of the body, though the client would keep it.
        (b"GET /stream/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + PING, 200, [bytes(range(32, 104)) + b"\r\n"]),
    ],
    ids=[
        *(
            "pipeline",
            "close",
            "unread",
            "unread-chunks",
            "chunks-and-length",
            "two-lengths",
            "unread-blob",
            "unread-chunked",
        ),
        *("unread-options", "no-length", "options", "head", "head-blob", "head-chunked", "chunked-close", "HTTP/1.0"),
    ],
)
def test_http_server_takes_no_part_of_a_body_for_a_request(
    port: int, request_: bytes, status: int, bodies: list[bytes]
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(request_)
        said = b"".join(iter(lambda: link.recv(65536), b""))
    replies = said.split(b"HTTP/1.1 ")[1:]
    assert int(replies[0][:3]) == status
    assert [reply.partition(b"\r\n\r\n")[2] for reply in replies] == bodies


def test_http_server_sends_a_reply_at_once_and_as_one() -> None:
    """Head and body in two writes would wait for the client's delayed ACK."""
    seen: list[tuple[int, bool]] = []

    class Handler(threading_http_server.Handler):
        def handle(self) -> None:
            option = self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            seen.append((option, isinstance(self.wfile, io.BufferedWriter)))

    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, peer = listening.accept()
        with accepted:
            Handler(accepted, peer, cast(Any, SimpleNamespace()))
    assert seen == [(1, True)]


@pytest.mark.parametrize("module", [threading_http_server, wsgiref_server])
def test_servers_of_the_library_have_the_models_backlog_and_end_in_order(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.Server.request_queue_size == Limits().backlog
    opened: list[Any] = []

    class Server:
        def __init__(self, *arguments: object) -> None:
            opened.append(arguments)

        def __enter__(self) -> "Server":
            return self

        def __exit__(self, *exception: object) -> None:
            opened.append("closed")

        def serve_forever(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    own = (module.Server, module.Handler)
    monkeypatch.setattr(module, "Server" if module is threading_http_server else "make_server", Server)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            module.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 0
    where = (("", 8080), own[1]) if module is threading_http_server else ("", 8080, wsgi.application, *own)
    assert opened == [where, "closed"]
