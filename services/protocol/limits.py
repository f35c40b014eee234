"""Every limit of a server, with the reason beside it. Pure data: the core holds the first part, the models the second.

Each can be set by the environment variable that `variable` names, and shows in INFO and in a server's first line.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from services.protocol.events import SEND_SIZE

# Workers that hold a client each: a few dozen that wait for a database or a slow reader are common, and 64 interpreters
# that share their parent's pages cost less than 100 MB.
BLOCKING_WORKERS = 64

# The most that any of the models takes from a socket at once: asyncio's own transports read up to 256 KiB
# (`max_size` in asyncio/selector_events.py), and a StreamReader holds that behind what was not read yet.
LARGEST_READ = 256 * 1024


class LimitError(ValueError):
    """A limit in the environment is not a number, or below its minimum."""


def _limit(default: float, variable: str, minimum: float) -> float:
    value: float = field(default=default, metadata={"variable": variable, "minimum": minimum})
    return value


def _count(default: int, variable: str, minimum: int = 1) -> int:
    value: int = field(default=default, metadata={"variable": variable, "minimum": minimum})
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server. Sizes are bytes, times are seconds unless the name says otherwise."""

    # What one request may be. Redis allows 64 KiB for a line (PROTO_INLINE_MAX_SIZE) and 512 MiB for a bulk; a server
    # that promises a memory bound for each connection cannot follow it there.
    line: int = _count(64 * 1024, "LAB_MAX_LINE", 64)
    bulk: int = _count(1024 * 1024, "LAB_MAX_BULK")
    array: int = _count(1024, "LAB_MAX_ARRAY")
    request: int = _count(2 * 1024 * 1024, "LAB_MAX_REQUEST")
    # What may wait between MULTI and EXEC: as much as one request, with 64 bytes more for each request and each of its
    # arguments, which is what Python keeps them with. Without those, two megabytes of PING would hold sixty.
    transaction: int = _count(2 * 1024 * 1024, "LAB_MAX_TRANSACTION")

    # The most requests of a pipeline answered before the connection gives its event loop a turn. A deeper pipeline is
    # not refused: it waits, in the kernel's buffers, where back-pressure keeps it.
    pipeline: int = _count(1024, "LAB_MAX_PIPELINE")

    # What one request may ask for. A minute is longer than any test waits; ten million rounds are some five seconds of
    # one core; a blob is streamed, so its size costs time and no memory.
    sleep_ms: int = _count(60_000, "LAB_MAX_SLEEP_MS")
    burn: int = _count(10_000_000, "LAB_MAX_BURN")
    blob: int = _count(64 * 1024 * 1024, "LAB_MAX_BLOB")

    # What one request of HTTP may be. RFC 9112, 3, recommends lines of at least 8000 bytes. Browsers send 20 fields,
    # and proxies add to them; cookies make them long, since every browser allows 4 KiB for each. A body is streamed, so
    # its size costs time and no memory.
    http_line: int = _count(8 * 1024, "LAB_HTTP_MAX_LINE", 64)
    http_headers: int = _count(100, "LAB_HTTP_MAX_HEADERS")
    http_header_bytes: int = _count(32 * 1024, "LAB_HTTP_MAX_HEADER_BYTES", 64)
    http_body: int = _count(1024 * 1024 * 1024, "LAB_HTTP_MAX_BODY", 0)
    # Against clients that send one byte now and then, so that they are never idle. A head takes one round trip; the
    # slowest modem had 3000 bytes per second. Both are noticed when the next byte comes: silence is for `idle`.
    http_head_seconds: float = _limit(20.0, "LAB_HTTP_HEAD_SECONDS", 0.01)
    http_body_rate: int = _count(500, "LAB_HTTP_BODY_RATE", 0)
    # What a connection costs once, handshake and memory, is spread over so many that it cannot be seen; and a balancer
    # gets a chance to move it in the end.
    http_requests: int = _count(1_000_000, "LAB_HTTP_MAX_REQUESTS")

    # Of WebSocket: what a frame, a message and an inflated message may hold, as much as one argument of `command`. The
    # last one is apart, since a kilobyte can inflate to a megabyte.
    ws_frame: int = _count(1024 * 1024, "LAB_WS_MAX_FRAME", 125)
    ws_message: int = _count(1024 * 1024, "LAB_WS_MAX_MESSAGE", 125)
    ws_inflated: int = _count(1024 * 1024, "LAB_WS_MAX_INFLATED", 125)

    # Held by the models. A connection that neither sends nor takes a byte for `idle` is closed. At `connections`
    # the models with an accept loop of their own stop accepting, so that clients wait in the listening socket's
    # backlog; asyncio and Twisted accept by themselves, and refuse. Room for 10,000 idle ones, and those who come.
    idle: float = _limit(300.0, "LAB_IDLE_SECONDS", 0.01)
    connections: int = _count(12_000, "LAB_MAX_CONNECTIONS")
    backlog: int = _count(1024, "LAB_BACKLOG")
    # Threads or processes of the models that have a fixed number of them. 0 is the model's own choice:
    # `BLOCKING_WORKERS` where one serves a client at a time, a process for each core where one is an event loop.
    workers: int = _count(0, "LAB_WORKERS", 0)
    # Not 0: each process of `prefork` and `asyncio_prefork` has a listening TCP socket of its own (SO_REUSEPORT).
    reuse_port: int = _count(0, "LAB_REUSEPORT", 0)

    # The stages of a close: how long the peer may take to close its half after ours, and how long SIGTERM leaves what
    # is in flight. `docker stop` allows 10 s before it kills.
    linger: float = _limit(2.0, "LAB_LINGER_SECONDS", 0)
    grace: float = _limit(5.0, "LAB_GRACE_SECONDS", 0)

    @property
    def connection_bytes(self) -> int:
        """What one client can make a server hold, whatever it sends and does not read, without the kernel's buffers.

        A request, twice while its last piece is joined to it; a transaction that waits for EXEC; the largest ECHO, on
        its way out; one read and one Send, and as much again where a library buffers both once more. Of WebSocket, if
        that is more: a frame, and the same without its mask; a message, and the same as bytes; its text inflated, as
        it is joined, and on its way out. A head of HTTP, twice.
        """
        command = 2 * self.request + self.transaction + self.bulk
        websocket = 2 * self.ws_frame + 2 * self.ws_message + 3 * self.ws_inflated
        head = 2 * (self.http_line + self.http_header_bytes)
        return max(command, websocket, head) + 2 * LARGEST_READ + 2 * SEND_SIZE

    def as_dict(self) -> dict[str, int | float]:
        """All of them by name, with what follows from them: for INFO and a server's first line."""
        return asdict(self) | {"connection_bytes": self.connection_bytes}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read what `environ` sets; the rest keeps its default.

        Raises:
            LimitError: names the variable and what it held.
        """
        chosen: dict[str, int | float] = {}
        for item in fields(cls):
            variable, minimum = item.metadata["variable"], item.metadata["minimum"]
            text = environ.get(variable)
            if text is None:
                continue
            kind = int if isinstance(item.default, int) else float
            value: int | float | None
            try:
                value = kind(text)
            except ValueError:
                value = None
            # "not >=" also refuses NaN.
            if value is None or not value >= minimum:
                noun = "a whole number" if kind is int else "a number"
                raise LimitError(f"{variable}={text!r} is not {noun} of at least {minimum:g}")
            chosen[item.name] = value
        return cls(**chosen)  # type: ignore[arg-type]  # each value was made by the type of its own default
