"""The end of conversations: what is the same in all models."""

import fcntl
import logging
import socket
import struct
import termios
from contextlib import suppress

from services.protocol import StreamConversation
from services.serving.listeners import Listener

log = logging.getLogger("services")

# asyncio reads 256 KiB at a time, behind up to 128 KiB that its streams hold.
_IN_HAND = 384 * 1024


def stop_accepting(listeners: list[Listener]) -> None:
    """Close the listening sockets, so that clients in the backlog learn that they will not be served.

    Datagram sockets stay open: they still carry replies.
    """
    listeners[0].shortage.forget()
    for listener in listeners:
        if not listener.is_datagram:
            listener.socket.close()


def stop_reading(descriptor: int, connection: StreamConversation) -> None:
    """Have the kernel deliver what has arrived, then the end of the stream: what was asked is answered, then closed.

    The connection is told how much has arrived, because over TCP the kernel goes on delivering what the client sends.

    Args:
        descriptor: the socket's. Not the socket, because that of uvloop has no `shutdown`, and that of gevent makes a
            `recv` fail that waits. Negative, or closed: nothing is left to read.
    """
    connection.drain(_arrived(descriptor))
    with suppress(OSError, ValueError):
        borrowed = socket.socket(fileno=descriptor)
        try:
            borrowed.shutdown(socket.SHUT_RD)
        finally:
            borrowed.detach()


def _arrived(descriptor: int) -> int:
    """Return how many bytes at most have come from a client and have not been given to its connection.

    The kernel says how many it holds. What a library, or the model itself, holds is unknown: for that there is an
    allowance. It may be too much: after `shutdown(SHUT_RD)` the end of the stream comes in any case. It is a bound for
    clients that go on sending.
    """
    try:
        (pending,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except (OSError, ValueError):  # it is closed
        return 0
    return int(pending) + _IN_HAND


def warn_cut_off(grace: float, count: int) -> None:
    """Log that the grace period is over, and how many conversations end without their replies."""
    log.warning("the grace period of %g s is over: %d conversations are cut off", grace, count)
