"""What both applications answer: the routes of docs/http.md, without a line of WSGI or ASGI."""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from services.protocol.chargen import LINES
from services.protocol.command import blob_bytes
from services.protocol.events import SEND_SIZE
from services.protocol.greet import GREETING
from services.protocol.limits import Limits

LIMITS = Limits.from_environ(os.environ)
SERVER = os.environ.get("LAB_MODEL", "application")

PONG = b"PONG\n"
OK = b"OK\n"

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"
EVENTS = "text/event-stream"

_PATH = re.compile(r"/([a-z]*)(?:/([0-9]{1,19}))?")
_EVERY = re.compile(r"every=([0-9]{1,9})")
_READ = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Route:
    """Methods of a path, and the largest number after it; None: the path takes no number."""

    methods: tuple[str, ...] = _READ
    largest: int | None = None

    @property
    def allow(self) -> str:
        """Return the value of Allow."""
        return ", ".join(self.methods)


ROUTES = {
    "": Route(),
    "ping": Route(),
    "echo": Route(("POST", "OPTIONS")),
    "sleep": Route(largest=LIMITS.sleep_ms),
    "burn": Route(largest=LIMITS.burn),
    "blob": Route(largest=LIMITS.blob),
    "stream": Route(largest=1_000_000),
    "events": Route(largest=1_000_000),
    "info": Route(),
    "ws": Route(("GET", "OPTIONS")),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without work: a status, its headers, and a line that says why."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """A route that was found, and its number, 0 without one."""

    name: str
    number: int


def find(method: str, path: str) -> Work | Refusal:
    """Return what a request asks for, or why it is refused."""
    match = _PATH.fullmatch(path)
    route = ROUTES.get(match[1]) if match else None
    if match is None or route is None or (match[2] is None) != (route.largest is None):
        return Refusal(404, b"no such route\n")
    if method == "OPTIONS":
        return Refusal(204, b"", (("Allow", route.allow),))
    if method not in route.methods:
        return Refusal(405, b"method not allowed\n", (("Allow", route.allow),))
    number = int(match[2] or 0)
    if route.largest is not None and number > route.largest:
        return Refusal(400, b"at most %d\n" % route.largest)
    return Work(match[1], number)


def greet(accept: str) -> tuple[str, bytes]:
    """Return the content type and body of `/`: the greeting, or a page for a browser."""
    if "text/html" not in accept:
        return TEXT, GREETING
    links = "".join(f"<li><a href='/{path}'>/{path}</a>" for path in ("ping", "sleep/100", "burn/1000", "info"))
    page = f"<!doctype html><html lang=en><title>{SERVER}</title><h1>{SERVER}</h1><ul>{links}</ul></html>\n"
    return "text/html; charset=utf-8", page.encode()


def info(protocol: str) -> bytes:
    """Return the body of `/info`: the server, its Python, and the limits of requests."""
    limits = {"sleep_ms": LIMITS.sleep_ms, "burn": LIMITS.burn, "blob": LIMITS.blob}
    content = {"model": SERVER, "python": sys.version.split()[0], "protocol": protocol, "pid": os.getpid()}
    return json.dumps(content | {"limits": limits}).encode() + b"\n"


def pieces_of_blob(size: int) -> Iterator[bytes]:
    """Yield the body of `/blob/SIZE`."""
    for start in range(0, size, SEND_SIZE):
        # blob_bytes repeats 95 characters, so a piece that starts elsewhere is cut out of a longer one.
        skipped = start % 95
        yield blob_bytes(skipped + min(SEND_SIZE, size - start))[skipped:]


def lines(count: int) -> Iterator[bytes]:
    """Yield the body of `/stream/COUNT`: lines of chargen."""
    for number in range(count):
        yield LINES[number % len(LINES)]


def events(count: int) -> Iterator[bytes]:
    """Yield the body of `/events/COUNT`."""
    for number in range(1, count + 1):
        yield b"id: %d\ndata: %d\n\n" % (number, number)


def read_pause(query: str) -> float:
    """Return the seconds between two events: `every=MS` of a query, by default a tenth."""
    match = _EVERY.fullmatch(query)
    return min(int(match[1]), LIMITS.sleep_ms) / 1000 if match else 0.1
