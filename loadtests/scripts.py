"""Users who are more than an exchange over and over: what the workloads without one do, a function each.

A script gets a client whose connection is open or not, and is called again when it has returned.
"""

import random
from collections.abc import Callable, Mapping

import gevent

from lab.clients.call import pack
from loadtests.sockets.script_client import SocketClient
from services.protocol.command import blob_bytes

_BLOB = 256 * 1024
# What a slow reader takes at a time, and then rests: 1.6 MB/s, and less where there is no more to take.
_PIECE = 16 * 1024
_REST = 0.01


def read_slowly(client: SocketClient) -> None:
    """Ask for much, and take it in small pieces: the server has to keep the rest, or to wait."""
    reply = b"$%d\r\n%b\r\n" % (_BLOB, blob_bytes(_BLOB))
    with client.exchange():
        client.send(pack([b"BLOB", b"%d" % _BLOB]))
        for position in range(0, len(reply), _PIECE):
            client.expect(reply[position : position + _PIECE])
            gevent.sleep(_REST)


def think(client: SocketClient) -> None:
    """Come, ask a few things with time to think in between, and say good-bye."""
    for number in range(5):
        word = b"%d" % number
        client.call(pack([b"ECHO", word]), b"$%d\r\n%b\r\n" % (len(word), word))
        gevent.sleep(random.expovariate(1 / 0.05))  # no secret
    client.call(pack([b"QUIT"]), b"+OK\r\n")
    client.disconnect()


SCRIPTS: Mapping[str, Callable[[SocketClient], None]] = {"slow_reader": read_slowly, "think": think}
