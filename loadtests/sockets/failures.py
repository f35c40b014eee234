"""The ways in which an exchange can fail; each has its own name."""

import errno
import socket
import ssl
from typing import ClassVar

# A detail is one line of a table.
_LONGEST_DETAIL = 160


class ExchangeError(Exception):
    """An exchange has failed. Each subclass names its reason.

    Args:
        detail: more about the reason, in a few words: how many bytes were received, or the error of a codec.
    """

    reason: ClassVar[str]

    def __init_subclass__(cls, *, reason: str) -> None:
        cls.reason = reason

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = " ".join(detail.split())[:_LONGEST_DETAIL]

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason

    # Locust counts failures by their `repr`.
    __repr__ = __str__


class WrongBytesError(ExchangeError, reason="wrong bytes"):
    """The reply is not the expected one."""


class ErrorReplyError(ExchangeError, reason="error reply"):
    """The server sent a well-formed error reply."""


class ExtraReplyError(ExchangeError, reason="more than was asked for"):
    """The server sent more than the reply."""


class ShortReplyError(ExchangeError, reason="short reply: closed in the middle"):
    """The connection ended inside a reply, or before all requests of a pipeline were answered."""


class ClosedError(ExchangeError, reason="closed without a reply"):
    """The connection ended while a reply was due."""


class IdleClosedError(ExchangeError, reason="closed between two exchanges"):
    """The connection ended between two exchanges."""


class TimeOutError(ExchangeError, reason="time-out: no reply"):
    """No complete reply in time. The duration counts as a response time: the reply took at least as long."""


class ConnectTimeOutError(ExchangeError, reason="time-out: no connection"):
    """No connection in time: the backlog is full, or no host answers."""


class LostError(ExchangeError, reason="datagram lost"):
    """A datagram of the exchange was not answered in time."""


class DroppedError(ExchangeError, reason="dropped: no connection was free in time"):
    """A request of an open loop found no free connection before its timeout."""


class RefusedError(ExchangeError, reason="connection refused"):
    """Nothing listens there, or the backlog is full and the kernel says so."""


class ResetError(ExchangeError, reason="connection reset"):
    """The peer reset the connection."""


class HandshakeError(ExchangeError, reason="TLS failed"):
    """The TLS handshake failed, or the peer broke the rules of TLS."""


class UnknownHostError(ExchangeError, reason="unknown host"):
    """The server's name has no address: it is not running."""


class NoPortError(ExchangeError, reason="generator: no local port or descriptor left"):
    """The generator's own limit: each closed connection occupies a local port for a while (TIME-WAIT)."""


class NoReplyPathError(ExchangeError, reason="generator: no place for a reply path"):
    """The generator's own limit: it may create no path for a Unix datagram socket."""


class CodecRaisedError(ExchangeError, reason="the codec raised an error"):
    """The codec's own code failed; the detail says where, and how."""


class NetworkError(ExchangeError, reason="network error"):
    """Any other error of the operating system."""


# Only these count as response times: the reply took at least as long. A refusal must not pass for a fast reply.
TIMED = (TimeOutError, ConnectTimeOutError)


def translate(error: OSError) -> ExchangeError:
    """Return the failure that an error of the operating system stands for."""
    match error:
        case ssl.SSLError():
            return HandshakeError()
        case TimeoutError():
            return TimeOutError()
        case ConnectionRefusedError() | FileNotFoundError():  # the file of a Unix socket is removed with its server
            return RefusedError()
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return ResetError()
        case socket.gaierror():
            return UnknownHostError()
    if error.errno in (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE):
        return NoPortError()
    return NetworkError()
