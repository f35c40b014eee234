"""One connection of a load test: it sends a workload's exchange and checks every byte that comes back.

Plain blocking sockets. Under Locust they are gevent's, which has put its own in their place; nothing here knows.
"""

import errno
import socket
from time import perf_counter
from typing import ClassVar

import hiredis

from lab.workloads import Workload
from loadtests.codec import Codec

_READ_SIZE = 64 * 1024


class ExchangeError(Exception):
    """An exchange that did not come back right.

    Locust counts failures by their `repr`, so it is the reason alone: with text from the peer, each would be a row.
    """

    reason: ClassVar[str]

    def __str__(self) -> str:
        return self.reason

    __repr__ = __str__


class WrongBytesError(ExchangeError):
    """What came is not what was asked for."""

    reason = "wrong bytes"


class ErrorReplyError(ExchangeError):
    """The server refused, in good form."""

    reason = "error reply"


class ShortReplyError(ExchangeError):
    """The connection ended inside a reply, or with some of a pipeline unanswered."""

    reason = "short reply: closed in the middle"


class ClosedError(ExchangeError):
    """The connection ended where a reply was due."""

    reason = "closed without a reply"


class TimeOutError(ExchangeError):
    """No whole reply in time. Its duration counts as a response time: the reply took at least that."""

    reason = "time-out: no reply"


class RefusedError(ExchangeError):
    """Nobody listens, or the backlog is full and the system says so."""

    reason = "connection refused"


class ResetError(ExchangeError):
    """The peer threw the connection away."""

    reason = "connection reset"


class UnknownHostError(ExchangeError):
    """The model's name has no address: it is not running."""

    reason = "unknown host"


class NoPortError(ExchangeError):
    """The generator's own limit: each of its closed connections holds a local port for a minute."""

    reason = "generator: no local port or descriptor left"


class NetworkError(ExchangeError):
    """Any other error of the system."""

    reason = "network error"


def _translate(error: OSError) -> ExchangeError:
    match error:
        case TimeoutError():
            return TimeOutError()
        case ConnectionRefusedError():
            return RefusedError()
        case ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return ResetError()
        case socket.gaierror():
            return UnknownHostError()
    if error.errno in (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE):
        return NoPortError()
    return NetworkError()


class Wire:
    """One TCP connection.

    Args:
        address: host and port.
        workload: what is exchanged on it.
        timeout: seconds for the connecting, and for each exchange.
        codec: gives the requests, and knows the replies, in place of the workload.

    Raises:
        ExchangeError: there is no connection.
    """

    __slots__ = ("_codec", "_number", "_reader", "_socket", "_timeout", "_workload")

    def __init__(
        self, address: tuple[str, int], workload: Workload, *, timeout: float, codec: Codec | None = None
    ) -> None:
        self._workload = workload
        self._codec = codec
        self._number = 0
        self._timeout = timeout
        self._reader = hiredis.Reader() if workload.service == "command" else None
        try:
            self._socket = socket.create_connection(address, timeout)
        except OSError as error:
            raise _translate(error) from error
        # A small request must not wait for the acknowledgement of the one before it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def exchange(self) -> None:
        """Send one exchange and wait for all of its replies.

        Raises:
            ExchangeError: it did not come back right. The connection is of no more use.
        """
        try:
            if self._codec is not None:
                self._exchange_coded(self._codec)
            elif self._reader is None:
                self._exchange_bytes(self._workload.request, self._workload.replies[0])
            else:
                self._exchange_resp(self._reader)
        except OSError as error:
            raise _translate(error) from error

    def _exchange_resp(self, reader: hiredis.Reader) -> None:
        deadline = perf_counter() + self._timeout
        self._socket.sendall(self._workload.request)
        arrived = False
        for expected in self._workload.replies:
            # False: not there yet. RESP2 has no booleans, so no reply can be mistaken for it.
            while (reply := reader.gets()) is False:
                data = self._receive(deadline, short=arrived)
                reader.feed(data)
                arrived = True
            if reply != expected:
                raise ErrorReplyError if isinstance(reply, hiredis.ReplyError) else WrongBytesError
        if reader.has_data():
            raise WrongBytesError  # more than was asked for

    def _exchange_coded(self, codec: Codec) -> None:
        deadline = perf_counter() + self._timeout
        request = codec.encode(self._number)
        self._number += 1
        self._socket.sendall(request)
        data = b""
        try:
            while (size := codec.reply_size(data, request)) is None:
                data += self._receive(deadline, short=bool(data))
        except ValueError:
            raise WrongBytesError from None
        if size != len(data):
            raise WrongBytesError  # more than was asked for

    def _exchange_bytes(self, request: bytes, expected: bytes) -> None:
        # Sent in one go: the exchange is at most 64 KiB, which the two socket buffers hold even if the server
        # does not read on before its own writes are taken.
        deadline = perf_counter() + self._timeout
        self._socket.sendall(request)
        position = 0
        while position < len(expected):
            data = self._receive(deadline, short=position > 0)
            if expected[position : position + len(data)] != data:
                raise WrongBytesError
            position += len(data)

    def _receive(self, deadline: float, *, short: bool) -> bytes:
        data = self._socket.recv(_READ_SIZE)
        if not data:
            raise ShortReplyError if short else ClosedError
        # The socket's own time-out is for one read; a peer that drips must not stretch it.
        if perf_counter() > deadline:
            raise TimeOutError
        return data
