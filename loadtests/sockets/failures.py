"""Each way in which an exchange can fail, with a name of its own."""

import errno
import socket
import ssl
from typing import ClassVar

# A detail is one line of a table.
_LONGEST_DETAIL = 160


class ExchangeError(Exception):
    """An exchange that did not come back right.

    Args:
        detail: what is known beside the reason, in a few words: how much had come, what a codec said.
    """

    reason: ClassVar[str]

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = " ".join(detail.split())[:_LONGEST_DETAIL]

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason

    # Locust counts failures by their `repr`.
    __repr__ = __str__


class WrongBytesError(ExchangeError):
    """What came is not what was asked for."""

    reason = "wrong bytes"


class ErrorReplyError(ExchangeError):
    """The server refused, in good form."""

    reason = "error reply"


class ExtraReplyError(ExchangeError):
    """More came than was asked for."""

    reason = "more than was asked for"


class ShortReplyError(ExchangeError):
    """The connection ended inside a reply, or with some of a pipeline unanswered."""

    reason = "short reply: closed in the middle"


class ClosedError(ExchangeError):
    """The connection ended where a reply was due."""

    reason = "closed without a reply"


class IdleClosedError(ExchangeError):
    """The connection ended while nothing was asked on it."""

    reason = "closed between two exchanges"


class TimeOutError(ExchangeError):
    """No whole reply in time. Its duration counts as a response time: the reply took at least that."""

    reason = "time-out: no reply"


class ConnectTimeOutError(ExchangeError):
    """No connection in time: the backlog is full, or nobody is there."""

    reason = "time-out: no connection"


class LostError(ExchangeError):
    """A datagram of the exchange was not answered in time."""

    reason = "datagram lost"


class DroppedError(ExchangeError):
    """Of an open loop: no connection was free until it would have timed out."""

    reason = "dropped: no connection was free in time"


class RefusedError(ExchangeError):
    """Nobody listens, or the backlog is full and the system says so."""

    reason = "connection refused"


class ResetError(ExchangeError):
    """The peer threw the connection away."""

    reason = "connection reset"


class HandshakeError(ExchangeError):
    """TLS did not come about, or was broken."""

    reason = "TLS failed"


class UnknownHostError(ExchangeError):
    """The model's name has no address: it is not running."""

    reason = "unknown host"


class NoPortError(ExchangeError):
    """The generator's own limit: each of its closed connections holds a local port for a while."""

    reason = "generator: no local port or descriptor left"


class NoReplyPathError(ExchangeError):
    """The generator's own limit: a Unix datagram socket has to be bound to a path, and may write none."""

    reason = "generator: no place for a reply path"


class CodecRaisedError(ExchangeError):
    """The codec's own code failed; the detail says how, and where."""

    reason = "the codec raised an error"


class NetworkError(ExchangeError):
    """Any other error of the system."""

    reason = "network error"


# These say how long a reply takes: at least so long. A quick refusal must not pass for a fast reply.
TIMED = (TimeOutError, ConnectTimeOutError)


def translate(error: OSError) -> ExchangeError:
    """The failure that an error of the system is."""
    match error:
        case ssl.SSLError():
            return HandshakeError()
        case TimeoutError():
            return TimeOutError()
        case ConnectionRefusedError() | FileNotFoundError():  # a Unix socket whose server has gone is no file any more
            return RefusedError()
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return ResetError()
        case socket.gaierror():
            return UnknownHostError()
    if error.errno in (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE):
        return NoPortError()
    return NetworkError()
