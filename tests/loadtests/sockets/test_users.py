"""WireUser and SocketUser as a library: a locustfile that does not use the lab's."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.scripts import run_script

ROOT = Path(__file__).resolve().parents[3]

# Writes the recorder's rows, and what Locust's own statistics say, when the run ends.
TELLS = """
    import json
    import gevent
    from locust import events, task
    from loadtests.sockets.exchange import Exchange
    from loadtests.sockets.engine import Engine
    from loadtests.sockets.recorder import RECORDER
    from loadtests.sockets.users import SocketUser, WireUser

    PING, PONG = b"PING\\r\\n", b"+PONG\\r\\n"

    @events.init.add_listener
    def attach(environment, **_):
        RECORDER.attach(environment)

    @events.quitting.add_listener
    def tell(environment, **_):
        total = environment.stats.total
        print("TOLD", json.dumps({
            "rows": [row.as_json() for row in RECORDER.rows()],
            "requests": total.num_requests,
            "failures": {str(error.error): error.occurrences for error in environment.stats.errors.values()},
            "left": sum(len(group.connections) for group in Engine.of(environment).groups),
        }))
"""


@pytest.fixture
def run(tmp_path, run_locust):
    def run(text, *arguments):
        path = tmp_path / "locustfile.py"
        path.write_text(textwrap.dedent(TELLS) + textwrap.dedent(text))
        shown = ["--headless", "--only-summary", "--loglevel", "ERROR", "--exit-code-on-error", "0"]
        done = run_locust(["-f", str(path), *shown, *arguments], {})
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout.partition("TOLD ")[2].splitlines()[0])

    return run


def test_wire_users_connect_load_and_leave(server, run):
    url = server.url("command", "tcp")
    told = run(
        f"""
        class Ping(WireUser):
            url = {url!r}
            exchange = Exchange(((PING, PONG),), pause=60)

        @events.init.add_listener
        def end_when_all_were_answered(environment, **_):
            def look():
                while sum(row.tally.answered for row in RECORDER.rows()) < 400:
                    gevent.sleep(0.1)
                environment.runner.quit()

            gevent.spawn(look)
        """,
        *("--users", "400", "--spawn-rate", "400", "--run-time", "50s"),
    )
    (row,) = told["rows"]
    assert row["answered"] == told["requests"] == 400  # each sends one, because it pauses for a minute
    assert told["failures"] == {}
    assert told["left"] == row["users"] == 0


def test_users_stop_within_the_stop_timeout(server, run):
    url = server.url("command", "tcp")
    told = run(
        f"""
        class Ping(WireUser):
            url = {url!r}
            exchange = Exchange(((PING, PONG),))
        """,
        *("--users", "5", "--spawn-rate", "5", "--run-time", "1s", "--stop-timeout", "30s"),
    )
    assert told["left"] == 0
    assert told["requests"] > 0


def test_two_kinds_of_users_share_a_process(server, run):
    told = run(
        f"""
        class Due(WireUser):
            url = {server.url("command", "tcp")!r}
            exchange = Exchange(((PING * 4, PONG * 4),), depth=4)
            rate = 80

        class Visitor(SocketUser):
            url = {server.url("echo", "udp")!r}

            @task
            def visit(self):
                self.client.datagram(b"hello", b"hello")
                self.client.datagram(b"hello", b"hello")
        """,
        *("--users", "4", "--spawn-rate", "4", "--run-time", "5s"),
    )
    rows = {(row["workload"], row["kind"]): row for row in told["rows"]}
    assert set(rows) == {("Due", "service"), ("Due", "intended"), ("Visitor", "service")}
    # The rate is of requests, four in each exchange: 100 exchanges are due in 5 s, and 400 if it were theirs.
    assert 0 < rows["Due", "service"]["answered"] < 200
    assert rows["Visitor", "service"]["answered"] > 0
    assert told["failures"] == {}


def test_wrong_reply_to_a_script_is_a_failure_and_ends_its_task(server, run):
    url = server.url("command", "tcp")
    told = run(
        f"""
        class Visitor(SocketUser):
            url = {url!r}

            @task
            def visit(self):
                if self.environment.stats.total.num_failures >= 2:
                    self.environment.runner.quit()
                self.client.call(PING, PONG)
                self.client.call(b"NONSENSE\\r\\n", PONG)
                raise AssertionError("the task goes on")
        """,
        *("--users", "2", "--spawn-rate", "2", "--run-time", "50s"),
    )
    (row,) = told["rows"]
    assert set(told["failures"]) == {"wrong bytes"}
    assert row["failed"] == told["failures"]["wrong bytes"] >= 2
    # It connects again, and sends the correct request first.
    assert row["answered"] >= row["failed"]


def test_unanswered_script_names_its_failure(run):
    told = run(
        """
        @events.test_start.add_listener
        def end_at_the_first_failure(environment, **_):
            def watch():
                while not environment.stats.errors:
                    gevent.sleep(0.1)
                environment.runner.quit()

            gevent.spawn(watch)

        class Visitor(SocketUser):
            url = "tcp://127.0.0.1:1"

            @task
            def visit(self):
                self.client.call(PING, PONG)
        """,
        *("--users", "1", "--spawn-rate", "1", "--run-time", "50s"),
    )
    assert set(told["failures"]) == {"connection refused"}


def test_time_out_of_a_script_is_a_response_time(open_server, run):
    """Without it, a server that never answers would look fast."""
    with open_server(lambda connection: connection.recv(65536) and connection.recv(65536)) as (host, port):
        told = run(
            f"""
            @events.test_start.add_listener
            def end_at_the_first_failure(environment, **_):
                def watch():
                    while not environment.stats.errors:
                        gevent.sleep(0.05)
                    environment.runner.quit()

                gevent.spawn(watch)

            class Visitor(SocketUser):
                url = "tcp://{host}:{port}"
                timeout = 0.25

                @task
                def visit(self):
                    self.client.call(PING, PONG)
            """,
            *("--users", "1", "--spawn-rate", "1", "--run-time", "50s"),
        )
    (row,) = told["rows"]
    assert set(told["failures"]) == {"time-out: no reply"}
    assert row["failed"] >= 1
    assert row["max_us"] >= 250_000


def test_each_exchange_of_a_script_has_its_own_deadline(server, run):
    """The clock of the connection goes on by a hundred seconds between two of them."""
    url = server.url("command", "tcp")
    told = run(
        f"""
        from types import SimpleNamespace
        from loadtests.sockets import connection
        clock, passed = connection.time.monotonic, [0.0]
        connection.time = SimpleNamespace(monotonic=lambda: clock() + passed[0])

        class Visitor(SocketUser):
            url = {url!r}

            @task
            def visit(self):
                self.client.call(PING, PONG)
                passed[0] += 100.0
                self.client.call(PING, PONG)
                gevent.spawn(self.environment.runner.quit)
                gevent.sleep(60)
        """,
        *("--users", "1", "--spawn-rate", "1", "--run-time", "50s"),
    )
    assert told["failures"] == {}
    assert [row["answered"] for row in told["rows"]] == [2]


def test_script_waits_longer_after_each_failure_until_an_answer():
    told = run_script(
        """
import json
from types import SimpleNamespace as Stub
from locust.env import Environment
from locust.exception import RescheduleTask
from loadtests.sockets import script_client as module
from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.failures import TimeOutError
from loadtests.sockets.recorder import Series
waited = []
module.gevent = Stub(sleep=waited.append)
module.random = Stub(uniform=lambda low, high: high)
address = Endpoint("tcp", "127.0.0.1", 9)
client = module.SocketClient(address, Environment(), Series("it", "script"), timeout=1.0)
for fails in [True] * 7 + [False] + [True] * 2:
    try:
        with client.exchange():
            if fails:
                raise TimeOutError
    except RescheduleTask:
        waited.append("again")
print("TOLD", json.dumps([waited[::2], set(waited[1::2]) == {"again"}, client.answered]))
"""
    )
    assert told == [[0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 0.05, 0.1], True, 1]


def test_exchange_of_a_script_is_counted_by_how_it_ended():
    """The clock goes on by a quarter of a second with each look at it."""
    told = run_script(
        """
import json
from itertools import count
from types import SimpleNamespace as Stub
from locust.env import Environment
from locust.exception import RescheduleTask
from loadtests.sockets import script_client as module
from loadtests.sockets.addresses import Endpoint
from loadtests.sockets.errors import NoAnswerError, SetupError, UnreachableError
from loadtests.sockets.recorder import Series
times = count(step=0.25)
module.perf_counter = lambda: next(times)
module.gevent = Stub(sleep=lambda seconds: None)
environment = Environment()
shown = []

class Link:
    def __init__(self, pieces):
        self.pieces, self.closed, self.sizes = list(pieces), 0, []

    def send(self, data):
        pass

    def receive(self, size):
        self.sizes.append(size)
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def reset_deadline(self):
        pass

    def close(self):
        self.closed += 1

late = NoAnswerError("it is late", TimeoutError())
for number, (transport, pieces) in enumerate([
    ("tcp", [b"+PO", b"NG"]),
    ("tcp", [late]),
    ("tcp", [b"+PO", late]),
    ("tcp", [b""]),
    ("tcp", [b"+PO", b""]),
    ("tcp", [b"-PONG"]),
    ("udp", [b""]),
    ("tcp", [UnreachableError("of an unknown cause")]),
    ("unixgram", [SetupError("no folder")]),
]):
    client = module.SocketClient(
        Endpoint(transport, "127.0.0.1", 9), environment, Series(str(number), "script"), timeout=1.0
    )
    client._connection = link = Link(pieces)
    busy = []
    try:
        with client.exchange():
            busy.append(client._registered.busy)
            client.receive() if transport == "udp" else client.expect(b"+PONG")
            # No more is read than is expected: what follows belongs to the next reply.
            assert transport == "udp" or link.sizes == [5, 2]
    except RescheduleTask:
        pass
    busy.append(client._registered.busy)
    group = client._group
    shown.append([busy, group.service, group.timed_out, group.failures, link.closed])

client = module.SocketClient(Endpoint("udp", "127.0.0.1", 9), environment, Series("it", "datagrams"), timeout=1.0)
for answer in (b"right", b"right!"):
    client._connection = Link([answer])
    try:
        client.datagram(b"ask", b"right")
    except RescheduleTask:
        pass
print("TOLD", json.dumps([*shown, [client.answered, client._group.failures]]))
"""
    )
    assert told.pop() == [1, ["wrong bytes"]]
    assert told == [
        [[True, False], service, timed_out, failures, len(failures)]
        for service, timed_out, failures in [
            ([0.25], [], []),
            ([], [[0.25, 0.25]], ["time-out: no reply"]),
            ([], [[0.25, 0.25]], ["time-out: no reply (3 of 5 bytes received)"]),
            ([], [], ["closed without a reply"]),
            ([], [], ["short reply: closed in the middle (3 of 5 bytes received)"]),
            ([], [], ["wrong bytes"]),
            # A datagram may be empty.
            ([0.25], [], []),
            ([], [], ["network error"]),
            ([], [], ["generator: no place for a reply path"]),
        ]
    ]


# What a user declares, with other values than the defaults.
DECLARED = """
import json, socket
from locust import task
from locust.env import Environment
from loadtests.sockets.codec import Codec
from loadtests.sockets.engine import Engine
from loadtests.sockets.exchange import Exchange
from loadtests.sockets.schedule import Schedule
from loadtests.sockets import users

schedules = []

class Noted(Schedule):
    def __init__(self, rate, *, poisson):
        schedules.append([rate(0.0), rate(2.0), poisson])
        super().__init__(rate, poisson=poisson)

users.Schedule = Noted
environment = Environment()
environment.create_local_runner()
codec = Codec(lambda number: b"ask", lambda data, request: len(data), per_connection=3)
ping = Exchange(((b"q", b"r"),), depth=4)
declared = {
    "Plain": {},
    "Even": {"rate": 20.0, "timeout": 1.25, "model": "mine", "workload": "work"},
    "Random": {"rate": lambda since: 8.0 * (1 + since), "poisson": True, "codec": codec},
}
shown = {}
for name, fields in declared.items():
    kind = type(name, (users.WireUser,), {"url": "tcp://127.0.0.1:1", "exchange": ping, **fields})
    group = kind(environment).make_group()
    series = group.series
    shown[name] = [
        [series.model, series.workload, series.transport, series.loop],
        [str(group.address), group.timeout, group.is_open, group.codec is codec, group.exchange.per_connection],
    ]
shown["schedules"] = schedules

with socket.create_server(("127.0.0.1", 0)) as server:
    url = "tcp://127.0.0.1:%d" % server.getsockname()[1]

    class Visitor(users.SocketUser):
        model, workload, timeout = "mine", "visits", 1.25

        @task
        def visit(self):
            pass

    Visitor.url = url
    visitor = Visitor(environment)
    visitor.on_start()
    visitor.client.send(b"x")
    (group,) = Engine.of(environment).groups
    series, connection = group.series, visitor.client._connection
    shown["Visitor"] = [series.model, series.workload, series.loop, connection._timeout, len(group.connections)]
    visitor.on_stop()
    shown["left"] = [connection.socket.fileno(), len(group.connections)]
print("TOLD", json.dumps(shown))
"""


def test_user_is_what_its_class_declares():
    shown = run_script(DECLARED)
    url = "tcp://127.0.0.1:1"
    assert shown["Plain"] == [[url, "Plain", "tcp", "closed"], [url, 5.0, False, False, None]]
    assert shown["Even"] == [["mine", "work", "tcp", "open"], [url, 1.25, True, False, None]]
    assert shown["Random"] == [[url, "Random", "tcp", "open"], [url, 5.0, True, True, 3]]
    # Exchanges per second, each with four requests, at the start and 2 s later.
    assert shown["schedules"] == [[5.0, 5.0, False], [2.0, 6.0, True]]
    assert shown["Visitor"] == ["mine", "visits", "closed", 1.25, 1]
    assert shown["left"] == [-1, 0]


def test_user_connects_when_the_addresses_of_its_host_are_known():
    done = run_script(
        """
import json
from types import SimpleNamespace as Stub
from locust.env import Environment
from loadtests.sockets import users
done = []
group = Stub(destination=Stub(wait=lambda: done.append("look up")))
engine = Stub(group=lambda series, make: group, add=lambda group: done.append("add"), remove=lambda it: None)
users.Engine = Stub(of=lambda environment: engine)
user = type("Ping", (users.WireUser,), {"url": "tcp://127.0.0.1:1", "exchange": None})(Environment())
user.on_start()
print("TOLD", json.dumps(done))
"""
    )
    assert done == ["look up", "add"]


# A batch changes Locust's statistics as single events would.
HANDED_OVER = """
import json, random
from types import SimpleNamespace
import locust.stats
from locust.env import Environment
from loadtests.sockets import locust_stats
from loadtests.sockets.locust_stats import merge_batch
from loadtests.sockets.histogram import Histogram

now = [1_000_000.0]
locust.stats.time = locust_stats.time = SimpleNamespace(time=lambda: now[0])
chance = random.Random(1)
times = [round(chance.uniform(0.001, 0.4), 4) for _ in range(500)]
batched, single = Environment(), Environment()
runner = single.create_local_runner()
found = Histogram()
found.record(times)
now[0] += 2.5
merge_batch(
    batched.stats,
    "TCP",
    "it",
    found,
    answered=490,
    failures={"time-out": 10, "wrong bytes": 3, "reset": 1},
    content_length=500 * 7,
)
# Of nothing there is no row.
merge_batch(batched.stats, "TCP", "nothing", Histogram(), answered=0, failures={}, content_length=0)
for seconds in times:
    single.stats.log_request("TCP", "it", seconds * 1000, 7)
# Of these times ten are of exchanges that timed out.
for _ in range(10):
    single.stats.log_error("TCP", "it", "time-out")
for reason in ("wrong bytes",) * 3 + ("reset",):
    single.stats.log_request("TCP", "it", None, 0)
    single.stats.log_error("TCP", "it", reason)

def show(stats):
    return [
        [entry.num_requests, entry.num_none_requests, entry.num_failures, round(entry.total_response_time),
         round(entry.min_response_time, 3), round(entry.max_response_time, 3), entry.total_content_length,
         entry.get_response_time_percentile(0.99), sum(entry.response_times.values()),
         entry.num_reqs_per_sec, entry.num_fail_per_sec, entry.start_time, entry.last_request_timestamp,
         entry.total_rps, entry.total_fail_per_sec]
        for entry in (stats.get("it", "TCP"), stats.total)
    ] + sorted((error.error, error.occurrences) for error in stats.errors.values())

print(json.dumps([show(batched.stats), show(single.stats), [*batched.stats.entries]]))
runner.quit()
"""


def test_batch_equals_single_events():
    done = subprocess.run([sys.executable, "-c", HANDED_OVER], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    batched, single, rows = json.loads(done.stdout)
    assert batched == single
    assert rows == [["it", "TCP"]]
    # 504 requests in the 2.5 s since the start.
    assert [entry[-2:] for entry in batched[:2]] == [[504 / 2.5, 14 / 2.5]] * 2
