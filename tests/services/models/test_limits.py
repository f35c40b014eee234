"""Every model at its own limit of conversations, and every model with a conversation that fails unexpectedly."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import NoAnswerError, WrongAnswerError
from services.models import asyncore_loop, selector_loop
from services.protocol import Limits
from services.serving.idle import unsent
from services.serving.listeners import Listener, open_listeners, parse_listens
from tests.support.reading import is_over, last_words, ping, read_all
from tests.support.servers import Server, is_asleep, queued
from tests.support.waiting import wait_until

Start = Callable[..., Server]
LIMIT = 4

# BURN 13 fails as no peer can make it fail, in all models alike: each calls `run`.
FAILING = """
from services.protocol.events import Compute
run = Compute.run
def fail_at_13(self):
    if self.rounds == 13:
        raise ZeroDivisionError("planted by a test")
    return run(self)
Compute.run = fail_at_13
"""

# No new process, and no new thread, while a file is there.
BARREN = """
import errno, os, threading
fork, start = os.fork, threading.Thread.start
def refuse():
    if os.path.exists({flag!r}):
        with open({flag!r}, "a") as count:
            count.write("x")
        return True
def fork_or_fail():
    if refuse():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
def start_or_fail(self):
    if refuse():
        raise RuntimeError("can't start new thread")
    return start(self)
os.fork, threading.Thread.start = fork_or_fail, start_or_fail
"""


def enter(server: Server, transport: str = "tcp") -> BlockingConnection:
    """A client that is served; it tries again while it is refused, since a place is free a moment after its client."""
    entered: list[BlockingConnection] = []

    def try_once() -> bool:
        with ExitStack() as stack, suppress(AssertionError, NoAnswerError, WrongAnswerError):
            link = stack.enter_context(server.connect(transport=transport))  # TLS: refused in its handshake
            ping(link)
            stack.pop_all()
            entered.append(link)
        return bool(entered)

    wait_until(try_once, 30)
    return entered[0]


def serving(link: BlockingConnection) -> int:
    """The process that serves a client."""
    link.send(b"INFO\r\n")
    line = next(line for line in link.receive().decode().splitlines() if line.startswith("process_id:"))
    return int(line.partition(":")[2])


@pytest.fixture
def full(start: Start, is_sequential: bool) -> Iterator[tuple[Server, list[BlockingConnection]]]:
    """A server with as many clients as it may have, each of which has been served."""
    count = 1 if is_sequential else LIMIT
    with start(LAB_MAX_CONNECTIONS=str(count), LAB_WORKERS=str(count)) as server, ExitStack() as stack:
        links = [stack.enter_context(server.connect()) for _ in range(count)]
        for link in links:
            ping(link)
        yield server, links


def test_server_at_its_limit_is_drained(full: tuple[Server, list[BlockingConnection]]) -> None:
    """What was asked is answered, each client sees the end, and so does the client that waits."""
    server, links = full
    links[0].send(b"SLEEP 300\r\nECHO last\r\n")
    with server.connect() as waiting:
        server.terminate()
        assert read_all(links[0]) == b"+OK\r\n$4\r\nlast\r\n"
        for link in links[1:]:
            assert link.receive() == b""
        # Refused with words, if it was accepted before the signal came.
        assert last_words(waiting).partition(b" ")[0] in ((b"", b"-ERR") if server_refuses(server) else (b"",))
        assert server.wait_end() == 0
    assert "ERROR" not in server.log.read_text()


def server_refuses(server: Server) -> bool:
    return bool(server.description["when_full"] == "refuse")


def test_server_at_its_limit_that_is_killed_leaves_no_process(full: tuple[Server, list[BlockingConnection]]) -> None:
    server, links = full
    children = server.family()[1:]
    server.process.kill()
    server.process.wait()
    for link in links:
        assert is_over(link)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_server_at_its_limit_serves_as_many_new_clients_as_leave(full: tuple[Server, list[BlockingConnection]]) -> None:
    server, links = full
    with server.connect():
        wait_until(lambda: is_asleep(server))  # who waits for a place, or was refused, costs nothing
    for _ in range(2):
        for link in links:
            link.close()
        links = [enter(server) for _ in links]
    for link in links:
        link.close()
    server.terminate()
    assert server.wait_end() == 0


@pytest.mark.parametrize("model", ["prefork", "asyncio_prefork", "socketserver_forking"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_places_of_a_process_that_dies_are_free_again(
    full: tuple[Server, list[BlockingConnection]], number: int
) -> None:
    """As many clients more are served as it had, and not one more; the other clients notice nothing."""
    server, links = full
    victim = serving(links[0])
    assert victim != server.process.pid
    gone = [link for link in links if serving(link) == victim]
    os.kill(victim, number)
    for link in gone:
        assert is_over(link)
    with ExitStack() as stack:
        fresh = [stack.enter_context(enter(server)) for _ in gone]
        for link in {*links, *fresh} - {*gone}:
            ping(link)
        one_more = stack.enter_context(server.connect())
        one_more.send(b"PING\r\n")
        if server_refuses(server):
            assert one_more.receive().startswith(b"-ERR")
        else:
            ping(fresh[0])  # and of two that ask, the one with a place is answered
            one_more.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                one_more.socket.recv(100)
        server.terminate()
        assert server.wait_end() == 0


@pytest.mark.parametrize("model", ["asyncio_prefork"])
def test_places_of_a_process_that_dies_are_free_before_another_takes_over(
    model: str, start: Start, tmp_path: Path
) -> None:
    """Two workers, four places. No process can be forked, so the other worker alone serves as many as have gone."""
    flag = tmp_path / "barren"
    (tmp_path / "sitecustomize.py").write_text(BARREN.format(flag=str(flag)))
    with start(LAB_MAX_CONNECTIONS="4", LAB_WORKERS="2", PYTHONPATH=str(tmp_path)) as server, ExitStack() as stack:
        links = [stack.enter_context(server.connect()) for _ in range(4)]
        for link in links:
            ping(link)
        victim = serving(links[0])
        gone = [link for link in links if serving(link) == victim]
        wait_until(lambda: len(server.family()) == 3)
        flag.touch()
        os.kill(victim, signal.SIGKILL)
        for _ in gone:
            stack.enter_context(enter(server))
        with server.connect() as one_more:
            one_more.send(b"PING\r\n")
            assert one_more.receive().startswith(b"-ERR")


def test_datagrams_above_the_limit_are_not_worked_on(start: Start) -> None:
    """Two sleep, at the limit. The others are dropped, or wait until one of the two has been answered."""
    with start(LAB_MAX_CONNECTIONS="2", LAB_WORKERS="2") as server:
        for transport in ("udp", "unixgram"):
            enter(server, transport).close()
            wait_until(lambda: is_asleep(server))  # the first one has its reply before its place is free again
            with server.connect(transport=transport) as link:
                for _ in range(2):
                    link.send(b"SLEEP 600\r\n")
                # Both sleep before a PING is there: of two processes, one might otherwise be quicker with a PING.
                wait_until(lambda: is_taken(server, transport, link))  # noqa: B023  # called here
                wait_until(lambda: is_asleep(server))
                for _ in range(8):
                    link.send(b"PING\r\n")
                link.reset_deadline()
                # A PING is answered at once where there is a place: then before the two.
                assert link.receive() == b"+OK\r\n"
            enter(server, transport).close()


def is_taken(server: Server, transport: str, link: BlockingConnection) -> bool:
    """Return whether the server has received all datagrams of a client."""
    return not (queued(server.address("command", transport)) if transport == "udp" else unsent(link.socket.fileno()))


def failures(server: Server) -> int:
    return server.log.read_text().count("ZeroDivisionError: planted by a test")


def send_until(link: BlockingConnection, datagram: bytes, is_done: Callable[[], bool]) -> int:
    """Send a datagram, and again after a second: one is dropped before a place is free, a moment after its client.

    Returns:
        How often it was sent.
    """
    due, sent = 0.0, 0

    def look() -> bool:
        nonlocal due, sent
        if time.monotonic() >= due:
            link.send(datagram)
            due, sent = time.monotonic() + 1.0, sent + 1
        return is_done()

    wait_until(look)
    return sent


def test_conversation_that_fails_unexpectedly_ends_only_itself(
    start: Start, tmp_path: Path, is_sequential: bool
) -> None:
    """Six times over each transport, with two places and two workers, which are there for the next client each time."""
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    with (
        start(LAB_MAX_CONNECTIONS="2", LAB_WORKERS="2", PYTHONPATH=str(tmp_path)) as server,
        ExitStack() as stack,
    ):
        other = None if is_sequential else stack.enter_context(server.connect())
        if other:
            ping(other)
        # At once; after a pause, when a timer calls the model back; and after more events than one turn has.
        requests = (b"BURN 13\r\n", b"SLEEP 1\r\nBURN 13\r\n", b"BURN 1\r\n" * 9 + b"BURN 13\r\n")
        transports = ("tcp", "tls", "unix", "udp", "unixgram")
        sent = 0
        for transport in transports:
            for request in requests * 2:
                number = failures(server) + 1
                if transport in ("udp", "unixgram"):
                    with server.connect(transport=transport) as link:
                        sent += send_until(link, b"BURN 13\r\n", lambda: failures(server) >= number)  # noqa: B023  # called here
                    continue
                sent += 1
                with enter(server, transport) as link:
                    link.send(request)
                    while not is_over(link):
                        pass
                    wait_until(lambda: failures(server) == number)  # noqa: B023  # called here
                    assert number == sent
        for transport in transports:
            enter(server, transport).close()
        if other:
            ping(other)
        server.terminate()
        assert server.wait_end() == 0
        assert failures(server) <= sent  # each is logged once


@pytest.mark.parametrize("model", ["socketserver_forking", "socketserver_threading", "prefork", "asyncio_prefork"])
def test_server_that_gets_no_process_or_thread_waits_for_one(model: str, start: Start, tmp_path: Path) -> None:
    """Clients wait meanwhile, and are served by themselves; the log has a line at each end, and no more."""
    flag = tmp_path / "barren"
    (tmp_path / "sitecustomize.py").write_text(BARREN.format(flag=str(flag)))
    is_prefork = "prefork" in model
    if is_prefork:
        flag.touch()  # it is at its start that it forks
    with start(LAB_WORKERS="2", PYTHONPATH=str(tmp_path)) as server, ExitStack() as stack:
        held = None if is_prefork else stack.enter_context(server.connect())
        if held:
            ping(held)
            flag.touch()
        waiting = [stack.enter_context(server.connect(timeout=30)) for _ in range(3)]
        for link in waiting:
            link.send(b"PING\r\n")
        wait_until(lambda: " exhausted: " in server.log.read_text())
        wait_until(lambda: len(flag.read_text()) >= 4)
        if held:
            ping(held)
        assert server.log.read_text().count(" exhausted: ") == 1
        flag.unlink()
        for link in waiting:
            assert link.receive() == b"+PONG\r\n"
            link.close()
        wait_until(lambda: "no longer exhausted" in server.log.read_text())
        server.terminate()
        assert server.wait_end() == 0


@pytest.mark.parametrize("model", ["socketserver_forking", "socketserver_threading"])
def test_server_that_gets_no_process_or_thread_is_drained(model: str, start: Start, tmp_path: Path) -> None:
    flag = tmp_path / "barren"
    (tmp_path / "sitecustomize.py").write_text(BARREN.format(flag=str(flag)))
    with start(PYTHONPATH=str(tmp_path)) as server, server.connect() as held:
        ping(held)
        flag.touch()
        with server.connect() as waiting:
            wait_until(lambda: " exhausted: " in server.log.read_text())
            server.terminate()
            assert is_over(waiting)
        assert is_over(held)
        assert server.wait_end() == 0
        assert "Traceback" not in server.log.read_text()


Open = Callable[[list[Listener], ExitStack], tuple[Any, Callable[[], None]]]


def open_asyncore(listeners: list[Listener], stack: ExitStack) -> tuple[Any, Callable[[], None]]:
    server = asyncore_loop.Server(listeners)
    return server, server.turn


def open_selector(listeners: list[Listener], stack: ExitStack) -> tuple[Any, Callable[[], None]]:
    loop = selector_loop.Loop()
    stack.callback(loop.close)
    return selector_loop.Server(loop, listeners), loop.turn


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("open_server", [open_asyncore, open_selector])
def test_last_place_is_given_once_in_a_turn(open_server: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop sees all its sockets ready before it accepts at the first; who gets no place waits, and is not lost."""
    wanted = parse_listens([f"command={transport}://127.0.0.1:0" for transport in ("tcp", "tcp", "udp")], "m")
    with open_listeners(wanted, Limits(connections=1, idle=0.4), lambda: "") as listeners, ExitStack() as stack:
        server, turn = open_server(listeners, stack)
        places = [listener.socket.getsockname() for listener in listeners]
        clients = [stack.enter_context(socket.create_connection(place, 20)) for place in places[:2]]
        asking = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asking.setblocking(False)
        asking.sendto(b"PING\r\n", places[2])
        taken: list[Listener] = []
        accept = Listener.accept

        def note(listener: Listener) -> object:
            taken.append(listener)
            return accept(listener)

        monkeypatch.setattr(Listener, "accept", note)
        turn()
        assert (len(taken), server.conversations.count) == (1, 1)
        for client in clients:
            client.close()

        def is_answered() -> bool:
            turn()
            with suppress(BlockingIOError):
                return asking.recv(100) == b"+PONG\r\n"
            return False

        wait_until(is_answered, 10)
        assert server.drain()
