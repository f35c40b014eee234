"""Locust's own HTTP users for the service `http`, with each reply checked. A separate locustfile.

    lab load-file MODEL                                                         the usual way to start it
    locust -f loadtests/httpfile.py --host http://127.0.0.1:8080 --class-picker

It shows what Locust's `HttpUser` (requests) and `FastHttpUser` (geventhttpclient) see of a server, and is a pattern for
a locustfile of your own. It does not measure a server's speed: these clients need more CPU time per request than any
server here, and response times are those of a greenlet. `lab load --preset closed_http_ping` measures.

The tag `work` marks the routes that a server with static replies (nginx) does not have: `--exclude-tags work`.
"""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from locust import FastHttpUser, HttpUser, TaskSet, between, tag, task

from services.protocol import Compute
from services.protocol.chargen import LINES
from services.protocol.command import blob_bytes

# Bytes of an upload and of a download, and rounds of a computation: about a millisecond each on either side.
_UPLOAD, _DOWNLOAD, _ROUNDS = 1024, 16384, 1000
_LINES = 100

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


class Routes(TaskSet):
    """The tasks, which are the same for both clients."""

    def get(self, path: str, body: bytes | None, *, status: int = 200) -> None:
        """Get a path and check the reply."""
        with self._request("GET", path) as response:
            check(response, body, status=status)

    @task(10)
    def ping(self) -> None:
        self.get("/ping", b"PONG\n")

    @task(2)
    def missing(self) -> None:
        """Get a path that does not exist: here, 404 is a success."""
        self.get("/missing", None, status=404)

    @tag("work")
    @task(5)
    def echo(self) -> None:
        """Upload random bytes and check that they come back."""
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
        """Get a reply in chunks."""
        self.get(f"/stream/{_LINES}", _STREAM)

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
