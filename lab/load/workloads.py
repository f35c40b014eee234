"""Workloads of load tests, as data for the lab and for Locust."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lab.clients.call import pack
from lab.load import http_exchanges
from loadtests.sockets.exchange import NUMBER_SIZE, Exchange, Turn
from services.protocol import DATAGRAM_SIZE, SERVICES, Compute, Transport
from services.protocol.chargen import LINES
from services.protocol.command import blob_bytes

# Limits on what one load test may do to a machine.
HIGHEST_RATE = 1_000_000.0
LARGEST_PAYLOAD = 16 * 1024 * 1024

# The most bytes of datagrams that an exchange sends at once. Until the server reads, they wait in a socket buffer of
# 208 KiB (net.core.rmem_default), and Linux counts a datagram as up to twice its size.
_BURST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of a load test.

    Args:
        name: what `--workload` takes.
        exchange: what is sent and the reply that must come back; None if a script of loadtests/scripts.py does both.
        payload: bytes of its payload, if the size can be chosen.
        over_streams, over_datagrams: the kinds of transports that can carry it.
        rests: a user pauses between two exchanges.
        idle_connections: idle connections held open during the load, in total for all generators.
        capability: what a server must be able to do beyond the service; one that declares the limit is left out.
    """

    name: str
    summary: str
    service: str
    exchange: Exchange | None
    payload: int | None = None
    over_datagrams: bool = False
    over_streams: bool = True
    rests: bool = False
    idle_connections: int = 0
    capability: str = ""

    @property
    def depth(self) -> int:
        """Requests in one exchange."""
        return self.exchange.depth if self.exchange else 1

    @property
    def holds_connection(self) -> bool:
        """Whether a user keeps its connection until it stops."""
        return self.exchange is None or self.exchange.holds_connection

    def is_offered(self, transport: Transport) -> bool:
        """Whether a transport can carry it."""
        service = SERVICES.get(self.service)
        if transport.is_datagram:
            return self.over_datagrams
        if not self.over_streams:
            return False
        return transport is not Transport.TLS or service is None or service.tls_port is not None

    def is_possible(self, limits: Mapping[str, str]) -> bool:
        """Return whether a server with these declared limits can do it."""
        return self.capability not in limits


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _respond(*turns: Turn, depth: int = 1, per_connection: int | None = None) -> Exchange:
    return Exchange(turns, depth=depth, per_connection=per_connection, error_prefix=b"-")


# Every byte value: a server that changes line ends or encodings fails.
_ALL_BYTES = bytes(range(256))


def _fill(size: int) -> bytes:
    return (_ALL_BYTES * (size // len(_ALL_BYTES) + 1))[:size]


def _echo(size: int) -> Exchange:
    return Exchange(((_fill(size), _fill(size)),), numbered=size >= NUMBER_SIZE)


def _upload(size: int) -> Exchange:
    return Exchange(((_fill(size), b""),), per_connection=1, half_close=True, until_close=True)


def _download(size: int) -> Exchange:
    wheel = b"".join(LINES)
    return Exchange(((b"", (wheel * (size // len(wheel) + 1))[:size]),), per_connection=1, endless=True)


def _blob(size: int) -> Exchange:
    return _respond((pack([b"BLOB", b"%d" % size]), _bulk(blob_bytes(size))))


def _echo_over_http(size: int) -> Exchange:
    return http_exchanges.echo_over_http(_fill(size))


def _echo_over_websocket(size: int) -> Exchange:
    return http_exchanges.echo_over_websocket(_fill(size))


# Makes the exchange for a payload of a given size.
_SIZED = {
    "echo_1k": _echo,
    "echo_64k": _echo,
    "datagrams": _echo,
    "upload": _upload,
    "download": _download,
    "blob": _blob,
    "http_echo_1k": _echo_over_http,
    "http_echo_1m": _echo_over_http,
    "ws_echo": _echo_over_websocket,
}

_PING = (pack([b"PING"]), b"+PONG\r\n")
_SLEEP = (pack([b"SLEEP", b"20"]), b"+OK\r\n")
# About half a millisecond of one core: much longer than a PING, much shorter than a scheduler's time slice.
_BURN_ROUNDS = 1000
_BURN = (pack([b"BURN", b"%d" % _BURN_ROUNDS]), _bulk(Compute(_BURN_ROUNDS).run()))
_NUMBERS = [b"%02d" % number for number in range(16)]

# 2 % of the requests include the time to connect and to be accepted, so p99 shows it.
SESSION = 50

_KIB = 1024
# Eighteen of twenty requests are small, one sleeps, one computes.
_MIXED = (
    *[_PING] * 10,
    *[(pack([b"ECHO", number * 50]), _bulk(number * 50)) for number in _NUMBERS[:6]],
    (pack([b"BLOB", b"16384"]), _bulk(blob_bytes(16384))),
    (pack([b"BLOB", b"4096"]), _bulk(blob_bytes(4096))),
    (pack([b"SLEEP", b"5"]), b"+OK\r\n"),
    (pack([b"BURN", b"100"]), _bulk(Compute(100).run())),
)

# The most that every model which overlaps clients can hold: a container may have 512 processes.
IDLE_CONNECTIONS = 400

_WORKLOADS = (
    Workload("ping", "PING on a held connection: the cost of a round trip", "command", _respond(_PING), None, True),
    Workload(
        "session",
        f"connect, {SESSION} PINGs, close, repeat: p99 is the wait to be served",
        "command",
        _respond(_PING, per_connection=SESSION),
    ),
    Workload(
        "session_echo",
        f"connect, {SESSION} echoes of {len(_PING[0])} bytes, close, repeat: for echo servers",
        "echo",
        Exchange(((_PING[0], _PING[0]),), per_connection=SESSION),
    ),
    Workload(
        "pipeline_16",
        "16 PINGs at once: the cost of a request without the round trip",
        "command",
        _respond((_PING[0] * 16, _PING[1] * 16), depth=16),
    ),
    Workload(
        "throughput",
        "16 different PINGs at once: pipeline_16 that detects reordered replies",
        "command",
        _respond(
            (b"".join(pack([b"PING", word]) for word in _NUMBERS), b"".join(_bulk(word) for word in _NUMBERS)),
            depth=16,
        ),
    ),
    Workload("echo_1k", "1 KiB there and back", "echo", _echo(_KIB), _KIB, True),
    Workload("echo_64k", "64 KiB there and back: many reads and partial writes", "echo", _echo(64 * _KIB), 64 * _KIB),
    Workload("sleep_20ms", "requests that sleep 20 ms: do they overlap?", "command", _respond(_SLEEP), None, True),
    Workload(
        "burn",
        f"CPU-bound requests, {_BURN_ROUNDS} rounds of SHA-256: are all cores used?",
        "command",
        _respond(_BURN),
        None,
        True,
    ),
    Workload(
        "mixed",
        "90 % small requests, 10 % sleep or compute: do the small ones wait?",
        "command",
        _respond(*_MIXED),
    ),
    Workload(
        "churn", "connect, one PING, close: the cost of a connection", "command", _respond(_PING, per_connection=1)
    ),
    Workload(
        "upload",
        "connect, send 256 KiB to discard, half-close, read to the end",
        "discard",
        _upload(256 * _KIB),
        256 * _KIB,
    ),
    Workload("download", "connect, read 256 KiB of chargen, close", "chargen", _download(256 * _KIB), 256 * _KIB),
    Workload("blob", "a short request with a reply of 64 KiB", "command", _blob(64 * _KIB), 64 * _KIB),
    Workload(
        "datagrams",
        "16 numbered datagrams at once: losses, duplicates, reordering",
        "echo",
        replace(_echo(64), depth=16),
        64,
        over_datagrams=True,
        over_streams=False,
    ),
    Workload("slow_reader", "read 256 KiB in small pieces with pauses: what does it block?", "command", None),
    Workload(
        "idle_connections",
        f"PING while {IDLE_CONNECTIONS} other connections are idle: what do they cost?",
        "command",
        _respond(_PING),
        idle_connections=IDLE_CONNECTIONS,
    ),
    Workload("think", "connect, a few requests with pauses, QUIT: human users", "command", None, rests=True),
    Workload(
        "http_ping",
        "GET /ping on a kept connection: the cost of a request",
        "http",
        http_exchanges.http((http_exchanges.PING,)),
    ),
    Workload("http_echo_1k", "POST 1 KiB and get it back", "http", _echo_over_http(_KIB), _KIB, capability="work"),
    Workload(
        "http_echo_1m",
        "POST 1 MiB and get it back",
        "http",
        _echo_over_http(_KIB * _KIB),
        _KIB * _KIB,
        capability="work",
    ),
    Workload(
        "http_sleep",
        "requests that sleep 20 ms, as on a database: do they overlap?",
        "http",
        http_exchanges.http((http_exchanges.SLEEP,)),
        capability="work",
    ),
    Workload(
        "http_burn",
        f"CPU-bound requests, {_BURN_ROUNDS} rounds of SHA-256: are all cores used?",
        "http",
        http_exchanges.http((http_exchanges.BURN,)),
        capability="work",
    ),
    Workload(
        "http_churn",
        "connect, one GET with Connection: close: the cost of a connection",
        "http",
        http_exchanges.http((http_exchanges.PING_AND_CLOSE,), per_connection=1),
    ),
    Workload(
        "http_mixed",
        "90 % small requests, 10 % sleep or compute: do the small ones wait?",
        "http",
        http_exchanges.http(tuple(http_exchanges.MIXED)),
        capability="work",
    ),
    Workload(
        "ws_echo",
        "1 KiB as a WebSocket message there and back",
        "http",
        _echo_over_websocket(_KIB),
        _KIB,
        capability="websocket",
    ),
    Workload(
        "ws_held",
        "many WebSockets, a message of 64 bytes per second on each: what does it cost to hold them?",
        "http",
        http_exchanges.echo_over_websocket(_fill(64), pause=1.0),
        rests=True,
        capability="websocket",
    ),
)

# The exchanges that a codec makes and checks, see docs/adding-a-server.md.
CUSTOM_PROTOCOL = Workload(
    "custom_protocol", "the requests of a codec", "custom", Exchange(((b"", b""),)), over_datagrams=True
)

WORKLOADS = {workload.name: workload for workload in _WORKLOADS}


def make_exchange(workload: Workload, transport: Transport, payload: int | None = None) -> Exchange | None:
    """Make the exchange of a workload over a transport.

    Args:
        payload: bytes, if not the workload's default.

    Returns:
        None if the workload is a script.

    Raises:
        ValueError: the transport or the payload does not fit the workload.
    """
    if not workload.is_offered(transport):
        raise ValueError(f"{workload.name} does not work over {transport}")
    exchange = workload.exchange
    if not payload:
        return exchange
    if workload.payload is None or exchange is None:
        raise ValueError(f"{workload.name} has no payload size to choose")
    if not 0 < payload <= LARGEST_PAYLOAD:
        raise ValueError(f"the payload is {payload} bytes, and must be 1 to {LARGEST_PAYLOAD}")
    if transport.is_datagram:
        if payload > DATAGRAM_SIZE:
            raise ValueError(f"a payload of {payload} bytes does not fit into a datagram: at most {DATAGRAM_SIZE}")
        if payload < NUMBER_SIZE:
            raise ValueError(f"a payload of {payload} bytes has no room for its number: at least {NUMBER_SIZE}")
        if payload * exchange.depth > _BURST_BYTES:
            most = _BURST_BYTES // exchange.depth
            raise ValueError(f"{exchange.depth} datagrams of {payload} bytes at once overflow a socket: at most {most}")
    return replace(_SIZED[workload.name](payload), depth=exchange.depth)
