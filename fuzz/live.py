"""Fuzz models over their sockets, with `lab.clients.reference` as the oracle: `python -m fuzz.live`.

Each input is a conversation of its own: a stream over TCP or a Unix socket, cut as its first bytes say and ended by a
half-close, or a datagram over UDP. What comes back must be, byte for byte, what the reference says to the same bytes; a
model has nothing to add to it. Beside it, one client that knows how to behave has a connection from the beginning to
the end, and must get each of its replies.
"""

import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise

import click

from fuzz.oracle import CUTS
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.clients.call import pack
from lab.clients.reference import Bounds, answer, answer_datagram
from lab.servers.catalogue import Listener
from lab.servers.open import open_backend
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import SocketsError
from services.protocol import Address, Transport

CORPUS = ROOT / "fuzz" / "corpus"

# What the servers must be started with: no input may keep one busy for long.
ENVIRON = {"LAB_MAX_SLEEP_MS": "5", "LAB_MAX_BURN": "50"}
BOUNDS = Bounds(sleep_ms=5, burn=50)

# Seconds until a server that does not answer is taken for one that hangs.
_PATIENCE = 30.0

# The behaved client asks after so many inputs.
_ASK_EVERY = 10

# What a mutation puts in.
_WORDS = (
    b"\r\n",
    b"*1\r\n",
    b"*2\r\n$4\r\nECHO\r\n",
    b"$4\r\nPING\r\n",
    b"PING\n",
    b"BLOB 70000\n",
    b"\xff",
    b"\0",
    b'"',
)


class UnlikeTheReferenceError(LabError):
    """A model answered something else than it must."""


@dataclass(frozen=True, slots=True)
class Found:
    """How many inputs a model has been sent, and how many of its answers could be compared."""

    inputs: int
    compared: int


def make_inputs(seed: int) -> Iterator[bytes]:
    """Inputs without end, the same for the same seed: the corpus, and what becomes of it."""
    generator = random.Random(seed)
    corpus = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    while True:
        data = bytearray(generator.choice(corpus))
        for _ in range(generator.randrange(4)):
            start = generator.randrange(len(data) + 1)
            end = min(len(data), start + generator.randrange(12))
            match generator.randrange(4):
                case 0:
                    data[start:end] = generator.choice(_WORDS)
                case 1:
                    data[start:start] = generator.choice(corpus)[CUTS:]
                case 2:
                    data[start:end] = data[start:end] * 3
                case 3:
                    del data[start:end]
        yield bytes(data)


def bombard(addresses: Sequence[Address], seed: int, inputs: int, *, overlaps: bool = True) -> Found:
    """Send a model so many inputs, to its addresses of `command` in turns.

    Args:
        addresses: of one server that was started with `ENVIRON`; the first carries streams.
        seed: the same one sends the same.
        overlaps: the server serves several clients at a time; where it does not, the behaved one comes and goes.

    Raises:
        UnlikeTheReferenceError: names the seed, the input's number, and both answers.
        SocketsError: no answer, or the connection of the behaved client broke.
    """
    compared = 0
    with ExitStack() as stack:
        behaved = stack.enter_context(BlockingConnection(addresses[0], timeout=_PATIENCE)) if overlaps else None
        for number, data in enumerate(islice(make_inputs(seed), inputs)):
            address = addresses[number % len(addresses)]
            try:
                compared += _exchange(address, data)
            except UnlikeTheReferenceError as error:
                raise UnlikeTheReferenceError(
                    f"input {number} of seed {seed}, {data!r}, to {address}: {error}"
                ) from None
            if number % _ASK_EVERY == 0:
                text = b"%d of %d" % (number, seed)
                if behaved is not None:
                    behaved.reset_deadline()
                    _ask(behaved, text)
                else:
                    with BlockingConnection(addresses[0], timeout=_PATIENCE) as link:
                        _ask(link, text)
    return Found(inputs, compared)


def _ask(behaved: BlockingConnection, text: bytes) -> None:
    behaved.send(pack([b"ECHO", text]))
    wanted = b"$%d\r\n%b\r\n" % (len(text), text)
    received = b""
    while len(received) < len(wanted):
        if not (chunk := behaved.receive()):
            raise UnlikeTheReferenceError("the behaved client was disconnected")
        received += chunk
    if received != wanted:
        raise UnlikeTheReferenceError(f"the behaved client got {received!r} and not {wanted!r}")


def _exchange(address: Address, data: bytes) -> bool:
    """One conversation; returns whether its answer could be compared."""
    stream = data[CUTS:]
    wanted = _say(address, stream)
    with BlockingConnection(address, timeout=_PATIENCE) as link:
        if address.transport.is_datagram:
            link.send(stream)
            if wanted == b"":  # nothing is said to this one, so the first answer is that to the next
                link.send(b"PING\r\n")
                wanted = b"+PONG\r\n"
            received = link.receive()
        else:
            borders = sorted({0, len(stream), *(place % (len(stream) + 1) for place in data[:CUTS])})
            for start, end in pairwise(borders):
                link.send(stream[start:end])
            link.half_close()
            received = b"".join(iter(link.receive, b""))
    if wanted is None:
        return False
    if received != wanted:
        raise UnlikeTheReferenceError(f"it answered {_show(received)}, the reference says {_show(wanted)}")
    return True


def _say(address: Address, stream: bytes) -> bytes | None:
    """What a server must answer; None if that depends on the server."""
    found = (answer_datagram if address.transport.is_datagram else answer)("command", stream, BOUNDS)
    return found.sent if found.is_known else None


def _show(text: bytes) -> str:
    return f"{text[:200]!r}" + (f"... ({len(text)} bytes)" if len(text) > 200 else "")


def choose(listeners: Sequence[Listener], model: str) -> list[Address]:
    """The addresses that a model is sent inputs to."""
    found = {item.transport: item.address for item in listeners if (item.model, item.service) == (model, "command")}
    return [Address.parse(found[transport]) for transport in (Transport.TCP, Transport.UNIX, Transport.UDP)]


@click.command(help=__doc__)
@click.argument("models", nargs=-1)
@click.option("--inputs", default=10_000, help="to each model")
@click.option("--seed", default=1)
@click.option("--project", default="fuzz", help="the lab's name; it is taken down at the end")
def main(models: tuple[str, ...], inputs: int, seed: int, project: str) -> None:
    """Exit code 0: every answer was the reference's; 1: one was not."""
    os.environ.update(ENVIRON)
    backend = open_backend("process", project)
    try:
        for model in backend.catalogue.select(models):
            backend.up([model])
            addresses = choose(backend.targets(), model.name)
            found = bombard(addresses, seed, inputs, overlaps="overlap" not in model.limits)
            backend.down()
            click.echo(f"{model.name:<24} {found.inputs:>9,} inputs, {found.compared:>9,} answers as the reference's")
    except (LabError, SocketsError) as error:
        click.echo(f"fuzz: {error}", err=True)
        sys.exit(1)
    finally:
        backend.down()


if __name__ == "__main__":
    main()
