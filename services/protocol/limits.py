"""Every limit of a server, with its reason. The core applies the first part, the models the second.

The environment variable in `variable` sets a limit. INFO and the first line of a server show all of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from services.protocol.events import SEND_SIZE

# Workers with one client each. A few dozen clients that wait for a database or read slowly are common, and 64
# interpreters that share their parent's pages need less than 100 MB.
BLOCKING_WORKERS = 64

# The largest read of any model: asyncio's transports read up to 256 KiB (`max_size` in asyncio/selector_events.py), and
# a StreamReader keeps that in addition to its unread data.
LARGEST_READ = 256 * 1024


# Of all times, in seconds: epoll_wait(2) counts milliseconds in 31 bits, which is 24 days.
LONGEST = 1_000_000.0


class LimitError(ValueError):
    """A limit in the environment is not a number, below its minimum, or longer than `LONGEST`."""


def _limit(default: float, variable: str, minimum: float) -> float:
    value: float = field(default=default, metadata={"variable": variable, "minimum": minimum})
    return value


def _count(default: int, variable: str, minimum: int = 1) -> int:
    value: int = field(default=default, metadata={"variable": variable, "minimum": minimum})
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server. Sizes are bytes, times are seconds unless the name says otherwise."""

    # The size of a request. Redis allows 64 KiB for a line (PROTO_INLINE_MAX_SIZE) and 512 MiB for a bulk. The latter
    # is too much for a server with a memory bound for each connection.
    line: int = _count(64 * 1024, "LAB_MAX_LINE", 64)
    bulk: int = _count(1024 * 1024, "LAB_MAX_BULK")
    array: int = _count(1024, "LAB_MAX_ARRAY")
    request: int = _count(2 * 1024 * 1024, "LAB_MAX_REQUEST")
    # The queue between MULTI and EXEC: the size of one request, where each request and each argument counts 64 bytes
    # more, the overhead of a Python object. Without it, two megabytes of PING would occupy sixty.
    transaction: int = _count(2 * 1024 * 1024, "LAB_MAX_TRANSACTION")

    # Requests of a pipeline that are answered before other connections get a turn. A deeper pipeline is not refused: it
    # waits in the kernel's buffers.
    pipeline: int = _count(1024, "LAB_MAX_PIPELINE")

    # The work of a request. A minute is longer than any test waits; ten million rounds take about five seconds of a
    # core; a blob is streamed, so its size costs time but no memory.
    sleep_ms: int = _count(60_000, "LAB_MAX_SLEEP_MS")
    burn: int = _count(10_000_000, "LAB_MAX_BURN")
    blob: int = _count(64 * 1024 * 1024, "LAB_MAX_BLOB")

    # The size of a request of HTTP. RFC 9112, 3, recommends lines of at least 8000 bytes. Browsers send 20 fields, and
    # proxies add some; cookies make them long, since browsers allow 4 KiB for each. A body is streamed, so its size
    # costs time but no memory.
    http_line: int = _count(8 * 1024, "LAB_HTTP_MAX_LINE", 64)
    http_headers: int = _count(100, "LAB_HTTP_MAX_HEADERS")
    http_header_bytes: int = _count(32 * 1024, "LAB_HTTP_MAX_HEADER_BYTES", 64)
    http_body: int = _count(1024 * 1024 * 1024, "LAB_HTTP_MAX_BODY", 0)
    # Against clients that send one byte now and then, and so are never idle. A head takes one round trip; the slowest
    # modem had 3000 bytes per second. Both are checked when the next byte arrives; `idle` is for silent clients.
    http_head_seconds: float = _limit(20.0, "LAB_HTTP_HEAD_SECONDS", 0.01)
    http_body_rate: int = _count(500, "LAB_HTTP_BODY_RATE", 0)
    # Enough that the cost of a connection, handshake and memory, is not measurable per request. The end gives a load
    # balancer a chance to move the client.
    http_requests: int = _count(1_000_000, "LAB_HTTP_MAX_REQUESTS")

    # The size of a frame, a message and an inflated message of WebSocket: that of an argument of `command`. The last
    # one is separate, since a kilobyte can inflate to a megabyte.
    ws_frame: int = _count(1024 * 1024, "LAB_WS_MAX_FRAME", 125)
    ws_message: int = _count(1024 * 1024, "LAB_WS_MAX_MESSAGE", 125)
    ws_inflated: int = _count(1024 * 1024, "LAB_WS_MAX_INFLATED", 125)

    # Applied by the models. A connection that neither sends nor takes a byte for `idle` is closed. At `connections`,
    # the models with their own accept loop stop accepting, and clients wait in the listening socket's backlog; asyncio
    # and Twisted accept and refuse. The default has room for 10,000 idle connections and new ones.
    idle: float = _limit(300.0, "LAB_IDLE_SECONDS", 0.01)
    connections: int = _count(12_000, "LAB_MAX_CONNECTIONS")
    backlog: int = _count(1024, "LAB_BACKLOG")
    # Threads or processes of the models with a fixed number of them. 0: the model's default, which is
    # `BLOCKING_WORKERS` if each serves one client at a time, and a process per core if each has an event loop.
    workers: int = _count(0, "LAB_WORKERS", 0)
    # Not 0: each process of `prefork` and `asyncio_prefork` has a listening TCP socket of its own (SO_REUSEPORT).
    reuse_port: int = _count(0, "LAB_REUSEPORT", 0)

    # The stages of a close: the time for the peer to close its half, and the time after SIGTERM for requests in
    # progress. `docker stop` kills after 10 s.
    linger: float = _limit(2.0, "LAB_LINGER_SECONDS", 0)
    grace: float = _limit(5.0, "LAB_GRACE_SECONDS", 0)

    @property
    def connection_bytes(self) -> int:
        """Return the most memory that one client can occupy by sending without reading, without the kernel's buffers.

        For `command`: a request, twice while its last part is appended; a transaction that waits for EXEC; the largest
        ECHO as a reply. For WebSocket: a frame, masked and unmasked; a message, as parts and joined; its inflated text,
        as parts, joined and as a reply. For HTTP: a head, twice. The largest of the three counts, plus one read and one
        Send, both twice because a library may buffer them again.
        """
        command = 2 * self.request + self.transaction + self.bulk
        websocket = 2 * self.ws_frame + 2 * self.ws_message + 3 * self.ws_inflated
        head = 2 * (self.http_line + self.http_header_bytes)
        return max(command, websocket, head) + 2 * LARGEST_READ + 2 * SEND_SIZE

    def as_dict(self) -> dict[str, int | float]:
        """Return all limits by name, with `connection_bytes`, for INFO and a server's first line."""
        return asdict(self) | {"connection_bytes": self.connection_bytes}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the limits from variables; the others have their defaults.

        Raises:
            LimitError: a value is invalid; the message has the variable and its value.
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
            if kind is float and value > LONGEST:
                raise LimitError(f"{variable}={text!r} is not a number of at most {LONGEST:.0f} seconds")
            chosen[item.name] = value
        return cls(**chosen)  # type: ignore[arg-type]  # each value has the type of its default
