"""When nothing is left to accept with: how long a model pauses, and what it logs. The clock is the test's."""

import errno
import logging
import os
import selectors

import pytest

from services.protocol import Address, Limits
from services.serving.accepting import EXHAUSTED, Shortage
from services.serving.listeners import Listener


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
