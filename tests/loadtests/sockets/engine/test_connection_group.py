"""A group reports its counts: each count is a different number, and arrives in its own place."""

import pytest

from tests.support.scripts import run_script

# In a separate process: Locust patches the one that imports it.
SCRIPT = """
import json, os, socket, sys
from types import SimpleNamespace
import gevent
import locust
from locust.env import Environment
from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.exchange import Exchange
from loadtests.sockets.engine import ConnectionGroup, Engine
from loadtests.sockets.engine.connection import WAITING
from loadtests.sockets.engine.datagrams import DatagramConnection
from loadtests.sockets.engine.destination import Destination
from loadtests.sockets.engine.exchanges import ExchangeConnection
from loadtests.sockets.failures import RefusedError, TimeOutError
from loadtests.sockets.recorder import RECORDER, Series
from loadtests.sockets.schedule import Schedule

import loadtests.sockets.engine.connection
import loadtests.sockets.engine.loop
now = [100.0]
CLOCKS = (loadtests.sockets.engine.connection, loadtests.sockets.engine.loop)
def set_clock(clock):
    for module in CLOCKS:
        module.perf_counter = clock
set_clock(lambda: now[0])

environment = Environment()
environment.create_local_runner()
engine = Engine.of(environment)
shown = {}
for loop in ("closed", "open"):
    series = Series("m", "w", "tcp", loop)
    # Two turns with replies of 10 and 30 bytes, 20 in the mean; four requests in an exchange.
    exchange = Exchange(((b"q", b"r" * 10), (b"q", b"r" * 30)), depth=4)
    schedule = Schedule(lambda _: 1.0) if loop == "open" else None
    make = lambda: ConnectionGroup(
        series, Endpoint.parse("tcp://127.0.0.1:1"), exchange, timeout=1, schedule=schedule
    )
    group = engine.group(series, make)
    connections = [ExchangeConnection(group, engine) for _ in range(3)]
    group.connections.update(connections)
    group.counted_at = now[0]
    connections[0].busy = connections[1].busy = True
    now[0] += 2.0
    for _ in range(5):
        group.service.append(0.001)
        if schedule:
            group.intended.append(0.002)
    group.timed_out += [(0.3, 0.4)] * 2
    group.failures += ["time-out: no reply"] * 2 + ["refused"] * 6
    for name, count in (("asked", 21), ("late", 3), ("dropped", 7), ("lost", 8), ("duplicates", 9), ("reordered", 11)):
        setattr(group.tally, name, count)
    # What is due and was not sent when the measurement ends is dropped as well.
    group.pending.append(99.0)
    engine.count_backlog_as_dropped()
    assert engine.flush() == now[0]
    tally = RECORDER.tallies()[series]
    gauge = RECORDER.gauge(series)
    entry = environment.stats.get("m w", "TCP")
    shown[loop] = {
        "tally": {name: getattr(tally, name) for name in tally.COUNTS},
        "failures": dict(tally.failures),
        "service": [[round(value), count] for value, count in tally.service.pairs()],
        "intended": [[round(value), count] for value, count in tally.intended.pairs()],
        "gauge": [gauge.users, gauge.in_flight],
        "in_all": group.answered_in_all,
        "locust": [entry.num_requests, entry.num_failures, entry.num_none_requests, entry.total_content_length],
        "mean_ms": round(entry.total_response_time / sum(entry.response_times.values()), 2),
        "errors": {error.error: error.occurrences for error in environment.stats.errors.values()},
        "left": [
            *(len(group.service), len(group.intended), len(group.timed_out)),
            *(len(group.failures), len(group.pending)),
        ],
    }
    # Of nothing new, nothing is reported again.
    engine.flush()
    tally = RECORDER.tallies()[series]
    shown[loop]["again"] = [tally.answered, entry.num_requests, group.answered_in_all, tally.user_seconds]
    group.connections.clear()
    engine.clear()
    environment.stats.clear_all()

# What follows needs one group, without a load: the timers that connections set are noted.
series = Series("m", "w", "tcp", "open")
exchange = Exchange(((b"q", b"r"),))
group = engine.group(
    series,
    lambda: ConnectionGroup(
        series, Endpoint.parse("tcp://127.0.0.1:1"), exchange, timeout=2.0, schedule=Schedule(lambda _: 1.0)
    ),
)
connections = [ExchangeConnection(group, engine) for _ in range(3)]
group.connections.update(connections)
group.counted_at, engine._count = now[0], 3
now[0] += 2.0
engine.remove(connections.pop())
now[0] += 1.0
shown["user_seconds"] = group.take_tally(now[0]).user_seconds

# The users of all groups are counted up to the same moment, though a second passes with each look at the clock.
for name in ("a", "b"):
    series = Series(name, "w", "tcp", "closed")
    make = lambda: ConnectionGroup(series, Endpoint.parse("tcp://127.0.0.1:1"), exchange, timeout=2.0)
    found = engine.group(series, make)
    found.connections.add(ExchangeConnection(found, engine))
    found.counted_at = now[0]
def pass_second():
    now[0] += 1.0
    return now[0]
set_clock(pass_second)
until = engine.flush()
set_clock(lambda: now[0])
tallies = RECORDER.tallies()
shown["flushed"] = [until - 107.0, *(tallies[Series(name, "w", "tcp", "closed")].user_seconds for name in "ab")]
for found in [found for found in engine.groups if found.series.model in "ab"]:
    found.connections.clear()

timers = []
engine.set_timer = lambda connection, due: timers.append(round(due - now[0], 6))
loadtests.sockets.engine.exchanges.random.uniform = lambda low, high: high
first = connections[0]
for _ in range(9):
    first._give_up(RefusedError(), now[0])
first.answer(now[0])
first._give_up(RefusedError(), now[0])
shown["back_off"] = timers[:]

timers.clear()
with socket.create_server(("127.0.0.1", 0)) as listener:
    where = (socket.AF_INET, listener.getsockname())
    group.destination.addresses = [where] * 4
    group.destination.preferred = where
    first.connect(now[0])
    first.close()
    first.tried = 3
    first._try_address(where, now[0])
    first.close()
shown["of_each_address"] = timers[:]

group.failures.clear()
for number in range(10):
    group.note_failure(TimeOutError(f"{number} bytes received"))
group.note_failure(TimeOutError("3 bytes received"))
shown["details"] = group.failures[:]

shown["lost"] = []
for awaiting in ({5: b"", 6: b"", 9: b""}, {}):
    series = Series("m", f"lost {len(awaiting)}", "udp", "open")
    make = lambda: ConnectionGroup(
        series, Endpoint.parse("udp://127.0.0.1:1"), exchange, timeout=2.0, schedule=Schedule(lambda _: 1.0)
    )
    group = engine.group(series, make)
    connection = DatagramConnection(group, engine)
    connection.busy, connection.state, connection.awaiting = True, WAITING, awaiting
    connection.check_time(now[0])
    shown["lost"].append([group.tally.lost, group.failures, sorted(connection.lost), len(connection.awaiting)])

destination = Destination(Endpoint.parse("tcp://127.0.0.1:1"))
destination.addresses, destination.preferred = ["a", "b", "c"], "b"
shown["preferred"] = []
for address in ("a", "b", None, "c", "b", "a", "x"):
    destination.avoid(address)
    shown["preferred"].append(destination.preferred)

def add_open(name):
    series = Series("m", name, "tcp", "open")
    make = lambda: ConnectionGroup(
        series, Endpoint.parse("tcp://127.0.0.1:1"), exchange, timeout=2.0, schedule=Schedule(lambda _: 10.0)
    )
    return engine.group(series, make)

import loadtests.sockets.engine.loop
loadtests.sockets.engine.loop.perf_counter = lambda: now[0]
for each in engine.groups:
    each.connections.clear()
engine.clear()
early = add_open("early")
early.schedule.start(now[0])
early.connections.add(first)
empty = add_open("empty")
engine.share(0.25)
late = add_open("late")
shown["shares"] = [early.schedule.share, empty.schedule.share, late.schedule.share]
shown["due"] = [round(early.due - now[0], 6), empty.due == float("inf"), late.due == float("inf")]
now[0] += 0.3
engine.share(0.25)
shown["due_still"] = round(early.due - now[0], 6)
now[0] -= 0.3

# The last connection leaves, while one request is being answered and another one waits.
last = ExchangeConnection(early, engine)
early.connections, engine._count = {last}, 2
last.busy = last.idle = True
early.pending.append(now[0])
early.idle.append(last)
engine.remove(last)
shown["stopped"] = [early.due == float("inf"), len(early.pending), len(early.idle), last.busy, last.idle]

# The last connection of all leaves: what it has done is reported at once, as no loop will do it.
last = ExchangeConnection(early, engine)
early.connections, engine._count = {last}, 1
early.service += [0.001] * 3
engine.remove(last)
shown["reported"] = RECORDER.tallies()[early.series].answered
engine.clear()
shown["forgotten"] = [len(engine.groups), len(engine._open_groups)]

# A timer that was set again is void, and so is that of a connection that has left.
class Timed(ExchangeConnection):
    def retry(self, now):
        retried.append([self.number, now])

Timed.__slots__ = ()
retried, numbers = [], {}
del engine.set_timer
class Numbered(Timed):
    __slots__ = ("number",)

timed = [Numbered(early, engine) for _ in range(3)]
for number, each in enumerate(timed):
    each.number = number
early.connections = {timed[0], timed[1]}
engine._next_sweep = engine._next_report = float("inf")
for each, due in ((timed[0], 1.0), (timed[0], 3.0), (timed[1], 2.0), (timed[2], 2.0)):
    engine.set_timer(each, due)
upcoming = [engine._run_timers(time) for time in (1.5, 2.5, 3.5)]
shown["timers"] = [retried, upcoming[:2], upcoming[2] == float("inf")]

# At the end of a measurement all connections of all groups leave at once.
engine.clear()
both = [add_open("one"), add_open("another")]
for each in both:
    each.connections = {ExchangeConnection(each, engine) for _ in range(3)}
engine._count = 6
engine.abort()
shown["aborted"] = [engine._count, *(len(each.connections) for each in both)]

# Each connection has begun 3 s ago. The next look comes after a twentieth of the shortest timeout.
class Watched(ExchangeConnection):
    __slots__ = ()
    def check_time(self, now):
        checked.append(self.group.timeout)

shown["sweeps"] = []
for timeouts in ((2.0, 4.0), (4.0, 2.0), (2.0, 3.0), (0.1,), (60.0,)):
    engine.clear()
    checked = []
    for timeout in timeouts:
        name = f"sweep {timeouts} {timeout}"
        each = engine.group(
            Series("m", name), lambda: ConnectionGroup(Series("m", name), Endpoint.parse("tcp://127.0.0.1:1"),
            exchange, timeout=timeout)
        )
        watched = Watched(each, engine)
        watched.started = now[0] - 3.0
        each.connections = {watched}
    engine._sweep(now[0])
    shown["sweeps"].append([checked, round(engine._next_sweep - now[0], 6)])
    for each in engine.groups:
        each.connections.clear()

# A user that comes counts from then on, and not from when its group was made.
engine.clear()
engine._count, engine._greenlet = 0, SimpleNamespace(ready=lambda: False)
came = add_open("came")
came.counted_at = now[0]
now[0] += 5.0
registered = engine.register(came)
now[0] += 1.0
shown["came"] = [came.take_tally(now[0]).user_seconds, registered.started == float("inf"), engine._count]

# With Locust's statistics, the details of failures begin again; failures that are not reported yet stay.
came.note_failure(TimeOutError("3 bytes received"))
environment.stats.reset_all()
shown["reset"] = [len(came.described), came.failures]

# A mistake in the loop is reported by Locust.
handled = []
note = lambda it: handled.append(str(it.exception))
loadtests.sockets.engine.loop.locust_exception_handler = lambda environment: note
def fail():
    raise ValueError("a mistake")
sys.stderr = open(os.devnull, "w")
engine._run, engine._greenlet = fail, None
engine.register(came)
gevent.sleep(0.01)
shown["handled"] = handled
print("TOLD", json.dumps(shown))
"""


# They share the output of one process.
IN_ONE_WORKER = pytest.mark.xdist_group("connection-group")


@pytest.fixture(scope="module")
def reported():
    return run_script(SCRIPT)


@IN_ONE_WORKER
@pytest.mark.parametrize("loop", ["closed", "open"])
def test_group_reports_each_count(loop, reported):
    found = reported[loop]
    dropped = 8 if loop == "open" else 7  # a closed loop has nothing that is due
    assert found["tally"] == {
        "answered": 5,
        "requests": 20,  # four in each
        "asked": 21,
        "late": 3,
        "dropped": dropped,
        "lost": 8,
        "duplicates": 9,
        "reordered": 11,
        "user_seconds": pytest.approx(6.0),  # three connections for two seconds
    }
    assert found["failures"] == {"time-out: no reply": 2, "refused": 6}
    assert (found["gauge"], found["in_all"]) == ([3, 2], 5)
    assert found["left"] == [0, 0, 0, 0, 0 if loop == "open" else 1]
    # Locust's row: answered, failed and dropped; all but the timed are without a time; 5 replies of 20 bytes.
    failed = 2 + 6 + dropped
    assert found["locust"] == [5 + failed, failed, failed - 2, 100]
    wanted = {"time-out: no reply": 2, "refused": 6, "dropped: no connection was free in time": dropped}
    assert found["errors"] == wanted
    assert found["again"] == [5, 5 + failed, 5, pytest.approx(6.0)]


@IN_ONE_WORKER
def test_group_has_timeouts_in_its_times(reported):
    def near(*pairs):
        return [[pytest.approx(value, rel=0.001), count] for value, count in pairs]

    for loop in ("closed", "open"):
        assert reported[loop]["service"] == near((1000, 5), (300_000, 2))
    assert reported["closed"]["intended"] == []
    assert reported["open"]["intended"] == near((2000, 5), (400_000, 2))
    # Locust's tables have the time from when it was due, where there is one: (5 x 1 + 2 x 300) / 7 and so on.
    assert reported["closed"]["mean_ms"] == pytest.approx(605 / 7, rel=0.002)
    assert reported["open"]["mean_ms"] == pytest.approx(810 / 7, rel=0.002)


@IN_ONE_WORKER
def test_time_of_a_user_that_leaves_counts(reported):
    # Three users for two seconds, and two for one more.
    assert reported["user_seconds"] == pytest.approx(8.0)


@IN_ONE_WORKER
def test_users_of_all_groups_are_counted_up_to_one_moment(reported):
    # One user each, for the second after the last count.
    assert reported["flushed"] == [1.0, 1.0, 1.0]


@IN_ONE_WORKER
def test_back_off_doubles_up_to_two_seconds_and_begins_again_after_an_answer(reported):
    assert reported["back_off"] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 0.05]


@IN_ONE_WORKER
def test_each_address_but_the_last_has_its_part_of_the_timeout(reported):
    assert reported["of_each_address"] == [2.0 / 4]


@IN_ONE_WORKER
def test_failures_have_their_details_while_these_are_few(reported):
    detailed = [f"time-out: no reply ({number} bytes received)" for number in range(8)]
    assert reported["details"] == [*detailed, "time-out: no reply", "time-out: no reply", detailed[3]]


@IN_ONE_WORKER
def test_each_datagram_that_is_missing_at_the_end_is_lost(reported):
    numbered, plain = reported["lost"]
    # One exchange has failed, and three of its datagrams have not come; without numbers it has one.
    assert numbered == [3, ["datagram lost"], [5, 6, 9], 0]
    assert plain == [1, ["datagram lost"], [], 0]


@IN_ONE_WORKER
def test_only_the_preferred_address_gives_way_to_the_next(reported):
    """Many connections fail at one address at the same time; the first one has changed what all of them prefer."""
    assert reported["preferred"] == ["b", "c", "c", "a", "a", "b", "b"]


@IN_ONE_WORKER
def test_share_of_the_rate_is_that_of_all_groups_those_to_come_included(reported):
    assert reported["shares"] == [0.25, 0.25, 0.25]
    # A quarter of ten per second is one each 0.4 s; without a connection nothing is due.
    assert reported["due"] == [0.4, True, True]
    # The same share again, 0.3 s later, puts nothing off.
    assert reported["due_still"] == 0.1


@IN_ONE_WORKER
def test_nothing_is_due_without_a_connection(reported):
    assert reported["stopped"] == [True, 0, 0, False, False]


@IN_ONE_WORKER
def test_counts_of_the_last_connection_are_reported_when_it_leaves(reported):
    assert reported["reported"] == 3
    assert reported["forgotten"] == [0, 0]


@IN_ONE_WORKER
def test_only_the_last_timer_of_a_connection_counts(reported):
    assert reported["timers"] == [[[1, 2.5], [0, 3.5]], [2.0, 3.0], True]


@IN_ONE_WORKER
def test_no_connection_outlives_an_abort(reported):
    assert reported["aborted"] == [0, 0, 0]


@IN_ONE_WORKER
def test_look_for_timeouts_is_as_frequent_as_the_shortest_of_them_needs(reported):
    one, other, at_the_limit, shortest, longest = reported["sweeps"]
    assert one == other == [[2.0], 0.1]
    # Exactly as long as its timeout is not too long.
    assert at_the_limit == [[2.0], 0.1]
    # Never more than a hundred times a second, and at least twice.
    assert (shortest, longest) == ([[0.1], 0.01], [[], 0.5])


@IN_ONE_WORKER
def test_user_counts_from_when_it_came(reported):
    # The user of a script never times out by itself.
    assert reported["came"] == [1.0, True, 1]


@IN_ONE_WORKER
def test_details_of_failures_begin_again_with_the_statistics(reported):
    assert reported["reset"] == [0, ["time-out: no reply (3 bytes received)"]]


@IN_ONE_WORKER
def test_mistake_in_the_loop_is_reported_by_locust(reported):
    assert reported["handled"] == ["a mistake"]
