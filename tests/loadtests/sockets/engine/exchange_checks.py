"""The steps of a connection that are rare over loopback: what does not fit at once, comes too early, or fails late.

Runs in a process that gevent has patched: `test_exchanges.py` starts this file, and so does the mutation runner.
"""

import errno
import random
import socket
from math import inf
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest
from locust.env import Environment

from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.codec import Codec
from loadtests.sockets.engine import ConnectionGroup, Engine
from loadtests.sockets.engine import connection as states
from loadtests.sockets.engine import destination as destinations
from loadtests.sockets.engine import loop as loops
from loadtests.sockets.engine.datagrams import DatagramConnection
from loadtests.sockets.engine.destination import Destination
from loadtests.sockets.engine.exchanges import ExchangeConnection
from loadtests.sockets.engine.http import HttpConnection, WebSocketConnection
from loadtests.sockets.engine.learned import learn_nothing
from loadtests.sockets.exchange import Body, Exchange, Framing, failure_kind
from loadtests.sockets.failures import ConnectTimeOutError, LostError, RefusedError, TimeOutError, WrongBytesError
from loadtests.sockets.http import AUTHORITY
from loadtests.sockets.recorder import Series
from loadtests.sockets.schedule import Schedule

NAMES = ["away", "connecting", "handshake", "greeting", "idle", "sending", "waiting"]
NOW = 1000.0


class Loop:
    """What the engine would do, noted."""

    def __init__(self):
        self.watched, self.timers, self.masks = [], [], []

    def watch(self, connection, mask):
        self.watched.append(connection.fd)

    def change(self, connection, mask):
        assert connection.loop is self
        self.masks.append(mask)

    def forget(self, connection):
        self.watched.remove(connection.fd)

    def set_timer(self, connection, due):
        assert connection.loop is self
        self.timers.append(round(due - NOW, 6))


class Narrow:
    """A socket that takes a few bytes at a time."""

    def __init__(self, room):
        self.room, self.taken, self.ends = room, b"", []

    def send(self, data):
        if not self.room:
            raise BlockingIOError
        taken, self.room = bytes(data[: self.room]), max(self.room - len(data), 0)
        self.taken += taken
        return len(taken)

    def shutdown(self, how):
        self.ends.append(how)

    def close(self):
        self.ends.append("closed")


def make(
    kind, *, url="tcp://127.0.0.1:1", room=99, is_open=False, codec=None, turns=((b"ask" * 4, b"reply"),), **options
):
    """Make a connection with a socket that has room for some bytes."""
    schedule = Schedule(lambda _: 1.0) if is_open else None
    exchange = Exchange(turns, **options)
    group = ConnectionGroup(
        Series("m", "w", "tcp", "closed"), Endpoint.parse(url), exchange, timeout=2.0, schedule=schedule, codec=codec
    )
    connection = kind(group, Loop())
    connection.socket = narrow = Narrow(room)
    connection.send, connection.fd = narrow.send, 7
    connection.loop.watched.append(7)
    connection.turns = connection.open_turns()
    return connection, narrow


def tell(connection):
    return [NAMES[connection.state], connection.group.failures, connection.answered]


# Requests and replies in pieces.


def test_half_close_comes_behind_the_last_byte_of_the_request():
    """A request of 12 bytes into a socket that has room for 5."""
    connection, narrow = make(ExchangeConnection, room=5, half_close=True)
    connection.begin(NOW)
    assert (tell(connection)[0], narrow.ends) == ("sending", [])
    narrow.room = 3
    connection.flush(NOW)
    assert (tell(connection)[0], narrow.ends) == ("sending", [])
    narrow.room = 9
    connection.flush(NOW)
    assert (tell(connection)[0], narrow.ends, narrow.taken) == ("waiting", [socket.SHUT_WR], b"ask" * 4)


RIGHT = {
    ExchangeConnection: (Framing.BYTES, b"reply", b"reply"),
    HttpConnection: (Framing.HTTP, b"reply", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nreply"),
    WebSocketConnection: (Framing.WEBSOCKET, b"\x81\x05reply", b"\x81\x05reply"),
}


def fail_to_send(connection, error, *, waits):
    """Begin an exchange whose request cannot be sent: from the first, or, if it waits, when there is room again."""

    def refuse(_):
        raise error

    if waits:
        connection.begin(NOW)
        connection.send = refuse
        assert not connection.flush(NOW)
    else:
        connection.send = refuse
        connection.begin(NOW)


def test_request_that_cannot_be_sent_is_a_failure():
    """At once, or with the rest of it. There is no half left to close."""
    for waits in (False, True):
        connection, narrow = make(ExchangeConnection, room=5, half_close=True)
        fail_to_send(connection, BrokenPipeError, waits=waits)
        assert (tell(connection), narrow.ends) == (["away", ["connection reset"], 0], ["closed"])


@pytest.mark.parametrize(("error", "is_raised"), [(errno.ENOTCONN, False), (errno.EBADF, True)])
def test_half_of_a_connection_that_was_reset_needs_no_end(error, is_raised):
    """Reading says so. Any other error is a mistake of the engine."""
    connection, narrow = make(ExchangeConnection, half_close=True)

    def shutdown(how):
        raise OSError(error, "made up")

    narrow.shutdown = shutdown
    if is_raised:
        with pytest.raises(OSError, match="made up"):
            connection.begin(NOW)
    else:
        connection.begin(NOW)
        assert tell(connection) == ["waiting", [], 0]


def test_half_is_closed_behind_a_request_that_is_sent_at_once():
    connection, narrow = make(ExchangeConnection, half_close=True)
    connection.begin(NOW)
    assert narrow.ends == [socket.SHUT_WR]


def test_end_of_the_stream_is_no_reply_to_a_request_that_is_not_sent_completely():
    connection, _ = make(ExchangeConnection, room=5, turns=((b"ask" * 4, b""),), until_close=True)
    connection.begin(NOW)
    connection.receive(b"", NOW)
    assert tell(connection) == ["away", ["closed without a reply"], 0]
    connection, _ = make(ExchangeConnection, room=3, codec=make_codec(until_close=True))
    connection.begin(NOW)
    for data in (b"yes!", b""):
        connection.receive(data, NOW)
    assert tell(connection) == ["away", ["short reply: closed in the middle (4 bytes received)"], 0]


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("room", [12, 5])
def test_reply_to_a_request_that_is_not_sent_completely_is_a_failure(kind, pieces, room):
    framing, reply, raw = RIGHT[kind]
    # With a pause after the answer, or the next request would follow.
    connection, _ = make(kind, room=room, turns=((b"ask" * 4, reply),), framing=framing, pause=9.0)
    connection.begin(NOW)
    for piece in [raw] if pieces == 1 else [raw[:4], raw[4:]]:
        connection.receive(piece, NOW)
    if room == 12:
        assert tell(connection) == ["idle", [], 1]
    else:
        state, (failure,), answered = tell(connection)
        assert (state, failure.partition(" (")[0], answered) == ("away", "more than was asked for", 0)


# (the reply that must come, options of the exchange, what comes, and what it is; None: nothing yet)
REPLIES = [
    (b"reply", {}, [b"reply"], "answered"),
    (b"reply", {}, [b"rep", b"ly"], "answered"),
    (b"reply", {}, [b"rep"], None),
    (b"reply", {}, [b"replyx"], "more than was asked for"),
    (b"reply", {}, [b"rep", b"lyx"], "more than was asked for"),
    (b"reply", {}, [b"rep", b"xx"], "wrong bytes"),
    (b"reply", {}, [b"repos"], "wrong bytes"),
    (b"reply", {}, [b"rep", b"lx"], "wrong bytes"),
    (b"reply", {}, [b"relayed"], "wrong bytes"),
    (b"reply", {}, [b""], "closed without a reply"),
    (b"reply", {}, [b"rep", b""], "short reply: closed in the middle (3 of 5 bytes received)"),
    # A server that never ends.
    (b"reply", {"endless": True}, [b"replyx"], "answered"),
    (b"reply", {"endless": True}, [b"rep", b"lyx"], "answered"),
    (b"reply", {"endless": True}, [b"rep", b"xx"], "wrong bytes"),
    # One that ends its reply by closing.
    (b"reply", {"until_close": True}, [b"reply"], None),
    (b"reply", {"until_close": True}, [b"reply", b""], "answered"),
    (b"reply", {"until_close": True}, [b"rep", b""], "short reply: closed in the middle (3 of 5 bytes received)"),
    (b"", {"until_close": True}, [b""], "answered"),
    # Errors can begin where a reply can, and nowhere else.
    (b"+OK\r\n", {"error_prefix": b"-"}, [b"-ERR\r\n"], "error reply"),
    (b"+OK\r\n+OK\r\n", {"error_prefix": b"-"}, [b"+OK\r\n-ERR\r\n"], "error reply"),
    (b"+OK\r\n+OK\r\n", {"error_prefix": b"-"}, [b"+OK\r\n", b"-ERR\r\n"], "error reply"),
    (b"+OK\r\n+OK\r\n+OK\r\n", {"error_prefix": b"-"}, [b"+OK\r\n+", b"OK\r\n-ERR\r\n"], "error reply"),
    (b"\r\n+OK\r\n", {"error_prefix": b"-"}, [b"\r\n-ERR\r\n"], "error reply"),
    (b"+OK\r\n+OK\r\n", {"error_prefix": b"-"}, [b"+O-ERR\r\n"], "wrong bytes"),
    (b"+OK\r\n+OK\r\n", {"error_prefix": b"-"}, [b"+O", b"-ERR\r\n"], "wrong bytes"),
    (b"+OK\r\n+OK\r\n", {"error_prefix": b"-"}, [b"+OK\r\n*ERR\r\n"], "wrong bytes"),
    (b"+OK\r\n", {}, [b"-ERR\r\n"], "wrong bytes"),
    # The bytes of an error in front of those that differ are none.
    (b"-A\r\n+B\r\n", {"error_prefix": b"-"}, [b"-A\r\n", b"+C\r\n"], "wrong bytes"),
    (b"-A", {"error_prefix": b"-"}, [b"-B"], "wrong bytes"),
    (b"", {"until_close": True}, [b"x"], "more than was asked for"),
]


@pytest.mark.parametrize(("reply", "options", "comes", "outcome"), REPLIES)
def test_each_byte_of_a_reply_is_compared(reply, options, comes, outcome):
    connection, narrow = make(ExchangeConnection, turns=((b"ask", reply),), pause=9.0, **options)
    connection.begin(NOW)
    for data in comes:
        connection.receive(data, NOW + 0.25)
    if outcome in (None, "answered"):
        assert tell(connection) == (["idle", [], 1] if outcome else ["waiting", [], 0])
        assert connection.group.service == [0.25] * bool(outcome)
        assert connection.loop.timers == [9.25] * bool(outcome)
    else:
        assert tell(connection) == ["away", [outcome], 0]
        assert narrow.ends == ["closed"]


@pytest.mark.parametrize("kind", [ExchangeConnection, HttpConnection])
def test_what_comes_between_two_exchanges_is_a_failure(kind):
    framing, reply, raw = RIGHT[kind]
    for data, failure in ((raw, "more than was asked for"), (b"", "closed between two exchanges")):
        connection, _ = make(kind, turns=((b"ask", reply),), framing=framing, pause=9.0)
        # Of HTTP, the second reply is one that is known.
        for _ in range(2):
            connection.begin(NOW)
            connection.receive(raw, NOW)
        connection.receive(data, NOW)
        assert tell(connection) == ["away", [failure], 2]


def test_connection_without_a_pause_sends_its_next_turn_at_once():
    connection, narrow = make(ExchangeConnection, turns=((b"one", b"1"), (b"two", b"22")))
    connection.begin(NOW)
    assert not connection.quick
    for reply in (b"1", b"22", b"1"):
        connection.receive(reply, NOW)
    assert narrow.taken == b"onetwoonetwo"
    # From its first answer on, the loop's hot path serves it.
    assert (tell(connection), connection.quick) == (["waiting", [], 3], True)


def test_new_connection_begins_with_the_first_turn():
    connection, narrow = make(ExchangeConnection, turns=((b"one", b"1"), (b"two", b"22")))
    connection.begin(NOW)
    connection.ready(NOW)
    assert narrow.taken == b"oneone"


def test_reply_behind_a_pong_that_cannot_be_sent_is_not_counted():
    connection, _ = make(WebSocketConnection, framing=Framing.WEBSOCKET, turns=((b"ask", b"\x81\x05reply"),), pause=9.0)
    connection.begin(NOW)

    def refuse(_):
        raise BrokenPipeError

    connection.send = refuse
    connection.receive(b"\x89\x00\x81\x05reply", NOW)
    assert tell(connection) == ["away", ["connection reset"], 0]


def test_pong_goes_behind_the_frame_that_is_being_sent():
    turns = ((b"ask" * 4, b"\x81\x05reply"),)
    for room in (5, 12):
        connection, narrow = make(WebSocketConnection, room=room, framing=Framing.WEBSOCKET, turns=turns)
        connection.begin(NOW)
        narrow.room = 0 if room == 5 else 99
        connection.receive(b"\x89\x00", NOW)
        if room == 5:
            narrow.room = 99
            connection.flush(NOW)
        assert narrow.taken[:12] == b"ask" * 4
        assert (narrow.taken[12], len(narrow.taken)) == (0x8A, 12 + 6)
        assert connection.reader.pongs == []


def test_pong_over_tls_is_sealed():
    connection, narrow = make(WebSocketConnection, framing=Framing.WEBSOCKET, turns=((b"ask", b"\x81\x05reply"),))
    connection.begin(NOW)
    connection.tls = SimpleNamespace(seal=lambda data: b"sealed " + data)
    connection.receive(b"\x89\x00", NOW)
    assert narrow.taken[:12] == b"asksealed \x8a\x80"


# The loop's hot path.


def serve(connection, receive, events=1):
    """Let the engine handle events of a connection that waits for its reply, a quarter of a second later."""
    connection.begin(NOW)
    connection.quick, connection.recv = True, receive
    engine = Engine(Environment())
    engine._connections[connection.fd] = connection
    for _ in range(events):
        engine._serve([(connection.fd, states.IN), (connection.fd + 1, states.IN)])


@pytest.fixture
def later(monkeypatch):
    monkeypatch.setattr(loops, "perf_counter", lambda: NOW + 0.25)


@pytest.mark.parametrize("room", [0, 5])
def test_rest_of_the_next_request_is_sent_when_there_is_room(later, room):
    connection, narrow = make(ExchangeConnection, room=12 + room)
    serve(connection, lambda size: b"reply")
    assert (tell(connection), connection.group.service) == (["sending", [], 1], [0.25])
    assert (connection.started, connection.loop.masks) == (NOW + 0.25, [states.IN | states.OUT])
    narrow.room = 99
    connection.flush(NOW)
    assert (tell(connection)[0], narrow.taken) == ("waiting", b"ask" * 8)


def test_error_of_the_next_request_is_a_failure_of_that(later):
    connection, narrow = make(ExchangeConnection)

    def reply(size):
        connection.send = refuse
        return b"reply"

    def refuse(_):
        raise BrokenPipeError

    serve(connection, reply)
    assert (tell(connection), narrow.ends) == (["away", ["connection reset"], 1], ["closed"])


@pytest.mark.parametrize(
    ("error", "state", "failures"),
    [(BlockingIOError, "waiting", []), (ConnectionResetError, "away", ["connection reset"])],
)
def test_error_in_place_of_a_reply_is_a_failure(later, error, state, failures):
    connection, _ = make(ExchangeConnection)

    def fail(size):
        raise error

    serve(connection, fail)
    assert tell(connection) == [state, failures, 0]


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize(("is_right", "outcome"), [(True, ("waiting", [], 2)), (False, ("away", ["wrong bytes"], 1))])
def test_whole_reply_behind_a_part_of_it_is_another_one(later, kind, is_right, outcome):
    """What the last read gives is a right reply by itself."""
    framing, reply, whole = RIGHT[kind]
    connection, _ = make(kind, turns=((b"ask", reply),), framing=framing)
    comes = iter([whole, whole[:2], whole[2:] if is_right else whole])
    serve(connection, lambda size: next(comes), events=3)
    state, failures, answered = tell(connection)
    assert (state, [failure_kind(failure) for failure in failures], answered) == outcome


def test_event_of_a_connection_that_an_event_before_it_has_closed_is_nothing(later):
    """The kernel has told both at once; its descriptor may be that of another file by now."""
    connection, _ = make(ExchangeConnection)
    connection.begin(NOW)
    connection.recv = lambda size: pytest.fail("it is closed")
    engine = Engine(Environment())
    engine._connections[connection.fd] = connection
    engine.forget(connection)
    engine._serve([(connection.fd, states.IN)])
    assert (tell(connection), engine._connections) == (["waiting", [], 0], {})


def test_rate_begins_with_the_first_connection_and_a_connection_leaves_once(monkeypatch):
    """Otherwise a ramp would begin again with each user, and the loop would not see that all have left."""
    engine, begun = Engine(Environment()), []

    def start(now):
        begun.append(now)
        return 7.0

    connection, _ = make(ExchangeConnection, is_open=True)
    group = connection.group
    group.schedule = SimpleNamespace(start=start)
    monkeypatch.setattr(ExchangeConnection, "retry", lambda connection, now: None)
    greenlet: Any = SimpleNamespace(ready=lambda: False)
    engine._greenlet = greenlet
    first, second = engine.add(group), engine.add(group)
    assert (len(begun), group.due) == (1, 7.0)
    for _ in range(2):
        engine.remove(first)
    assert (engine._count, group.due) == (1, 7.0)
    engine.remove(second)
    assert (engine._count, group.due) == (0, inf)


# Time.


@pytest.mark.parametrize(("late", "counted"), [(0, 0), (1, 0), (1.1, 1), (500, 1)])
def test_request_that_is_sent_more_than_a_millisecond_after_it_was_due_is_late(late, counted):
    connection, _ = make(ExchangeConnection, is_open=True)
    connection.begin(2 * late / 1000, late / 1000)
    assert connection.group.tally.late == counted


def test_open_loop_counts_from_when_a_request_was_due():
    connection, _ = make(ExchangeConnection, is_open=True)
    connection.begin(NOW, NOW - 3)
    connection.receive(b"reply", NOW + 0.25)
    assert (connection.group.service, connection.group.intended) == ([0.25], [3.25])
    # It is free for the next one.
    assert (tell(connection)[0], connection.busy, connection.idle) == ("idle", False, True)
    assert list(connection.group.idle) == [connection]


def test_connection_that_is_free_takes_the_request_that_waits():
    connection, narrow = make(ExchangeConnection, is_open=True)
    connection.begin(NOW)
    connection.group.pending.append(NOW)
    connection.group.due = NOW + 9
    connection.receive(b"reply", NOW)
    assert (narrow.taken, connection.busy, connection.idle) == (b"ask" * 8, True, False)
    assert connection.intended == NOW


def test_request_that_no_connection_took_in_time_is_dropped():
    """The timeout is 2 s: one that is exactly as old can still be sent."""
    connection, _ = make(ExchangeConnection, is_open=True)
    group = connection.group
    group.pending.extend([NOW - 3, NOW - 2.5, NOW - 2, NOW - 1])
    group.dispatch(NOW)
    assert (group.tally.dropped, group.tally.asked, list(group.pending)) == (2, 0, [NOW - 2, NOW - 1])


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (TimeOutError(), [(2.0, 3.0)]),
        (ConnectTimeOutError(), [(2.0, 3.0)]),
        (LostError(), []),
        (RefusedError(), []),
        (WrongBytesError(), []),
    ],
)
def test_only_timeouts_have_times_from_when_a_request_was_sent_and_due(error, times):
    connection, _ = make(ExchangeConnection, is_open=True)
    connection.begin(NOW - 2, NOW - 3)
    connection._give_up(error, NOW)
    assert (connection.group.failures, connection.group.timed_out) == ([error.reason], times)


def test_connect_that_no_request_waits_for_has_no_time():
    connection, _ = make(ExchangeConnection, is_open=True)
    connection.started = NOW - 2
    connection._give_up(ConnectTimeOutError(), NOW)
    assert (connection.group.failures, connection.group.timed_out) == (["time-out: no connection"], [])


def test_connection_that_has_failed_waits_longer_each_time(monkeypatch):
    asked = []

    def choose(*bounds):
        asked.append(bounds)
        return 0.5

    monkeypatch.setattr(random, "uniform", choose)
    connection, _ = make(ExchangeConnection, pause=9.0)
    connection.quick = connection.idle = True
    for _ in range(8):
        connection._give_up(RefusedError(), NOW)
    # Half of 50 ms to 2 s, each twice the one before, so that not all return at once.
    assert connection.loop.timers == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert set(asked) == {(0.5, 1)}
    assert (connection.busy, connection.idle, connection.quick) == (False, False, False)
    # An answer ends the trouble.
    connection.answer(NOW)
    connection._give_up(RefusedError(), NOW)
    assert connection.loop.timers[8:] == [9.0, 0.025]


@pytest.mark.parametrize(
    ("state", "busy", "received", "failure"),
    [
        ("connecting", False, 0, "time-out: no connection"),
        ("handshake", False, 0, "time-out: no connection"),
        ("away", True, 0, "time-out: no connection"),
        ("away", False, 0, None),
        ("greeting", False, 0, "time-out: no reply (no greeting)"),
        ("greeting", False, 3, "time-out: no reply (3 bytes received)"),
        ("waiting", True, 0, "time-out: no reply"),
        ("waiting", True, 3, "time-out: no reply (3 bytes received)"),
        ("idle", False, 0, None),
    ],
)
def test_timeout_is_named_after_what_did_not_come(state, busy, received, failure):
    connection, _ = make(ExchangeConnection)
    resolved: list[float] = []
    avoided: list[object] = []
    connection.group.destination = SimpleNamespace(addresses=["a", "b"], resolve=resolved.append, avoid=avoided.append)
    connection.state, connection.busy, connection.received = NAMES.index(state), busy, received
    connection.address, connection.started = "a", NOW - 2
    connection.check_time(NOW)
    assert connection.group.failures == [failure] * bool(failure)
    # Another server may have the name by now.
    is_connect = failure == "time-out: no connection"
    assert (bool(resolved), avoided) == (is_connect, ["a"] * is_connect)


@pytest.mark.parametrize(
    ("state", "step", "is_resolved"),
    [
        (states.CONNECTING, lambda connection: connection.fail(RefusedError(), NOW), True),
        (states.WAITING, lambda connection: connection.fail(WrongBytesError(), NOW), False),
        (states.WAITING, lambda connection: connection.check_time(NOW), False),
    ],
)
def test_host_is_looked_up_again_after_a_connect_that_failed(state, step, is_resolved):
    connection, _ = make(ExchangeConnection)
    resolved: list[float] = []
    connection.group.destination.resolve = resolved.append
    connection.begin(NOW)
    connection.state = state
    step(connection)
    assert bool(resolved) is is_resolved


class Noted(ExchangeConnection):
    """A connection that notes what it would do."""

    __slots__ = ("did",)
    did: list[str]

    def connect(self, now):
        self.did.append("connect")

    def send_request(self, now):
        self.did.append("send")

    def try_next_address(self, now):
        self.did.append("next address")
        return False


@pytest.mark.parametrize(
    ("state", "busy", "options", "did"),
    [
        # The part of the time of this address is over, and there is no other.
        ("connecting", True, {}, ["next address"]),
        ("away", True, {}, ["connect"]),
        # A closed loop sends its next request, and connects for that first.
        ("away", False, {}, ["connect"]),
        ("idle", False, {}, ["send"]),
        # An open loop holds its connections, or makes them when a request is due.
        ("away", False, {"is_open": True}, ["connect"]),
        ("away", False, {"is_open": True, "per_connection": 1}, []),
    ],
)
def test_timer_continues_what_the_connection_was_at(state, busy, options, did):
    connection, _ = make(Noted, **options)
    connection.did = []
    connection.state, connection.busy, connection.started = NAMES.index(state), busy, 0.0
    if state == "away":
        connection.socket = None
    connection.retry(NOW)
    assert connection.did == did
    assert connection.group.failures == (["time-out: no connection"] if state == "connecting" else [])
    if options.get("per_connection"):
        assert list(connection.group.idle) == [connection]
    elif state == "away" and not busy:
        assert connection.started == NOW


# Greetings and codecs.


def make_codec(**options):
    def reply_size(data, request):
        assert request.startswith(b"ask ")
        return data.find(b"!") + 1 or None

    return Codec(lambda number: b"ask %d" % number, reply_size, **options)


UDP = {"url": "udp://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("options", "is_plain"),
    [
        *(({**more}, True) for more in ({}, {"url": "unix:///s"}, UDP, {"depth": 16}, {"numbered": True})),
        *(({name: True}, False) for name in ("is_open", "half_close", "until_close", "endless")),
        *((more, False) for more in ({"per_connection": 1}, {"pause": 0.1}, {"url": "tls://127.0.0.1:1"})),
        # Of datagrams, those with a number may be lost or overtaken.
        *(({**UDP, **more}, False) for more in ({"depth": 2}, {"numbered": True})),
        ({"codec": make_codec()}, False),
    ],
)
def test_only_the_usual_exchange_is_for_the_hot_path(options, is_plain):
    """It sends the next request at once, and looks at nothing but the bytes of the reply."""
    connection, _ = make(ExchangeConnection, **options)
    assert connection.group.is_plain is is_plain


@pytest.mark.parametrize(
    ("comes", "failures"),
    [
        ([b"hel", b"lo"], []),
        ([b"hello"], []),
        ([b"hel"], None),
        ([b"hello!"], ["more than was asked for (behind the greeting)"]),
        ([b"hel", b""], ["short reply: closed in the middle (3 bytes received)"]),
        ([b""], ["closed without a reply (no greeting)"]),
        ([b"bye"], ["wrong bytes (no hello)"]),
    ],
)
def test_first_request_follows_the_greeting(comes, failures):
    def greet(data):
        if not b"hello".startswith(data[:5]):
            raise ValueError("no hello")
        return 5 if len(data) >= 5 else None

    connection, narrow = make(ExchangeConnection, codec=make_codec(greeting_size=greet))
    connection.busy = True
    connection.received, connection.buffer, connection.on_connection, connection.codec_number = 9, b"old", 9, 9
    connection.ready(NOW)
    for data in comes:
        assert narrow.taken == b""
        connection.receive(data, NOW)
    assert narrow.taken == (b"ask 0" if failures == [] else b"")
    assert connection.group.failures == (failures or [])
    assert connection.on_connection == 0


@pytest.mark.parametrize(("received", "failure"), [(b"", "no greeting"), (b"abc", "3 bytes received")])
def test_greeting_that_does_not_come_is_a_timeout_though_no_request_is_due(received, failure):
    codec = make_codec(greeting_size=lambda data: None)
    connection, _ = make(ExchangeConnection, is_open=True, codec=codec)
    connection.ready(NOW)
    if received:
        connection.receive(received, NOW)
    connection.check_time(NOW)
    assert connection.group.failures == [f"time-out: no reply ({failure})"]


def test_greeting_that_came_with_the_end_of_the_handshake_is_read():
    def read():
        outcome = outcomes.pop(0)
        if isinstance(outcome, bytes):
            return outcome
        raise outcome

    for outcome, failures, state in (
        (b"hello", [], "idle"),
        (BlockingIOError(), [], "greeting"),
        (ConnectionResetError(), ["connection reset"], "away"),
    ):
        outcomes = [outcome]
        codec = make_codec(greeting_size=lambda data: 5)
        connection, _ = make(ExchangeConnection, is_open=True, codec=codec)
        connection.tls = SimpleNamespace(read=read)
        connection.ready(NOW)
        assert tell(connection)[:2] == [state, failures]
    # In a closed loop, the first request follows at once.
    outcomes = [b"hello"]
    connection, narrow = make(ExchangeConnection, codec=codec)
    connection.tls = SimpleNamespace(read=read, seal=lambda data: b"sealed " + data)
    connection.ready(NOW)
    assert (connection.started, narrow.taken) == (NOW, b"sealed ask 0")


def test_first_request_follows_a_greeting_by_datagram():
    connection, narrow = make(DatagramConnection, **UDP, codec=make_codec(greeting_size=lambda data: 5))
    connection.ready(NOW)
    connection.receive(b"hello", NOW)
    assert (connection.started, narrow.taken) == (NOW, b"ask 0")


@pytest.mark.parametrize(
    ("comes", "options", "outcome"),
    [
        ([b"yes!"], {}, "answered"),
        ([b"ye", b"s!"], {}, "answered"),
        ([b"yes"], {}, None),
        ([b"yes!x"], {}, "more than was asked for"),
        ([b"yes", b""], {}, "short reply: closed in the middle (3 bytes received)"),
        ([b"yes!"], {"until_close": True}, None),
        ([b"ye", b"s!", b""], {"until_close": True}, "answered"),
        ([b"yes", b""], {"until_close": True}, "short reply: closed in the middle (3 bytes received)"),
        ([b"yes!x", b""], {"until_close": True}, "short reply: closed in the middle (5 bytes received)"),
    ],
)
def test_reply_to_a_codec_ends_where_it_says(comes, options, outcome):
    connection, narrow = make(ExchangeConnection, codec=make_codec(**options), pause=9.0)
    connection.begin(NOW)
    for data in comes:
        connection.receive(data, NOW)
    failures = [outcome] if outcome not in (None, "answered") else []
    assert (connection.group.failures, connection.answered) == (failures, int(outcome == "answered"))
    if outcome == "answered" and not options:
        connection.begin(NOW)
        assert narrow.taken == b"ask 0ask 1"


def test_error_of_a_codec_is_a_failure():
    def fail(*_):
        raise ValueError("no such thing")

    codec = Codec(fail, lambda data, request: None)
    connection, narrow = make(ExchangeConnection, codec=codec)
    connection.begin(NOW)
    (failure,) = connection.group.failures
    assert failure.startswith("the codec raised an error")
    assert (narrow.taken, narrow.ends) == (b"", ["closed"])
    # On a connection that has just been made it does not mean that nobody listens there.
    connection, _ = make(ExchangeConnection, codec=codec)
    connection.busy, connection.state = True, states.CONNECTING
    connection.group.destination.addresses = [(socket.AF_INET, ("127.0.0.1", 1))] * 2
    connection.ready(NOW)
    assert (connection.tried, connection.group.failures) == (0, [failure])
    for until_close in (False, True):
        codec = Codec(lambda number: b"ask", fail, until_close=until_close)
        connection, _ = make(ExchangeConnection, codec=codec)
        connection.begin(NOW)
        connection.receive(b"x", NOW)
        if until_close:
            connection.receive(b"", NOW)
        assert connection.group.failures == ["wrong bytes (no such thing)"]


# Datagrams.


class Trying(DatagramConnection):
    """A connection that notes the ports of the addresses that it tries."""

    __slots__ = ("ports",)
    ports: list[int]

    def _try_address(self, address, now):
        self.ports.append(address[1][1])


@pytest.mark.parametrize(
    ("answered", "error", "ports", "failures"),
    [
        # A host without a server at this address, a server that has gone, and one that does not answer.
        (0, RefusedError(), [10], []),
        (1, RefusedError(), [], ["connection refused"]),
        (0, TimeOutError(), [], ["time-out: no reply"]),
        (0, WrongBytesError(), [], ["wrong bytes"]),
    ],
)
def test_refused_datagram_means_another_address_only_before_the_first_answer(answered, error, ports, failures):
    connection, _ = make(Trying, url="udp://127.0.0.1:1")
    here, there = (socket.AF_INET, ("127.0.0.1", 9)), (socket.AF_INET, ("127.0.0.1", 10))
    connection.group.destination.addresses, connection.group.destination.preferred = [here, there], here
    connection.begin(NOW)
    connection.address, connection.on_connection, connection.ports = here, answered, []
    connection.fail(error, NOW)
    assert (connection.ports, connection.group.failures) == (ports, failures)


@pytest.mark.parametrize("url", ["unixgram:///s", "udp://127.0.0.1:1"])
def test_datagrams_that_do_not_fit_wait_only_where_none_is_lost(url):
    """A Unix socket has room for them later, UDP has lost them. Four have numbers, and two fit at once."""
    turns = ((b"12345678ask", b"12345678reply"),)
    connection, _ = make(DatagramConnection, url=url, turns=turns, depth=4, numbered=True)
    sent, room = [], [2]

    def send(data):
        if not room[0]:
            raise BlockingIOError
        room[0] -= 1
        sent.append(data[7])
        return len(data)

    connection.send = send
    connection.begin(NOW)
    steps = [[tell(connection)[0], sent[:], len(connection.queue)]]
    for more in (0, 1, 9):
        if connection.queue:
            room[0] = more
            assert connection.flush(NOW)
            steps.append([tell(connection)[0], sent[:], len(connection.queue)])
    masks = [states.IN | states.OUT, states.IN]
    if url.startswith("unixgram"):
        assert steps == [
            ["sending", [0, 1], 2],
            ["sending", [0, 1], 2],
            ["sending", [0, 1, 2], 1],
            ["waiting", [0, 1, 2, 3], 0],
        ]
        assert connection.loop.masks == masks
    else:
        assert (steps, connection.loop.masks) == ([["waiting", [0, 1], 0]], [])
    assert len(connection.awaiting) == 4
    # An exchange that has timed out leaves nothing to send.
    room[0] = 0
    connection.check_time(NOW)
    assert sorted(connection.lost) == [0, 1, 2, 3]
    assert connection.group.tally.lost == 4
    # The next one has begun: what is left of it is not sent any more, when it times out too.
    if url.startswith("unixgram"):
        assert len(connection.queue) == 4
        room[0] = 9
        connection.check_time(NOW)
        assert (sent[4:], len(connection.queue)) == ([8, 9, 10, 11], 0)
        assert connection.loop.masks == masks * 2
    connection.queue.append(b"x")
    connection.close()
    assert len(connection.queue) == 0


def test_datagram_that_cannot_be_sent_is_a_failure():
    turns = ((b"12345678ask", b"12345678reply"),)
    for waits in (True, False):
        connection, narrow = make(DatagramConnection, url="unixgram:///s", room=0, turns=turns, numbered=True)
        fail_to_send(connection, ConnectionRefusedError, waits=waits)
        assert (tell(connection), narrow.ends) == (["away", ["connection refused"], 0], ["closed"])


def reply(*numbers):
    return [number.to_bytes(8, "big") + b"reply" for number in numbers]


@pytest.mark.parametrize(
    ("comes", "counts", "answered"),
    [
        (reply(0, 1, 2), (0, 0, 0), 1),
        (reply(0, 2, 1), (0, 0, 1), 1),
        (reply(2, 1, 0), (0, 0, 2), 1),
        (reply(0, 1, 0), (0, 1, 0), 0),
        (reply(0, 1, 1, 2), (0, 1, 0), 1),
    ],
)
def test_numbered_replies_are_counted_by_their_order(comes, counts, answered):
    turns = ((b"12345678ask", b"12345678reply"),)
    connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", turns=turns, depth=3, numbered=True, pause=9.0)
    connection.received = 9
    connection.ready(NOW)
    connection.begin(NOW)
    for data in comes:
        connection.receive(data, NOW)
    tally = connection.group.tally
    assert (tally.lost, tally.duplicates, tally.reordered) == counts
    assert tell(connection)[1:] == [[], answered]
    assert connection.received == 0


def test_reply_that_comes_after_its_timeout_is_late_and_then_a_duplicate():
    turns = ((b"12345678ask", b"12345678reply"),)
    connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", turns=turns, depth=2, numbered=True, pause=9.0)
    connection.ready(NOW)
    tally = connection.group.tally
    connection.begin(NOW)
    connection.receive(reply(0)[0], NOW)
    connection.check_time(NOW)
    # Both are missing at first: one exchange has failed with one datagram.
    assert (tally.lost, connection.group.failures, connection.lost) == (1, ["datagram lost"], {1})
    # The socket is kept.
    assert connection.socket is not None
    connection.begin(NOW)
    for data in reply(2, 3, 1, 1):
        connection.receive(data, NOW)
    assert (tally.reordered, tally.duplicates, connection.answered) == (1, 1, 1)
    # What nobody has asked for is no duplicate.
    connection.receive(reply(9)[0], NOW)
    assert connection.group.failures == ["datagram lost", "wrong bytes"]


def test_reply_that_comes_after_its_timeout_and_before_the_next_request_is_late():
    turns = ((b"12345678ask", b"12345678reply"),)
    connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", turns=turns, numbered=True, pause=9.0)
    connection.ready(NOW)
    connection.begin(NOW)
    connection.check_time(NOW)
    connection.receive(reply(0)[0], NOW)
    tally = connection.group.tally
    assert (tally.lost, tally.reordered, connection.lost, connection.answered) == (1, 1, set(), 0)


def test_numbers_begin_again_with_a_connection():
    turns = ((b"12345678ask", b"12345678reply"),)
    connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", turns=turns, numbered=True, pause=9.0)
    connection.busy, connection.awaiting, connection.highest, connection.lost = True, {7: b""}, 7, {8}
    connection.ready(NOW)
    assert (connection.awaiting, connection.highest, connection.lost) == ({0: reply(0)[0]}, -1, set())


def test_datagram_is_a_whole_reply():
    for data, failures in ((b"reply", []), (b"rep", ["wrong bytes"]), (b"replyx", ["wrong bytes"])):
        connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", pause=9.0)
        connection.begin(NOW)
        connection.receive(data, NOW)
        assert connection.group.failures == failures
        if not failures:
            connection.receive(data, NOW)
            assert (connection.group.tally.duplicates, connection.answered) == (1, 1)
    # A wrong one with a number is no other reply.
    turns = ((b"12345678ask", b"12345678reply"),)
    connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", turns=turns, numbered=True)
    connection.begin(NOW)
    connection.receive(reply(0)[0] + b"x", NOW)
    assert connection.group.failures == ["wrong bytes"]


@pytest.mark.parametrize(
    ("data", "failures"), [(b"yes!", []), (b"yes", ["wrong bytes (the datagram is not a whole reply)"])]
)
def test_datagram_of_a_codec_is_a_whole_reply(data, failures):
    connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", codec=make_codec(), pause=9.0)
    connection.begin(NOW)
    connection.receive(data, NOW)
    assert connection.group.failures == failures


def test_datagram_can_be_a_greeting():
    codec = make_codec(greeting_size=lambda data: 5)
    connection, narrow = make(DatagramConnection, url="udp://127.0.0.1:1", codec=codec)
    connection.busy = True
    connection.ready(NOW)
    connection.receive(b"hello", NOW)
    assert narrow.taken == b"ask 0"


def test_datagrams_without_a_reply_are_lost_and_connects_are_not():
    connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1", pause=9.0)
    connection.begin(NOW)
    connection.check_time(NOW)
    # Once: nothing is due until the next exchange.
    connection.check_time(NOW)
    assert (connection.group.tally.lost, connection.group.failures) == (1, ["datagram lost"])
    for state in ("away", "connecting"):
        connection, _ = make(DatagramConnection, url="udp://127.0.0.1:1")
        connection.busy, connection.state = True, NAMES.index(state)
        connection.check_time(NOW)
        assert (connection.group.tally.lost, connection.group.failures) == (0, ["time-out: no connection"])


# HTTP and WebSocket.

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nreply"


def make_http(**options):
    return make(HttpConnection, turns=((b"ask", b"reply"),), framing=Framing.HTTP, pause=9.0, **options)


def test_bytes_of_a_right_reply_are_learned():
    connection, _ = make_http()
    learned = connection.group.learned
    connection.begin(NOW)
    connection.receive(OK[:9], NOW)
    assert tell(connection) == ["waiting", [], 0]
    connection.receive(OK[9:], NOW)
    assert (tell(connection), learned[0][1], learned[0][1].body) == (["idle", [], 1], OK, b"reply")
    connection.begin(NOW)
    connection.receive(OK, NOW)
    assert tell(connection) == ["idle", [], 2]
    # Another right one takes its place.
    other = OK.replace(b"OK", b"Fine")
    connection.begin(NOW)
    connection.receive(other, NOW)
    assert (tell(connection), learned[0][1]) == (["idle", [], 3], other)
    connection.begin(NOW)
    connection.receive(OK.replace(b"reply", b"other"), NOW)
    ((failure,), answered) = tell(connection)[1:]
    assert (failure.partition(" (")[0], answered) == ("wrong bytes", 3)
    # Before the request is sent, the right bytes are no reply.
    connection, narrow = make_http()
    connection.begin(NOW)
    connection.receive(OK, NOW)
    narrow.room = 1
    connection.begin(NOW)
    connection.receive(OK, NOW)
    assert tell(connection) == ["away", ["more than was asked for (before the request was sent)"], 1]


@pytest.mark.parametrize("kind", [HttpConnection, WebSocketConnection])
def test_reply_that_is_not_whole_in_time_says_how_much_came(kind):
    framing, reply, raw = RIGHT[kind]
    connection, _ = make(kind, turns=((b"ask", reply),), framing=framing)
    connection.begin(NOW)
    connection.receive(raw[:1], NOW)
    connection.receive(raw[1:4], NOW)
    connection.check_time(NOW)
    assert connection.group.failures == ["time-out: no reply (4 bytes received)"]


def test_body_of_a_first_reply_that_ends_its_connection_is_known():
    closing = OK.replace(b"Content", b"Connection: close\r\nContent")
    connection, _ = make(HttpConnection, turns=((b"ask", b""),), framing=Framing.HTTP, body=Body.FIRST, pause=9.0)
    learned = connection.group.learned
    before = bytes(learned[0][1])
    connection.begin(NOW)
    connection.receive(closing, NOW)
    assert (learned[0][1].body, bytes(learned[0][1]) == before) == (b"reply", True)


@pytest.mark.parametrize(
    ("raw", "comes", "outcome"),
    [
        # The connection ends, and the next exchange begins with another.
        (OK.replace(b"Content", b"Connection: close\r\nContent"), [], "answered"),
        (b"HTTP/1.1 200 OK\r\n\r\nreply", [b""], "answered"),
        (b"HTTP/1.1 200 OK\r\n\r\nrep", [b""], "wrong bytes"),
        (OK[:-2], [b""], "short reply: closed in the middle"),
        (b"", [], "closed without a reply"),
    ],
)
def test_reply_may_end_its_connection(raw, comes, outcome):
    connection, narrow = make_http()
    before = connection.group.learned[0][1]
    connection.begin(NOW)
    for data in (raw, *comes):
        connection.receive(data, NOW)
    assert (tell(connection)[0], narrow.ends) == ("away", ["closed"])
    if outcome == "answered":
        assert tell(connection)[1:] == [[], 1]
        # Its bytes are not for the hot path, which does not close.
        assert connection.group.learned[0][1] == before
    else:
        ((failure,), answered) = tell(connection)[1:]
        assert (failure.partition(" (")[0], answered) == (outcome, 0)


def test_end_of_one_reply_is_not_that_of_the_next():
    """It was read to the end of its connection; the next connection ends without a byte."""
    connection, narrow = make_http()
    connection.begin(NOW)
    connection.receive(b"HTTP/1.1 200 OK\r\n\r\nreply", NOW)
    connection.receive(b"", NOW)
    assert tell(connection) == ["away", [], 1]
    connection.socket, connection.fd = narrow, 7
    connection.loop.watched.append(7)
    connection.begin(NOW)
    connection.receive(b"", NOW)
    assert tell(connection) == ["away", ["closed without a reply"], 1]


def test_part_of_a_reply_may_be_as_long_as_a_whole_one():
    connection, _ = make_http()
    for data in (OK, b"HTTP/1.1 200 OK\r\nX: ".ljust(len(OK), b"x")):
        connection.begin(NOW)
        connection.receive(data, NOW)
    connection.receive(b"", NOW)
    assert tell(connection) == ["away", [f"short reply: closed in the middle ({len(OK)} bytes received)"], 1]


def test_body_of_the_first_reply_is_that_of_all():
    connection, _ = make(HttpConnection, turns=((b"ask", b""),), framing=Framing.HTTP, body=Body.FIRST, pause=9.0)
    for raw in (OK, OK.replace(b"OK", b"Fine"), OK):
        connection.begin(NOW)
        connection.receive(raw, NOW)
    assert tell(connection) == ["idle", [], 3]
    assert connection.group.learned[0][1].body == b"reply"


@pytest.mark.parametrize(
    ("body", "second"),
    [(Body.FIRST, ["wrong bytes (another body than in the first reply)"]), (Body.ANY, [])],
)
def test_replies_to_first_requests_that_overlap_are_compared(body, second):
    connections = [
        make(HttpConnection, turns=((b"ask", b""),), framing=Framing.HTTP, body=body, pause=9.0)[0] for _ in "abc"
    ]
    group = connections[0].group
    for connection in connections:
        connection.group, connection.turns = group, group.repeat_learned()
        connection.begin(NOW)
    for connection, said in zip(connections, (b"reply", b"other", b"reply"), strict=True):
        connection.receive(OK.replace(b"reply", said), NOW)
    assert group.failures == second
    assert [connection.answered for connection in connections] == [1, int(not second), 1]
    assert group.learned[0][1].body == (b"reply" if second else None)


def test_small_bodies_are_read_at_once_and_large_ones_in_large_pieces():
    for sizes, body, reads in (
        ([5, 2047], Body.GIVEN, 4096),
        ([5, 2048], Body.GIVEN, 65_536),
        ([5], Body.ANY, 65_536),
    ):
        turns = tuple((b"ask", b"x" * size) for size in sizes)
        connection, _ = make(HttpConnection, turns=turns, framing=Framing.HTTP, body=body)
        assert connection.size == reads


def test_data_between_two_exchanges_of_websocket_is_only_a_ping():
    turns = ((b"ask", b"\x81\x05reply"),)
    for data, failures in (
        (b"\x89\x00", []),
        (b"\x81\x05reply", ["more than was asked for"]),
        (b"\x80\x00", ["more than was asked for"]),  # a continuation of the reply, of no bytes
        (b"\x88\x00", ["closed between two exchanges"]),
        (b"", ["closed between two exchanges"]),
    ):
        connection, narrow = make(WebSocketConnection, turns=turns, framing=Framing.WEBSOCKET, pause=9.0)
        connection.begin(NOW)
        for piece in (b"\x81\x05", b"reply", data):
            connection.receive(piece, NOW)
        assert connection.group.failures == failures
        if not failures:
            assert (narrow.taken[3], len(narrow.taken)) == (0x8A, 3 + 6)


def test_message_of_another_kind_is_a_failure():
    connection, _ = make(WebSocketConnection, turns=((b"ask", b"\x81\x05reply"),), framing=Framing.WEBSOCKET)
    connection.begin(NOW)
    connection.receive(b"\x82\x05reply", NOW)
    assert tell(connection) == ["away", ["wrong bytes (opcode 2)"], 0]


@pytest.mark.parametrize("is_secure", [False, True])
def test_websocket_begins_with_its_opening_handshake(is_secure):
    turns = ((b"ask", b"\x81\x05reply"),)
    options = {"turns": turns, "framing": Framing.WEBSOCKET, "opening": b"Host: " + AUTHORITY, "pause": 9.0}
    connection, narrow = make(WebSocketConnection, is_open=True, **options)
    reader = connection.reader
    if is_secure:
        connection.tls = SimpleNamespace(seal=lambda data: b"sealed " + data, read=lambda: b"HTTP/1.1 101 ")
    connection.ready(NOW)
    assert narrow.taken == (b"sealed " if is_secure else b"") + b"Host: 127.0.0.1:1"
    # The frames of an older connection are no part of this one.
    assert connection.reader is not reader
    assert tell(connection)[:2] == ["greeting", []]
    before = connection.buffer
    connection.receive(b"Sw", NOW)
    assert connection.buffer == before + b"Sw"


def test_opening_handshake_that_cannot_be_sent_is_a_failure():
    turns = ((b"ask", b"\x81\x05reply"),)
    connection, _ = make(WebSocketConnection, turns=turns, framing=Framing.WEBSOCKET, opening=b"Host: " + AUTHORITY)

    def fail(data):
        raise ConnectionResetError

    connection.send = fail
    connection.ready(NOW)
    assert (tell(connection)[:2], len(connection.loop.timers)) == (["away", ["connection reset"]], 1)


def test_requests_have_the_address_of_their_server():
    for framing, body, expected in (
        (Framing.BYTES, Body.GIVEN, []),
        (Framing.HTTP, Body.GIVEN, [(b"one", False), (b"two", False)]),
        (Framing.HTTP, Body.ANY, [(None, False), (None, False)]),
        (Framing.WEBSOCKET, Body.GIVEN, [(b"one", True), (b"two", True)]),
    ):
        turns = tuple((b"Host: " + AUTHORITY + b"," + AUTHORITY, text) for text in (b"one", b"two"))
        found = learn_nothing(Exchange(turns, framing=framing, body=body), Endpoint.parse("tcp://h:7"))
        # Once: what follows may be a body.
        assert {request for request, _ in found} <= {b"Host: h:7," + AUTHORITY}
        assert [
            (learned.body, learned == text) for (_, learned), (_, text) in zip(found, turns, strict=False)
        ] == expected
        assert [learned.turn for _, learned in found] == [0, 1][: len(expected)]


# Destinations.


@pytest.mark.parametrize(("found", "preferred"), [(["b", "a"], "a"), (["c", "d"], "c")])
def test_address_that_a_host_has_no_more_is_not_preferred(found, preferred):
    destination: Any = Destination(Endpoint.parse("tcp://127.0.0.1:1"))
    destination._use(["a"])
    destination._use(found)
    assert (destination.preferred, destination.addresses) == (preferred, found)


def test_only_the_preferred_address_gives_way_to_the_next():
    """Many connections fail at one address at the same time; the first one has changed what all of them prefer."""
    destination: Any = Destination(Endpoint.parse("tcp://127.0.0.1:1"))
    destination.addresses, destination.preferred = ["a", "b", "c"], "b"
    preferred = []
    for address in ("a", "b", None, "c", "b", "a", "x"):
        destination.avoid(address)
        preferred.append(destination.preferred)
    assert preferred == ["b", "c", "c", "a", "a", "b", "b"]
    destination.addresses, destination.preferred = [], None
    destination.avoid(None)
    assert destination.preferred is None


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("tcp://127.0.0.1:7", [(socket.AF_INET, ("127.0.0.1", 7))]),
        ("udp://127.0.0.1:7", [(socket.AF_INET, ("127.0.0.1", 7))]),
        ("unix:///s", [(socket.AF_UNIX, "/s")]),
        ("unixgram:///s", [(socket.AF_UNIX, "/s")]),
    ],
)
def test_numeric_address_needs_no_lookup(url, addresses, monkeypatch):
    monkeypatch.setattr(gevent, "spawn", None)
    destination: Any = Destination(Endpoint.parse(url))
    assert destination.addresses == (addresses if "unix" in url else [])
    destination.wait()
    destination.resolve(NOW)
    assert (destination.addresses, destination.preferred) == (addresses, addresses[0])


def test_name_is_looked_up_at_most_twice_a_second_and_once_at_a_time(monkeypatch):
    asked, found = [], [["a"], OSError(), ["b"]]

    def find(host, port, kind, resolver):
        asked.append((host, port, kind))
        gevent.sleep(0)
        outcome = found.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def resolve_number(*place, **options):
        assert options["flags"] == socket.AI_NUMERICHOST  # or the loop would wait for a resolver
        raise socket.gaierror(socket.EAI_NONAME, "no number")

    monkeypatch.setattr(destinations, "find_addresses", find)
    monkeypatch.setattr(destinations, "_getaddrinfo", resolve_number)
    destination: Any = Destination(Endpoint.parse("udp://a.test:7"))
    destination.resolve(NOW)
    destination.resolve(NOW + 9)  # the first one still lasts
    destination.wait()
    assert (asked, destination.preferred) == ([("a.test", 7, socket.SOCK_DGRAM)], "a")
    destination.resolve(NOW + 0.4)
    assert len(asked) == 1
    assert destination._resolving is None
    destination.resolve(NOW + 0.5)
    destination.wait()
    # It has failed, and the old address is kept.
    assert (len(asked), destination.preferred) == (2, "a")
    destination.wait()
    assert len(asked) == 2
    destination.resolve(NOW + 1.0)
    destination.wait()
    assert (len(asked), destination.preferred, destination.addresses) == (3, "b", ["b"])


# What a connection holds, open and closed.


def test_closed_connection_leaves_no_socket_and_no_reply_path(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"{tmp_path}/s")
        connection, _ = make(DatagramConnection, url=f"unixgram://{tmp_path}/s")
        connection.loop.watched.clear()
        connection.socket = None
        connection.connect(NOW)
        opened = connection.socket
        # The server's socket, and the folder of the reply path.
        assert (len(list(tmp_path.iterdir())), len(connection.loop.watched), opened.fileno() >= 0) == (2, 1, True)
        connection.close()
        assert (len(list(tmp_path.iterdir())), len(connection.loop.watched), opened.fileno() >= 0) == (1, 0, False)


def test_unix_socket_whose_backlog_is_full_is_tried_again_within_the_same_time(monkeypatch):
    closed: list[bool] = []

    class Full:
        def __init__(self, *kind):
            self.setblocking = lambda flag: None
            self.close = lambda: closed.append(True)

        def connect(self, where):
            raise BlockingIOError(errno.EAGAIN, "made up")

    monkeypatch.setattr(states, "_socket", Full)
    connection, _ = make(ExchangeConnection, url="unix:///s")
    connection.socket, connection.loop.forget = None, lambda connection: None
    connection.begin(NOW)
    connection.retry(NOW + 1)
    # Two milliseconds after each. The exchange goes on: its time is that from its begin.
    assert connection.loop.timers == [0.002, 1.002]
    assert (tell(connection), connection.busy, connection.started) == (["away", [], 0], True, NOW)
    assert closed == [True, True]


def test_small_request_does_not_wait_for_an_acknowledgement():
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection, _ = make(ExchangeConnection, url=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        connection.loop.watched.clear()
        connection.socket = None
        connection.connect(NOW)
        assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()


def test_certificate_has_to_be_for_the_name_that_was_asked_for_and_not_for_its_address():
    """A client sends that name, and sends none if it expects an address, RFC 6066, section 3."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection, _ = make(ExchangeConnection, url="tls://a-model.test:1")
        where = socket.AF_INET, server.getsockname()
        connection.group.destination.addresses, connection.group.destination.preferred = [where], where
        connection.loop.watched.clear()
        connection.socket = None
        connection.connect(NOW)
        gevent.socket.wait_write(connection.fd)
        connection.step(states.OUT, NOW)
        assert tell(connection)[0] == "handshake"
        with server.accept()[0] as accepted:
            hello = accepted.recv(9999)
        connection.close()
    assert b"\0\x0ca-model.test" in hello


def test_connection_is_closed_after_its_exchanges_and_rests_after_each():
    connection, narrow = make(ExchangeConnection, per_connection=3, pause=0.25)
    steps = []
    for _ in range(3):
        connection.begin(NOW)
        connection.receive(b"reply", NOW)
        steps.append([tell(connection)[0], connection.on_connection, narrow.ends[:]])
    assert steps == [["idle", 1, []], ["idle", 2, []], ["away", 3, ["closed"]]]
    assert connection.loop.timers == [0.25] * 3


def test_timer_of_the_next_address_is_void_once_a_connection_is_made():
    """Otherwise the connection would connect again in the middle of an exchange."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = socket.AF_INET, server.getsockname()
        connection, _ = make(ExchangeConnection, url=f"tcp://127.0.0.1:{where[1][1]}")
        connection.group.destination.addresses = [where, (socket.AF_INET, ("127.0.0.2", 9))]
        connection.group.destination.preferred = where
        connection.loop.watched.clear()
        connection.socket = None
        connection.connect(NOW)
        assert (tell(connection)[0], connection.loop.timers) == ("connecting", [1.0])
        epoch = connection.epoch
        gevent.socket.wait_write(connection.fd)
        connection.step(states.OUT, NOW)
        assert tell(connection)[0] != "connecting"
        assert connection.epoch > epoch
        connection.close()


@pytest.mark.parametrize(("size", "read"), [(5, 6), (65_535, 65_536), (65_536, 65_536), (100_000, 65_536)])
def test_one_byte_more_than_the_longest_reply_is_read(size, read):
    connection, _ = make(ExchangeConnection, turns=((b"ask", b"r"), (b"ask", b"r" * size)))
    assert connection.size == read
