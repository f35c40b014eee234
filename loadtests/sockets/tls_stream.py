"""The client's side of TLS over a socket that `lab.clients.call.Link` holds, with its deadlines.

Not an `ssl.SSLSocket`: that can neither end one half of a connection nor say how much of what it was given has left.
"""

import os
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from lab.base.errors import LabError, WrongAnswerError

_T = TypeVar("_T")

_RECORD_SIZE = 16 * 1024
_RECEIVE_SIZE = 64 * 1024
_DIRECTORY = Path(__file__).resolve().parents[2] / ".lab" / "tls"


def ca_file() -> str | None:
    """The CA to trust: what LAB_TLS_CA names, else the lab's own; None for the system's, if there is none.

    Raises:
        LabError: what LAB_TLS_CA names is not there.
    """
    return _file("LAB_TLS_CA", "ca.pem")


def certificate_file() -> str | None:
    """The certificate and key to show: what LAB_TLS_CLIENT_CERT names, else the lab's own; None if there is none.

    Raises:
        LabError: what LAB_TLS_CLIENT_CERT names is not there.
    """
    return _file("LAB_TLS_CLIENT_CERT", "client.pem")


def _file(variable: str, name: str) -> str | None:
    if path := os.environ.get(variable):
        if not Path(path).exists():
            # To trust the system's CAs instead, or to show no certificate, is not what was asked for.
            raise LabError(f"{variable}={path!r}: there is no such file")
        return path
    path = str(_DIRECTORY / name)
    return path if Path(path).exists() else None


@cache
def client_context() -> ssl.SSLContext:
    """Trusts `ca_file`, and shows `certificate_file` to a server that asks for one."""
    context = ssl.create_default_context(cafile=ca_file())
    # What docs/protocol.md promises is set here, as in services/serving/tls.py: builds of Python differ in their
    # defaults.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    if certificate := certificate_file():
        context.load_cert_chain(certificate)
    return context


class SecureStream:
    """TLS over a connected socket.

    Args:
        link: the socket.
        arm: sets the socket's time-out to what is left, and returns it.
        host: the name that the certificate must hold.
        where: the address, for errors.
    """

    def __init__(self, link: socket.socket, arm: Callable[[], float], host: str, where: str) -> None:
        self._socket = link
        self._arm = arm
        self._where = where
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = b""
        self._tls = client_context().wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._run(self._tls.do_handshake)
        self._flush()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._tls.write(data)
        self._flush()

    def send_some(self, data: bytes) -> int:
        """Take as much as one record, if what was taken before has left; returns how much.

        Raises:
            BlockingIOError, TimeoutError: it has not, within the socket's own time-out.
        """
        self._push()
        taken = self._tls.write(data[:_RECORD_SIZE])
        self._take()
        with suppress(BlockingIOError, TimeoutError):  # then it goes with the next call, or while something is received
            self._push()
        return taken

    def receive(self, size: int) -> bytes:
        """What there is, at least a byte; empty when the peer has ended its half in order.

        Raises:
            WrongAnswerError: it ended without order, or broke the rules of TLS.
        """
        try:
            return self._run(lambda: self._tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""

    def half_close(self) -> None:
        """Say that nothing more will be sent, and leave the other half open."""
        with suppress(ssl.SSLWantReadError):  # it would wait for the peer's own end, which has time
            self._tls.unwrap()
        self._take()

    def _run(self, step: Callable[[], _T]) -> _T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._take()
                self._exchange()
            except ssl.SSLEOFError:
                raise WrongAnswerError(f"{self._where}: the server broke the connection off, within TLS") from None
            except ssl.SSLZeroReturnError:
                raise
            except ssl.SSLError as error:
                raise WrongAnswerError(f"{self._where}: TLS: {error.reason or error}") from None

    def _exchange(self) -> None:
        """Wait for something to receive; meanwhile send what is left."""
        while True:
            timeout = self._arm()
            readable, writable, _ = select.select([self._socket], [self._socket] if self._unsent else [], [], timeout)
            if writable:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            if readable:
                if data := self._socket.recv(_RECEIVE_SIZE):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                return
            if not writable:
                raise TimeoutError

    def _flush(self) -> None:
        self._take()
        self._arm()
        self._push()

    def _take(self) -> None:
        self._unsent += self._outgoing.read()

    def _push(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
