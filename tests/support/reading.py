"""Read from a connection to a server."""

from lab.base.errors import WrongAnswerError
from lab.clients.call import Link


def read_all(link: Link) -> bytes:
    """Return everything until the end of the stream."""
    return b"".join(iter(link.receive, b""))


def last_words(link: Link) -> bytes:
    """Return what comes next on a connection; nothing at its end, also where that is a reset."""
    try:
        return link.receive()
    except WrongAnswerError:
        return b""


def is_over(link: Link) -> bool:
    """Return whether nothing more comes: an end, or a reset."""
    return last_words(link) == b""


def ping(link: Link) -> None:
    """Ask once more, with the whole timeout to wait for the answer."""
    link.renew()
    link.send(b"PING\r\n")
    assert link.receive() == b"+PONG\r\n"
