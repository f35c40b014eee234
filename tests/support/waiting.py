"""Wait for a state, never for a fixed time, so that a busy machine does not matter."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float = 60) -> T:
    """Return the result of a condition as soon as it is true; fail after a timeout.

    A condition may start a process or ask an engine: about a quarter of the time goes into it, and no pause is long. It
    may look at processes that end meanwhile.
    """
    deadline = time.monotonic() + seconds
    while True:
        begin = time.monotonic()
        with suppress(psutil.NoSuchProcess):
            if found := condition():
                return found
        end = time.monotonic()
        assert end < deadline, "it never came"
        time.sleep(min(max(0.02, 3 * (end - begin)), 0.5))


def settled(look: Callable[[], T], unit: float, times: int = 4) -> T:
    """Return the result of `look` when it is the same several times in a row, a unit apart."""
    seen = [look()]
    while len(seen) < times or len(set(seen[-times:])) > 1:
        time.sleep(unit)
        seen.append(look())
    return seen[-1]
