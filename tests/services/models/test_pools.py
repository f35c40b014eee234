"""thread_pool, prefork and asyncio_prefork: a fixed number of workers, full, killed, and asked to stop."""

import fcntl
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil
import pytest

from loadtests.sockets.errors import NoAnswerError, WrongAnswerError
from services.models import prefork, thread_pool
from services.models.thread_pool import Pool
from services.protocol import Limits
from services.serving import accepting
from services.serving.accepting import Shortage
from services.serving.blocking import Drain
from services.serving.listeners import Listener, open_listeners, parse_listens
from tests.support.reading import is_over, ping, read_all
from tests.support.servers import Server, is_asleep
from tests.support.waiting import settled, wait_until

TWO = parse_listens(["command=tcp://127.0.0.1:0", "echo=tcp://127.0.0.1:0"], "m")

BLOCKING = pytest.mark.parametrize("name", ["thread_pool", "prefork"])
PROCESSES = pytest.mark.parametrize("name", ["prefork", "asyncio_prefork"])


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[object]:
    servers: list[Server] = []

    def serve(name: str, **environ: str) -> Server:
        directory = tmp_path / f"p{len(servers)}"
        directory.mkdir()
        servers.append(Server(name, directory, environ))
        return servers[-1]

    yield serve
    for server in servers:
        server.__exit__()


def workers(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


@BLOCKING
def test_when_all_workers_have_a_client_the_next_waits_and_is_served_in_turn(serve, name: str, unit: float) -> None:
    server = serve(name, LAB_WORKERS="2")
    with ExitStack() as stack:
        first, second = (stack.enter_context(server.connect()) for _ in range(2))
        ping(first)
        ping(second)
        waiting = [stack.enter_context(server.connect()) for _ in range(3)]  # accepted by the kernel only
        for link in waiting:
            link.send(b"PING\r\n")
        waiting[0].socket.settimeout(3 * unit)
        with pytest.raises(TimeoutError):
            waiting[0].socket.recv(100)
        ping(first)  # who has a worker keeps it
        first.close()
        for link in waiting:  # in the order in which they came
            assert link.receive() == b"+PONG\r\n"
            link.close()
        ping(second)
    server.terminate()
    assert server.wait_end() == 0


@BLOCKING
def test_who_waits_for_a_worker_is_let_go_when_the_server_stops(serve, name: str) -> None:
    """Nobody answers him, so he must not be made to believe it: he is told by a reset, and not by silence."""
    server = serve(name, LAB_WORKERS="1")
    with server.connect() as held, server.connect() as waiting:
        ping(held)
        waiting.send(b"PING\r\n")
        server.terminate()
        assert is_over(waiting)
        assert server.wait_end() == 0


def test_thread_of_a_pool_outlives_an_error_in_a_job(caplog: pytest.LogCaptureFixture) -> None:
    """The pool has no other thread: without it, the last job would never be done."""

    def fail() -> None:
        raise ZeroDivisionError("planted by a test")

    pool = Pool(1)
    done = threading.Event()
    try:
        for job in (*[fail] * 5, done.set):
            wait_until(lambda: pool.has_room)
            pool.submit(job)
            assert select.select([pool], [], [], 20)[0]  # the acceptor may wait for just that
            pool.clear()
        assert done.wait(20)
    finally:
        pool.close()
    assert caplog.messages == ["a conversation ended in an error"] * 5


@pytest.mark.usefixtures("kept_signals")
def test_acceptor_of_a_pool_takes_no_more_clients_than_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees both sockets ready before it accepts at the first. Who waits in the backlog can get another server."""
    with open_listeners(TWO, Limits(workers=1), str) as listeners:
        taken: list[Listener] = []
        accept, wait = Listener.accept, Shortage.select

        def note(listener: Listener) -> object:
            taken.append(listener)
            return accept(listener)

        def wait_once(shortage: Shortage, selector: selectors.BaseSelector) -> object:
            if taken:
                signal.raise_signal(signal.SIGTERM)
                return []
            return wait(shortage, selector)

        monkeypatch.setattr(Listener, "accept", note)
        monkeypatch.setattr(Shortage, "select", wait_once)
        with ExitStack() as stack:
            for listener in listeners:
                stack.enter_context(socket.create_connection(listener.socket.getsockname()))
            thread_pool.serve(listeners)
    assert len(taken) == 1


@pytest.mark.usefixtures("kept_signals")
def test_acceptor_of_a_pool_takes_nobody_in_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while it accepts at the first of two sockets that it saw ready. Threads would be free."""
    with open_listeners(TWO, Limits(workers=3), str) as listeners:
        taken: list[Listener] = []
        accept = Listener.accept

        def stop_and_accept(listener: Listener) -> object:
            taken.append(listener)
            signal.raise_signal(signal.SIGTERM)
            return accept(listener)

        monkeypatch.setattr(Listener, "accept", stop_and_accept)
        with ExitStack() as stack:
            for listener in listeners:
                stack.enter_context(socket.create_connection(listener.socket.getsockname()))
            thread_pool.serve(listeners)
    assert len(taken) == 1


def test_thread_of_a_pool_is_free_after_its_conversation_and_not_before() -> None:
    """An acceptor that is woken too early finds no room, and is not woken again."""
    pool = Pool(1)
    begun, go_on = threading.Event(), threading.Event()

    def converse() -> None:
        begun.set()
        assert go_on.wait(20)

    try:
        pool.conversations.begin()
        pool.submit(partial(pool.conversations._hold, converse))
        assert begun.wait(20)
        assert not select.select([pool], [], [], 0)[0]
        assert not pool.has_room
        go_on.set()
        assert select.select([pool], [], [], 20)[0]
        assert pool.has_room
    finally:
        go_on.set()
        pool.close()


def test_pool_waits_for_its_threads_before_it_closes_what_they_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain is over when the last conversation is, and its thread still has to say that it is free."""
    pool = Pool(1)
    written: list[object] = []
    joins = threading.Event()
    write, join = os.eventfd_write, pool._threads[0].join

    def write_late(descriptor: int, value: int) -> None:
        assert joins.wait(20)
        written.append(write(descriptor, value))

    def join_noted() -> None:
        joins.set()
        join()

    monkeypatch.setattr(os, "eventfd_write", write_late)
    monkeypatch.setattr(pool._threads[0], "join", join_noted)
    pool.submit(lambda: None)
    pool.close()
    assert written == [None]


# What a worker does: takes the lock, waits for clients, accepts, gives the lock back, serves.
TURN = ["lock", "wait", "accept", "unlock", "serve"]


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize(
    ("stops_at", "expected"),
    [
        # Two sockets are ready at first. It takes one client, and comes back for the other with the lock.
        (("serve", 2), [*TURN, "unlock", *TURN, "unlock"]),
        # In a drain nobody is accepted, and the lock is the next one's.
        (("lock", 1), ["lock", "unlock"]),
        (("wait", 1), ["lock", "wait", "unlock"]),
        # Who has been accepted is served.
        (("accept", 1), [*TURN, "unlock"]),
        (("serve", 1), [*TURN, "unlock"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_worker_of_prefork_accepts_under_the_lock_and_serves_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stops_at: tuple[str, int], expected: list[str]
) -> None:
    with open_listeners(TWO, Limits(), str) as listeners, ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(socket.create_connection(listener.socket.getsockname()))
        steps = note_steps(monkeypatch, stops_at)
        prefork._serve_as_worker(listeners, -1)
    assert (steps, caplog.messages) == (expected, [])


@pytest.mark.usefixtures("kept_signals")
def test_worker_of_prefork_answers_a_datagram_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = parse_listens(["command=udp://127.0.0.1:0"], "m")
    with open_listeners(wanted, Limits(), str) as (listener,), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"PING\r\n", listener.socket.getsockname())
        steps = note_steps(monkeypatch, ("serve", 1))
        prefork._serve_as_worker([listener], -1)
    assert steps == [step for step in TURN if step != "accept"] + ["unlock"]


@pytest.mark.usefixtures("kept_signals")
def test_worker_of_prefork_with_its_own_sockets_needs_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_listeners(TWO, Limits(reuse_port=1), str) as listeners, ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(socket.create_connection(listener.socket.getsockname()))
        steps = note_steps(monkeypatch, ("serve", 2))
        prefork._serve_as_worker(listeners, -1)
    assert steps == ["wait", "accept", "serve"] * 2


@pytest.mark.usefixtures("kept_signals")
def test_worker_of_prefork_that_lacks_descriptors_keeps_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one would fail as well. And a signal that comes while it waits for its turn is not lost."""
    monkeypatch.setattr(accepting, "FIRST_PAUSE", 0.001)
    with open_listeners(TWO[:1], Limits(), str) as listeners, ExitStack() as stack:
        stack.enter_context(socket.create_connection(listeners[0].socket.getsockname()))
        steps = note_steps(monkeypatch, ("try", 2), fails=True, is_free=lambda: steps.count("try") == 1)
        prefork._serve_as_worker(listeners, -1)
    assert steps == ["lock", "wait", "accept", "try", "wait", "accept", "try", "lock"]


def note_steps(
    monkeypatch: pytest.MonkeyPatch,
    stops_at: tuple[str, int],
    *,
    fails: bool = False,
    is_free: Callable[[], bool] = lambda: True,
) -> list[str]:
    """Let a worker of prefork note its steps, without a lock and without serving; stop it at the nth of a kind.

    Args:
        fails: whether it lacks the descriptors to accept with.
        is_free: whether it gets the lock at once.
    """
    steps: list[str] = []
    accept, wait = Listener.accept, Shortage.select

    def note(step: str) -> None:
        steps.append(step)
        if stops_at == (step, steps.count(step)):
            signal.raise_signal(signal.SIGTERM)

    def lock(descriptor: int, operation: int) -> None:
        note({fcntl.LOCK_EX: "lock", fcntl.LOCK_UN: "unlock"}.get(operation, "try"))
        if operation & fcntl.LOCK_NB and not is_free():
            raise BlockingIOError

    def wait_noted(shortage: Shortage, selector: selectors.BaseSelector) -> object:
        note("wait")
        return wait(shortage, selector)

    def accept_noted(listener: Listener) -> object:
        note("accept")
        if fails:
            listener.shortage.failed("no descriptor")
            return None
        return accept(listener)

    monkeypatch.setattr(fcntl, "lockf", lock)
    monkeypatch.setattr(Shortage, "select", wait_noted)
    monkeypatch.setattr(Listener, "accept", accept_noted)
    for name in ("serve_stream", "serve_datagram"):
        monkeypatch.setattr(Drain, name, lambda *_: note("serve"))
    return steps


@PROCESSES
def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(serve, name: str) -> None:
    server = serve(name, LAB_WORKERS="3")
    wait_until(lambda: len(workers(server)) == 3)
    before = {process.pid for process in workers(server)}
    with ExitStack() as stack:
        links = [stack.enter_context(server.connect()) for _ in range(3)]
        serving = {}
        for link in links:
            link.send(b"INFO\r\n")
            text = link.receive().decode()
            serving[link] = int(next(line for line in text.splitlines() if line.startswith("process_id")).split(":")[1])
        victim = serving[links[0]]
        assert victim in before
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(workers(server)) == 3 and victim not in {item.pid for item in workers(server)})
        for link in links:
            if serving[link] == victim:
                assert is_over(link)
            else:
                ping(link)
        with server.connect() as link:
            ping(link)
    assert "ended by signal 9" in server.log.read_text()
    server.terminate()
    assert server.wait_end() == 0


@PROCESSES
def test_a_worker_that_dies_with_the_accept_lock_hands_it_on(serve, name: str) -> None:
    """All but one are killed, one after the other; whoever held the lock, somebody is there to accept."""
    server = serve(name, LAB_WORKERS="4")
    wait_until(lambda: len(workers(server)) == 4)
    for process in workers(server)[:3]:
        process.kill()
        with server.connect() as link:
            ping(link)


@PROCESSES
def test_workers_that_cannot_live_are_not_forked_without_end(serve, name: str, unit: float) -> None:
    server = serve(name, LAB_WORKERS="2")
    wait_until(lambda: len(workers(server)) == 2)
    seen = set()
    began = time.monotonic()
    while time.monotonic() < began + 10 * unit:
        for process in workers(server):
            seen.add(process.pid)
            process.kill()
        time.sleep(unit / 10)
    # A second between two lives: the first, and one for each second that has passed, for each of the two.
    assert len(seen) <= 2 * (2 + int(time.monotonic() - began))


@PROCESSES
def test_a_parent_that_is_killed_takes_its_workers_along(serve, name: str) -> None:
    server = serve(name, LAB_WORKERS="3")
    wait_until(lambda: len(workers(server)) == 3)
    children = workers(server)
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@PROCESSES
def test_with_reuseport_each_worker_has_a_socket_of_its_own(serve, name: str) -> None:
    server = serve(name, LAB_WORKERS="3", LAB_REUSEPORT="1", LAB_GRACE_SECONDS="60")
    port = server.address("command", "tcp").port
    wait_until(lambda: count_listening(port) == 3)
    wait_until(lambda: len(workers(server)) == 3)
    answered = 0
    for _ in range(20):
        with server.connect(timeout=10) as link:
            ping(link)
            answered += 1
    assert answered == 20
    for transport in ("tls", "unix"):
        with server.connect(transport=transport) as link:
            ping(link)
    with server.connect("chargen") as link:
        # The loop of one that reads no more goes on in the drain; and no worker has a socket of another one's.
        assert link.receive()
        wait_until(lambda: is_asleep(server))
        server.terminate()
        wait_until(lambda: count_listening(port) == 0)
        assert read_all(link)
    assert server.wait_end() == 0


def count_listening(port: int) -> int:
    """How many sockets listen at a port: one however many processes have it."""
    with Path("/proc/net/tcp").open() as table:
        rows = [line.split() for line in table]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def test_without_it_they_share_one(serve) -> None:
    server = serve("prefork", LAB_WORKERS="3")
    port = server.address("command", "tcp").port
    with Path("/proc/net/tcp").open() as table:
        assert (
            len([line for line in table if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"]) == 1
        )


def test_the_limit_is_for_all_loops_together(serve) -> None:
    server = serve("asyncio_prefork", LAB_WORKERS="3", LAB_MAX_CONNECTIONS="3")
    with ExitStack() as stack:
        for _ in range(3):
            ping(stack.enter_context(server.connect()))
        one_more = stack.enter_context(server.connect())
        one_more.send(b"PING\r\n")
        assert one_more.receive().startswith(b"-ERR this server holds 3 connections")
    wait_until(lambda: _answers(server))


def _answers(server: Server) -> bool:
    try:
        with server.connect() as link:
            link.send(b"PING\r\n")
            return link.receive() == b"+PONG\r\n"
    except (NoAnswerError, WrongAnswerError):
        return False


SCRIPT = """
import socket, sys, threading
import services.run
parts = socket.socket, threading.Lock, sys.modules["time"].sleep
print(sum("gevent" in str(part.__module__) for part in parts), "gevent" in sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "environ", "printed"),
    [
        (["--model", "gevent_greenlets"], {}, "3 True"),
        (["--model=gevent_greenlets"], {}, "3 True"),
        ([], {"LAB_MODEL": "gevent_greenlets"}, "3 True"),
        (["--model", "plain_socket"], {"LAB_MODEL": "gevent_greenlets"}, "0 False"),
        (["--model", "asyncio_streams"], {}, "0 False"),
        ([], {}, "0 False"),
        (["--model", "../x"], {}, "0 False"),
    ],
)
def test_gevent_replaces_its_parts_first_of_all_and_nowhere_else(
    arguments: list[str], environ: dict[str, str], printed: str
) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "LAB_MODEL"} | environ
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr


@PROCESSES
def test_what_a_worker_shares_with_its_parent_no_collection_of_its_own_touches(
    name: str, serve, tmp_path: Path
) -> None:
    """Objects that are frozen are not looked at by the collector, which would write to each of them."""
    hook = (
        "import gc, os; os.register_at_fork(after_in_child=lambda: print(gc.get_freeze_count(), file=open({!r}, 'a')))"
    )
    (tmp_path / "sitecustomize.py").write_text(hook.format(str(tmp_path / "frozen")))
    (tmp_path / "frozen").touch()
    serve(name, LAB_WORKERS="3", PYTHONPATH=str(tmp_path))
    wait_until(lambda: len((tmp_path / "frozen").read_text().split()) == 3)
    assert min(map(int, (tmp_path / "frozen").read_text().split())) > 1000


@pytest.mark.parametrize(("cores", "count"), [(1, 2), (3, 3)])
def test_loops_are_one_per_core_and_two_at_least(cores: int, count: int, serve, tmp_path: Path, unit: float) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import os\nos.sched_getaffinity = lambda pid: set(range({cores}))\n")
    server = serve("asyncio_prefork", PYTHONPATH=str(tmp_path))
    assert settled(lambda: len(workers(server)), unit) == count
