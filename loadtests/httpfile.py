"""Locust's own HTTP users for the service `http`, and a WebSocket for each, with every reply checked.

    lab load-file MODEL                                                         the usual way to start it
    locust -f loadtests/httpfile.py --host http://127.0.0.1:8080 --class-picker

It shows what Locust's `HttpUser` (requests) and `FastHttpUser` (geventhttpclient) see of a server, and is a pattern for
a locustfile of your own. It does not measure a server's speed: these clients need more CPU time per request than any
server here, and response times are those of a greenlet. `lab load --preset closed_http_ping` measures.

Tags mark what some servers cannot do: `work` is all that needs more than the static replies of nginx, and `websocket`.
`lab load-file` leaves them out by itself (`--exclude-tags`).

Locust has no user for WebSocket. The task `talk` shows how to use a client that blocks, websocket-client: Locust has
patched its sockets, so other users run while it waits, and `_counted` reports each step to Locust.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import websocket
from locust import FastHttpUser, HttpUser, TaskSet, between, tag, task

from services.protocol import Compute
from services.protocol.chargen import LINES
from services.protocol.command import blob_bytes
from services.protocol.greet import GREETING

# Bytes of an upload and of a download, and rounds of a computation: about a millisecond each on either side.
_UPLOAD, _DOWNLOAD, _ROUNDS = 1024, 16384, 1000
_LINES = 100
_EVENTS, _EVERY_MS = 5, 10
_TIMEOUT_SECONDS = 30.0

_DIGEST = Compute(_ROUNDS).run() + b"\n"
_STREAM = b"".join(LINES[number % len(LINES)] for number in range(_LINES))


def check(response: Any, body: bytes | None, *, status: int = 200) -> None:
    """Mark a reply as a success or a failure, with the reason.

    Args:
        response: of a request with `catch_response=True`.
        body: the expected body; None: any.
        status: the expected status. Without this call, Locust counts every status from 400 on as a failure.
    """
    if response.status_code == 0:
        return  # no reply: Locust counts its own error
    if response.status_code != status:
        response.failure(f"status {response.status_code} instead of {status}")
    elif body is not None and response.content != body:
        response.failure(
            f"{len(response.content)} bytes {response.content[:40]!r} instead of {len(body)} {body[:40]!r}"
        )
    else:
        response.success()


def check_info(response: Any) -> None:
    """Mark a reply as a success if it is a JSON object."""
    try:
        found = response.json()
    except ValueError:
        found = None
    if response.status_code and not (isinstance(found, dict) and found):
        response.failure(f"no JSON object: {response.content[:40]!r}")
    else:
        check(response, None)


def check_events(response: Any) -> None:
    """Mark a reply as a success if it is all server-sent events in their order; otherwise name the first wrong one."""
    if response.status_code != 200:
        check(response, None)
        return
    kind = response.headers.get("Content-Type", "")
    if not kind.startswith("text/event-stream"):
        response.failure(f"Content-Type {kind!r} instead of text/event-stream")
        return
    *events, rest = response.content.split(b"\n\n")
    for number, event in enumerate(events, 1):
        if event != (wanted := b"id: %d\ndata: %d" % (number, number)):
            response.failure(f"event {number} is {event[:40]!r} instead of {wanted!r}")
            return
    if len(events) != _EVENTS or rest:
        response.failure(f"{len(events)} events and {rest[:40]!r} instead of {_EVENTS} events")
    else:
        response.success()


class WrongMessageError(Exception):
    """The message of a WebSocket is not the expected one."""


_FAILURES = (OSError, websocket.WebSocketException, WrongMessageError)


class Routes(TaskSet):
    """The tasks, which are the same for both clients."""

    _socket: websocket.WebSocket | None = None

    def on_stop(self) -> None:
        self._close()

    def get(self, path: str, body: bytes | None, *, status: int = 200) -> None:
        with self._request("GET", path) as response:
            check(response, body, status=status)

    @task(10)
    def ping(self) -> None:
        self.get("/ping", b"PONG\n")

    @task(2)
    def missing(self) -> None:
        """Get a path that does not exist: here, 404 is a success."""
        self.get("/missing", None, status=404)

    @task(2)
    def root(self) -> None:
        self.get("/", GREETING)

    @tag("work")
    @task
    def info(self) -> None:
        with self._request("GET", "/info") as response:
            check_info(response)

    @tag("work")
    @task
    def events(self) -> None:
        with self._request("GET", f"/events/{_EVENTS}?every={_EVERY_MS}") as response:
            check_events(response)

    @tag("websocket")
    @task(5)
    def talk(self) -> None:
        """Send a text over the user's WebSocket and check its echo. It is opened by the first call, and stays open."""
        try:
            if self._socket is None:
                with self._counted("/ws open"):
                    self._socket = websocket.create_connection(self._websocket_url(), timeout=_TIMEOUT_SECONDS)
            with self._counted("/ws echo"):
                text = f"{random.random()}"
                self._socket.send(text)
                if (found := self._socket.recv()) != text:
                    raise WrongMessageError(f"{found[:40]!r} instead of {text!r}")
        except _FAILURES:
            self._close()  # it has been counted, and the next call opens another one

    @tag("work")
    @task(5)
    def echo(self) -> None:
        body = random.randbytes(_UPLOAD)
        with self._request("POST", "/echo", data=body) as response:
            check(response, body)

    @tag("work")
    @task(2)
    def sleep(self) -> None:
        self.get("/sleep/20", b"OK\n")

    @tag("work")
    @task(2)
    def burn(self) -> None:
        self.get(f"/burn/{_ROUNDS}", _DIGEST)

    @tag("work")
    @task(2)
    def blob(self) -> None:
        self.get(f"/blob/{_DOWNLOAD}", blob_bytes(_DOWNLOAD))

    @tag("work")
    @task
    def stream(self) -> None:
        self.get(f"/stream/{_LINES}", _STREAM)

    @contextlib.contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Count the block as a request, and as a failure if it raises one of `_FAILURES`.

        A user that Locust stops in the middle raises something else: nothing is counted, as with Locust's own clients.
        """
        start = time.perf_counter()
        try:
            yield
        except _FAILURES as error:
            self._count(name, start, error)
            raise
        self._count(name, start, None)

    def _count(self, name: str, start: float, error: Exception | None) -> None:
        self.user.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=(time.perf_counter() - start) * 1000,  # milliseconds
            response_length=0,
            exception=error,
            context={},
        )

    def _websocket_url(self) -> str:
        return f"ws{str(self.user.host).removeprefix('http')}/ws"

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _request(self, method: str, path: str, **options: Any) -> AbstractContextManager[Any]:
        request: Callable[..., AbstractContextManager[Any]] = self.client.request
        return request(method, path, catch_response=True, **options)


class RequestsUser(HttpUser):
    """A client of the library requests."""

    wait_time = between(0.1, 0.5)
    tasks = [Routes]  # noqa: RUF012 - as Locust declares it


class GeventUser(FastHttpUser):
    """A client of geventhttpclient: several times as many requests per core."""

    wait_time = between(0.1, 0.5)
    tasks = [Routes]  # noqa: RUF012 - as above
