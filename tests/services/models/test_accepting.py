"""When nothing is left to accept with: each model pauses, says so, and serves again by itself."""

import errno
import itertools
import os
import re
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil

from loadtests.sockets.tls import client_context
from tests.support.kernel import Kernel
from tests.support.reading import ping, read_all
from tests.support.servers import Server
from tests.support.waiting import settled, wait_until

STREAMS = ("tcp", "tls", "unix")


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
