"""Read from a connection to a server."""

import fcntl
import struct
import termios

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import WrongAnswerError


def read_all(link: BlockingConnection) -> bytes:
    """Return everything until the end of the stream."""
    return b"".join(iter(link.receive, b""))


def count_unread(link: BlockingConnection) -> int:
    """Return how many bytes wait in the kernel for their reader, ioctl_tty(2)."""
    return int(struct.unpack("i", fcntl.ioctl(link.socket, termios.FIONREAD, bytes(4)))[0])


def last_words(link: BlockingConnection) -> bytes:
    """Return the next data of a connection; b"" at its end or after a reset."""
    try:
        return link.receive()
    except WrongAnswerError:
        return b""


def is_over(link: BlockingConnection) -> bool:
    """Return whether the connection has ended, in order or by a reset."""
    return last_words(link) == b""


def ping(link: BlockingConnection) -> None:
    """Send another request, with a new timeout for the reply."""
    link.reset_deadline()
    link.send(b"PING\r\n")
    assert link.receive() == b"+PONG\r\n"
