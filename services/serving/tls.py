"""TLS for every stream model: a layer between the bytes of a connection and the protocol, without I/O.

The libraries' own TLS is not used, because the lab compares models, and these layers differ in more than speed. Those
of asyncio and Twisted cannot close one half of a connection, so they could not answer requests that came before the
close. A blocking server that wraps its *listening* socket does the handshake inside `accept`, where one silent client
stops all others. Here a handshake is bytes to read and bytes to send, in the thread, process or loop of its client.
"""

import logging
import ssl
from collections.abc import Callable, Mapping

from services.protocol import TURN, Close, Compute, Event, GiveWay, Send, StreamConversation, Wait
from services.serving.listeners import ListenError

log = logging.getLogger("services")

# A record holds at most 16 KiB of data, RFC 8446, section 5.1.
_RECORD_SIZE = 16 * 1024

# What a record's first byte may be, RFC 8446, section 5.1: change_cipher_spec to heartbeat. OpenSSL answers those that
# come out of turn.
_RECORD_TYPES = frozenset(range(20, 25))
# A fatal unexpected_message, in a record of the version that any client of TLS reads.
_NOT_TLS = b"\x15\x03\x01\x00\x02\x02\x0a"

# With forward secrecy and authenticated, as TLS 1.3 has no others. The lab's key is of the elliptic kind, and a server
# of one's own may have one of RSA.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

Secure = Callable[[StreamConversation, str], "SecureConnection"]


def open_layer(environ: Mapping[str, str]) -> Secure:
    """Read the certificates, and return a function that puts a connection, of a peer, behind TLS.

    Args:
        environ: LAB_TLS_CERT, a PEM file with key and certificates; and, for mutual TLS, LAB_TLS_CLIENT_CA, a PEM file
            with the CA of the clients' certificates.

    Raises:
        ListenError: names the variable, and what is wrong with it.
    """
    context = server_context()
    certificate = environ.get("LAB_TLS_CERT")
    if not certificate:
        raise ListenError("tls:// needs LAB_TLS_CERT, a PEM file with a key and its certificates")
    _load("LAB_TLS_CERT", certificate, context.load_cert_chain)
    if client_ca := environ.get("LAB_TLS_CLIENT_CA"):
        context.verify_mode = ssl.CERT_REQUIRED
        _load("LAB_TLS_CLIENT_CA", client_ca, context.load_verify_locations)
    return lambda connection, peer: SecureConnection(connection, context, peer)


def server_context() -> ssl.SSLContext:
    """Make a context as docs/protocol.md promises it; the defaults depend on the builds of Python and OpenSSL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Of TLS 1.3: a ticket is 250 bytes and some microseconds for each new connection, and no client of the lab resumes.
    # TLS 1.2 keeps its tickets: without them OpenSSL would keep up to 20,480 sessions in memory.
    context.num_tickets = 0
    return context


def _load(variable: str, path: str, load: Callable[[str], None]) -> None:
    try:
        load(path)
    except ssl.SSLError as error:
        raise ListenError(f"{variable}={path!r} cannot be used: {error.reason or error}") from None
    except OSError as error:
        raise ListenError(f"{variable}={path!r} cannot be read: {error.strerror}") from None


class SecureConnection:
    """A `Connection` whose peer speaks TLS: the same methods and events, with encrypted bytes.

    Args:
        connection: the peer's conversation, which gets nothing before the handshake is complete.
        context: for a server.
        peer: the other end, for the log.
    """

    __slots__ = (
        "_connection",
        "_has_begun",
        "_has_ended",
        "_incoming",
        "_is_draining",
        "_is_open",
        "_left",
        "_outgoing",
        "_peer",
        "_stream_ended",
        "_tls",
    )

    def __init__(self, connection: StreamConversation, context: ssl.SSLContext, peer: str) -> None:
        self._connection = connection
        self._peer = peer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._has_begun = False  # something has come
        self._is_open = False  # the handshake is done
        self._is_draining = False
        self._has_ended = False
        self._stream_ended = False  # of the stream below TLS
        self._left = TURN  # as in `Connection`, whose turn begins again with each record

    def receive_data(self, data: bytes) -> None:
        """See `Connection.receive_data`."""
        if not self._has_begun:
            self._has_begun = True
            if data[0] not in _RECORD_TYPES:
                # OpenSSL would wait for a whole header, which a client that speaks in short lines never sends, and has
                # no alert for a request of HTTP.
                self._outgoing.write(_NOT_TLS)
                self._fail(f"it does not speak TLS, but began with {data[:8]!r}")
        if not self._has_ended:
            self._incoming.write(data)

    def receive_eof(self) -> None:
        """See `Connection.receive_eof`. The end counts with and without TLS's closing alert."""
        self._stream_ended = True
        if self._is_draining and self._is_open:
            # This side has ended the stream. To TLS it would be an attack, and no orderly end: the client would get an
            # alert that says so. All that came before has been read: `next_event` gave None.
            self._connection.receive_eof()
        elif not self._has_ended:
            self._incoming.write_eof()

    def receive_digest(self, digest: bytes) -> None:
        """See `Connection.receive_digest`."""
        self._connection.receive_digest(digest)

    def drain(self, arrived: int = 0) -> None:
        """See `Connection.drain`. Encrypted bytes are at least as many as the bytes in them."""
        self._is_draining = True
        self._connection.drain(arrived)

    def next_event(self) -> Event | None:
        """See `Connection.next_event`. The handshake's messages are `Send` events too."""
        if not self._left:
            self._left = TURN
            return GiveWay()
        if not self._has_ended and (event := self._advance()) is not None:
            self._left -= 1
            return event
        # What TLS itself has to say: its part of a handshake, a new key, an alert.
        if self._outgoing.pending:
            return Send(self._outgoing.read())
        self._left = TURN
        return Close(at_eof=self._stream_ended) if self._has_ended else None

    def _advance(self) -> Send | Wait | Compute | None:
        """Return the next event; None to read more, after sending what is outgoing."""
        try:
            if not self._is_open:
                self._tls.do_handshake()
                self._is_open = True
            while True:
                match self._connection.next_event():
                    case Send() as send:
                        self._tls.write(send.data)
                        return Send(self._outgoing.read())
                    case Wait() | Compute() as event:
                        return event
                    case GiveWay():
                        pass
                    case Close():
                        self._end()
                        return None
                    case None:
                        self._read()
        except ssl.SSLWantReadError:
            pass  # from the handshake, or from _read
        except ssl.SSLError as error:
            self._fail(error.reason or str(error))
        return None

    def _fail(self, reason: str) -> None:
        self._has_ended = True
        self._incoming.read()  # what has come behind it is of no use
        if self._is_open:
            log.debug("TLS with %s failed: %s", self._peer, reason)
        elif not self._is_draining:
            log.info("TLS handshake with %s failed: %s", self._peer or "a client", reason)

    def _read(self) -> None:
        try:
            data = self._tls.read(_RECORD_SIZE)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # The peer has ended its half, by the alert for it or without. What it sent in full is still answered; the
            # protocols here mark their own ends, so nothing that was cut short can pass for whole.
            self._connection.receive_eof()
            return
        if data:
            self._connection.receive_data(data)
        else:
            self._connection.receive_eof()

    def _end(self) -> None:
        """Tell the peer that nothing more will be sent, without waiting for its own end."""
        self._has_ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:  # the peer went on sending, or broke off
            log.debug("TLS with %s ended without order: %s", self._peer, error.reason or error)
        self._incoming.read()  # what has come behind the end is of no use
