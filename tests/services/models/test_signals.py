"""Signals, in every model: which of them stop a server gracefully, and that none comes at a bad moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from loadtests.sockets.connection import BlockingConnection
from services.serving.signals import stop_signals
from tests.support.reading import read_all
from tests.support.waiting import wait_until

SLEEP = b"SLEEP 400\r\nECHO last\r\n"
ANSWER = b"+OK\r\n$4\r\nlast\r\n"


def wait_until_asleep(link: BlockingConnection) -> None:
    """The server has the request in hand: it came together with one that is answered."""
    link.send(b"PING\r\n" + SLEEP)
    assert link.receive() == b"+PONG\r\n"


@pytest.mark.parametrize(
    ("number", "to_all"), [(signal.SIGHUP, True), (signal.SIGQUIT, False)], ids=["SIGHUP-group", "SIGQUIT"]
)
def test_signal_of_a_terminal_stops_gracefully(start, number: signal.Signals, to_all: bool) -> None:
    """Also when all processes get it at once, as from a terminal that is closed."""
    with start() as server, server.connect() as link:
        wait_until_asleep(link)
        os.killpg(server.process.pid, number) if to_all else server.process.send_signal(number)
        assert read_all(link) == ANSWER
        assert server.wait_end() == 0


def test_second_signal_changes_nothing(start) -> None:
    """At no moment until the process has ended: not in the drain, and not when a library has put its handlers back."""
    with start() as server, server.connect() as link:
        wait_until_asleep(link)
        server.terminate()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            server.process.send_signal(number)
        assert read_all(link) == ANSWER
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.0005)
        assert server.wait_end() == 0


@pytest.fixture
def nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("nohup")
def test_sighup_that_is_ignored_stays_ignored(start) -> None:
    with start() as server, server.connect() as link:
        link.send(b"PING\r\n")
        assert link.receive() == b"+PONG\r\n"
        os.killpg(server.process.pid, signal.SIGHUP)
        link.send(b"PING\r\n")
        assert link.receive() == b"+PONG\r\n"
        server.terminate()
        assert read_all(link) == b""
        assert server.wait_end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("model", ["prefork", "asyncio_prefork"])
def test_stopped_worker_finishes_and_is_replaced(start, number: signal.Signals) -> None:
    with start(LAB_WORKERS="2") as server, server.connect() as link:
        link.send(b"INFO\r\n")
        info = link.receive().decode()
        worker = int(info.partition("process_id:")[2].split()[0])
        wait_until_asleep(link)
        os.kill(worker, number)
        assert read_all(link) == ANSWER

        def is_replaced() -> bool:
            with suppress(psutil.NoSuchProcess):
                workers = [each.pid for each in server.family()[1:]]
                return len(workers) == 2 and worker not in workers
            return False

        wait_until(is_replaced)
        assert server.process.poll() is None
        server.terminate()
        assert server.wait_end() == 0


def test_signals_that_are_ignored_do_not_stop_a_server() -> None:
    every = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    for ignored in (signal.SIGHUP, signal.SIGQUIT):
        before = signal.signal(ignored, signal.SIG_IGN)
        try:
            assert set(stop_signals()) == every - {ignored}
        finally:
            signal.signal(ignored, before)
    assert set(stop_signals()) == every


def test_held_signals_are_blocked_and_ignored() -> None:
    """In a process of its own, which then ends by itself."""
    code = (
        "import os, signal, services.serving.signals\n"
        "services.serving.signals.hold_stop_signals()\n"
        "names = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]\n"
        "assert set(names) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "assert all(signal.getsignal(each) is signal.SIG_IGN for each in names)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
