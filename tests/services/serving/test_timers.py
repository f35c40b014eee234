"""Timers of a loop that has none. The clock is the test's."""

from functools import partial

import pytest

from services.serving import timers
from services.serving.timers import Timers


def test_timers_are_called_in_the_order_of_their_times_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(timers, "monotonic", lambda: now[0])
    due = Timers()
    called: list[str] = []
    assert due.timeout() is None
    for name, seconds in (("late", 3.0), ("first", 1.0), ("second", 1.0), ("middle", 2.0)):
        due.call_later(seconds, partial(called.append, name))
    seen: list[float | str | None] = []
    for time in (100.5, 101.0, 102.5, 103.0, 200.0):
        now[0] = time
        seen.append(due.timeout())
        due.call_due()
        seen.append("".join(name[0] for name in called))
    assert seen == [0.5, "", 0.0, "fs", 0.0, "fsm", 0.0, "fsml", None, "fsml"]


def test_timer_that_sets_another_one_for_now_does_not_stop_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due now is called in this turn, and what is due in a moment in the next."""
    now = [100.0]
    monkeypatch.setattr(timers, "monotonic", lambda: now[0])
    due = Timers()
    called: list[float] = []

    def again() -> None:
        called.append(now[0])
        now[0] += 0.25
        due.call_later(0.0, again)

    due.call_later(0.0, again)
    due.call_due()
    assert called == [100.0]
    due.call_due()
    assert called == [100.0, 100.25]
