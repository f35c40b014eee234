"""Send a PING every 20 ms and print how long each took: `python -m lab.clients.latency_probe ADDRESS`.

Each PING prints a line of JSON: when it was sent, in seconds since the start, and how long it took, or null if it
failed. A line on stdin marks a moment and is printed as `{"mark": ..., "at": ...}`. The probe ends when its stdin does.
lab/experiments/faults/probe_reader.py reads the output.
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

_INTERVAL = 0.02
TIMEOUT = 0.5
_REQUEST, _REPLY = b"PING\r\n", b"+PONG\r\n"


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
        """Print the time of each mark on stdin; stop the probe at the end of stdin."""
        for line in sys.stdin:
            _print({"mark": line.strip(), "at": time.monotonic() - self._begin})
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
            _print([since - self._begin, took])
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


def _print(item: object) -> None:
    # One write per line: two threads print.
    sys.stdout.write(f"{json.dumps(item)}\n")
    sys.stdout.flush()


@click.command(help=__doc__)
@click.argument("address")
def main(address: str) -> None:
    """Run the probe until stdin ends."""
    # The name of a model that is disconnected from its networks is unknown: by default, the resolver tries other
    # servers for ten seconds.
    os.environ["RES_OPTIONS"] = "timeout:1 attempts:1"
    probe = LatencyProbe(Address.parse(address))
    threading.Thread(target=probe.read_marks, daemon=True).start()
    probe.run()


if __name__ == "__main__":
    main()
