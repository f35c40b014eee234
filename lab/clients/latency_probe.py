"""A client who looks at its watch: `python -m lab.clients.latency_probe ADDRESS`. A PING every 20 ms, and what each
took.

It prints a line of JSON for each: when it was sent, and what it took or null, in seconds since it began. Lines on stdin
are moments to remember, and come back as `{"mark": ..., "at": ...}`. It ends when its stdin does;
lab/experiments/faults/probe_reader.py reads it.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress

import click

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import ClientError
from services.protocol import Address

_EVERY = 0.02
TIMEOUT = 0.5
_REQUEST, _REPLY = b"PING\r\n", b"+PONG\r\n"


class Witness:
    """Pings until it is told to end.

    Args:
        address: of `command`.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._begin = time.monotonic()
        self._ended = threading.Event()
        self._link: BlockingConnection | None = None

    def listen(self) -> None:
        """Tell when the moments were that stdin names; its end is the end."""
        for line in sys.stdin:
            _say({"mark": line.strip(), "at": time.monotonic() - self._begin})
        self._ended.set()

    def watch(self) -> None:
        """PING until the end; on a new connection behind each that failed."""
        while not self._ended.wait(_EVERY):
            since = time.monotonic()
            took: float | None = None
            with suppress(ClientError):
                took = self._ping(since)
            if took is None:
                self._hang_up()
            _say([since - self._begin, took])
        self._hang_up()

    def _hang_up(self) -> None:
        if self._link:
            self._link.close()
            self._link = None

    def _ping(self, since: float) -> float | None:
        if self._link is None:
            self._link = BlockingConnection(self._address, timeout=TIMEOUT)
        self._link.reset_deadline()
        self._link.send(_REQUEST)
        return time.monotonic() - since if self._link.receive() == _REPLY else None


def _say(what: object) -> None:
    # One write a line: two threads say something.
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


@click.command(help=__doc__)
@click.argument("address")
def main(address: str) -> None:
    """Ends when its stdin does."""
    # Of a model that is on no network the name is not known, and the resolver would look elsewhere for ten seconds.
    os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
    witness = Witness(Address.parse(address))
    threading.Thread(target=witness.listen, daemon=True).start()
    witness.watch()


if __name__ == "__main__":
    main()
