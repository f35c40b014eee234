"""Scripts of the workloads that do more than repeat one exchange.

A script gets a client, whose connection may be open or not, and is called again when it returns.
"""

import random
from collections.abc import Callable, Mapping

import gevent

from lab.clients.call import pack
from loadtests.sockets.script_client import SocketClient
from services.protocol.command import blob_bytes

_BLOB = 256 * 1024
# Bytes that a slow reader reads before each pause: at most 1.6 MB/s.
_PIECE = 16 * 1024
_PAUSE = 0.01


def read_slowly(client: SocketClient) -> None:
    """Request a large reply and read it in small pieces: the server has to buffer the rest, or to wait."""
    reply = b"$%d\r\n%b\r\n" % (_BLOB, blob_bytes(_BLOB))
    with client.exchange():
        client.send(pack([b"BLOB", b"%d" % _BLOB]))
        for position in range(0, len(reply), _PIECE):
            client.expect(reply[position : position + _PIECE])
            gevent.sleep(_PAUSE)


def think(client: SocketClient) -> None:
    """Connect, send a few requests with pauses, and QUIT."""
    for number in range(5):
        word = b"%d" % number
        client.call(pack([b"ECHO", word]), b"$%d\r\n%b\r\n" % (len(word), word))
        gevent.sleep(random.expovariate(1 / 0.05))  # spreads requests; no secret
    client.call(pack([b"QUIT"]), b"+OK\r\n")
    client.disconnect()


SCRIPTS: Mapping[str, Callable[[SocketClient], None]] = {"slow_reader": read_slowly, "think": think}
