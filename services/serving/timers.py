"""Timers for a loop that has none: a heap, in the order of their times."""

import heapq
import itertools
import time
from collections.abc import Callable

Callback = Callable[[], object]


class Timers:
    """Calls back when a time has come."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()  # of timers for the same moment; callbacks cannot be compared

    def call_later(self, seconds: float, callback: Callback) -> None:
        """Call back once."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def timeout(self) -> float | None:
        """How long to wait for anything else; None if there is no timer."""
        return max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None

    def call_due(self) -> None:
        """Call back all whose time has come."""
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
