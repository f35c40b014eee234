"""Each request is accounted for: a drain answers all accepted ones, and after a kill the unanswered ones are known."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from lab.base.messages import Message, encode
from lab.clients.request_log import Account, Begun, Mark, Marked, RequestLog, run
from lab.experiments.faults.judge import Verdict, judge
from lab.experiments.faults.kinds.drain import DRAIN
from lab.experiments.faults.kinds.kill import KILL
from tests.faults.conftest import CATALOGUE
from tests.support.servers import Server

MODELS = [model.name for model in CATALOGUE.select()]


def log_requests(server: Server, seed: int, fault: Callable[[Server], object]) -> Account:
    """Log requests over TCP and a Unix socket; inject a fault shortly after the first answers; return the account."""
    with ExitStack() as stack:
        links = [stack.enter_context(server.connect(transport=name)) for name in ("tcp", "unix", "tcp", "unix")]
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        timer = threading.Timer(0.02 * (seed % 5), os.write, (writer, f"{encode(Mark())}\n".encode()))
        steps: dict[Message, Callable[[], object]] = {Begun(): timer.start, Marked(): lambda: fault(server)}
        account = run(RequestLog(links, seed), reader, lambda message: steps[message](), 60.0)
        timer.join()
        return account


def kill_processes(server: Server) -> None:
    for process in server.family():
        with suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("name", MODELS)
def test_drain_under_load_loses_no_request(name: str, tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    with Server(name, tmp_path / "sockets", {}) as server:
        account = log_requests(server, 3, Server.terminate)
        assert judge(DRAIN, account, server.wait_end())[0] is Verdict.HELD, account
        assert "open" not in account.ends


@pytest.mark.parametrize("name", MODELS)
def test_kill_under_load_accounts_for_every_request(name: str, tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    with Server(name, tmp_path / "sockets", {}) as server:
        account = log_requests(server, 4, kill_processes)
        assert judge(KILL, account, None)[0] is Verdict.HELD, account
        assert "open" not in account.ends
