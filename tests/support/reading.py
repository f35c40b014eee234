"""Read from a connection to a server."""

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import WrongAnswerError


def read_all(link: BlockingConnection) -> bytes:
    """Return everything until the end of the stream."""
    return b"".join(iter(link.receive, b""))


def last_words(link: BlockingConnection) -> bytes:
    """Return what comes next on a connection; nothing at its end, also where that is a reset."""
    try:
        return link.receive()
    except WrongAnswerError:
        return b""


def is_over(link: BlockingConnection) -> bool:
    """Return whether nothing more comes: an end, or a reset."""
    return last_words(link) == b""


def ping(link: BlockingConnection) -> None:
    """Ask once more, with the whole timeout to wait for the answer."""
    link.reset_deadline()
    link.send(b"PING\r\n")
    assert link.receive() == b"+PONG\r\n"
