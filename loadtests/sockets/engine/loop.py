"""The engine: one epoll and one greenlet serve all connections of a process.

Strategy: gevent's hub watches the descriptor of the epoll, which is readable while any of its own descriptors has an
event (epoll(7), "Questions and answers"), so an idle engine costs nothing. Under load the engine handles events in
slices of 20 ms, then gives the hub a turn, in which Locust's web UI, its heartbeats and other users run. Single samples
never leave this package: times are appended to lists, and twice a second these become a tally for the recorder and a
batch for Locust's statistics.

The usual case (a plain group, the whole right reply in one read, the next request at once) is written out in `_serve`
and costs two system calls, one clock read and one comparison of bytes. All others go through the connection's methods.

Times: an exchange begins when its request is sent, or, if it needs a connection first, with the connect. In an open
loop it also has the time at which it was due, and is counted from both.
"""

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from time import perf_counter
from typing import Any, cast
from weakref import WeakKeyDictionary

import gevent
from gevent import monkey
from locust.env import Environment
from locust.runners import locust_exception_handler

from loadtests.sockets.engine.connection import WAITING, Connection, ConnectionGroup
from loadtests.sockets.engine.datagrams import DatagramConnection
from loadtests.sockets.engine.exchanges import ExchangeConnection
from loadtests.sockets.engine.http import HttpConnection, WebSocketConnection
from loadtests.sockets.exchange import Framing
from loadtests.sockets.failures import DroppedError, translate
from loadtests.sockets.locust_stats import merge_batch
from loadtests.sockets.recorder import RECORDER, Series, follow
from loadtests.sockets.schedule import Schedule

# The system's own: gevent removes epoll from the process that Locust runs in, and replaces select.
_epoll = monkey.get_original("select", "epoll")
_select = monkey.get_original("select", "select")

# Events of one look at the epoll: few, since requests that are due wait until all of them are handled.
_BATCH = 32
# How long the hub goes without a turn under load, in seconds.
_SLICE = 0.02
# How long a slice waits for events itself before it gives the hub a turn, which costs many times as much.
_SPIN_SECONDS = 0.002
# The hub's timers are whole milliseconds: the engine asks to be called earlier, and waits for the rest itself.
_HUB_MARGIN = 0.002
# Has gevent.Timeout raise nothing; its annotations do not know.
_QUIETLY = cast(Any, False)
_REPORT_SECONDS = 0.5
_CONNECTIONS = {Framing.BYTES: ExchangeConnection, Framing.HTTP: HttpConnection, Framing.WEBSOCKET: WebSocketConnection}


class Engine:
    """Drives the connections of a process.

    Args:
        environment: Locust's; its statistics get the counts.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._groups: dict[Series, ConnectionGroup] = {}
        self._open_groups: list[ConnectionGroup] = []
        self._connections: dict[int, Connection] = {}
        self._count = 0
        self._share = 1.0
        self._epoll = _epoll()
        self._timers: list[tuple[float, int, Connection, int]] = []
        self._order = count()
        self._next_sweep = self._next_report = 0.0
        self._greenlet: gevent.Greenlet[[], None] | None = None
        follow(environment.stats, "reset_all", self._forget_details)

    @classmethod
    def of(cls, environment: Environment) -> "Engine":
        """Return the engine of a Locust environment; the first call makes it."""
        if environment not in _ENGINES:
            _ENGINES[environment] = cls(environment)
        return _ENGINES[environment]

    @property
    def groups(self) -> list[ConnectionGroup]:
        """All groups that have had a connection since the last `clear`."""
        return list(self._groups.values())

    def group(self, series: Series, make: Callable[[], ConnectionGroup]) -> ConnectionGroup:
        """Return the group of a series; make it if there is none."""
        if series not in self._groups:
            group = self._groups[series] = make()
            if group.schedule is not None:
                group.schedule.share = self._share
                self._open_groups.append(group)
        return self._groups[series]

    def clear(self) -> None:
        """Forget the groups of a test that has ended, but not those that still have connections."""
        self._groups = {series: group for series, group in self._groups.items() if group.connections}
        self._open_groups = [group for group in self._groups.values() if group.is_open]

    def add(self, group: ConnectionGroup) -> Connection:
        """Add a connection to a group; it begins at once."""
        connection = self._make(group)
        now = perf_counter()
        if not group.connections and group.schedule is not None:
            group.due = group.schedule.start(now)
        self._admit(connection, now)
        connection.retry(now)
        return connection

    def register(self, group: ConnectionGroup) -> Connection:
        """Add a connection that the caller drives, and whose exchanges it appends to the group's lists."""
        connection = self._make(group)
        connection.started = inf  # never too long ago
        self._admit(connection, perf_counter())
        return connection

    def remove(self, connection: Connection) -> None:
        """End a connection in any state. An exchange that is under way does not count."""
        group = connection.group
        if connection not in group.connections:
            return
        group.count_users(perf_counter())
        group.connections.discard(connection)
        connection.idle = connection.busy = False
        connection.close()
        self._count -= 1
        if not group.connections:
            group.stop()
        if not self._count:
            self.flush()

    def flush(self) -> float:
        """Report all counts; return the time, by `time.perf_counter`, up to which they were counted.

        This takes milliseconds, in which no reply is read.
        """
        now = perf_counter()
        for group in self.groups:
            self._report(group, now)
        return now

    def count_backlog_as_dropped(self) -> None:
        """Count requests that are due and unsent as dropped: the end of a measurement does not excuse them."""
        for group in self._open_groups:
            group.tally.dropped += len(group.pending)
            group.pending.clear()

    def abort(self) -> None:
        """Close every connection at once; their users end later."""
        for group in self.groups:
            for connection in list(group.connections):
                self.remove(connection)

    def share(self, share: float) -> None:
        """Set the part of all rates that this process has to do, from now on."""
        now, self._share = perf_counter(), share
        for group in self._open_groups:
            schedule = cast(Schedule, group.schedule)
            if schedule.share != share:
                schedule.share = share
                group.due = schedule.after(now) if group.connections else inf

    def _make(self, group: ConnectionGroup) -> Connection:
        if group.is_datagram:
            return DatagramConnection(group, self)
        return _CONNECTIONS[group.exchange.framing](group, self)

    def _forget_details(self) -> None:
        for group in self.groups:
            group.described.clear()

    # What connections use.

    def watch(self, connection: Connection, mask: int) -> None:
        """Handle the events of a connection's socket from now on."""
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, mask)

    def change(self, connection: Connection, mask: int) -> None:
        """Handle other events of it."""
        self._epoll.modify(connection.fd, mask)

    def forget(self, connection: Connection) -> None:
        """Handle no more events of it; its socket is about to be closed."""
        self._connections.pop(connection.fd, None)

    def set_timer(self, connection: Connection, due: float) -> None:
        """Have it retry at a time. A timer that it had is void."""
        connection.epoch += 1
        heappush(self._timers, (due, next(self._order), connection, connection.epoch))

    # The loop.

    def _admit(self, connection: Connection, now: float) -> None:
        connection.group.count_users(now)
        connection.group.connections.add(connection)
        self._count += 1
        if self._greenlet is None or self._greenlet.ready():
            self._next_sweep, self._next_report = now, now + _REPORT_SECONDS
            self._greenlet = gevent.spawn(self._run)
            self._greenlet.link_exception(locust_exception_handler(self._environment))

    def _run(self) -> None:
        hub = gevent.get_hub()
        watcher = hub.loop.io(self._epoll.fileno(), 1)
        # A whole turn of the hub, with its descriptors and timers. gevent.sleep(0) is none: it returns fifty times
        # before the hub looks at either.
        turn = hub.loop.timer(0)
        try:
            while self._count:
                idle_seconds = self._run_slice()
                if idle_seconds > _HUB_MARGIN:
                    with gevent.Timeout(idle_seconds - _HUB_MARGIN, _QUIETLY):
                        hub.wait(watcher)
                else:
                    hub.wait(turn)
        finally:
            turn.close()
            watcher.close()

    def _run_slice(self) -> float:
        """Serve for a while; return for how many seconds there is nothing to do unless an event comes."""
        poll, descriptor = self._epoll.poll, self._epoll.fileno()
        end = perf_counter() + _SLICE
        while True:
            now = perf_counter()
            upcoming = self._run_timers(now)
            for group in self._open_groups:
                if group.due <= now or group.pending:
                    group.dispatch(now)
                upcoming = min(upcoming, group.due)
            events = poll(0, _BATCH)
            if not events:
                now = perf_counter()
                wait = min(upcoming - now, end - now)
                if wait > 0 and self._connections:
                    # Not epoll_wait(2), whose timeout is in milliseconds: that of select(2) is in microseconds. Its
                    # limit of descriptors below 1024 (FD_SETSIZE) holds: this one is older than all connections.
                    _select([descriptor], [], [], min(wait, _SPIN_SECONDS))
                    events = poll(0, _BATCH)
                if not events and wait > _SPIN_SECONDS:
                    return upcoming - perf_counter()
            if events:
                self._serve(events)
            if perf_counter() >= end:
                return 0.0

    def _serve(self, events: list[tuple[int, int]]) -> None:
        # One read for each event: epoll is level-triggered, and reports again what is left, epoll(7).
        connections, clock = self._connections, perf_counter
        for fd, mask in events:
            connection = connections.get(fd)
            if connection is None:
                continue  # closed by an event before this one
            if connection.state != WAITING:
                connection.step(mask, clock())
                continue
            try:
                data = connection.recv(connection.size)
            except BlockingIOError:
                continue
            except OSError as error:
                connection.fail(translate(error), clock())
                continue
            now = clock()
            if data != connection.expected or connection.received or not connection.quick:
                connection.receive(data, now)
                continue
            connection.record(now - connection.started)
            connection.answered += 1
            request, connection.expected = next(connection.turns)
            connection.started = now
            try:
                sent = connection.send(request)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                connection.fail(translate(error), clock())
                continue
            if sent != len(request):
                connection.buffer_rest(memoryview(request)[sent:])

    def _run_timers(self, now: float) -> float:
        """Do what is due; return when the next thing is."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, _, connection, epoch = heappop(timers)
            if connection.epoch == epoch and connection in connection.group.connections:
                connection.retry(now)
        if now >= self._next_sweep:
            self._sweep(now)
        if now >= self._next_report:
            self._next_report = now + _REPORT_SECONDS
            self.flush()
        return min(timers[0][0] if timers else inf, self._next_sweep, self._next_report)

    def _sweep(self, now: float) -> None:
        """Find timeouts: a look at all connections now and then is cheaper than a timer for each request."""
        shortest = inf
        for group in self._groups.values():
            shortest = min(shortest, group.timeout)
            begun = now - group.timeout
            for connection in [connection for connection in group.connections if connection.started < begun]:
                connection.check_time(now)
        self._next_sweep = now + min(max(shortest / 20, 0.01), 0.5)

    def _report(self, group: ConnectionGroup, now: float) -> None:
        """Pass the counts of a group to the recorder and to Locust's statistics."""
        tally = group.take_tally(now)
        in_flight = sum(connection.busy for connection in group.connections)
        RECORDER.add(group.series, tally, users=len(group.connections), in_flight=in_flight)
        turns = group.exchange.turns
        size = sum(len(reply) for _, reply in turns) // len(turns)
        merge_batch(
            self._environment.stats,
            group.series.transport.upper(),
            f"{group.series.model} {group.series.workload}",
            tally.intended if group.is_open else tally.service,
            answered=tally.answered,
            failures=tally.failures + Counter({DroppedError.reason: tally.dropped}),
            content_length=size * tally.answered,
        )


_ENGINES: WeakKeyDictionary[Environment, Engine] = WeakKeyDictionary()
