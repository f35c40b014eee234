"""Clients of a soak: `python -m lab.clients.soak_traffic`, an instrument that visits models in turns, on and on.

A visit is some connections at a time with the same mixed requests, over TCP, TLS and Unix sockets in turns, a
datagram, and clients who mean no good. What the others get must be, byte for byte, what docs/protocol.md says.
A model with a fixed number of workers gets as many clients as it has workers: with fewer, most of the workers would
have nothing to do, and what each of them keeps would show only after as many times as long.

The models come in LAB_TARGETS, as for the load generator. On `rest`, a line of stdin, it finishes its visit, has no
connection any more, and says `resting N`, for the N-th time; on `go` it goes on, and on `crowd` it goes on with several
times as many clients. At the end of its stdin it prints what there was, a line of JSON for each model.
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
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from hashlib import sha256
from itertools import cycle

import click

from lab.base.errors import LabError
from lab.clients.call import call, pack
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SocketsError
from services.protocol import Address, Transport

# Clients at a time of a model that serves as many as come, of how many there is one who means no good, and how many
# times as many a crowd is. After a crowd, an allocator's pools have room for whatever order fewer come and go in:
# without it, they fill up for long, as with a leak.
_FEW = 7
_ONE_IN = 7
_CROWD = 4

# Seconds until somebody who behaves is taken for not served. All models share the machine, and some of them block.
_PATIENCE = 20.0

# A model that is not served so many times running is not visited any more, and the soak is over.
_MOST_FAILURES = 5

# What is asked, and what a server must say to it: worked out here from docs/protocol.md, and not by the code that the
# servers run, so that a fault in that code is noticed.
_BURNT = reduce(lambda digest, _: sha256(digest).digest(), range(20), bytes(32)).hex().encode()
_BLOB = (bytes(range(32, 127)) * 737)[:70_000]
_EXCHANGES = [(b"PING", b"+PONG\r\n")] * 10 + [
    (b"ECHO " + b"x" * 1024, b"$1024\r\n" + b"x" * 1024 + b"\r\n"),
    (b"SLEEP 1", b"+OK\r\n"),
    (b"BURN 20", b"$64\r\n" + _BURNT + b"\r\n"),
    (b"BLOB 70000", b"$70000\r\n" + _BLOB + b"\r\n"),
    (b"NONSENSE", b"-ERR unknown command 'NONSENSE'\r\n"),
    (b"PING end", b"$3\r\nend\r\n"),
]
MIX = b"".join(pack(request.split()) for request, _ in _EXCHANGES)
ANSWER = b"".join(answer for _, answer in _EXCHANGES)
REQUESTS = len(_EXCHANGES)
_NEVER_READ = pack([b"BLOB", b"70000"]) * 40


@dataclass(slots=True)
class Visits:
    """What a model has been through.

    Args:
        visits, requests: how many; a request is one of somebody who behaves.
        failures: of those who behave, by what was wrong.
    """

    visits: int = 0
    requests: int = 0
    failures: dict[str, int] = field(default_factory=dict)


Addresses = Mapping[str, Address]


@contextmanager
def _silent(addresses: Addresses, first_words: bytes = b"") -> Iterator[None]:
    with BlockingConnection(addresses["command-tcp"], timeout=_PATIENCE) as link:
        if first_words:
            link.send(first_words)
        yield


@contextmanager
def _resetting(addresses: Addresses, first_words: bytes) -> Iterator[None]:
    """Never reads, and ends with a reset in the middle of a frame."""
    with BlockingConnection(addresses["command-tcp"], timeout=_PATIENCE) as link:
        link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.send(first_words)
        yield


@contextmanager
def _malformed(addresses: Addresses) -> Iterator[None]:
    with BlockingConnection(addresses["command-tcp"], timeout=_PATIENCE) as link:
        link.send(b"*1000000000\r\n" + b"\xff" * 2000)
        with suppress(SocketsError):  # it may reset what is still being sent to it
            while link.receive():
                pass
        yield


@contextmanager
def _half_handshake(addresses: Addresses) -> Iterator[None]:
    plain = replace(addresses["command-tls"], transport=Transport.TCP)
    with BlockingConnection(plain, timeout=_PATIENCE) as link:
        link.send(b"\x16\x03\x01\x02\x00\x01\x00")
        yield


@contextmanager
def _stopped_reader(addresses: Addresses) -> Iterator[None]:
    with BlockingConnection(addresses["chargen-tcp"], timeout=_PATIENCE) as link:
        link.receive()
        yield


@contextmanager
def _datagram_flood(addresses: Addresses) -> Iterator[None]:
    for stream in (b"", b"\xff" * 900, b"*3\r\n", b"PING\r\nPING\r\n"):
        with BlockingConnection(addresses["command-udp"], timeout=_PATIENCE) as link:
            link.send(stream)
    yield


# Each with the listener that it goes to.
Hostile = Callable[[Addresses], AbstractContextManager[None]]
HOSTILE: tuple[tuple[str, Hostile], ...] = (
    ("command-tcp", _silent),
    ("command-tcp", lambda addresses: _silent(addresses, b"*2\r\n$4\r\nEC")),
    ("command-tcp", lambda addresses: _resetting(addresses, b"*2\r\n$4\r\nECHO\r\n$900\r\nx")),
    ("command-tcp", lambda addresses: _resetting(addresses, _NEVER_READ)),
    ("command-tcp", _malformed),
    ("command-tls", _half_handshake),
    ("chargen-tcp", _stopped_reader),
    ("command-udp", _datagram_flood),
)


class Visitor:
    """Visits one model.

    Args:
        model: its name.
        addresses: where it listens, by service and transport: `command-tcp`.
        workers: how many clients it serves at a time, so many visit it. With 1, he who means no good has gone before
            the other comes. None: as many as come.
    """

    def __init__(self, model: str, addresses: Addresses, workers: int | None = None) -> None:
        self._model = model
        self._addresses = addresses
        self._workers = workers
        self._transports = cycle([name for name in ("command-tcp", "command-tls", "command-unix") if name in addresses])
        self._hostile = cycle([hostile for listener, hostile in HOSTILE if listener in addresses])
        self._running = 0
        self.counted: Counter[str] = Counter()
        self.visits = Visits()

    def visit(self, *, crowd: bool = False) -> None:
        """Visit it once.

        Args:
            crowd: with as many clients as it takes to fill its allocator's pools.

        Raises:
            LabError: somebody who behaved was not served, for the last time that is put up with.
        """
        self.visits.visits += 1
        clients = self._workers or _FEW * (_CROWD if crowd else 1)
        try:
            with ExitStack() as stack:
                hostile = max(1, clients // _ONE_IN)
                for _ in range(hostile):
                    stack.enter_context(next(self._hostile)(self._addresses))
                if clients == 1:
                    stack.close()
                self._behave(next(self._transports), max(1, clients - hostile))
            self._running = 0
        except (LabError, SocketsError, OSError) as error:
            self.counted[str(error)] += 1
            self._running += 1
            if self._running >= _MOST_FAILURES:
                raise LabError(f"{self._model} has not served {self._running} visits running: {error}") from None
        self.visits.failures = dict(self.counted)

    def _behave(self, where: str, clients: int) -> None:
        with ExitStack() as stack:
            links = [
                stack.enter_context(BlockingConnection(self._addresses[where], timeout=_PATIENCE))
                for _ in range(clients)
            ]
            for link in links:
                link.send(MIX)
            for number, link in enumerate(links):
                # One that has closed its half gets the end behind its answer, and nothing between the two.
                if is_closed := number % 2 == 1:
                    link.half_close()
                answer = b""
                while (is_closed or len(answer) < len(ANSWER)) and (chunk := link.receive()):
                    answer += chunk
                if answer != ANSWER:
                    raise LabError(f"{where}: {_find_difference(answer)}")
                self.visits.requests += REQUESTS
        if "command-udp" in self._addresses:
            with BlockingConnection(self._addresses["command-udp"], timeout=_PATIENCE) as link:
                link.send(b"PING\r\n")
                if (said := link.receive()) != b"+PONG\r\n":
                    raise LabError(f"command-udp: PING was answered by {said[:40]!r}")
            self.visits.requests += 1


def _find_difference(answer: bytes) -> str:
    """Say where an answer is not `ANSWER`."""
    shorter = min(len(answer), len(ANSWER))
    same = next((number for number in range(shorter) if answer[number] != ANSWER[number]), shorter)
    got, wanted = answer[same : same + 20], ANSWER[same : same + 20]
    return f"a wrong answer of {len(answer)} bytes: at byte {same} {got!r} instead of {wanted!r}"


def find_workers(addresses: Addresses, declared: int | None) -> int | None:
    """How many clients a model serves at a time; None for as many as come.

    Args:
        declared: the same, by the catalogue.
    """
    if declared is None or declared == 1:
        return declared
    info = call("command", addresses["command-tcp"], ["INFO"], timeout=_PATIENCE).value
    # LAB_WORKERS may have told it otherwise; 0 is its own choice, which the catalogue knows.
    lines = info.splitlines() if isinstance(info, bytes) else []
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"workers:")), 0) or declared


def visit_all(visitors: Sequence[Visitor], pause: float) -> None:
    """Visit by turns, as stdin says, until it ends.

    Args:
        pause: seconds between two visits.
    """
    turns = cycle(visitors)
    rests = 0
    is_going, is_crowded = True, False
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            if selector.select(pause if is_going else None):
                # Not by `readline`: what it has read beyond its line, nobody would be woken up for.
                words = os.read(sys.stdin.fileno(), 4096).split()
                if not words:
                    return
                for word in words:
                    is_going, is_crowded = word != b"rest", word == b"crowd"
                    if not is_going:
                        rests += 1
                        print(f"resting {rests}", flush=True)
            if is_going:
                next(turns).visit(crowd=is_crowded)


@click.command(help=__doc__)
@click.option("--workers", multiple=True, type=(str, int), metavar="MODEL NUMBER", help="clients at a time; repeatable")
@click.option("--pause", default=0.002, help="seconds between two visits")
def main(workers: tuple[tuple[str, int], ...], pause: float) -> None:
    """Exit code 2: a model does not serve any more."""
    visitors = {}
    declared = dict(workers)
    for row in json.loads(os.environ["LAB_TARGETS"]):
        addresses = {
            f"{item['service']}-{item['transport']}": Address.parse(item["address"]) for item in row["listeners"]
        }
        visitors[row["model"]] = Visitor(row["model"], addresses, find_workers(addresses, declared.get(row["model"])))
    try:
        visit_all(list(visitors.values()), pause)
    except LabError as error:
        print(f"soak: {error}", flush=True)
        sys.exit(2)
    for model, visitor in visitors.items():
        print(json.dumps({"model": model, **asdict(visitor.visits)}), flush=True)


if __name__ == "__main__":
    main()
