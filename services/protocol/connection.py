"""The core: the state of one connection, without a socket, clock or thread.

    connection = Connection("echo", peer)
    connection.receive_data(...)            # as bytes arrive
    connection.next_event()                 # until it returns None, then read on

The adapter pulls one event at a time, and the state never runs ahead of it. So a peer that does not read stops its own
connection, and back-pressure needs no code.
"""

from collections.abc import Callable
from typing import Protocol

from services.protocol.address import Transport
from services.protocol.base import Service
from services.protocol.chargen import Chargen
from services.protocol.clock import Clock, StoppedClock
from services.protocol.command import Command
from services.protocol.discard import Discard
from services.protocol.echo import Echo
from services.protocol.errors import AdapterError
from services.protocol.events import TURN, Close, Compute, Event, GiveWay, Send, Wait
from services.protocol.greet import Greet
from services.protocol.http import Http
from services.protocol.limits import Limits

SERVICES: dict[str, type[Service]] = {
    "greet": Greet,
    "echo": Echo,
    "discard": Discard,
    "chargen": Chargen,
    "command": Command,
    "http": Http,
}

# The largest payload of UDP over IPv4: 65535 less 8 for UDP and 20 for IP. Unix datagrams have the same limit.
DATAGRAM_SIZE = 65_507
_TOO_LARGE = b"-ERR the reply does not fit into a datagram of %d bytes\r\n" % DATAGRAM_SIZE


class _Ended(Service):
    """Replaces the service after Close: input is dropped, and each event is Close."""

    def next_event(self) -> Event | None:
        return _CLOSE


_ENDED = _Ended()
_STOPPED = StoppedClock()
_GIVE_WAY, _CLOSE, _CLOSE_AT_EOF = GiveWay(), Close(), Close(at_eof=True)


def port_of(service: str, transport: Transport) -> int | None:
    """Return the well-known port of a service; None if it has none over this transport, as over Unix sockets."""
    if transport is Transport.TLS:
        return SERVICES[service].tls_port
    return None if transport.is_unix else SERVICES[service].port


def is_offered(service: str, transport: Transport) -> bool:
    """Return whether the service is offered over this transport."""
    if transport.is_datagram:
        return SERVICES[service].over_datagrams
    return transport is not Transport.TLS or SERVICES[service].tls_port is not None


class Conversation(Protocol):
    """The common part of `Connection` and `DatagramConnection`: enough to handle their events."""

    def next_event(self) -> Event | None: ...
    def receive_digest(self, digest: bytes) -> None: ...


class StreamConversation(Conversation, Protocol):
    """The conversation of a stream, as a model uses it: a `Connection`, or one behind a layer such as TLS."""

    def receive_data(self, data: bytes) -> None: ...
    def receive_eof(self) -> None: ...
    def drain(self, arrived: int = 0) -> None: ...


def _ignore(reason: str) -> None:
    """Drop the line."""


def _make(
    service: str, peer: str, limits: Limits, info: Callable[[], str], report: Callable[[str], object], clock: Clock
) -> Service:
    if service == "command":
        return Command(peer, limits, info, report)
    if service == "http":
        return Http(peer, limits, info, report, clock)
    return SERVICES[service]()


class Connection:
    """One stream.

    Args:
        service: a key of `SERVICES`.
        peer: the other end, as text, for INFO.
        limits: what the peer may ask for.
        info: returns the server's part of INFO, as lines that end in CR LF. Called only for INFO.
        report: takes a line for the server's log about a peer of another protocol.
        clock: for services that need the date or measure time.
    """

    __slots__ = ("_arrived", "_draining", "_ending", "_left", "_service", "_stream_ended")

    def __init__(
        self,
        service: str,
        peer: str = "",
        *,
        limits: Limits | None = None,
        info: Callable[[], str] = str,
        report: Callable[[str], object] = _ignore,
        clock: Clock = _STOPPED,
    ) -> None:
        self._service = _make(service, peer, limits or Limits(), info, report, clock)
        self._stream_ended = False  # the peer sends no more
        self._draining = False
        self._arrived = 0  # when draining: the bytes that were not received yet
        self._ending = False  # the peer sends no more, or this side accepts no more
        self._left = TURN  # events until other connections get a turn

    def receive_data(self, data: bytes) -> None:
        """Take bytes that arrived, at least one. After Close they are dropped, so they cost no memory.

        Raises:
            AdapterError: the stream had ended.
        """
        if self._stream_ended:
            raise AdapterError("receive_data after receive_eof")
        self._service.receive_data(data)
        if self._draining:
            self._arrived -= len(data)
            self._ending = self._arrived <= 0

    def receive_eof(self) -> None:
        """Take the end of the stream. Complete requests are still answered."""
        self._stream_ended = self._ending = True

    def receive_digest(self, digest: bytes) -> None:
        """Take the result of a `Compute`.

        Raises:
            AdapterError: none was asked for.
        """
        if not isinstance(self._service, Command | Http):
            raise AdapterError("receive_digest without a Compute")
        self._service.receive_digest(digest)

    def drain(self, arrived: int = 0) -> None:
        """Prepare for the stop of this server: complete requests are still answered, then comes Close.

        Args:
            arrived: bytes that have arrived, for example in the kernel, but were not passed to `receive_data` yet. If
                there are fewer after all, `receive_eof` ends the wait for them.
        """
        self._draining = True
        self._arrived = arrived
        self._ending = self._stream_ended or arrived <= 0
        if isinstance(self._service, Http):
            self._service.drain()

    def next_event(self) -> Event | None:
        """Return the next event; None if more input is needed. After Close, return Close.

        Raises:
            AdapterError: a `Compute` was not answered by `receive_digest`.
        """
        if (self._ending or self._draining) and self._service.endless:
            self._service = _ENDED
        if not self._left:
            self._left = TURN
            return _GIVE_WAY
        event = self._service.next_event()
        if event is None:
            if not self._ending:
                self._left = TURN
                return None
            event = self._service.end() if isinstance(self._service, Http) else _CLOSE
        if isinstance(event, Close):
            # Free the memory of the service and of its unread input before the peer disconnects.
            self._service = _ENDED
            return _CLOSE_AT_EOF if self._stream_ended else _CLOSE
        self._left -= 1
        return event


class DatagramConnection:
    """A conversation of one datagram: at most one reply, then Close.

    Args: as for `Connection`, and
        data: the datagram, possibly empty.

    Raises:
        AdapterError: the service is not offered over datagrams.
    """

    __slots__ = ("_ended", "_limits", "_replies", "_rounds", "_seconds", "_service", "_size")

    def __init__(
        self,
        service: str,
        data: bytes,
        peer: str = "",
        *,
        limits: Limits | None = None,
        info: Callable[[], str] = str,
        report: Callable[[str], object] = _ignore,
    ) -> None:
        if not SERVICES[service].over_datagrams:
            raise AdapterError(f"{service} is not spoken over datagrams")
        self._limits = limits or Limits()
        self._service = _make(service, peer, self._limits, info, report, _STOPPED)
        self._service.receive_data(data)
        self._rounds = 0
        self._seconds = 0.0
        self._replies: list[bytes] = []
        self._size = 0
        self._ended = False

    def receive_digest(self, digest: bytes) -> None:
        """Take the result of a `Compute`; see `Connection.receive_digest`."""
        if not isinstance(self._service, Command):
            raise AdapterError("receive_digest without a Compute")
        self._service.receive_digest(digest)

    def next_event(self) -> Event | None:
        """Return the next event: work, then at most one Send, then Close. Never None."""
        while not self._ended:
            event = self._service.next_event()
            if isinstance(event, Send):
                self._replies.append(event.data)
                self._size += len(event.data)
                if self._size <= DATAGRAM_SIZE:
                    continue
                self._ended = True
                return Send(_TOO_LARGE)
            if isinstance(event, Wait | Compute):
                if error := self._excess(event):
                    self._ended = True
                    return Send(error)
                return event
            self._ended = True
            if error := self._service.end_datagram():
                self._replies.append(error)
                self._size += len(error)
            if self._size > DATAGRAM_SIZE:
                return Send(_TOO_LARGE)
            if self._replies:
                return Send(b"".join(self._replies))
        return Close()

    def _excess(self, work: Wait | Compute) -> bytes:
        """Return the error to send if a datagram asks for more than one request may; else nothing.

        A datagram of 64 KiB can hold five thousand requests, and its source address can be forged. Without this limit,
        it could occupy a core for hours.
        """
        limits = self._limits
        if isinstance(work, Compute):
            self._rounds += work.rounds
        else:
            self._seconds += work.seconds
        if self._rounds > limits.burn:
            return b"-ERR a datagram may ask for %d rounds in all\r\n" % limits.burn
        if round(self._seconds * 1000) > limits.sleep_ms:  # rounded, because a sum of many fractions is not exact
            return b"-ERR a datagram may ask for %d ms of sleep in all\r\n" % limits.sleep_ms
        return b""
