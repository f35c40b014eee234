"""The client's side of TLS over a connected socket: blocking with deadlines, or non-blocking.

Not by `ssl.SSLSocket`, which can neither end one half of a connection nor say how much of its data has left.
"""

import math
import os
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from loadtests.sockets.errors import SetupError, WrongAnswerError

_T = TypeVar("_T")

_RECORD_SIZE = 16 * 1024
_RECEIVE_SIZE = 64 * 1024
_DIRECTORY = Path(__file__).resolve().parents[2] / ".lab" / "tls"


def ca_file() -> str | None:
    """Return the CA to trust: that of LAB_TLS_CA, else the lab's; None, if there is none, for the system's.

    Raises:
        SetupError: LAB_TLS_CA names a file that does not exist.
    """
    return _find_file("LAB_TLS_CA", "ca.pem")


def certificate_file() -> str | None:
    """Return the client's certificate with its key: that of LAB_TLS_CLIENT_CERT, else the lab's; None without one.

    Raises:
        SetupError: LAB_TLS_CLIENT_CERT names a file that does not exist.
    """
    return _find_file("LAB_TLS_CLIENT_CERT", "client.pem")


def _find_file(variable: str, name: str) -> str | None:
    if path := os.environ.get(variable):
        if not Path(path).exists():
            # No fallback: to trust the system's CAs, or to show no certificate, was not asked for.
            raise SetupError(f"{variable}={path!r}: there is no such file")
        return path
    path = str(_DIRECTORY / name)
    return path if Path(path).exists() else None


@cache
def client_context() -> ssl.SSLContext:
    """Trust `ca_file`, and show `certificate_file` to a server that asks for one."""
    context = ssl.create_default_context(cafile=ca_file())
    # All that docs/protocol.md promises, as in services/serving/tls.py: builds of Python differ in their defaults.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    if certificate := certificate_file():
        context.load_cert_chain(certificate)
    return context


class TlsPipe:
    """TLS over a non-blocking socket: bytes in, bytes out, no waiting.

    Args:
        connected: the socket.
        host: the name that the server's certificate must have.
    """

    __slots__ = ("_incoming", "_outgoing", "_socket", "tls")

    def __init__(self, connected: socket.socket, host: str) -> None:
        self._socket = connected
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def feed(self) -> None:
        """Take what the socket has.

        Raises:
            OSError: the socket's; BlockingIOError if it has nothing.
        """
        if data := self._socket.recv(_RECEIVE_SIZE):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def handshake(self) -> bool:
        """Continue the handshake as far as possible; send what `unsent` returns afterwards.

        Returns:
            Whether it is complete.

        Raises:
            OSError: it failed.
        """
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def recv(self, size: int) -> bytes:
        """Receive everything that there is, whatever the size; nothing when the peer has ended its half.

        Raises:
            BlockingIOError: nothing yet.
            OSError: the socket's, or TLS was broken.
        """
        self.feed()
        return self.read()

    def read(self) -> bytes:
        """As `recv`, from what the socket has already given."""
        chunks = []
        try:
            while chunk := self.tls.read(_RECEIVE_SIZE):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            if not chunks:
                raise BlockingIOError from None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # The next call returns the end, if this one has data.
            pass
        return b"".join(chunks)

    def seal(self, data: bytes) -> bytes:
        """Return the bytes to send so that the peer receives `data`."""
        self.tls.write(data)
        return self._outgoing.read()

    def unsent(self) -> bytes:
        """Return the bytes to send that TLS itself has made."""
        return self._outgoing.read()


class TlsStream:
    """TLS over a socket with a timeout.

    Args:
        apply_timeout: sets the socket's timeout to the time that is left, and returns it.
        host: the name that the server's certificate must have.
        where: the address, for errors.
    """

    def __init__(self, connected: socket.socket, apply_timeout: Callable[[], float], host: str, where: str) -> None:
        self._socket = connected
        self._pipe = TlsPipe(connected, host)
        self._tls = self._pipe.tls
        self._apply_timeout = apply_timeout
        self._where = where
        self._unsent = b""
        self._run(self._tls.do_handshake)
        self._flush()

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def send_some(self, data: bytes) -> int:
        """Take at most one record, once everything before has left; return the number of bytes.

        Raises:
            BlockingIOError, TimeoutError: it has not left within the socket's own timeout.
        """
        self._push()
        taken = self._tls.write(data[:_RECORD_SIZE])
        self._take()
        with suppress(BlockingIOError, TimeoutError):  # it leaves with the next call, or during `receive`
            self._push()
        return taken

    def receive(self, size: int) -> bytes:
        """Receive at least a byte; nothing when the peer has ended its half in order.

        Raises:
            WrongAnswerError: it ended without order, or broke the rules of TLS.
        """
        try:
            return self._run(lambda: self._tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""

    def half_close(self) -> None:
        """End the sending half, and leave the other half open."""
        with suppress(ssl.SSLWantReadError):  # it would wait for the peer's own end, which is not due yet
            self._tls.unwrap()
        self._take()

    def _run(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._take()
                self._exchange()
            except ssl.SSLEOFError as error:
                text = f"{self._where}: the server broke the connection off, within TLS"
                raise WrongAnswerError(text, error) from None
            except ssl.SSLZeroReturnError:
                raise
            except ssl.SSLError as error:
                raise WrongAnswerError(f"{self._where}: TLS: {error.reason or error}", error) from None

    def _exchange(self) -> None:
        """Wait for something to receive; meanwhile send what is left."""
        while True:
            timeout = self._apply_timeout()
            poll = select.poll()  # `select` takes no descriptor above 1023
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            events = sum(found for _, found in poll.poll(timeout if timeout is None else math.ceil(timeout * 1000)))
            if events & select.POLLOUT:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            if events & ~select.POLLOUT:  # something to receive, an end, or an error, which comes with it
                self._pipe.feed()
                return
            if not events:
                raise TimeoutError

    def _flush(self) -> None:
        self._take()
        self._apply_timeout()
        self._push()

    def _take(self) -> None:
        self._unsent += self._pipe.unsent()

    def _push(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
