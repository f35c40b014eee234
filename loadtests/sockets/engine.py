"""One loop for all connections of a process: as many requests as a core gives, each reply checked, each time kept.

Strategy: every connection is a small object, and one greenlet serves them all from one epoll. gevent's hub watches the
epoll's own descriptor (epoll(7): it is readable when any of its descriptors is), so an idle engine costs nothing. Under
load it drains events in slices of 20 ms and then gives the hub a turn: Locust's web UI, its heartbeats and other users
live in those turns. What is measured is never touched one by one outside of this file: times are appended to lists, and
twice a second these become a tally for the recorder and an entry for Locust's statistics.

The usual case (one connection, the whole right reply in one read, the next request at once) is written out in `_serve`
and makes two system calls, one look at the clock and one comparison of bytes. Everything else takes the long way.

Times: an exchange begins when its request is sent, or, where it needs a connection first, with the connecting. In an
open loop it also has the time at which it was due, and is counted from both.
"""

import errno
import os
import random
import select
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from time import perf_counter
from typing import Any, cast
from weakref import WeakKeyDictionary

import gevent
import gevent.socket
from gevent import monkey
from locust.env import Environment
from locust.runners import locust_exception_handler

from loadtests.sockets.addresses import (
    DATAGRAM_TRANSPORTS,
    UNIX_TRANSPORTS,
    Address,
    SocketAddress,
    find_addresses,
    reply_path,
)
from loadtests.sockets.codec import Codec
from loadtests.sockets.errors import SetupError
from loadtests.sockets.exchange import Exchange, Turn
from loadtests.sockets.failures import (
    TIMED,
    ClosedError,
    ConnectTimeOutError,
    DroppedError,
    ErrorReplyError,
    ExchangeError,
    ExtraReplyError,
    IdleClosedError,
    LostError,
    NoReplyPathError,
    RefusedError,
    ShortReplyError,
    TimeOutError,
    UnknownHostError,
    WrongBytesError,
    translate,
)
from loadtests.sockets.locust_stats import hand_over
from loadtests.sockets.recorder import RECORDER, Series, Tally, follow
from loadtests.sockets.schedule import Schedule
from loadtests.sockets.tls import TlsPipe

# The system's own, in whatever process: gevent takes epoll away and makes select and sockets its own.
_epoll = monkey.get_original("select", "epoll")
_select = monkey.get_original("select", "select")
_socket = monkey.get_original("socket", "socket")
_getaddrinfo = monkey.get_original("socket", "getaddrinfo")
_IN, _OUT = select.POLLIN, select.POLLOUT

_READ_SIZE = 64 * 1024
# Events of one look at the epoll: few, since requests that are due have to wait for all of them.
_BATCH = 32
# How long the hub goes without a turn under load, in seconds.
_SLICE = 0.02
# For how long a slice waits for events itself when there are none: what the way over the hub costs many times over.
_PATIENCE = 0.002
# The hub's timers are whole milliseconds: it is asked to come back earlier, and the rest is waited for here.
_HUB_MARGIN = 0.002
# What gevent takes for "no exception"; its annotations do not know.
_QUIETLY = cast(Any, False)
_HAND_OVER_SECONDS = 0.5
# After a failure the next attempt waits, twice as long each time, so that a server in trouble is not run over.
FIRST_BACK_OFF = 0.05
LONGEST_BACK_OFF = 2.0
# Until a Unix socket whose backlog is full is tried again: its connect does not wait, unix(7).
_BACKLOG_SECONDS = 0.002
# Between two questions where a host is.
_RESOLVE_SECONDS = 0.5
# From here on, a request of an open loop is late.
_LATE_SECONDS = 0.001

# How many failures of a lane may have details of their own: a table has few lines, and a server's words no end.
_MOST_DETAILS = 8

# The states of a link. AWAY has no socket; IDLE has one and nothing to do.
_AWAY, _CONNECTING, _HANDSHAKE, _GREETING, _IDLE, _SENDING, _WAITING = range(7)


class Lane:
    """All links of one series in a process: what they say, where to, and what has been counted.

    Args:
        series: what it is counted as.
        address: where to.
        exchange: what is said and must be heard.
        timeout: seconds for a connect, and for an exchange with the connect that it may need.
        schedule: when requests are due, in an open loop; None in a closed one.
        codec: makes the requests, and knows the replies, in place of the exchange's turns.
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
        self.links: set[Link] = set()
        # Of an open loop: when the next request is due, those that wait for a connection, and connections that wait.
        self.due = inf
        self.pending: deque[float] = deque()
        self.idle: deque[Link] = deque()
        # Where the address leads, and which of these the next connection begins with; None until they are known.
        self.places: list[SocketAddress] = (
            [(socket.AF_UNIX, address.path)] if address.transport in UNIX_TRANSPORTS else []
        )
        self.where: SocketAddress | None = self.places[0] if self.places else None
        self.asking: gevent.Greenlet[[], None] | None = None
        self.asked_at = -inf
        # Since the last hand-over: times of what was answered, and of what timed out; failures; counts.
        self.service: list[float] = []
        self.intended: list[float] = []
        self.timed_out: list[tuple[float, float]] = []
        self.failures: list[str] = []
        # Details of failures that have been told since the last reset.
        self.described: set[str] = set()
        self.tally = Tally()
        self.answered_in_all = 0
        self.counted_at = perf_counter()
        # One more than the longest reply: what is too much is seen at once.
        self.read_size = min(max(len(reply) for _, reply in exchange.turns) + 1, _READ_SIZE)
        # Whether an exchange is nothing but a request, and a reply that is known beforehand, on a held connection.
        self.is_plain = (
            schedule is None
            and codec is None
            and exchange.holds_connection
            and not (exchange.pause or exchange.half_close or exchange.until_close or exchange.endless)
            and address.transport != "tls"
            and not (address.transport in DATAGRAM_TRANSPORTS and (exchange.numbered or exchange.depth > 1))
        )

    @property
    def is_open(self) -> bool:
        """Whether it has a schedule."""
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

    def count_users(self) -> None:
        """Count the time of the links up to now; before their number changes, and before it is asked for."""
        now = perf_counter()
        self.tally.user_seconds += len(self.links) * (now - self.counted_at)
        self.counted_at = now

    def ask_where(self, now: float) -> None:
        """Find out where the address leads, beside everything else; it stays what it was if nobody knows.

        A server that has gone may come back elsewhere, so whoever fails to connect asks again.
        """
        address = self.address
        if address.transport in UNIX_TRANSPORTS or self.asking or now - self.asked_at < _RESOLVE_SECONDS:
            return
        self.asked_at = now
        kind = socket.SOCK_DGRAM if address.transport in DATAGRAM_TRANSPORTS else socket.SOCK_STREAM
        try:
            # What is a number already needs no resolver, and no thread of its.
            found = _getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_NUMERICHOST)
            self._take_where([(family, where) for family, _, _, _, where in found])
        except OSError:
            self.asking = gevent.spawn(lambda: self._resolve(kind))

    def wait_where(self) -> None:
        """Return when the first question where the address leads was answered, or was not."""
        if self.where is None:
            self.ask_where(perf_counter())
        if self.asking:
            self.asking.join()

    def _resolve(self, kind: socket.SocketKind) -> None:
        try:
            self._take_where(find_addresses(self.address.host, self.address.port, kind, gevent.socket.getaddrinfo))
        except OSError:
            pass  # nobody knows: the connecting that needs it fails, and says so
        finally:
            self.asking = None

    def _take_where(self, places: list[SocketAddress]) -> None:
        self.places = places
        if self.where not in places:
            self.where = places[0]

    def leave(self, where: SocketAddress | None) -> None:
        """Begin with the next place, if this is the one that connections begin with: nobody answers there."""
        if where == self.where and where in self.places:
            self.where = self.places[(self.places.index(where) + 1) % len(self.places)]

    def take(self) -> Tally:
        """What was counted since the last time."""
        self.count_users()
        tally, self.tally = self.tally, Tally()
        tally.answered = len(self.service)
        tally.requests = tally.answered * self.exchange.depth
        self.answered_in_all += tally.answered
        tally.failures = Counter(self.failures)
        tally.service.record([*self.service, *(service for service, _ in self.timed_out)])
        if self.is_open:
            tally.intended.record([*self.intended, *(intended for _, intended in self.timed_out)])
        # The lists stay the same ones: every link holds their `append`.
        for counted in (self.service, self.intended, self.timed_out, self.failures):
            counted.clear()
        return tally


class Link:
    """One connection of a user, with or without a socket."""

    __slots__ = (
        "answered",
        "awaiting",
        "back_off",
        "buffer",
        "busy",
        "codec_number",
        "epoch",
        "expected",
        "fd",
        "highest",
        "idle",
        "intended",
        "lane",
        "lost",
        "on_connection",
        "queue",
        "quick",
        "received",
        "record",
        "recv",
        "request",
        "resources",
        "send",
        "size",
        "socket",
        "started",
        "state",
        "tls",
        "tried",
        "turns",
        "unsent",
        "where",
    )

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.state = _AWAY
        self.socket: socket.socket | None = None
        self.resources: ExitStack | None = None
        self.fd = -1
        # The place that it is connected to, or tries to be, and how many it has tried since its last connection.
        self.where: SocketAddress | None = None
        self.tried = 0
        self.tls: TlsPipe | None = None
        self.recv: Callable[[int], bytes]
        self.send: Callable[[bytes], int]
        self.turns: Iterator[Turn]
        self.request = b""
        self.expected: bytes | None = b""
        # Datagrams are read whole, or a long one would pass for a right one; of a codec's replies nothing is known.
        short = lane.codec is None and lane.address.transport not in DATAGRAM_TRANSPORTS
        self.size = lane.read_size if short else _READ_SIZE
        self.received = 0
        self.buffer = b""
        self.unsent: memoryview | None = None
        self.busy = False
        self.idle = False
        self.started = self.intended = 0.0
        # Exchanges that were answered: in all, and on this connection.
        self.answered = self.on_connection = 0
        self.codec_number = 0
        self.back_off = FIRST_BACK_OFF
        # Counts the changes of what a timer was set for, so that one that has been overtaken is known.
        self.epoch = 0
        self.record = lane.service.append
        # Of numbered datagrams: what is not answered yet, by number; what has timed out; the highest that was answered.
        self.awaiting: dict[int, bytes] = {}
        # Those that a Unix socket has no room for yet.
        self.queue: deque[bytes] = deque()
        self.lost: set[int] = set()
        self.highest = -1
        # Whether the usual case is all that there is to it: on a connection that has been answered once.
        self.quick = False


class Engine:
    """Drives the links of a process.

    Args:
        environment: Locust's; its statistics get what is counted.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._lanes: dict[Series, Lane] = {}
        self._open_lanes: list[Lane] = []
        self._links: dict[int, Link] = {}
        self._count = 0
        self._share = 1.0
        self._epoll = _epoll()
        self._timers: list[tuple[float, int, Link, int]] = []
        self._order = count()
        self._next_sweep = self._next_hand_over = 0.0
        self._greenlet: gevent.Greenlet[[], None] | None = None
        follow(environment.stats, "reset_all", self._renew_details)

    @classmethod
    def of(cls, environment: Environment) -> "Engine":
        """The engine of a Locust environment, made at its first use."""
        if environment not in _ENGINES:
            _ENGINES[environment] = cls(environment)
        return _ENGINES[environment]

    @property
    def lanes(self) -> list[Lane]:
        """All lanes that have had a link since the last `clear`."""
        return list(self._lanes.values())

    def lane(self, series: Series, make: Callable[[], Lane]) -> Lane:
        """The lane of a series; made by `make` if there is none."""
        if series not in self._lanes:
            lane = self._lanes[series] = make()
            if lane.schedule is not None:
                lane.schedule.share = self._share
                self._open_lanes.append(lane)
        return self._lanes[series]

    def clear(self) -> None:
        """Forget the lanes of a test that has ended. Those that still have links stay."""
        self._lanes = {series: lane for series, lane in self._lanes.items() if lane.links}
        self._open_lanes = [lane for lane in self._lanes.values() if lane.is_open]

    def add(self, lane: Lane) -> Link:
        """A new connection for a lane; it begins at once."""
        link = Link(lane)
        now = perf_counter()
        if not lane.links and lane.schedule is not None:
            lane.due = lane.schedule.start(now)
        self._admit(link, now)
        self._wake(link, now)
        return link

    def enlist(self, lane: Lane) -> Link:
        """A link that somebody else drives: it is counted with the lane's, and what it appends there is handed over."""
        link = Link(lane)
        link.started = inf  # never too long ago
        self._admit(link, perf_counter())
        return link

    def remove(self, link: Link) -> None:
        """The end of a connection, in whatever state it is. What was under way on it is not counted."""
        lane = link.lane
        if link not in lane.links:
            return
        lane.count_users()
        lane.links.discard(link)
        link.idle = link.busy = False
        self._close(link)
        self._count -= 1
        if not lane.links:
            self._end(lane)
        if not self._count:
            self.flush()

    def flush(self) -> None:
        """Hand everything over that has been counted."""
        for lane in self.lanes:
            self._hand_over(lane)

    def hold(self) -> None:
        """Count what is due and was not sent as dropped: the end of a measurement is no excuse."""
        for lane in self._open_lanes:
            lane.tally.dropped += len(lane.pending)
            lane.pending.clear()

    def halt(self) -> None:
        """Drop every connection at once; the users whose they are may follow."""
        for lane in self.lanes:
            for link in list(lane.links):
                self.remove(link)

    def share(self, share: float) -> None:
        """Of the rates that are asked for, this process has to do a share, from now on."""
        now, self._share = perf_counter(), share
        for lane in self._open_lanes:
            schedule = cast(Schedule, lane.schedule)
            if schedule.share != share:
                schedule.share = share
                lane.due = schedule.after(now) if lane.links else inf

    def _renew_details(self) -> None:
        for lane in self.lanes:
            lane.described.clear()

    # The loop.

    def _admit(self, link: Link, now: float) -> None:
        link.lane.count_users()
        link.lane.links.add(link)
        self._count += 1
        if self._greenlet is None or self._greenlet.ready():
            self._next_sweep, self._next_hand_over = now, now + _HAND_OVER_SECONDS
            self._greenlet = gevent.spawn(self._run)
            self._greenlet.link_exception(locust_exception_handler(self._environment))

    def _run(self) -> None:
        hub = gevent.get_hub()
        watcher = hub.loop.io(self._epoll.fileno(), 1)
        # A turn of the hub is a whole one, with its descriptors and timers. gevent.sleep(0) is not: it comes back fifty
        # times before the hub looks at either.
        turn = hub.loop.timer(0)
        try:
            while self._count:
                patience = self._run_slice()
                if patience > _HUB_MARGIN:
                    with gevent.Timeout(patience - _HUB_MARGIN, _QUIETLY):
                        hub.wait(watcher)
                else:
                    hub.wait(turn)
        finally:
            turn.close()
            watcher.close()

    def _run_slice(self) -> float:
        """Serve for a while; returns for how many seconds nothing is to be done unless something comes."""
        poll, descriptor = self._epoll.poll, self._epoll.fileno()
        end = perf_counter() + _SLICE
        while True:
            now = perf_counter()
            upcoming = self._run_timers(now)
            for lane in self._open_lanes:
                if lane.due <= now or lane.pending:
                    self._dispatch(lane, now)
                upcoming = min(upcoming, lane.due)
            events = poll(0, _BATCH)
            if not events:
                now = perf_counter()
                wait = min(upcoming - now, end - now)
                if wait > 0 and self._links:
                    # Not epoll's own wait, which is in whole milliseconds: select(2) knows microseconds.
                    _select([descriptor], [], [], min(wait, _PATIENCE))
                    events = poll(0, _BATCH)
                if not events and wait > _PATIENCE:
                    return upcoming - perf_counter()
            if events:
                self._serve(events)
            if perf_counter() >= end:
                return 0.0

    def _serve(self, events: list[tuple[int, int]]) -> None:
        links, clock = self._links, perf_counter
        for fd, mask in events:
            link = links.get(fd)
            if link is None:
                continue  # closed by an event before this one
            if link.state != _WAITING:
                self._step(link, mask, clock())
                continue
            try:
                data = link.recv(link.size)
            except BlockingIOError:
                continue
            except OSError as error:
                self._fail(link, translate(error), clock())
                continue
            now = clock()
            if data != link.expected or link.received or not link.quick:
                self._receive(link, data, now)
                continue
            link.record(now - link.started)
            link.answered += 1
            request, link.expected = next(link.turns)
            link.started = now
            try:
                sent = link.send(request)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._fail(link, translate(error), clock())
                continue
            if sent != len(request):
                self._keep(link, memoryview(request)[sent:])

    def _step(self, link: Link, mask: int, now: float) -> None:
        """What an event means for a link that is not simply waiting for a reply."""
        if link.state == _CONNECTING:
            if mask & ~_IN and link.socket is not None:
                if code := link.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._fail(link, translate(OSError(code, os.strerror(code))), now)
                else:
                    self._connected(link, now)
        elif link.state == _HANDSHAKE:
            self._shake_hands(link, now, fed=bool(mask & ~_OUT))
        else:
            if link.state == _SENDING and mask & _OUT and not self._push(link, now):
                return
            if mask & ~_OUT:
                try:
                    data = link.recv(_READ_SIZE)
                except BlockingIOError:
                    return
                except OSError as error:
                    self._fail(link, translate(error), now)
                    return
                self._receive(link, data, now)

    # An exchange.

    def _begin(self, link: Link, now: float, intended: float | None = None) -> None:
        link.busy, link.idle = True, False
        link.started = now
        link.intended = now if intended is None else intended
        if now - link.intended > _LATE_SECONDS:
            link.lane.tally.late += 1
        if link.socket is None:
            self._connect(link, now)
        else:
            self._ask(link, now)

    def _ask(self, link: Link, now: float) -> None:
        lane = link.lane
        link.received = 0
        if lane.codec is not None:
            try:
                link.request, link.expected, link.buffer = lane.codec.request(link.codec_number), None, b""
            except ExchangeError as error:
                self._fail(link, error, now)
                return
            link.codec_number += 1
        elif lane.exchange.numbered and lane.address.transport in DATAGRAM_TRANSPORTS:
            self._ask_in_datagrams(link, now)
            return
        else:
            link.request, link.expected = next(link.turns)
        link.state = _WAITING
        if link.request:
            self._send(link, link.request if link.tls is None else link.tls.seal(link.request), now)
        if lane.exchange.half_close and link.state == _WAITING:
            self._half_close(link)

    def _ask_in_datagrams(self, link: Link, now: float) -> None:
        link.state, link.expected = _WAITING, None
        turns = [next(link.turns) for _ in range(link.lane.exchange.depth)]
        link.awaiting = {int.from_bytes(reply[:8], "big"): reply for _, reply in turns}
        if link.queue:  # of an exchange that has timed out
            link.queue.clear()
            self._epoll.modify(link.fd, _IN)
        for at, (request, _) in enumerate(turns):
            try:
                link.send(request)
            except BlockingIOError:
                if link.lane.address.transport == "unixgram":
                    # It loses nothing: the rest goes when the server has taken some, ten by default (unix(7)).
                    link.queue.extend(request for request, _ in turns[at:])
                    link.state = _SENDING
                    self._epoll.modify(link.fd, _IN | _OUT)
                    return
                # The kernel has no room for it: it is lost, as it would be on the way.
            except OSError as error:
                self._fail(link, translate(error), now)
                return

    def _send(self, link: Link, data: bytes, now: float) -> None:
        try:
            sent = link.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(link, translate(error), now)
            return
        if sent != len(data):
            self._keep(link, memoryview(data)[sent:])

    def _keep(self, link: Link, rest: memoryview) -> None:
        """What the socket did not take goes when it has room; replies are read meanwhile."""
        link.unsent, link.state = rest, _SENDING
        self._epoll.modify(link.fd, _IN | _OUT)

    def _push(self, link: Link, now: float) -> bool:
        """Send more of what is left; returns whether the link is still good."""
        if link.queue:
            return self._push_datagrams(link, now)
        rest = cast(memoryview, link.unsent)
        try:
            rest = rest[link.send(rest) :]  # type: ignore[arg-type]  # sockets take all buffers
        except BlockingIOError:
            return True
        except OSError as error:
            self._fail(link, translate(error), now)
            return False
        link.unsent = rest
        if not rest:
            link.unsent, link.state = None, _WAITING
            self._epoll.modify(link.fd, _IN)
            if link.lane.exchange.half_close:
                self._half_close(link)
        return True

    def _push_datagrams(self, link: Link, now: float) -> bool:
        try:
            while link.queue:
                link.send(link.queue[0])
                link.queue.popleft()
        except BlockingIOError:
            return True
        except OSError as error:
            self._fail(link, translate(error), now)
            return False
        link.state = _WAITING
        self._epoll.modify(link.fd, _IN)
        return True

    @staticmethod
    def _half_close(link: Link) -> None:
        try:
            cast(socket.socket, link.socket).shutdown(socket.SHUT_WR)
        except OSError as error:
            # Gone already: reading will say how.
            if error.errno != errno.ENOTCONN:
                raise

    def _receive(self, link: Link, data: bytes, now: float) -> None:
        """Take what has come, whatever it is."""
        lane = link.lane
        if link.state == _GREETING:
            self._receive_greeting(link, data, now)
        elif lane.address.transport in DATAGRAM_TRANSPORTS:
            self._receive_datagram(link, data, now)
        elif not link.busy:
            self._fail(link, ExtraReplyError() if data else IdleClosedError(), now)
        elif not data:
            self._receive_end(link, now)
        elif lane.codec is not None:
            self._receive_coded(link, lane.codec, data, now)
        else:
            self._receive_stream(link, cast(bytes, link.expected), data, now)

    def _receive_stream(self, link: Link, expected: bytes, data: bytes, now: float) -> None:
        exchange = link.lane.exchange
        begin, left = link.received, len(expected) - link.received
        if exchange.endless and len(data) > left:
            data = data[:left]
        if not expected.startswith(data, begin):
            if len(data) > left and data.startswith(expected[begin:]):
                self._fail(link, ExtraReplyError(), now)
            elif exchange.error_prefix and self._is_refusal(link, expected, data):
                self._fail(link, ErrorReplyError(), now)
            else:
                self._fail(link, WrongBytesError(), now)
            return
        link.received += len(data)
        if link.received == len(expected) and not exchange.until_close:
            if link.unsent is not None:
                self._fail(link, ExtraReplyError(), now)  # an answer to what was not even asked in full
            else:
                self._answer(link, now)

    @staticmethod
    def _is_refusal(link: Link, expected: bytes, data: bytes) -> bool:
        """Whether the bytes that differ are the beginning of an error reply, where a reply could begin."""
        prefix = link.lane.exchange.error_prefix
        rest = expected[link.received :]
        same = next((at for at, (a, b) in enumerate(zip(rest, data, strict=False)) if a != b), 0)
        at = link.received + same
        return data.startswith(prefix, same) and (at == 0 or expected.endswith(b"\r\n", 0, at))

    def _receive_coded(self, link: Link, codec: Codec, data: bytes, now: float) -> None:
        link.buffer += data
        link.received += len(data)
        if link.lane.exchange.until_close:
            return
        try:
            size = codec.check(link.buffer, link.request)
        except ExchangeError as error:
            self._fail(link, error, now)
            return
        if size is None:
            if link.lane.address.transport in DATAGRAM_TRANSPORTS:
                self._fail(link, WrongBytesError("the datagram is not a whole reply"), now)
        elif size != len(link.buffer):
            self._fail(link, ExtraReplyError(), now)
        else:
            self._answer(link, now)

    def _receive_greeting(self, link: Link, data: bytes, now: float) -> None:
        """Take what a server says before it is asked anything."""
        if not data:
            self._fail(link, ShortReplyError(_progress(link)) if link.received else ClosedError("no greeting"), now)
            return
        link.buffer += data
        link.received += len(data)
        try:
            size = cast(Codec, link.lane.codec).check_greeting(link.buffer)
        except ExchangeError as error:
            self._fail(link, error, now)
            return
        if size == len(link.buffer):
            self._start(link, now)
        elif size is not None:
            self._fail(link, ExtraReplyError("behind the greeting"), now)

    def _receive_end(self, link: Link, now: float) -> None:
        lane = link.lane
        is_whole = lane.exchange.until_close and link.unsent is None
        if is_whole and lane.codec is not None:
            try:
                is_whole = lane.codec.check(link.buffer, link.request) == len(link.buffer)
            except ExchangeError as error:
                self._fail(link, error, now)
                return
        elif is_whole:
            is_whole = link.received == len(link.expected or b"")
        if is_whole:
            self._answer(link, now)
        else:
            self._fail(link, ShortReplyError(_progress(link)) if link.received else ClosedError(), now)

    def _receive_datagram(self, link: Link, data: bytes, now: float) -> None:
        tally, numbered = link.lane.tally, link.lane.exchange.numbered
        if not numbered:
            if not link.busy:
                tally.duplicates += 1
            elif link.lane.codec is not None:
                self._receive_coded(link, link.lane.codec, data, now)
            elif data == link.expected:
                self._answer(link, now)
            else:
                self._fail(link, WrongBytesError(), now)
            return
        number = int.from_bytes(data[:8], "big")
        expected = link.awaiting.get(number)
        if expected is not None:
            if data != expected:
                self._fail(link, WrongBytesError(), now)
                return
            del link.awaiting[number]
            tally.reordered += number < link.highest
            link.highest = max(link.highest, number)
            if not link.awaiting and link.busy:
                self._answer(link, now)
        elif number in link.lost:
            link.lost.discard(number)
            tally.reordered += 1  # it came, but after others that were sent later
        elif number <= link.highest:
            tally.duplicates += 1
        else:
            self._fail(link, WrongBytesError(), now)

    def _answer(self, link: Link, now: float) -> None:
        """An exchange has come back right."""
        lane = link.lane
        link.record(now - link.started)
        if lane.is_open:
            lane.intended.append(now - link.intended)
        link.answered += 1
        link.on_connection += 1
        link.back_off = FIRST_BACK_OFF
        link.quick = lane.is_plain
        if link.on_connection == lane.exchange.per_connection:
            self._close(link)
        self._go_on(link, now)

    def _go_on(self, link: Link, now: float) -> None:
        """What a link does that has nothing to do."""
        lane = link.lane
        if lane.is_open:
            link.busy, link.idle = False, True
            if link.socket is not None:
                link.state = _IDLE
            lane.idle.append(link)
            if lane.pending:
                self._dispatch(lane, now)
        elif lane.exchange.pause:
            link.busy = False
            if link.socket is not None:
                link.state = _IDLE
            self._set_timer(link, now + lane.exchange.pause)
        else:
            self._begin(link, now)

    def _fail(self, link: Link, error: ExchangeError, now: float) -> None:
        """An exchange, or the connecting, has failed: the next address of the host may do."""
        lane = link.lane
        if len(lane.places) > 1 and not isinstance(error, TIMED):
            is_refused = lane.address.transport in DATAGRAM_TRANSPORTS and isinstance(error, RefusedError)
            if link.state in (_AWAY, _CONNECTING) or (is_refused and not link.on_connection):
                self._try_next_place(link, error, now)
                return
        self._give_up(link, error, now)

    def _give_up(self, link: Link, error: ExchangeError, now: float) -> None:
        """An exchange, or the connecting, has failed: another attempt follows, later each time."""
        lane = link.lane
        lasted = now - link.started if link.busy and isinstance(error, TIMED) else None
        lane.note_failure(error)
        if lasted is not None:
            lane.timed_out.append((lasted, now - link.intended))
        link.quick = False
        if isinstance(error, LostError):
            # Datagrams have no connection that could be bad.
            self._go_on(link, now)
            return
        link.busy = link.idle = False
        if link.state == _CONNECTING:
            lane.ask_where(now)
        self._close(link)
        self._set_timer(link, now + link.back_off * random.uniform(0.5, 1))  # noqa: S311  # spreads them out; no secret
        link.back_off = min(link.back_off * 2, LONGEST_BACK_OFF)

    # The schedule of an open loop.

    def _dispatch(self, lane: Lane, now: float) -> None:
        """Put down what is due, and give it to connections that are free."""
        pending, idle, schedule = lane.pending, lane.idle, cast(Schedule, lane.schedule)
        while lane.due <= now:
            pending.append(lane.due)
            lane.tally.asked += 1
            lane.due = schedule.after(lane.due)
        oldest = now - lane.timeout
        while pending and pending[0] < oldest:
            pending.popleft()
            lane.tally.dropped += 1
        while pending and idle:
            link = idle.popleft()
            if link.idle:
                self._begin(link, perf_counter(), pending.popleft())

    # Connections.

    def _connect(self, link: Link, now: float) -> None:
        lane = link.lane
        link.tried = 0
        if lane.where is None:
            lane.ask_where(now)
            if lane.where is None:
                self._fail(link, UnknownHostError(), now)
                return
        if not link.busy:
            link.started = now
        self._try_place(link, lane.where, now)

    def _try_next_place(self, link: Link, error: ExchangeError, now: float) -> None:
        """Go on with another address of the host; when there is none left, the connecting has failed."""
        lane = link.lane
        link.tried += 1
        lane.leave(link.where)
        if link.tried < len(lane.places):
            self._close(link)
            self._try_place(link, cast(SocketAddress, lane.where), now)
        else:
            self._give_up(link, error, now)

    def _try_place(self, link: Link, place: SocketAddress, now: float) -> None:
        lane, link.where = link.lane, place
        family, where = place
        transport = lane.address.transport
        try:
            link.socket = _socket(family, socket.SOCK_DGRAM if transport in DATAGRAM_TRANSPORTS else socket.SOCK_STREAM)
            link.socket.setblocking(False)
            if transport in ("tcp", "tls"):
                # A small request must not wait for the acknowledgement of the one before it.
                link.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            elif transport == "unixgram":
                link.resources = ExitStack()
                link.socket.bind(link.resources.enter_context(reply_path(lane.address.path)))
            link.socket.connect(where)
        except BlockingIOError as error:
            if error.errno == errno.EAGAIN:
                self._close(link)
                self._set_timer(link, now + _BACKLOG_SECONDS)
                return
            self._watch(link, _OUT)
            link.state = _CONNECTING
            if link.tried + 1 < len(lane.places):
                # Those that follow get their part of the time.
                self._set_timer(link, now + lane.timeout / len(lane.places))
            return
        except SetupError:
            self._fail(link, NoReplyPathError(), now)
            return
        except OSError as error:
            self._fail(link, translate(error), now)
            return
        self._watch(link, _IN)
        self._ready(link, now)

    def _watch(self, link: Link, mask: int) -> None:
        link_socket = cast(socket.socket, link.socket)
        link.fd = link_socket.fileno()
        link.recv, link.send = link_socket.recv, link_socket.send
        self._links[link.fd] = link
        self._epoll.register(link.fd, mask)

    def _connected(self, link: Link, now: float) -> None:
        link.epoch += 1
        self._epoll.modify(link.fd, _IN)
        if link.lane.address.transport != "tls":
            self._ready(link, now)
            return
        link.state = _HANDSHAKE
        link.tls = TlsPipe(cast(socket.socket, link.socket), link.lane.address.host)
        link.recv = link.tls.recv
        self._shake_hands(link, now, fed=False)

    def _shake_hands(self, link: Link, now: float, *, fed: bool) -> None:
        tls = cast(TlsPipe, link.tls)
        try:
            if fed:
                tls.feed()
            done = tls.handshake()
            # A few hundred bytes: there is room for them in a socket that has sent nothing.
            if data := tls.unsent():
                link.send(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(link, translate(error), now)
            return
        if done:
            self._ready(link, now)

    def _ready(self, link: Link, now: float) -> None:
        """A connection is there."""
        link.state = _IDLE
        link.on_connection = 0
        link.codec_number = 0
        link.turns = link.lane.exchange.open_turns()
        link.awaiting, link.highest = {}, -1
        link.lost.clear()
        codec = link.lane.codec
        if codec is None or codec.greeting_size is None:
            self._start(link, now)
            return
        link.state, link.received, link.buffer = _GREETING, 0, b""
        if link.tls is not None:
            # What came with the end of the handshake has been read already.
            try:
                self._receive_greeting(link, link.tls.read(), now)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(link, translate(error), now)

    def _start(self, link: Link, now: float) -> None:
        """Use a connection for the first time."""
        if link.busy:
            self._ask(link, now)
        else:
            self._go_on(link, now)

    def _close(self, link: Link) -> None:
        link.epoch += 1
        link.state, link.tls, link.unsent = _AWAY, None, None
        link.queue.clear()
        if link.socket is None:
            return
        self._links.pop(link.fd, None)
        link.fd = -1
        # Closing takes it out of the epoll as well, epoll(7): nobody else has the descriptor.
        link.socket.close()
        link.socket = None
        if link.resources is not None:
            link.resources.close()
            link.resources = None

    # Timers.

    def _wake(self, link: Link, now: float) -> None:
        """The next attempt of a link, or its first; or the end of the time that an address has."""
        if link.state == _CONNECTING:
            self._try_next_place(link, ConnectTimeOutError(), now)
        elif link.busy:
            self._connect(link, now)
        elif not link.lane.is_open:
            self._begin(link, now)
        elif link.lane.exchange.holds_connection:
            link.started = now
            self._connect(link, now)
        else:
            self._go_on(link, now)

    def _set_timer(self, link: Link, due: float) -> None:
        link.epoch += 1
        heappush(self._timers, (due, next(self._order), link, link.epoch))

    def _run_timers(self, now: float) -> float:
        """Do what is due; returns when the next thing is."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, _, link, epoch = heappop(timers)
            if link.epoch == epoch and link in link.lane.links:
                self._wake(link, now)
        if now >= self._next_sweep:
            self._sweep(now)
        if now >= self._next_hand_over:
            self._next_hand_over = now + _HAND_OVER_SECONDS
            self.flush()
        return min(timers[0][0] if timers else inf, self._next_sweep, self._next_hand_over)

    def _sweep(self, now: float) -> None:
        """Find what has timed out: a look at all, now and then, is cheaper than a timer for each request."""
        shortest = inf
        for lane in self._lanes.values():
            shortest = min(shortest, lane.timeout)
            begun = now - lane.timeout
            for link in [link for link in lane.links if link.started < begun]:
                self._check_time(link, now)
        self._next_sweep = now + min(max(shortest / 20, 0.01), 0.5)

    def _check_time(self, link: Link, now: float) -> None:
        lane = link.lane
        if link.state in (_CONNECTING, _HANDSHAKE) or (link.state == _AWAY and link.busy):
            lane.leave(link.where)
            lane.ask_where(now)
            self._fail(link, ConnectTimeOutError(), now)
        elif link.busy and lane.address.transport in DATAGRAM_TRANSPORTS:
            lane.tally.lost += len(link.awaiting) or 1
            link.lost.update(link.awaiting)
            link.awaiting = {}
            self._fail(link, LostError(), now)
        elif link.state == _GREETING:
            self._fail(link, TimeOutError(_progress(link) or "no greeting"), now)
        elif link.busy:
            self._fail(link, TimeOutError(_progress(link)), now)

    # What was counted.

    def _hand_over(self, lane: Lane) -> None:
        tally = lane.take()
        RECORDER.add(lane.series, tally, users=len(lane.links), in_flight=sum(link.busy for link in lane.links))
        turns = lane.exchange.turns
        size = sum(len(reply) for _, reply in turns) // len(turns)
        method, name = lane.series.transport.upper(), f"{lane.series.model} {lane.series.workload}"
        failures = tally.failures + Counter({DroppedError.reason: tally.dropped})
        hand_over(
            self._environment.stats,
            method,
            name,
            tally.intended if lane.is_open else tally.service,
            answered=tally.answered,
            failures=failures,
            content_length=size * tally.answered,
        )

    def _end(self, lane: Lane) -> None:
        lane.due = inf
        lane.pending.clear()
        lane.idle.clear()


def _progress(link: Link) -> str:
    """How much of a reply had come; empty if nothing had."""
    if not link.received:
        return ""
    of_all = f" of {len(link.expected)}" if link.expected else ""
    return f"{link.received}{of_all} bytes had come"


_ENGINES: WeakKeyDictionary[Environment, Engine] = WeakKeyDictionary()
