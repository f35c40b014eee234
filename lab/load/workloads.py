"""What a load test asks of a server, as data, for the lab and for Locust: workloads, shapes, and scenarios of the two.

A scenario's name says its loop. `closed_`: a connection sends again when it was answered, so a slow server is asked
less often, which hides the requests that would have come meanwhile. `open_`: requests have times at which they are due,
whatever comes back, and are counted from those.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from lab.clients.call import pack
from loadtests.sockets.exchange import NUMBER_SIZE, Exchange, Turn
from services.protocol import DATAGRAM_SIZE, SERVICES, Compute, Transport
from services.protocol.chargen import LINES
from services.protocol.command import blob_bytes

# Bounds on what one load test may do to a machine.
HIGHEST_RATE = 1_000_000.0
LARGEST_PAYLOAD = 16 * 1024 * 1024

# Datagrams of an exchange are sent at once, and a socket holds so many bytes of them until its server reads: of the 208
# KiB that Linux gives it (net.core.rmem_default), which accounts for a datagram with up to twice its size.
_BURST_BYTES = 64 * 1024

CLOSED, OPEN = "closed", "open"
LOOPS = (CLOSED, OPEN)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked.

    Args:
        name: what `--workload` takes.
        summary: one line for people.
        service: which of the protocol's services answers it.
        exchange: what is sent and must come back; None where a script does that, which is then in loadtests/scripts.py.
        payload: bytes of its payload, if it has one that can be chosen.
        over_streams, over_datagrams: over what it can be asked.
        rests: whether a user does nothing between two exchanges, for a while.
        crowd: idle connections that are there beside the users, of all processes that give load together.
    """

    name: str
    summary: str
    service: str
    exchange: Exchange | None
    payload: int | None = None
    over_datagrams: bool = False
    over_streams: bool = True
    rests: bool = False
    crowd: int = 0

    @property
    def depth(self) -> int:
        """Requests in one exchange."""
        return self.exchange.depth if self.exchange else 1

    @property
    def holds_connection(self) -> bool:
        """Whether a user keeps a connection to itself as long as it is there."""
        return self.exchange is None or self.exchange.holds_connection

    def is_offered(self, transport: Transport) -> bool:
        """Whether it can be asked over a transport."""
        service = SERVICES.get(self.service)
        if transport.is_datagram:
            return self.over_datagrams
        if not self.over_streams:
            return False
        return transport is not Transport.TLS or service is None or service.tls_port is not None


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _respond(*turns: Turn, depth: int = 1, per_connection: int | None = None) -> Exchange:
    return Exchange(turns, depth=depth, per_connection=per_connection, error_prefix=b"-")


# Every byte value, so that a server which touches its text (line ends, encodings) is caught.
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


# What makes an exchange of a payload's size, for the workloads that have one.
_SIZED = {
    "echo_1k": _echo,
    "echo_64k": _echo,
    "datagrams": _echo,
    "upload": _upload,
    "download": _download,
    "blob": _blob,
}

_PING = (pack([b"PING"]), b"+PONG\r\n")
_SLEEP = (pack([b"SLEEP", b"20"]), b"+OK\r\n")
# About half a millisecond of one core: long against a PING, short against a scheduler's patience.
_BURN_ROUNDS = 1000
_BURN = (pack([b"BURN", b"%d" % _BURN_ROUNDS]), _bulk(Compute(_BURN_ROUNDS).run()))
_NUMBERS = [b"%02d" % number for number in range(16)]

# 50, so that one request in fifty, 2 %, carries the connecting and the wait for a turn: it is what p99 then shows.
SESSION = 50

_KIB = 1024
# Of twenty requests, as a service might see them, eighteen are small; one waits, and one computes.
_MIXED = (
    *[_PING] * 10,
    *[(pack([b"ECHO", number * 50]), _bulk(number * 50)) for number in _NUMBERS[:6]],
    (pack([b"BLOB", b"16384"]), _bulk(blob_bytes(16384))),
    (pack([b"BLOB", b"4096"]), _bulk(blob_bytes(4096))),
    (pack([b"SLEEP", b"5"]), b"+OK\r\n"),
    (pack([b"BURN", b"100"]), _bulk(Compute(100).run())),
)

# As many as every model's container has room for that holds clients at all: 512 processes where each has one.
CROWD = 400

_WORKLOADS = (
    Workload("ping", "PING on a held connection: the cost of a round trip", "command", _respond(_PING), None, True),
    Workload(
        "session",
        f"connect, {SESSION} PINGs, close, again: makes progress on every model, and p99 is the wait for a turn",
        "command",
        _respond(_PING, per_connection=SESSION),
    ),
    Workload(
        "session_echo",
        f"connect, {SESSION} echoes of {len(_PING[0])} bytes, close, again: for servers that only know echo",
        "echo",
        Exchange(((_PING[0], _PING[0]),), per_connection=SESSION),
    ),
    Workload(
        "pipeline_16",
        "16 PINGs at once: the cost without the round trip",
        "command",
        _respond((_PING[0] * 16, _PING[1] * 16), depth=16),
    ),
    Workload(
        "throughput",
        "16 different PINGs at once: as pipeline_16, and replies that change places are seen",
        "command",
        _respond(
            (b"".join(pack([b"PING", word]) for word in _NUMBERS), b"".join(_bulk(word) for word in _NUMBERS)),
            depth=16,
        ),
    ),
    Workload("echo_1k", "1 KiB there and back", "echo", _echo(_KIB), _KIB, True),
    Workload("echo_64k", "64 KiB there and back: many reads and partial writes", "echo", _echo(64 * _KIB), 64 * _KIB),
    Workload("sleep_20ms", "a handler that waits 20 ms: who overlaps waits?", "command", _respond(_SLEEP), None, True),
    Workload(
        "burn",
        f"a handler that computes ({_BURN_ROUNDS} rounds of SHA-256): who uses the other cores?",
        "command",
        _respond(_BURN),
        None,
        True,
    ),
    Workload(
        "mixed",
        "20 requests in turn, 90 % of them small, the others wait or compute: who keeps the small ones from waiting?",
        "command",
        _respond(*_MIXED),
    ),
    Workload(
        "churn", "connect, one PING, close: the cost of a connection", "command", _respond(_PING, per_connection=1)
    ),
    Workload(
        "upload",
        "connect, send 256 KiB, half-close, wait for the end: discard",
        "discard",
        _upload(256 * _KIB),
        256 * _KIB,
    ),
    Workload(
        "download", "connect, read 256 KiB of lines, close: chargen", "chargen", _download(256 * _KIB), 256 * _KIB
    ),
    Workload("blob", "64 KiB for a short request", "command", _blob(64 * _KIB), 64 * _KIB),
    Workload(
        "datagrams",
        "16 numbered datagrams at once: what is lost, doubled and overtaken",
        "echo",
        replace(_echo(64), depth=16),
        64,
        over_datagrams=True,
        over_streams=False,
    ),
    Workload(
        "slow_reader", "ask for 256 KiB, read it in small pieces with pauses: who waits for him?", "command", None
    ),
    Workload(
        "idle_crowd",
        f"PING beside {CROWD} connections that say nothing: what does it cost that they are there?",
        "command",
        _respond(_PING),
        crowd=CROWD,
    ),
    Workload("think", "connect, a few requests with pauses to think, QUIT: people", "command", None, rests=True),
)

# Exchanges that a codec makes and checks, see docs/adding-a-server.md. Its requests are not known here.
OWN = Workload("own_protocol", "what the codec asks", "own", Exchange(((b"", b""),)), over_datagrams=True)

WORKLOADS = {workload.name: workload for workload in _WORKLOADS}


def make_exchange(workload: Workload, transport: Transport, payload: int | None = None) -> Exchange | None:
    """What is said in a workload over a transport, with a payload of another size than its own if one is given.

    Returns:
        None if a script says it.

    Raises:
        ValueError: the workload cannot be had like that; the message says why.
    """
    if not workload.is_offered(transport):
        raise ValueError(f"{workload.name} is not asked over {transport}")
    exchange = workload.exchange
    if not payload:
        return exchange
    if workload.payload is None or exchange is None:
        raise ValueError(f"{workload.name} has no payload whose size could be chosen")
    if not 0 < payload <= LARGEST_PAYLOAD:
        raise ValueError(f"a payload of {payload} bytes: 1 to {LARGEST_PAYLOAD}")
    if transport.is_datagram:
        if payload > DATAGRAM_SIZE:
            raise ValueError(f"{payload} bytes do not fit into a datagram: at most {DATAGRAM_SIZE}")
        if payload < NUMBER_SIZE:
            raise ValueError(f"{payload} bytes do not hold the number of a datagram: at least {NUMBER_SIZE}")
        if exchange.depth > 1 and payload * exchange.depth > _BURST_BYTES:
            most = _BURST_BYTES // exchange.depth
            raise ValueError(f"{exchange.depth} datagrams of {payload} bytes at once overflow a socket: at most {most}")
    return replace(_SIZED[workload.name](payload), depth=exchange.depth)


STEADY = "steady"
_SHAPES: dict[str, Callable[[float], float]] = {
    STEADY: lambda share: 1.0,
    "ramp": lambda share: share,
    "steps": lambda share: ceil(share * 5) / 5,
    # One tenth, and all at once in the fifth of the time that is in the middle.
    "spike": lambda share: 1.0 if 0.4 <= share < 0.6 else 0.1,
}
SHAPES = tuple(_SHAPES)

# Below this nothing is asked any more; above it, a rate always has a next request.
_LOWEST = 0.01


def level(shape: str, share: float) -> float:
    """How much of the full load a shape has, when a share of its time has passed.

    Args:
        shape: of `SHAPES`.
        share: from 0 to 1; the last level stays.
    """
    return max(_SHAPES[shape](min(max(share, 0.0), 1.0)), _LOWEST)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load test with a name.

    Args:
        name: what `lab load` takes.
        summary: one line for people.
        workload: what is asked.
        loop: closed or open.
        shape: of `SHAPES`: of the users in a closed loop, of the rate in an open one.
        users, rate, duration: what it is meant for, where the command line says nothing else; seconds, requests per
            second and model.
        poisson: of an open loop, at random times and not at even ones: people who know nothing of each other.
        transport: over what.
    """

    name: str
    summary: str
    workload: Workload
    loop: str = CLOSED
    shape: str = STEADY
    users: int = 16
    rate: float = 0.0
    duration: float = 5.0
    poisson: bool = False
    transport: Transport = Transport.TCP


def _closed(name: str) -> Scenario:
    return Scenario(f"{CLOSED}_{name}", WORKLOADS[name].summary, WORKLOADS[name])


def _open(name: str, summary: str, workload: str = "ping", **changes: object) -> Scenario:
    found = Scenario(f"{OPEN}_{name}", summary, WORKLOADS[workload], OPEN, users=64, rate=1000.0)
    return replace(found, **changes)  # type: ignore[arg-type]  # each is a field's


_PINGS = WORKLOADS["ping"]
_SCENARIOS = (
    # The first is what `lab load` takes without a name.
    _closed("session"),
    *(_closed(name) for name in WORKLOADS if name not in ("session", "datagrams")),
    Scenario(
        "closed_latency", "one PING at a time, on one connection: the round trip and nothing else", _PINGS, users=1
    ),
    Scenario("closed_ramp", "PING, from no users to all of them", _PINGS, shape="ramp", users=64, duration=20.0),
    Scenario("closed_steps", "PING, with more users in five steps", _PINGS, shape="steps", users=64, duration=20.0),
    Scenario(
        "closed_spike", "PING, with ten times the users for a while", _PINGS, shape="spike", users=64, duration=20.0
    ),
    Scenario("closed_soak", "PING for ten minutes: what grows?", _PINGS, duration=600.0),
    Scenario(
        "closed_datagrams",
        WORKLOADS["datagrams"].summary,
        WORKLOADS["datagrams"],
        transport=Transport.UDP,
    ),
    _open("steady", "PING at a constant rate"),
    _open("poisson", "PING at random times, as from many who know nothing of each other", poisson=True),
    _open("ramp", "PING, from no rate to all of it: where does it bend?", shape="ramp", duration=20.0, rate=10_000.0),
    _open("steps", "PING, with more of the rate in five steps", shape="steps", duration=20.0, rate=10_000.0),
    _open(
        "spike", "PING, with ten times the rate for a while: who recovers?", shape="spike", duration=20.0, rate=10_000.0
    ),
    _open("soak", "PING at a constant rate for ten minutes: what grows?", duration=600.0),
    _open("session", f"{SESSION} PINGs to a connection, at a constant rate", "session"),
    _open("churn", "connect, one PING, close, at a constant rate", "churn", rate=200.0),
    _open("echo_1k", "1 KiB there and back, at a constant rate", "echo_1k"),
    _open("echo_64k", "64 KiB there and back, at a constant rate", "echo_64k", rate=200.0),
    _open("pipeline_16", "16 PINGs at once, at a constant rate", "pipeline_16"),
    _open("download", "connect, read 256 KiB of lines, close, at a constant rate", "download", rate=50.0),
    _open(
        "sleep_20ms", "a handler that waits 20 ms, at a constant rate: who overlaps waits?", "sleep_20ms", rate=200.0
    ),
    _open("burn", "a handler that computes, at a constant rate: who else waits?", "burn", rate=200.0),
    _open("idle_crowd", f"PING at a constant rate beside {CROWD} idle connections", "idle_crowd"),
    _open("mixed", "20 different requests in turn, at random times", "mixed", rate=200.0, poisson=True),
    _open("datagrams", "numbered datagrams, 16 at once, at a constant rate", "datagrams", transport=Transport.UDP),
)
SCENARIOS = {scenario.name: scenario for scenario in _SCENARIOS}
