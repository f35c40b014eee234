"""A client who looks at its watch: `python -m lab.witness ADDRESS`. A PING every 20 ms, and what each took.

Lines on stdin are moments to remember. At its end it prints both, a line of JSON; times in seconds since it began.
"""

import json
import sys
import threading
import time
from contextlib import suppress

import click

from lab.client import Link
from lab.errors import ClientError
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
        self._link: Link | None = None
        self.marks: dict[str, float] = {}
        self.pings: list[tuple[float, float | None]] = []

    def listen(self) -> None:
        """Remember the moments that stdin tells; its end is the end."""
        for line in sys.stdin:
            self.marks[line.strip()] = time.monotonic() - self._begin
        self._ended.set()

    def watch(self) -> None:
        """PING until the end; on a new connection behind each that failed."""
        while not self._ended.wait(_EVERY):
            since = time.monotonic()
            took: float | None = None
            with suppress(ClientError):
                took = self._ping(since)
            if took is None and self._link:
                self._link.close()
                self._link = None
            self.pings.append((since - self._begin, took))

    def _ping(self, since: float) -> float | None:
        if self._link is None:
            self._link = Link(self._address, timeout=TIMEOUT)
        self._link.renew()
        self._link.send(_REQUEST)
        return time.monotonic() - since if self._link.receive() == _REPLY else None


@click.command(help=__doc__)
@click.argument("address")
def main(address: str) -> None:
    """Ends when its stdin does."""
    witness = Witness(Address.parse(address))
    threading.Thread(target=witness.listen, daemon=True).start()
    witness.watch()
    print(json.dumps({"pings": witness.pings, "marks": witness.marks}), flush=True)


if __name__ == "__main__":
    main()
