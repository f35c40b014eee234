"""When nothing is left to accept with: how long a model pauses, what it logs, and that it serves again by itself."""

import errno
import itertools
import logging
import os
import re
import resource
import selectors
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from loadtests.sockets.tls import client_context
from services.protocol import Address, Limits
from services.serving.accepting import EXHAUSTED, Shortage
from services.serving.listeners import Listener
from tests.support.kernel import Kernel
from tests.support.reading import ping, read_all
from tests.support.servers import Server
from tests.support.waiting import settled, wait_until

MEANWHILE = "clients wait, and are served as soon as that is possible"
STREAMS = ("tcp", "tls", "unix")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shortage(clock: Clock, caplog: pytest.LogCaptureFixture) -> Shortage:
    caplog.set_level(logging.DEBUG, "services")
    return Shortage(clock)


def test_shortage_pauses_longer_after_each_failure_up_to_half_a_second(shortage: Shortage) -> None:
    assert [shortage.failed("x") for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert shortage.pause == 0.5


def test_shortage_is_one_line_when_it_begins_and_one_when_it_is_over(
    shortage: Shortage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert not shortage
    assert shortage.timeout is None
    shortage.look()
    assert not caplog.messages
    shortage.failed("accept on A failed")
    clock.now += 0.4
    shortage.failed("accept on B failed")
    assert shortage
    clock.now += 0.75
    shortage.look()  # a quarter of a second too early
    assert shortage.timeout == 0.25
    assert caplog.messages == [
        "exhausted: accept on A failed; clients wait, and are served as soon as that is possible"
    ]
    clock.now += 0.25
    assert shortage.timeout == 0
    shortage.look()
    shortage.look()
    assert not shortage
    assert shortage.timeout is None
    # From the first failure to the last: 0.4 s.
    assert caplog.messages[1:] == ["no longer exhausted after 0.4 s, 2 attempts failed"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_shortage_that_comes_back_is_said_again_and_pauses_as_the_first_did(
    shortage: Shortage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        shortage.failed("first")
    clock.now += 1.0
    shortage.look()
    assert shortage.failed("second") == 0.1
    assert caplog.messages[1] == "no longer exhausted after 0.0 s, 3 attempts failed"
    assert caplog.messages[2].startswith("exhausted: second;")


def test_shortage_that_lasts_is_said_once_a_minute(
    shortage: Shortage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(301):  # every half second from 0 to 150 s
        shortage.failed("x")
        clock.now += 0.5
    assert caplog.messages[1:] == ["still exhausted after 60 s: x", "still exhausted after 120 s: x"]


def test_shortage_is_no_news_once_nothing_is_to_be_accepted(
    shortage: Shortage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    shortage.failed("x")
    shortage.forget()
    clock.now += 5
    shortage.look()
    assert shortage.timeout is None
    assert len(caplog.messages) == 1


class Silent(selectors.SelectSelector):
    """A selector in which nothing happens, and which notes how long it was to wait."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.timeouts: list[float | None] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.timeouts.append(timeout)
        self.clock.now += timeout or 0
        return []


def test_selector_waits_no_longer_than_until_the_shortage_may_be_over(shortage: Shortage, clock: Clock) -> None:
    with Silent(clock) as silent:
        assert shortage.select(silent) == []
        shortage.failed("x")
        clock.now += 0.5
        shortage.select(silent)
        assert not shortage  # nothing came for the half second that was left of the second
        shortage.select(silent)
        assert silent.timeouts == [None, 0.5, None]


class Socket:
    """A listening socket whose `accept` ends as it is told to."""

    def __init__(self, *outcomes: int | str) -> None:
        self.outcomes = list(outcomes)

    def accept(self) -> tuple[str, str]:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, int):
            raise OSError(outcome, os.strerror(outcome))
        return outcome, "peer"


def listener(stub: Socket, shortage: Shortage) -> Listener:
    address = Address.parse("tcp://127.0.0.1:7")
    return Listener("echo", address, stub, Limits(), str, None, shortage)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_accept_that_fails_for_want_of_something_asks_for_a_pause(
    number: int, shortage: Shortage, caplog: pytest.LogCaptureFixture
) -> None:
    one = listener(Socket(number, number, "stream"), shortage)
    assert one.accept() is None
    assert shortage.pause == 0.1
    assert one.accept() is None
    assert shortage.pause == 0.2
    accepted: object = one.accept()
    assert accepted == ("stream", "peer")
    assert shortage.pause == 0
    assert shortage  # for a second more
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"exhausted: accept on tcp://127.0.0.1:7 failed: {os.strerror(number)};")


@pytest.mark.parametrize(("number", "lines"), [(errno.EAGAIN, 0), (errno.ECONNABORTED, 1), (errno.EPROTO, 1)])
def test_accept_that_fails_for_one_client_asks_for_no_pause(
    number: int, lines: int, shortage: Shortage, caplog: pytest.LogCaptureFixture
) -> None:
    assert number not in EXHAUSTED
    assert listener(Socket(number), shortage).accept() is None
    assert shortage.pause == 0
    assert not shortage
    assert len(caplog.messages) == lines


def test_accept_that_works_a_second_later_ends_the_shortage(
    shortage: Shortage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one = listener(Socket(errno.EMFILE, "stream", errno.EAGAIN), shortage)
    one.accept()
    clock.now += 0.5
    one.accept()
    assert shortage
    clock.now += 0.5
    one.accept()
    assert not shortage
    assert caplog.messages[-1] == "no longer exhausted after 0.0 s, 1 attempts failed"


def descriptors(process: psutil.Process) -> frozenset[int]:
    return frozenset(int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir())


def allow(processes: list[psutil.Process], *, more: bool) -> None:
    """Let each process open descriptors, or not one more."""
    for process in processes:
        with suppress(FileNotFoundError, ProcessLookupError):  # the child that served a client which has gone
            opened = settled(partial(descriptors, process), 0.02)
            _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            lowest_free = next(number for number in itertools.count() if number not in opened)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most if more else lowest_free, most))


def knock(server: Server, transport: str) -> socket.socket:
    """Connect as far as the kernel connects by itself, and ask for something; over TLS not yet."""
    where = server.address("command", transport)
    client = socket.socket(socket.AF_UNIX if transport == "unix" else socket.AF_INET)
    client.settimeout(20)
    client.connect(where.path if transport == "unix" else (where.host, where.port))
    if transport != "tls":
        client.sendall(b"PING\r\n")
    return client


def is_served(client: socket.socket, transport: str) -> bool:
    """Whether a client that has knocked gets its answer."""
    if transport != "tls":
        return client.recv(100) == b"+PONG\r\n"
    with client_context().wrap_socket(client, server_hostname="127.0.0.1") as secure:
        secure.sendall(b"PING\r\n")
        return secure.recv(100) == b"+PONG\r\n"


def test_server_without_descriptors_pauses_and_serves_again_by_itself(
    start: Callable[..., Server], is_sequential: bool
) -> None:
    """EMFILE on each path. Connected clients are served as before; clients that come wait, and are served later."""
    with start(LAB_WORKERS="2") as server, ExitStack() as stack:
        held = None if is_sequential else stack.enter_context(server.connect())
        for transport in STREAMS:  # libuv opens /dev/null for its first client; workers have started
            with server.connect(transport=transport) as link:
                ping(link)
        if held:
            ping(held)
        family = server.family()
        said = 0
        for transport in STREAMS:
            allow(family, more=False)
            waiting = stack.enter_context(knock(server, transport))
            wait_until(lambda: times_exhausted(server) > said)  # noqa: B023  # called here
            if held:  # long enough for three attempts
                held.send(b"SLEEP 500\r\n")
                assert held.receive() == b"+OK\r\n"
                ping(held)
            # With a loop in each of two workers, each may say so.
            assert 1 <= times_exhausted(server) - said <= 2
            allow(family, more=True)
            assert is_served(waiting, transport)
            waiting.close()
            wait_until(lambda: log_of(server).count("no longer exhausted") == times_exhausted(server))
            said = times_exhausted(server)
        for seconds, attempts in re.findall(r"exhausted after ([\d.]+) s, (\d+) attempts", log_of(server)):
            # At 0, 0.1, 0.3 and 0.7 s, and then each half second.
            assert int(attempts) <= 4 + float(seconds) / 0.5


def test_server_without_descriptors_is_drained_as_any_other(start: Callable[..., Server], is_sequential: bool) -> None:
    with start(LAB_WORKERS="2") as server, ExitStack() as stack:
        held = None if is_sequential else stack.enter_context(server.connect())
        for transport in STREAMS:
            with server.connect(transport=transport) as link:
                ping(link)
        if held:
            ping(held)
        allow(server.family(), more=False)
        for transport in STREAMS:
            stack.enter_context(knock(server, transport))
        wait_until(lambda: times_exhausted(server))
        if held:
            held.send(b"SLEEP 500\r\nECHO last\r\n")
        before = log_of(server).count("WARNING")
        server.terminate()
        if held:
            assert read_all(held) == b"+OK\r\n$4\r\nlast\r\n"
        assert server.wait_end() == 0
        assert log_of(server).count("WARNING") <= before + 1  # the other of two workers
        assert "ERROR" not in log_of(server)
        assert "Traceback" not in log_of(server)


# One for each path: how a path comes to `accept` does not depend on the number.
OF_THE_MACHINE = {"tcp": errno.ENFILE, "tls": errno.ENOBUFS, "unix": errno.ENOMEM}


def test_server_waits_while_the_machine_has_nothing_left_to_accept_with(start: Callable[..., Server]) -> None:
    """The system call fails, in the loop that makes it, in each of two workers; clients are served afterwards."""
    kernel = Kernel()
    with start(kernel, LAB_WORKERS="2") as server, ExitStack() as stack:
        for transport, number in OF_THE_MACHINE.items():
            kernel.number = number
            waiting = stack.enter_context(knock(server, transport))
            wait_until(lambda: kernel.failed[number] >= 3)  # noqa: B023  # called here
            kernel.number = 0
            assert is_served(waiting, transport)
            waiting.close()
        first = f"accept on {server.address('command', 'tcp')} failed: {os.strerror(errno.ENFILE)}"
        assert f"exhausted: {first};" in log_of(server)
        assert set(kernel.failed) == {0, *OF_THE_MACHINE.values()}
        wait_until(lambda: log_of(server).count("no longer exhausted") == times_exhausted(server))
        server.terminate()
        assert server.wait_end() == 0
        assert "ERROR" not in log_of(server)
        assert "Traceback" not in log_of(server)


def log_of(server: Server) -> str:
    return server.log.read_text()


def times_exhausted(server: Server) -> int:
    return log_of(server).count(" exhausted: ")
