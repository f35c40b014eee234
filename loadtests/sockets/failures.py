"""The ways in which an exchange can fail; each has its own name."""

import errno
import socket
import ssl
from typing import ClassVar

# A detail is one line of a table.
_LONGEST_DETAIL = 160


class ExchangeError(Exception):
    """An exchange has failed.

    Args:
        detail: more about the reason, in a few words: how many bytes were received, or the error of a codec.
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
    """The reply is not the expected one."""

    reason = "wrong bytes"


class ErrorReplyError(ExchangeError):
    """The server sent a well-formed error reply."""

    reason = "error reply"


class ExtraReplyError(ExchangeError):
    """The server sent more than the reply."""

    reason = "more than was asked for"


class ShortReplyError(ExchangeError):
    """The connection ended inside a reply, or before all requests of a pipeline were answered."""

    reason = "short reply: closed in the middle"


class ClosedError(ExchangeError):
    """The connection ended while a reply was due."""

    reason = "closed without a reply"


class IdleClosedError(ExchangeError):
    """The connection ended between two exchanges."""

    reason = "closed between two exchanges"


class TimeOutError(ExchangeError):
    """No complete reply in time. The duration counts as a response time: the reply took at least as long."""

    reason = "time-out: no reply"


class ConnectTimeOutError(ExchangeError):
    """No connection in time: the backlog is full, or no host answers."""

    reason = "time-out: no connection"


class LostError(ExchangeError):
    """A datagram of the exchange was not answered in time."""

    reason = "datagram lost"


class DroppedError(ExchangeError):
    """A request of an open loop found no free connection before its timeout."""

    reason = "dropped: no connection was free in time"


class RefusedError(ExchangeError):
    """Nothing listens there, or the backlog is full and the kernel says so."""

    reason = "connection refused"


class ResetError(ExchangeError):
    """The peer reset the connection."""

    reason = "connection reset"


class HandshakeError(ExchangeError):
    """The TLS handshake failed, or the peer broke the rules of TLS."""

    reason = "TLS failed"


class UnknownHostError(ExchangeError):
    """The server's name has no address: it is not running."""

    reason = "unknown host"


class NoPortError(ExchangeError):
    """The generator's own limit: each closed connection occupies a local port for a while (TIME-WAIT)."""

    reason = "generator: no local port or descriptor left"


class NoReplyPathError(ExchangeError):
    """The generator's own limit: it may create no path for a Unix datagram socket."""

    reason = "generator: no place for a reply path"


class CodecRaisedError(ExchangeError):
    """The codec's own code failed; the detail says where, and how."""

    reason = "the codec raised an error"


class NetworkError(ExchangeError):
    """Any other error of the operating system."""

    reason = "network error"


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
