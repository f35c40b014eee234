"""The steps of a connection that are rare over loopback: what does not fit at once, comes too early, or fails late."""

import pytest

from tests.support.scripts import run_script

# In a separate process: Locust patches the one that imports it.
SCRIPT = r"""
import json, os, socket, tempfile
import locust
from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.codec import Codec
from loadtests.sockets.engine import ConnectionGroup
from loadtests.sockets.engine import connection as states
from loadtests.sockets.engine.datagrams import DatagramConnection
from loadtests.sockets.engine.destination import Destination
from loadtests.sockets.engine.exchanges import ExchangeConnection
from loadtests.sockets.engine.http import HttpConnection, WebSocketConnection
from loadtests.sockets.exchange import Exchange, Framing
from loadtests.sockets.failures import ConnectTimeOutError, LostError, RefusedError, TimeOutError, WrongBytesError
from loadtests.sockets.recorder import Series
from loadtests.sockets.schedule import Schedule

NAMES = ["away", "connecting", "handshake", "greeting", "idle", "sending", "waiting"]
NOW = 1000.0


class Loop:
    # What the engine would do, noted.
    def __init__(self):
        self.watched, self.timers = [], []

    def watch(self, connection, mask):
        self.watched.append(connection.fd)

    def change(self, connection, mask):
        pass

    def forget(self, connection):
        self.watched.remove(connection.fd)

    def set_timer(self, connection, due):
        self.timers.append(round(due - NOW, 6))


class Narrow:
    # A socket that takes a few bytes at a time.
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
    kind, *, url="tcp://127.0.0.1:1", room=0, is_open=False, codec=None, turns=((b"ask" * 4, b"reply"),), **options
):
    schedule = Schedule(lambda _: 1.0) if is_open else None
    exchange = Exchange(turns, **options)
    group = ConnectionGroup(
        Series("m", "w", "tcp", "closed"), Endpoint.parse(url), exchange, timeout=2.0, schedule=schedule, codec=codec
    )
    loop = Loop()
    connection = kind(group, loop)
    connection.socket = narrow = Narrow(room)
    connection.send, connection.fd = narrow.send, 7
    loop.watched.append(7)
    connection.turns = connection.open_turns()
    return connection, narrow


def tell(connection):
    return [NAMES[connection.state], connection.group.failures, connection.answered]


shown = {}

# A request of 12 bytes into a socket that has room for 5.
connection, narrow = make(ExchangeConnection, room=5, half_close=True)
connection.begin(NOW)
early = [tell(connection)[0], narrow.ends[:]]
narrow.room = 3
connection.flush(NOW)
early += [tell(connection)[0], narrow.ends[:]]
narrow.room = 9
connection.flush(NOW)
shown["half_close"] = [*early, tell(connection)[0], narrow.ends, narrow.taken.decode()]

RIGHT = {
    ExchangeConnection: (Framing.BYTES, b"reply", b"reply"),
    HttpConnection: (Framing.HTTP, b"reply", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nreply"),
    WebSocketConnection: (Framing.WEBSOCKET, b"\x81\x05reply", b"\x81\x05reply"),
}
for room in (12, 5):
    shown[f"room for {room}"] = {}
    for kind, (framing, reply, raw) in RIGHT.items():
        for pieces in ([raw], [raw[:4], raw[4:]]):
            # With a pause after the answer, or the next request would follow.
            connection, _ = make(kind, room=room, turns=((b"ask" * 4, reply),), framing=framing, pause=9.0)
            connection.begin(NOW)
            for piece in pieces:
                connection.receive(piece, NOW)
            shown[f"room for {room}"][f"{framing.name} in {len(pieces)}"] = tell(connection)

# The answer to a ping goes behind what is being sent, never into it.
turns = ((b"ask" * 4, b"\x81\x05reply"),)
connection, narrow = make(WebSocketConnection, room=5, framing=Framing.WEBSOCKET, turns=turns)
connection.begin(NOW)
connection.receive(b"\x89\x00", NOW)
narrow.room = 99
connection.flush(NOW)
shown["pong"] = [narrow.taken[:12].decode(), narrow.taken[12] == 0x8A, len(narrow.taken)]

# How late a request is sent, in milliseconds.
shown["late"] = {}
for late in (0, 0.9, 1.1, 500):
    connection, _ = make(ExchangeConnection, room=99, is_open=True)
    connection.begin(NOW, NOW - late / 1000)
    shown["late"][str(late)] = connection.group.tally.late

# A timeout, and how long ago the request was sent, and due.
shown["timed_out"] = []
for error in (TimeOutError(), ConnectTimeOutError(), LostError(), RefusedError(), WrongBytesError()):
    connection, _ = make(ExchangeConnection, room=99, is_open=True)
    connection.begin(NOW - 2, NOW - 3)
    connection._give_up(error, NOW)
    shown["timed_out"].append([error.reason, connection.group.timed_out])

# A connect that no request waits for.
connection, _ = make(ExchangeConnection, is_open=True)
connection.started = NOW - 2
connection._give_up(ConnectTimeOutError(), NOW)
shown["timed_out"].append([connection.group.failures, connection.group.timed_out])

# When the host is looked up again: after a connect that failed or was not answered, and after nothing else.
shown["resolved"] = []
for state, step in (
    (states.CONNECTING, lambda connection: connection.check_time(NOW)),
    (states.HANDSHAKE, lambda connection: connection.check_time(NOW)),
    (states.CONNECTING, lambda connection: connection.fail(RefusedError(), NOW)),
    (states.WAITING, lambda connection: connection.fail(WrongBytesError(), NOW)),
    (states.WAITING, lambda connection: connection.check_time(NOW)),
):
    connection, _ = make(ExchangeConnection, room=99)
    resolved = []
    connection.group.destination.resolve = resolved.append
    connection.begin(NOW)
    connection.state = state
    step(connection)
    shown["resolved"].append([bool(resolved), connection.group.failures])

# A server that greets, and does not.
codec = Codec(lambda number: b"ask", lambda data, request: len(data), greeting_size=lambda data: None)
shown["greeting"] = []
for received in (b"", b"abc"):
    connection, _ = make(ExchangeConnection, room=99, is_open=True, codec=codec)
    connection.ready(NOW)
    if received:
        connection.receive(received, NOW)
    connection.check_time(NOW)
    shown["greeting"].append(tell(connection)[1])

# Refused datagrams: a host without a server at this address, or a server that has gone.
class Trying(DatagramConnection):
    def _try_address(self, address, now):
        tried.append(address[1][1])


shown["datagram"] = []
for answered in (0, 1):
    connection, _ = make(Trying, url="udp://127.0.0.1:1", room=99)
    here, there = (socket.AF_INET, ("127.0.0.1", 9)), (socket.AF_INET, ("127.0.0.1", 10))
    connection.group.destination.addresses, connection.group.destination.preferred = [here, there], here
    connection.begin(NOW)
    connection.address, connection.on_connection = here, answered
    tried = []
    connection.fail(RefusedError(), NOW)
    shown["datagram"].append([tried, connection.group.failures])

# A host that has moved, and one that has one more address.
shown["moved"] = []
for found in (["b", "a"], ["c", "d"]):
    destination = Destination(Endpoint.parse("tcp://127.0.0.1:1"))
    destination._use(["a"])
    destination._use(found)
    shown["moved"].append([destination.preferred, destination.addresses])

# Three exchanges on a connection, and a pause after each.
connection, narrow = make(ExchangeConnection, room=99, per_connection=3, pause=0.25)
shown["per_connection"] = []
for _ in range(3):
    connection.begin(NOW)
    connection.receive(b"reply", NOW)
    shown["per_connection"].append([tell(connection)[0], connection.on_connection, narrow.ends[:]])
shown["pauses"] = connection.loop.timers

# Datagrams that do not fit: a Unix socket has room for them later, UDP has lost them.
shown["queue"] = {}
for url in ("unixgram:///s", "udp://127.0.0.1:1"):
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
            connection.flush(NOW)
            steps.append([tell(connection)[0], sent[:], len(connection.queue)])
    connection.close()
    shown["queue"][url.partition(":")[0]] = [*steps, len(connection.awaiting), len(connection.queue)]

# What a connection holds, open and closed.
shown["held"] = []
with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
    server.bind(f"{folder}/s")
    connection, _ = make(DatagramConnection, url=f"unixgram://{folder}/s")
    connection.loop.watched.clear()
    connection.socket = None
    connection.connect(NOW)
    opened = connection.socket
    shown["held"].append([len(os.listdir(folder)), len(connection.loop.watched), opened.fileno() >= 0])
    connection.close()
    shown["held"].append([len(os.listdir(folder)), len(connection.loop.watched), opened.fileno() >= 0])
with socket.create_server(("127.0.0.1", 0)) as server:
    connection, _ = make(ExchangeConnection, url="tcp://127.0.0.1:%d" % server.getsockname()[1])
    connection.loop.watched.clear()
    connection.socket = None
    connection.connect(NOW)
    shown["nodelay"] = bool(connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    connection.close()
print("TOLD", json.dumps(shown))
"""


# They share the output of one process.
pytestmark = pytest.mark.xdist_group("exchange-connection")


@pytest.fixture(scope="module")
def shown():
    return run_script(SCRIPT)


def test_half_close_comes_behind_the_last_byte_of_the_request(shown):
    assert shown["half_close"] == ["sending", [], "sending", [], "waiting", [1], "ask" * 4]


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("framing", ["BYTES", "HTTP", "WEBSOCKET"])
def test_reply_to_a_request_that_is_not_sent_completely_is_a_failure(shown, framing, pieces):
    assert shown["room for 12"][f"{framing} in {pieces}"] == ["idle", [], 1]
    state, (failure,), answered = shown["room for 5"][f"{framing} in {pieces}"]
    assert (state, failure.partition(" (")[0], answered) == ("away", "more than was asked for", 0)


def test_pong_goes_behind_the_frame_that_is_being_sent(shown):
    assert shown["pong"] == ["ask" * 4, True, 12 + 6]


def test_request_that_is_sent_a_millisecond_after_it_was_due_is_late(shown):
    assert shown["late"] == {"0": 0, "0.9": 0, "1.1": 1, "500": 1}


def test_only_timeouts_have_times_from_when_a_request_was_sent_and_due(shown):
    assert shown["timed_out"] == [
        ["time-out: no reply", [[2.0, 3.0]]],
        ["time-out: no connection", [[2.0, 3.0]]],
        ["datagram lost", []],
        ["connection refused", []],
        ["wrong bytes", []],
        # It has failed, but nothing was asked.
        [["time-out: no connection"], []],
    ]


def test_host_is_looked_up_again_after_a_connect_that_failed(shown):
    assert shown["resolved"] == [
        [True, ["time-out: no connection"]],
        [True, ["time-out: no connection"]],
        [True, ["connection refused"]],
        [False, ["wrong bytes"]],
        [False, ["time-out: no reply"]],
    ]


def test_greeting_that_does_not_come_is_a_timeout_though_no_request_is_due(shown):
    assert shown["greeting"] == [["time-out: no reply (no greeting)"], ["time-out: no reply (3 bytes received)"]]


def test_refused_datagram_means_another_address_only_before_the_first_answer(shown):
    assert shown["datagram"] == [[[10], []], [[], ["connection refused"]]]


def test_address_that_a_host_has_no_more_is_not_preferred(shown):
    assert shown["moved"] == [["a", ["b", "a"]], ["c", ["c", "d"]]]


def test_closed_connection_leaves_no_socket_and_no_reply_path(shown):
    # The server's socket, and the folder of the reply path.
    assert shown["held"] == [[2, 1, True], [1, 0, False]]


def test_small_request_does_not_wait_for_an_acknowledgement(shown):
    assert shown["nodelay"]


def test_connection_is_closed_after_its_exchanges_and_rests_after_each(shown):
    assert shown["per_connection"] == [["idle", 1, []], ["idle", 2, []], ["away", 3, ["closed"]]]
    assert shown["pauses"] == [0.25] * 3


def test_datagrams_that_do_not_fit_wait_only_where_none_is_lost(shown):
    # Four have numbers, and two fit at once.
    assert shown["queue"]["unixgram"] == [
        ["sending", [0, 1], 2],
        ["sending", [0, 1], 2],
        ["sending", [0, 1, 2], 1],
        ["waiting", [0, 1, 2, 3], 0],
        *(4, 0),
    ]
    assert shown["queue"]["udp"] == [["waiting", [0, 1], 0], 4, 0]
