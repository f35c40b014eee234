"""Timers for a loop that has none: a heap, ordered by time."""

import heapq
import itertools
from collections.abc import Callable
from time import monotonic

Callback = Callable[[], object]


class Timers:
    """Calls functions when their time has come."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()  # of timers for the same moment; callbacks cannot be compared

    def call_later(self, seconds: float, callback: Callback) -> None:
        heapq.heappush(self._timers, (monotonic() + seconds, next(self._order), callback))

    def timeout(self) -> float | None:
        """Return the seconds until the next timer; None without one."""
        if not self._timers:
            return None
        left = self._timers[0][0] - monotonic()
        return left if left > 0 else 0.0

    def call_due(self) -> None:
        """Call all functions that are due."""
        timers = self._timers
        # Both are asked in each turn of a loop, so they are lean.
        if timers and timers[0][0] <= (now := monotonic()):
            while timers and timers[0][0] <= now:
                heapq.heappop(timers)[2]()
