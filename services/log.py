"""A log that a client cannot fill: for lines that each connection may cause."""

import logging
import time
from collections.abc import Callable


class SparseLog:
    """Write at most one line a minute; the next one says how many were left out.

    Args:
        log: where the lines go.
        seconds: between two lines.
        clock: seconds that never go back.
    """

    def __init__(self, log: logging.Logger, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._seconds = seconds
        self._clock = clock
        self._next = clock()
        self._left_out = 0

    def warning(self, text: str) -> None:
        """Write a line, or count it."""
        now = self._clock()
        if now < self._next:
            self._left_out += 1
            return
        self._next = now + self._seconds
        more = f" (and {self._left_out} more before)" if self._left_out else ""
        self._left_out = 0
        self._log.warning("%s%s", text, more)
