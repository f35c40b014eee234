"""Every request is accounted for: a drain answers each that was accepted, and of a kill it is known which were not."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from lab.faults.scorecard import Verdict, judge
from lab.ledger import Account, Ledger, Page, keep
from tests.faults.conftest import CATALOGUE
from tests.models.conftest import Server

MODELS = [model.name for model in CATALOGUE.select()]


def keep_over(server: Server, seed: int, fault: Callable[[Server], object], transport: str) -> Account:
    """Keep an account while a fault is applied, a moment after the first answers."""
    with ExitStack() as stack:
        links = [stack.enter_context(server.connect(transport=transport)) for _ in range(4)]
        reader, writer = os.pipe()
        commands = stack.enter_context(os.fdopen(reader))
        stack.callback(os.close, writer)
        timer = threading.Timer(0.02 * (seed % 5), os.write, (writer, b"mark\n"))
        steps = {"begun": timer.start, "marked": lambda: fault(server)}
        account = keep(Ledger(links, seed), commands, lambda word: steps[word](), 60.0)
        timer.join()
        return account


def kill_family(server: Server) -> None:
    for process in server.family():
        with suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("seed", [3, 5])
@pytest.mark.parametrize("name", MODELS)
def test_a_drain_under_load_loses_nothing(name: str, seed: int, tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    with Server(name, tmp_path / "sockets", {}) as server:
        account = keep_over(server, seed, Server.terminate, "tcp" if seed < 4 else "unix")
        assert judge("drain", account, server.wait_end())[0] is Verdict.HELD, account
        assert "open" not in account.ends


@pytest.mark.parametrize("name", MODELS)
def test_of_a_kill_under_load_it_is_known_what_was_not_answered(name: str, tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    with Server(name, tmp_path / "sockets", {}) as server:
        account = keep_over(server, 4, kill_family, "tcp")
        assert judge("kill", account, None)[0] is Verdict.HELD, account
        assert "open" not in account.ends


@pytest.mark.parametrize("name", ["plain_socket", "asyncio_streams"])
def test_the_longest_silence_is_at_least_that_of_the_fault(name: str, tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    with Server(name, tmp_path / "sockets", {}) as server, ExitStack() as stack:
        links = [stack.enter_context(server.connect()) for _ in range(4)]
        reader, writer = os.pipe()
        commands = stack.enter_context(os.fdopen(reader))
        stack.callback(os.close, writer)

        def stand_still() -> None:
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(0.4)
            server.process.send_signal(signal.SIGCONT)
            os.write(writer, b"end\n")

        # Not in the ledger's own thread, which would see nothing of it.
        timer = threading.Timer(0.0, stand_still)
        steps = {"begun": lambda: os.write(writer, b"mark\n"), "marked": timer.start}
        account = keep(Ledger(links, 1), commands, lambda word: steps[word](), 60.0)
        timer.join()
    assert (account.lost, account.wrong) == (0, {})
    assert account.silence >= 0.4


def replies(page: Page, requests: int) -> list[bytes]:
    return [page.next_request().split(b"\r\n")[4] for _ in range(requests)]


def test_a_page_knows_whose_every_reply_is() -> None:
    page, other = Page(0, 1), Page(1, 1)
    first, second, third = replies(page, 3)
    (foreign,) = replies(other, 1)
    page.take(first)
    assert (page.answered, dict(page.wrong)) == (1, {})
    for reply in (first, third, foreign, None, b""):
        page.take(reply)
    assert page.wrong == {"one too many": 1, "out of order": 1, "somebody else's": 2, "no reply to any of them": 1}
    page.mark(page.sent)
    page.take(second)
    assert (page.sent, page.answered, page.lost) == (3, 2, 1)


def test_the_same_seed_makes_the_same_requests() -> None:
    assert replies(Page(2, 9), 20) == replies(Page(2, 9), 20) != replies(Page(2, 8), 20)


FINE = Account(connections=4, served=4, sent=100, answered=100)


@pytest.mark.parametrize(
    ("fault", "account", "exit_code", "verdict"),
    [
        ("drain", FINE, 0, Verdict.HELD),
        ("drain", FINE, 1, Verdict.FAILED),
        ("drain", Account(4, 4, 100, 99, lost=1), 0, Verdict.FAILED),
        ("drain", Account(4, 4, 100, 99, lost=0), 0, Verdict.HELD),
        ("kill", Account(4, 4, 100, 90, lost=10), None, Verdict.HELD),
        ("kill", Account(4, 4, 100, 90, wrong={"one too many": 1}), None, Verdict.FAILED),
        ("nothing", Account(4, 4, 100, 99, lost=1), None, Verdict.FAILED),
        ("nothing", Account(4, 0, 32, 0), None, Verdict.UNKNOWN),
        ("kill", None, None, Verdict.UNKNOWN),
    ],
)
def test_the_verdict_is_what_the_account_says(
    fault: str, account: Account | None, exit_code: int | None, verdict: Verdict
) -> None:
    assert judge(fault, account, exit_code)[0] is verdict
