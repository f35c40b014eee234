"""The machine's clock, for the core."""

import time
from email.utils import formatdate


class SystemClock:
    """Formats the date at most once a second, because each HTTP reply has it."""

    __slots__ = ("_now",)

    def __init__(self) -> None:
        # Both in one attribute, since threads share this object.
        self._now = (0, b"")

    def date(self) -> bytes:
        """Return the current time as HTTP writes it."""
        second = int(time.time())
        known, text = self._now
        if known != second:
            text = formatdate(second, usegmt=True).encode("ascii")
            self._now = second, text
        return text

    def elapsed(self) -> float:
        """Return seconds that no change of the machine's date affects."""
        return time.monotonic()


CLOCK = SystemClock()
