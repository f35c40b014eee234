"""A non-blocking connection of the engine: connect, TLS handshake, send, buffer, close; and the group that it is in."""

import errno
import os
import select
import socket
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import Protocol, cast

from gevent import monkey

from loadtests.sockets.addresses import (
    DATAGRAM_TRANSPORTS,
    UNIX_TRANSPORTS,
    Address,
    SocketAddress,
    refuse_itself,
    reply_path,
)
from loadtests.sockets.codec import Codec
from loadtests.sockets.engine.destination import Destination
from loadtests.sockets.engine.learned import learn_nothing
from loadtests.sockets.errors import SetupError
from loadtests.sockets.exchange import Exchange, Turn
from loadtests.sockets.failures import ExchangeError, NoReplyPathError, UnknownHostError, translate
from loadtests.sockets.http import AUTHORITY, make_authority
from loadtests.sockets.recorder import Series, Tally
from loadtests.sockets.schedule import Schedule
from loadtests.sockets.tls import TlsPipe

# The system's own: gevent replaces sockets in the process that Locust runs in.
_socket = monkey.get_original("socket", "socket")

IN, OUT = select.POLLIN, select.POLLOUT
READ_SIZE = 64 * 1024

# After a failure the next attempt waits, twice as long each time, so that a server in trouble is not flooded.
FIRST_BACK_OFF = 0.05
LONGEST_BACK_OFF = 2.0
# Until a Unix socket whose backlog is full is tried again.
_BACKLOG_SECONDS = 0.002

# Details of failures that a group reports: a table has few lines, and a server's error texts are endless.
_MOST_DETAILS = 8

# The states of a connection, and what ends each of them:
#   AWAY         it has no socket: the back-off or the pause ends, or an open loop has a request for it
#   CONNECTING   the socket is writable: the connect has succeeded or failed
#   HANDSHAKE    TLS is complete
#   GREETING     the server's greeting is complete (only with a codec that has one)
#   IDLE         a request is due, or the pause ends; anything received now is an error
#   SENDING      the rest of a request fits into the socket's buffer; replies are read meanwhile
#   WAITING      the reply is complete
AWAY, CONNECTING, HANDSHAKE, GREETING, IDLE, SENDING, WAITING = range(7)


class ConnectionGroup:
    """All connections of one series in a process: their exchange, their destination, and their counts.

    Args:
        series: the name that they are counted under.
        address: the server's.
        exchange: the requests, and the replies that must come.
        timeout: seconds for a connect, and for an exchange with the connect that it may need.
        schedule: when requests are due, in an open loop; None in a closed one.
        codec: makes the requests and checks the replies instead of the exchange's turns.
    """

    def __init__(
        self,
        series: Series,
        address: Address,
        exchange: Exchange,
        *,
        timeout: float,
        schedule: Schedule | None = None,
        codec: Codec | None = None,
    ) -> None:
        if codec is not None:
            exchange = replace(exchange, per_connection=codec.per_connection, until_close=codec.until_close)
        self.series = series
        self.address = address
        self.exchange = exchange
        self.timeout = timeout
        self.schedule = schedule
        self.codec = codec
        self.destination = Destination(address)
        # Of HTTP and WebSocket.
        self.learned = learn_nothing(exchange, address)
        self.opening = exchange.opening.replace(AUTHORITY, make_authority(address), 1)
        self.is_datagram = address.transport in DATAGRAM_TRANSPORTS
        self.connections: set[Connection] = set()
        # Of an open loop: when the next request is due, requests that wait for a connection, connections that are free.
        self.due = inf
        self.pending: deque[float] = deque()
        self.idle: deque[Connection] = deque()
        # Since the last hand-over: times of answered and of timed out exchanges; failures; counts.
        self.service: list[float] = []
        self.intended: list[float] = []
        self.timed_out: list[tuple[float, float]] = []
        self.failures: list[str] = []
        self.tally = Tally()
        # Failures whose details have been reported since the last reset.
        self.described: set[str] = set()
        self.answered_in_all = 0
        self.counted_at = perf_counter()
        # One more than the longest reply, so that extra bytes are seen at once.
        self.read_size = min(max(len(reply) for _, reply in exchange.turns) + 1, READ_SIZE)
        # Whether an exchange is only a request and a reply that is known beforehand, on a connection that is kept.
        self.is_plain = (
            schedule is None
            and codec is None
            and exchange.holds_connection
            and not (exchange.pause or exchange.half_close or exchange.until_close or exchange.endless)
            and address.transport != "tls"
            and not (self.is_datagram and (exchange.numbered or exchange.depth > 1))
        )

    @property
    def is_open(self) -> bool:
        return self.schedule is not None

    def note_failure(self, error: ExchangeError) -> None:
        """Count a failure by its reason, with its detail while there are few of these."""
        text = str(error)
        if error.detail and text not in self.described:
            if len(self.described) == _MOST_DETAILS:
                text = error.reason
            else:
                self.described.add(text)
        self.failures.append(text)

    def count_users(self, now: float) -> None:
        """Count the connections' time up to now: before their number changes, and before it is reported."""
        self.tally.user_seconds += len(self.connections) * (now - self.counted_at)
        self.counted_at = now

    def take_tally(self, now: float) -> Tally:
        """Return the counts since the last call."""
        self.count_users(now)
        tally, self.tally = self.tally, Tally()
        tally.answered = len(self.service)
        tally.requests = tally.answered * self.exchange.depth
        self.answered_in_all += tally.answered
        tally.failures = Counter(self.failures)
        tally.service.record([*self.service, *(service for service, _ in self.timed_out)])
        if self.is_open:
            tally.intended.record([*self.intended, *(intended for _, intended in self.timed_out)])
        # The lists stay the same objects: every connection holds their `append`.
        for counted in (self.service, self.intended, self.timed_out, self.failures):
            counted.clear()
        return tally

    def dispatch(self, now: float) -> None:
        """Queue the requests that are due, and give them to free connections."""
        pending, idle, schedule = self.pending, self.idle, cast(Schedule, self.schedule)
        while self.due <= now:
            pending.append(self.due)
            self.tally.asked += 1
            self.due = schedule.after(self.due)
        oldest = now - self.timeout
        while pending and pending[0] < oldest:
            pending.popleft()
            self.tally.dropped += 1
        while pending and idle:
            connection = idle.popleft()
            if connection.idle:
                connection.begin(perf_counter(), pending.popleft())

    def repeat_learned(self) -> Iterator[Turn]:
        """Return the turns of one connection, endless, each with the bytes that its reply had last."""
        learned = self.learned
        while True:
            yield from learned

    def stop(self) -> None:
        """Clear due requests and free connections, when the last connection has left."""
        self.due = inf
        self.pending.clear()
        self.idle.clear()


class Loop(Protocol):
    """The part of the engine that a connection uses."""

    def watch(self, connection: "Connection", mask: int) -> None: ...
    def change(self, connection: "Connection", mask: int) -> None: ...
    def forget(self, connection: "Connection") -> None: ...
    def set_timer(self, connection: "Connection", due: float) -> None: ...


class Connection(ABC):
    """One connection of a user, with or without a socket. What is said on it is up to its subclasses.

    The loop's hot path reads and writes these attributes itself, so they are slots, and public.
    """

    __slots__ = (
        *("group", "loop", "state", "epoch", "socket", "resources", "fd", "recv", "send", "tls", "address", "tried"),
        *("turns", "request", "expected", "size", "received", "buffer", "unsent", "codec_number"),
        *("busy", "idle", "quick", "started", "intended", "record", "answered", "on_connection", "back_off"),
    )

    def __init__(self, group: ConnectionGroup, loop: Loop) -> None:
        self.group = group
        self.loop = loop
        self.state = AWAY
        self.socket: socket.socket | None = None
        self.resources: ExitStack | None = None
        self.fd = -1
        # The address that it is connected to, or tries; and how many it has tried since its last connection.
        self.address: SocketAddress | None = None
        self.tried = 0
        self.tls: TlsPipe | None = None
        self.recv: Callable[[int], bytes]
        self.send: Callable[[bytes | memoryview], int]
        self.turns: Iterator[Turn]
        self.request = b""
        self.expected: bytes | None = b""
        # Datagrams are read whole, or a long one would pass for a right one; a codec's replies can have any size.
        self.size = READ_SIZE if group.codec is not None or group.is_datagram else group.read_size
        self.received = 0
        self.buffer = b""
        self.unsent: memoryview | None = None
        # Whether an exchange is under way; whether it is free for one of an open loop.
        self.busy = False
        self.idle = False
        self.started = self.intended = 0.0
        # Answered exchanges: in all, and on this connection.
        self.answered = self.on_connection = 0
        self.codec_number = 0
        self.back_off = FIRST_BACK_OFF
        # Changes whenever a timer loses its meaning: a timer of an older epoch is ignored.
        self.epoch = 0
        self.record = group.service.append
        # Whether the loop's hot path serves it: the group is plain, and the connection has answered once.
        self.quick = False

    @abstractmethod
    def begin(self, now: float, intended: float | None = None) -> None:
        """Begin an exchange, which was due at `intended`; connect first if necessary."""

    @abstractmethod
    def ready(self, now: float) -> None:
        """Use the connection, which has just been made, TLS included."""

    @abstractmethod
    def receive(self, data: bytes, now: float) -> None:
        """Handle received data in any state; no data is the end of the stream."""

    @abstractmethod
    def fail(self, error: ExchangeError, now: float) -> None:
        """End the exchange or the connect with a failure."""

    @abstractmethod
    def retry(self, now: float) -> None:
        """Act on a timer: a back-off or a pause is over, or an address has not answered in its time."""

    @abstractmethod
    def check_time(self, now: float) -> None:
        """Fail if the connect or the exchange has timed out; `started` is longer ago than the timeout."""

    def step(self, mask: int, now: float) -> None:
        """Handle an event in any state but WAITING."""
        if self.state == CONNECTING:
            # The result of a non-blocking connect is in SO_ERROR once the socket is writable, connect(2), EINPROGRESS.
            if mask & ~IN and self.socket is not None:
                if code := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.fail(translate(OSError(code, os.strerror(code))), now)
                else:
                    self._connected(now)
        elif self.state == HANDSHAKE:
            self._shake_hands(now, fed=bool(mask & ~OUT))
        else:
            if self.state == SENDING and mask & OUT and not self.flush(now):
                return
            if mask & ~OUT:
                try:
                    data = self.recv(READ_SIZE)
                except BlockingIOError:
                    return
                except OSError as error:
                    self.fail(translate(error), now)
                    return
                self.receive(data, now)

    # Connect and close.

    def connect(self, now: float) -> None:
        """Connect to the destination's addresses, one after the other."""
        destination = self.group.destination
        self.tried = 0
        if destination.preferred is None:
            destination.resolve(now)
            if destination.preferred is None:
                self.fail(UnknownHostError(), now)
                return
        if not self.busy:
            self.started = now
        self._try_address(destination.preferred, now)

    def try_next_address(self, now: float) -> bool:
        """Try another address of the host; return whether there was one left."""
        destination = self.group.destination
        self.tried += 1
        destination.avoid(self.address)
        if self.tried >= len(destination.addresses):
            return False
        self.close()
        self._try_address(cast(SocketAddress, destination.preferred), now)
        return True

    def close(self) -> None:
        """Drop the socket, and everything that belongs to it."""
        self.epoch += 1
        self.state, self.tls, self.unsent = AWAY, None, None
        if self.socket is None:
            return
        self.loop.forget(self)
        self.fd = -1
        # Closing the last descriptor of a socket takes it out of the epoll set, epoll(7), "Questions and answers".
        self.socket.close()
        self.socket = None
        if self.resources is not None:
            self.resources.close()
            self.resources = None

    def _try_address(self, address: SocketAddress, now: float) -> None:
        group, self.address = self.group, address
        family, where = address
        try:
            self.socket = _socket(family, socket.SOCK_DGRAM if group.is_datagram else socket.SOCK_STREAM)
            self.socket.setblocking(False)
            if group.address.transport in ("tcp", "tls"):
                # Otherwise a small request waits until the one before is acknowledged, tcp(7), TCP_NODELAY.
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            elif group.address.transport == "unixgram":
                self.resources = ExitStack()
                self.socket.bind(self.resources.enter_context(reply_path(group.address.path)))
            self.socket.connect(where)
            if group.address.transport not in UNIX_TRANSPORTS:
                refuse_itself(self.socket, where)
        except BlockingIOError as error:
            # EINPROGRESS, or of a Unix socket EAGAIN: its backlog is full, and no event will say when it is not,
            # connect(2), ERRORS.
            if error.errno == errno.EAGAIN:
                self.close()
                self.loop.set_timer(self, now + _BACKLOG_SECONDS)
                return
            self._watch(OUT)
            self.state = CONNECTING
            addresses = self.group.destination.addresses
            if self.tried + 1 < len(addresses):
                # The addresses that follow get their part of the time.
                self.loop.set_timer(self, now + group.timeout / len(addresses))
            return
        except SetupError:
            self.fail(NoReplyPathError(), now)
            return
        except OSError as error:
            self.fail(translate(error), now)
            return
        self._watch(IN)
        self.ready(now)

    def _watch(self, mask: int) -> None:
        made = cast(socket.socket, self.socket)
        self.fd = made.fileno()
        self.recv, self.send = made.recv, made.send
        self.loop.watch(self, mask)

    def _connected(self, now: float) -> None:
        if self.group.address.transport not in UNIX_TRANSPORTS:
            try:
                refuse_itself(cast(socket.socket, self.socket), cast(SocketAddress, self.address)[1])
            except OSError as error:
                self.fail(translate(error), now)
                return
        self.epoch += 1
        self.loop.change(self, IN)
        if self.group.address.transport != "tls":
            self.ready(now)
            return
        self.state = HANDSHAKE
        self.tls = TlsPipe(cast(socket.socket, self.socket), self.group.address.host)
        self.recv = self.tls.recv
        self._shake_hands(now, fed=False)

    def _shake_hands(self, now: float, *, fed: bool) -> None:
        tls = cast(TlsPipe, self.tls)
        try:
            if fed:
                tls.feed()
            done = tls.handshake()
            # A few hundred bytes always fit into the buffer of a socket that has sent nothing.
            if data := tls.unsent():
                self.send(data)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(translate(error), now)
            return
        if done:
            self.ready(now)

    # Send.

    def send_all(self, data: bytes, now: float) -> None:
        """Send `data`; what does not fit into the socket's buffer follows later."""
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.fail(translate(error), now)
            return
        if sent != len(data):
            self.buffer_rest(memoryview(data)[sent:])

    def buffer_rest(self, rest: memoryview) -> None:
        """Send the rest of a request when the socket has room for it."""
        self.unsent, self.state = rest, SENDING
        self.loop.change(self, IN | OUT)

    def flush(self, now: float) -> bool:
        """Send more of the rest; return whether the connection is still good."""
        rest = cast(memoryview, self.unsent)
        try:
            rest = rest[self.send(rest) :]
        except BlockingIOError:
            return True
        except OSError as error:
            self.fail(translate(error), now)
            return False
        self.unsent = rest
        if not rest:
            self.unsent, self.state = None, WAITING
            self.loop.change(self, IN)
            if self.group.exchange.half_close:
                self.half_close()
        return True

    def half_close(self) -> None:
        """Tell the server that nothing more will be sent."""
        try:
            cast(socket.socket, self.socket).shutdown(socket.SHUT_WR)
        except OSError as error:
            # The peer has reset the connection, shutdown(2), ERRORS; reading reports it.
            if error.errno != errno.ENOTCONN:
                raise
