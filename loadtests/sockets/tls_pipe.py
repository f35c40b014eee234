"""The client's side of TLS over a non-blocking socket: bytes in, bytes out, and no waiting."""

import socket
import ssl

_RECEIVE_SIZE = 64 * 1024


class TlsPipe:
    """TLS over a connected socket.

    Args:
        raw: the socket, non-blocking.
        context: whom to trust, what to show.
        host: the name that the certificate must hold.
    """

    __slots__ = ("_incoming", "_outgoing", "_raw", "_tls")

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._raw = raw
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def handshake(self) -> bool:
        """Go on with the handshake, as far as it goes; what `unsent` gives has to be sent then.

        Returns:
            Whether it is done.

        Raises:
            OSError: it failed.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self) -> None:
        """Take what the socket has.

        Raises:
            OSError: the socket's; BlockingIOError if it has nothing.
        """
        if data := self._raw.recv(_RECEIVE_SIZE):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def recv(self, size: int) -> bytes:
        """All that there is of the peer's words, whatever the size; empty when it has ended its half.

        Raises:
            BlockingIOError: nothing yet.
            OSError: the socket's, or TLS was broken.
        """
        self.feed()
        return self.read()

    def read(self) -> bytes:
        """As `recv`, of what the socket has already given."""
        chunks = []
        try:
            while chunk := self._tls.read(_RECEIVE_SIZE):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            if not chunks:
                raise BlockingIOError from None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # The next call will say so again, if there is something to be said first.
            pass
        return b"".join(chunks)

    def seal(self, data: bytes) -> bytes:
        """What has to be sent so that the peer gets `data`."""
        self._tls.write(data)
        return self._outgoing.read()

    def unsent(self) -> bytes:
        """What TLS itself has to say."""
        return self._outgoing.read()
