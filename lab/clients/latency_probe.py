"""Send a PING every 20 ms and print how long each took: `python -m lab.clients.latency_probe ADDRESS`.

It sends messages to its parent (`lab.base.messages`): a `Ping` for each PING, and a `Marked` for each `Mark` that it
receives. The probe ends when its stdin does. lab/experiments/faults/probe_reader.py is the parent.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import click

from lab.base.messages import Message, decode, say
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError
from services.protocol import Address

_INTERVAL = 0.02
TIMEOUT = 0.5
_REQUEST, _REPLY = b"PING\r\n", b"+PONG\r\n"


@dataclass(frozen=True, slots=True)
class Mark(Message):
    """Note the time of this moment."""

    word: str


@dataclass(frozen=True, slots=True)
class Marked(Message):
    """The time of a mark, in seconds since the start."""

    word: str
    at: float


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """One PING.

    Args:
        at: when it was sent, in seconds since the start.
        took: seconds; None if it failed.
    """

    at: float
    took: float | None


class LatencyProbe:
    """Send PINGs until stdin ends.

    Args:
        address: of a `command` listener.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._begin = time.monotonic()
        self._ended = threading.Event()
        self._connection: BlockingConnection | None = None

    def read_marks(self) -> None:
        """Answer each mark on stdin; stop the probe at the end of stdin."""
        for line in sys.stdin:
            if mark := decode(line, Mark):
                say(Marked(mark.word, time.monotonic() - self._begin))
        self._ended.set()

    def run(self) -> None:
        """PING until the probe is stopped; open a new connection after each failure."""
        while not self._ended.wait(_INTERVAL):
            since = time.monotonic()
            took: float | None = None
            with suppress(ClientError):
                took = self._ping(since)
            if took is None:
                self._disconnect()
            say(Ping(since - self._begin, took))
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _ping(self, since: float) -> float | None:
        if self._connection is None:
            self._connection = BlockingConnection(self._address, timeout=TIMEOUT)
        self._connection.reset_deadline()
        self._connection.send(_REQUEST)
        return time.monotonic() - since if self._connection.receive() == _REPLY else None


@click.command(help=__doc__)
@click.argument("address")
def main(address: str) -> None:
    # The name of a model that is disconnected from its networks is unknown: by default, the resolver tries other
    # servers for ten seconds.
    os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
    probe = LatencyProbe(Address.parse(address))
    threading.Thread(target=probe.read_marks, daemon=True).start()
    probe.run()


if __name__ == "__main__":
    main()
