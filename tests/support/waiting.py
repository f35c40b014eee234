"""Wait for a state, however busy the machine is: never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float = 60) -> T:
    """Return what a condition gives as soon as it is true; fail if it never is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


def settled(look: Callable[[], T], unit: float, times: int = 4) -> T:
    """Return what `look` sees, once it has seen the same several times in a row, a unit apart."""
    seen = [look()]
    while len(seen) < times or len(set(seen[-times:])) > 1:
        time.sleep(unit)
        seen.append(look())
    return seen[-1]
