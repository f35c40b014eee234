"""Traffic of a soak: `python -m lab.clients.soak_traffic` visits the models one after the other until it is stopped.

A visit opens several connections that send the same mixed requests, sends a datagram, and opens some hostile
connections. The requests are those of `command`, HTTP or WebSocket, over TCP, TLS or a Unix socket, which alternate.
Each reply to a well-behaved client must be, byte for byte, what docs/protocol.md and docs/protocol/ say. A model with a
fixed number of workers gets that number of clients: with fewer, most workers would be idle, and a leak per worker would
take many times as long to show.

The models are read from LAB_TARGETS, as by the load generator. Messages (`lab.base.messages`)
control the traffic. `Rest` finishes the visit, closes all connections and is confirmed by `Resting`. `Go` continues, in
the warm-up with several times the clients. At the end of stdin the counts of each model are sent, as a `ModelCounts`.
"""

import json
import os
import selectors
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle

import click

from lab.base.environ import ENV_TARGETS
from lab.base.errors import LabError
from lab.base.messages import Inbox, Message, say
from lab.clients.call import call, pack
from lab.clients.reference import blob, bulk, digest
from lab.clients.soak_http import (
    HTTP_ANSWER,
    HTTP_MIX,
    HTTP_REQUESTS,
    UNFINISHED_MESSAGE,
    WEBSOCKET_ANSWER,
    WEBSOCKET_MIX,
    WEBSOCKET_REQUESTS,
    mask_dates,
)
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SocketsError
from services.protocol import Address, Transport

_CLIENTS = 7  # per visit, for a model without a fixed number of workers
_ONE_HOSTILE_IN = 7

# How many times the clients the warm-up has. Then the allocator's pools have room for fewer clients in any order.
# Without it, they would fill up slowly and look like a leak.
_WARM_UP_FACTOR = 4

_TIMEOUT = 20.0  # of a well-behaved client; generous, as all models share the machine and some of them block

_MAX_FAILURES = 5  # consecutive failed visits of a model that end the soak

# The requests and the replies that a server must send. They follow docs/protocol.md and share no code with the servers,
# so that a bug in the servers' code is noticed.
_EXCHANGES = [(b"PING", b"+PONG\r\n")] * 10 + [
    (b"ECHO " + b"x" * 1024, bulk(b"x" * 1024)),
    (b"SLEEP 1", b"+OK\r\n"),
    (b"BURN 20", bulk(digest(20))),
    (b"BLOB 70000", bulk(blob(70_000))),
    (b"NONSENSE", b"-ERR unknown command 'NONSENSE'\r\n"),
    (b"PING end", bulk(b"end")),
]
MIX = b"".join(pack(request.split()) for request, _ in _EXCHANGES)
ANSWER = b"".join(answer for _, answer in _EXCHANGES)
REQUESTS = len(_EXCHANGES)
_NEVER_READ = pack([b"BLOB", b"70000"]) * 40
_HTTP_NEVER_READ = b"GET /blob/70000 HTTP/1.1\r\nHost: lab.test\r\n\r\n" * 40
_HTTP_BROKEN = b"GET / HTTP/1.1\r\nHost: lab.test\r\n" + b"\xff" * 2000 + b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Script:
    """What a well-behaved client says, and what it must hear.

    Args:
        listener: by service and transport.
        normalize: makes replies comparable that are not always the same; it keeps their length.
    """

    listener: str
    mix: bytes = MIX
    answer: bytes = ANSWER
    requests: int = REQUESTS
    normalize: Callable[[bytes], bytes] = bytes


def _http(listener: str) -> Script:
    return Script(listener, HTTP_MIX, HTTP_ANSWER, HTTP_REQUESTS, mask_dates)


def _websocket(listener: str) -> Script:
    return Script(listener, WEBSOCKET_MIX, WEBSOCKET_ANSWER, WEBSOCKET_REQUESTS, mask_dates)


SCRIPTS = (
    Script("command-tcp"),
    _http("http-tcp"),
    Script("command-tls"),
    _websocket("http-tcp"),
    Script("command-unix"),
    _http("http-tls"),
    _websocket("http-unix"),
    _http("http-unix"),
    _websocket("http-tls"),
)


@dataclass(slots=True)
class TrafficCounts:
    """Counts of the traffic of one model.

    Args:
        visits: number of visits.
        requests: answered requests of well-behaved clients.
        failures: failed visits, by error.
    """

    visits: int = 0
    requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)


@contextmanager
def _silent(address: Address, words: bytes | None = None) -> Iterator[BlockingConnection]:
    with BlockingConnection(address, timeout=_TIMEOUT) as connection:
        if words is not None:
            connection.send(words)
        yield connection


@contextmanager
def _resetting(address: Address, words: bytes) -> Iterator[None]:
    """Never read, and close with a reset in the middle of a frame."""
    with _silent(address, words) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        yield


@contextmanager
def _malformed(address: Address, words: bytes) -> Iterator[None]:
    with _silent(address, words) as connection:
        with suppress(SocketsError):  # the server may reset the connection while data is still being sent
            while connection.receive():
                pass
        yield


def _half_handshake(address: Address) -> AbstractContextManager[object]:
    return _silent(replace(address, transport=Transport.TCP), b"\x16\x03\x01\x02\x00\x01\x00")


@contextmanager
def _stopped_reader(address: Address) -> Iterator[None]:
    with _silent(address) as connection:
        connection.receive()
        yield


@contextmanager
def _datagram_flood(address: Address) -> Iterator[None]:
    for data in (b"", b"\xff" * 900, b"*3\r\n", b"PING\r\nPING\r\n"):
        with _silent(address, data):
            pass
    yield


# Each with the listener that it needs.
HOSTILE: tuple[tuple[str, Callable[[Address], AbstractContextManager[object]]], ...] = (
    ("command-tcp", _silent),
    ("command-tcp", partial(_silent, words=b"*2\r\n$4\r\nEC")),
    ("command-tcp", partial(_resetting, words=b"*2\r\n$4\r\nECHO\r\n$900\r\nx")),
    ("command-tcp", partial(_resetting, words=_NEVER_READ)),
    ("command-tcp", partial(_malformed, words=b"*1000000000\r\n" + b"\xff" * 2000)),
    ("command-tls", _half_handshake),
    ("chargen-tcp", _stopped_reader),
    ("command-udp", _datagram_flood),
    ("http-tcp", partial(_silent, words=HTTP_MIX[:30])),
    ("http-tcp", partial(_silent, words=UNFINISHED_MESSAGE)),
    ("http-tcp", partial(_resetting, words=_HTTP_NEVER_READ)),
    ("http-tcp", partial(_malformed, words=_HTTP_BROKEN)),
)


@dataclass(frozen=True, slots=True)
class Rest(Message):
    """Finish the visit, and disconnect all clients."""


@dataclass(frozen=True, slots=True)
class Resting(Message):
    """All clients have disconnected."""


@dataclass(frozen=True, slots=True)
class Go(Message):
    """Continue; in the warm-up with several times the clients."""

    warm_up: bool = False


@dataclass(frozen=True, slots=True)
class ModelCounts(Message):
    """The counts of one model at the end."""

    model: str
    counts: TrafficCounts


class ModelTraffic:
    """The traffic of one model.

    Args:
        addresses: its listeners, by service and transport: `command-tcp`.
        workers: how many clients it serves at a time; a visit has this number of clients. With 1, the hostile client
            disconnects before the well-behaved one connects. None: no fixed number.
    """

    def __init__(self, model: str, addresses: Mapping[str, Address], workers: int | None = None) -> None:
        self._model = model
        self._addresses = addresses
        self._workers = workers
        self._scripts = cycle([script for script in SCRIPTS if script.listener in addresses])
        self._hostile = cycle([(act, addresses[listener]) for listener, act in HOSTILE if listener in addresses])
        self._consecutive_failures = 0
        self._failures: Counter[str] = Counter()
        self.counts = TrafficCounts()

    def visit(self, *, warm_up: bool = False) -> None:
        """Open hostile and well-behaved clients, and check the replies.

        Args:
            warm_up: open enough clients to fill the pools of the model's allocator.

        Raises:
            LabError: well-behaved clients were not served in `_MAX_FAILURES` consecutive visits.
        """
        self.counts.visits += 1
        clients = self._workers or _CLIENTS * (_WARM_UP_FACTOR if warm_up else 1)
        try:
            with ExitStack() as stack:
                hostile = max(1, clients // _ONE_HOSTILE_IN)
                for _ in range(hostile):
                    act, address = next(self._hostile)
                    stack.enter_context(act(address))
                if clients == 1:
                    stack.close()
                self._behave(next(self._scripts), max(1, clients - hostile))
            self._consecutive_failures = 0
        except (LabError, SocketsError, OSError) as error:
            self._failures[str(error)] += 1
            self._consecutive_failures += 1
            if (failures := self._consecutive_failures) >= _MAX_FAILURES:
                raise LabError(f"{self._model} did not serve {failures} consecutive visits: {error}") from None
        self.counts.failures = dict(self._failures)

    def _behave(self, script: Script, clients: int) -> None:
        with ExitStack() as stack:
            connections = [
                stack.enter_context(BlockingConnection(self._addresses[script.listener], timeout=_TIMEOUT))
                for _ in range(clients)
            ]
            for connection in connections:
                connection.send(script.mix)
            for number, connection in enumerate(connections):
                # Every other client closes its sending half. It must then receive the replies, the end of the stream,
                # and nothing in between.
                if is_closed := number % 2 == 1:
                    connection.half_close()
                answer = b""
                while (is_closed or len(answer) < len(script.answer)) and (chunk := connection.receive()):
                    answer += chunk
                if (answer := script.normalize(answer)) != script.answer:
                    raise LabError(f"{script.listener}: {_find_difference(answer, script.answer)}")
                self.counts.requests += script.requests
        if "command-udp" in self._addresses:
            with BlockingConnection(self._addresses["command-udp"], timeout=_TIMEOUT) as connection:
                connection.send(b"PING\r\n")
                if (reply := connection.receive()) != b"+PONG\r\n":
                    raise LabError(f"command-udp: PING was answered by {reply[:40]!r}")
            self.counts.requests += 1


def _find_difference(answer: bytes, expected: bytes) -> str:
    """Describe the first byte that differs."""
    shorter = min(len(answer), len(expected))
    same = next((number for number in range(shorter) if answer[number] != expected[number]), shorter)
    got, wanted = answer[same : same + 20], expected[same : same + 20]
    return f"a wrong answer of {len(answer)} bytes: at byte {same} {got!r} instead of {wanted!r}"


def find_workers(addresses: Mapping[str, Address], declared: int | None) -> int | None:
    """Return how many clients a model serves at a time; None if it has no fixed number of workers.

    Args:
        declared: the number in the catalogue. The server's INFO overrides it.
    """
    if declared is None or declared == 1:
        return declared
    info = call("command", addresses["command-tcp"], ["INFO"], timeout=_TIMEOUT).value
    # LAB_WORKERS may have changed the number. 0 means the model's default, which is the catalogue's number.
    lines = info.splitlines() if isinstance(info, bytes) else []
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"workers:")), 0) or declared


def run(traffic: Sequence[ModelTraffic], pause: float) -> None:
    """Visit the models one after the other, controlled by stdin, until it ends.

    Args:
        pause: seconds between two visits.
    """
    turns = cycle(traffic)
    going: Go | None = Go()
    inbox = Inbox(sys.stdin.fileno(), Rest, Go)
    with selectors.DefaultSelector() as selector:
        selector.register(inbox, selectors.EVENT_READ)
        while True:
            if selector.select(pause if going else None):
                received = inbox.receive()
                if received is None:
                    return
                for message in received:
                    going = message if isinstance(message, Go) else None
                    if going is None:
                        say(Resting())
            if going:
                next(turns).visit(warm_up=going.warm_up)


@click.command(help=__doc__)
@click.option("--workers", multiple=True, type=(str, int), metavar="MODEL NUMBER", help="workers; repeatable")
@click.option("--pause", default=0.002, help="seconds between two visits")
def main(workers: tuple[tuple[str, int], ...], pause: float) -> None:
    """Exit with code 2 if a model stops serving."""
    traffic = {}
    declared = dict(workers)
    for row in json.loads(os.environ[ENV_TARGETS]):
        addresses = {
            f"{item['service']}-{item['transport']}": Address.parse(item["address"]) for item in row["listeners"]
        }
        model = row["model"]
        traffic[model] = ModelTraffic(model, addresses, find_workers(addresses, declared.get(model)))
    try:
        run(list(traffic.values()), pause)
    except LabError as error:
        print(f"soak: {error}", flush=True)
        sys.exit(2)
    for model, each in traffic.items():
        say(ModelCounts(model, each.counts))


if __name__ == "__main__":
    main()
