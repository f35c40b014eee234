"""Timers for a loop that has none: a heap, ordered by time."""

import heapq
import itertools
import time
from collections.abc import Callable

Callback = Callable[[], object]


class Timers:
    """Calls functions when their time has come."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()  # of timers for the same moment; callbacks cannot be compared

    def call_later(self, seconds: float, callback: Callback) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def timeout(self) -> float | None:
        """Return the seconds until the next timer; None without one."""
        return max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None

    def call_due(self) -> None:
        """Call all functions that are due."""
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
