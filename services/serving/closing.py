"""The end of conversations, for all models."""

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
    """Make the kernel deliver the data that has arrived, then the end of the stream.

    The connection gets the number of these bytes, because over TCP the kernel continues to deliver what a client sends.

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
    """Return the largest number of bytes that a client has sent and its connection has not received.

    The kernel knows the number of its own bytes; an allowance covers the buffers of a library and of the model. It may
    be too large, since the end of the stream arrives in any case after `shutdown(SHUT_RD)`. It limits clients that
    continue to send.
    """
    try:
        (pending,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except (OSError, ValueError):  # it is closed
        return 0
    return int(pending) + _IN_HAND


def warn_cut_off(grace: float, count: int) -> None:
    """Log that the grace period is over, and how many conversations are cut off."""
    log.warning("the grace period of %g s is over: %d conversations are cut off", grace, count)
