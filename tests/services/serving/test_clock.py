"""The clock of HTTP: its dates are those of another implementation."""

import random
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from services.serving import clock
from services.serving.clock import CLOCK, SystemClock, show_date


def test_date_is_that_of_the_standard_library() -> None:
    generator = random.Random(7)
    for second in (0, 951_782_400, 1_709_164_800, 4_102_444_799, *(generator.randrange(2**33) for _ in range(2000))):
        assert show_date(second) == formatdate(second, usegmt=True)


def test_date_is_now() -> None:
    before = int(time.time())
    date = CLOCK.date()
    assert date in {formatdate(second, usegmt=True).encode() for second in range(before, int(time.time()) + 1)}


def test_date_is_formatted_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5.0, 5.999, 6.0, 6.5])
    formatted: list[int] = []

    def show(second: int) -> str:
        formatted.append(second)
        return f"at {second}"

    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: next(times)))
    monkeypatch.setattr(clock, "show_date", show)
    made = SystemClock()
    assert [made.date() for _ in range(4)] == [b"at 5", b"at 5", b"at 6", b"at 6"]
    assert formatted == [5, 6]
