"""A blocking connection over any transport, with a deadline for every step.

Readiness checks import this module, so it stays cheap to import.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

from loadtests.sockets.addresses import (
    DATAGRAM_TRANSPORTS,
    UNIX_TRANSPORTS,
    Address,
    SocketAddress,
    find_addresses,
    refuse_itself,
    remember,
    reply_path,
)
from loadtests.sockets.errors import NoAnswerError, UnreachableError, WrongAnswerError

if TYPE_CHECKING:
    from loadtests.sockets.tls import TlsStream

TIMEOUT = 5.0
RECEIVE_SIZE = 64 * 1024


class BlockingConnection:
    """A connected socket; `with` closes it.

    Args:
        address: the server's.
        timeout: seconds for everything that follows, the connect included.

    Raises:
        UnreachableError: nothing listens there.
        NoAnswerError: the connect took too long.
        SetupError: this machine cannot prepare the connection.
    """

    def __init__(self, address: Address, *, timeout: float = TIMEOUT) -> None:
        self.address = address
        self.is_datagram = address.transport in DATAGRAM_TRANSPORTS
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._resources = ExitStack()
        self._tls: TlsStream | None = None
        self._received: int | None = None  # bytes; None until the first `receive`
        # Until a datagram was answered: the other addresses of the host, and what was sent.
        self._others: list[SocketAddress] = []
        self._unanswered: list[bytes] = []
        try:
            with self._translated("to connect"):
                self.socket = self._open()
            if address.transport == "tls":
                self._tls = self._open_tls()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def reset_deadline(self) -> None:
        """Restart the timeout for the following steps."""
        self._deadline = time.monotonic() + self._timeout

    def close(self) -> None:
        """Close the socket, and remove the reply path of a Unix datagram socket."""
        self._resources.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`, or as one datagram.

        Raises:
            ClientError: it could not be sent.
        """
        with self._translated("to take what was sent"):
            self._apply_timeout()
            if self._tls:
                self._tls.send(data)
            elif self.is_datagram:
                self._send_datagram(data)
            else:
                self.socket.sendall(data)

    def send_some(self, data: bytes) -> int:
        """Send what the socket takes within its own timeout, at least a byte; return the number of bytes.

        Raises:
            BlockingIOError, TimeoutError: it took nothing.
        """
        return self._tls.send_some(data) if self._tls else self.socket.send(data)

    def receive(self, size: int = RECEIVE_SIZE) -> bytes:
        """Receive at least a byte, or a datagram, which may be empty; return nothing at the end of a stream.

        Raises:
            ClientError: nothing came.
        """
        self._received = self._received or 0
        with self._translated("to answer"):
            self._apply_timeout()
            data = self._tls.receive(size) if self._tls else self._receive_plain(size)
            self._received += len(data)
            return data

    def half_close(self) -> None:
        """End the sending half.

        Raises:
            ClientError: the connection has failed.
        """
        with self._translated("to take what was sent"):
            if self._tls:
                self._tls.half_close()
            else:
                self.socket.shutdown(socket.SHUT_WR)

    def describe_received(self) -> str:
        """Return how much was received, for an error message; empty before the first `receive`."""
        if self._received is None:
            return ""
        return f"; {self._received} bytes received" if self._received else "; nothing received"

    def _open(self) -> socket.socket:
        kind = socket.SOCK_DGRAM if self.is_datagram else socket.SOCK_STREAM
        if self.address.transport not in UNIX_TRANSPORTS:
            return self._open_inet(kind)
        found = self._keep(socket.socket(socket.AF_UNIX, kind))
        if self.is_datagram:
            found.bind(self._resources.enter_context(reply_path(self.address.path)))
        self._apply_timeout()
        found.connect(self.address.path)
        return found

    def _open_inet(self, kind: socket.SocketKind) -> socket.socket:
        host, port = self.address.host, self.address.port
        if port is None:
            raise UnreachableError(f"{self.address}: no port is given")
        problem: OSError | None = None
        addresses = find_addresses(host, port, kind)
        for number, (family, where) in enumerate(addresses):
            try:
                found = socket.socket(family, kind)
            except OSError as error:  # this machine does not support the family
                problem = error
                continue
            try:
                # The addresses that follow get their part of the time.
                found.settimeout(self._time_left() / (len(addresses) - number))
                found.connect(where)
                refuse_itself(found, where)
            except OSError as error:
                found.close()
                problem = error
                continue
            if kind is socket.SOCK_STREAM:
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if number:
                    remember(host, port, kind, (family, where))
            else:
                # Whether a server is there is known once something was sent.
                self._others = addresses[number + 1 :]
            return self._keep(found)
        raise problem or UnreachableError(f"{self.address}: the host has no address")

    def _open_tls(self) -> "TlsStream":
        from loadtests.sockets.tls import TlsStream  # not above: importing ssl takes longer than an exchange

        with self._translated("to finish the TLS handshake"):
            return TlsStream(self.socket, self._apply_timeout, self.address.host, str(self.address))

    def _send_datagram(self, data: bytes) -> None:
        if self._others:
            self._unanswered.append(data)
        try:
            self.socket.send(data)
        except ConnectionRefusedError:
            if not self._try_others():
                raise

    def _receive_plain(self, size: int) -> bytes:
        while True:
            try:
                data = self.socket.recv(size)
            except ConnectionRefusedError:
                if not self._try_others():
                    raise
            else:
                # Stay with the address that has answered.
                self._others.clear()
                self._unanswered.clear()
                return data

    def _try_others(self) -> bool:
        """Send the datagrams that were refused to the next address of the host; return whether there is one."""
        while self._others:
            family, where = self._others.pop(0)
            try:
                self.socket = self._keep(socket.socket(family, socket.SOCK_DGRAM))
                self._apply_timeout()
                self.socket.connect(where)
                refuse_itself(self.socket, where)
                for data in self._unanswered:
                    self.socket.send(data)
            except TimeoutError:
                raise
            except OSError:
                continue
            remember(self.address.host, self.address.port, socket.SOCK_DGRAM, (family, where))
            return True
        return False

    def _keep(self, found: socket.socket) -> socket.socket:
        self.socket = found
        return self._resources.enter_context(found)

    def _time_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _apply_timeout(self) -> float:
        left = self._time_left()
        self.socket.settimeout(left)
        return left

    @contextmanager
    def _translated(self, waiting: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            received = self.describe_received()
            raise NoAnswerError(
                f"{self.address}: waited {self._timeout:g} s for the server {waiting}{received}", error
            ) from None
        except socket.gaierror as error:
            raise UnreachableError(f"{self.address}: {error.strerror}", error) from None
        except UnicodeError:
            raise UnreachableError(f"{self.address}: {self.address.host!r} cannot be the name of a host") from None
        except (ConnectionResetError, BrokenPipeError) as error:
            raise WrongAnswerError(
                f"{self.address}: the server broke the connection off ({error.strerror}){self.describe_received()}",
                error,
            ) from None
        except OSError as error:
            raise UnreachableError(f"{self.address}: {error.strerror or error}", error) from None
