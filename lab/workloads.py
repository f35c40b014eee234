"""What a user of the load test asks of a server, as data, for the lab and for Locust.

Names start with `closed_`: the next request leaves when the reply to the last one is in, so a slow server is asked less
often. It hides what a fixed rate would show: the requests that would have come meanwhile.
"""

from dataclasses import dataclass

from services.protocol import Compute


@dataclass(frozen=True, slots=True)
class Workload:
    """One exchange, and how often it is repeated on one connection.

    Args:
        name: what `--workload` takes.
        summary: one line for people.
        service: which of the protocol's services answers it.
        request: the bytes of one exchange.
        replies: what must come back, reply by reply; RESP replies as parsed.
        per_connection: exchanges before the user closes and connects anew; None to hold one connection throughout.
    """

    name: str
    summary: str
    service: str
    request: bytes
    replies: tuple[bytes, ...]
    per_connection: int | None = None

    @property
    def depth(self) -> int:
        """Requests in one exchange: more than one where they are pipelined."""
        return len(self.replies)


_PING = b"*1\r\n$4\r\nPING\r\n"
_SLEEP = b"*2\r\n$5\r\nSLEEP\r\n$2\r\n20\r\n"
# About half a millisecond of one core: long against a PING, short against a scheduler's patience.
_BURN_ROUNDS = 1000
_BURN = b"*2\r\n$4\r\nBURN\r\n$4\r\n%d\r\n" % _BURN_ROUNDS
# Every byte value, so that a server which touches its text (line ends, encodings) is caught.
_ALL_BYTES = bytes(range(256))

# 50, so that one request in fifty, 2 %, carries the connecting and the wait for a turn: it is what p99 then shows.
SESSION = 50

_ALL = (
    Workload(
        "closed_session",
        f"connect, {SESSION} PINGs, close, again: makes progress on every model, and p99 is the wait for a turn",
        "command",
        _PING,
        (b"PONG",),
        SESSION,
    ),
    Workload(
        "closed_session_echo",
        f"connect, {SESSION} echoes of {len(_PING)} bytes, close, again: for servers that only know echo",
        "echo",
        _PING,
        (_PING,),
        SESSION,
    ),
    Workload("closed_ping", "PING on a held connection: the cost of a round trip", "command", _PING, (b"PONG",)),
    Workload(
        "closed_pipeline_16",
        "16 PINGs at once: the cost without the round trip",
        "command",
        _PING * 16,
        (b"PONG",) * 16,
    ),
    Workload("closed_echo_1k", "1 KiB there and back", "echo", _ALL_BYTES * 4, (_ALL_BYTES * 4,)),
    Workload(
        "closed_echo_64k",
        "64 KiB there and back: many reads and partial writes",
        "echo",
        _ALL_BYTES * 256,
        (_ALL_BYTES * 256,),
    ),
    Workload("closed_sleep_20ms", "a handler that waits 20 ms: who overlaps waits?", "command", _SLEEP, (b"OK",)),
    Workload(
        "closed_burn",
        f"a handler that computes ({_BURN_ROUNDS} rounds of SHA-256): who uses the other cores?",
        "command",
        _BURN,
        (Compute(_BURN_ROUNDS).run(),),
    ),
    Workload("closed_churn", "connect, one PING, close: the cost of a connection", "command", _PING, (b"PONG",), 1),
)

WORKLOADS = {workload.name: workload for workload in _ALL}
