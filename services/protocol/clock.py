"""The time, given to the core from outside, as INFO is: the core itself reads no clock."""

from typing import Protocol


class Clock(Protocol):
    """Answers the two questions about time that a protocol has."""

    def date(self) -> bytes:
        """Return the current time in the form that HTTP's Date has (RFC 9110, 5.6.7)."""
        ...

    def elapsed(self) -> float:
        """Return seconds since some moment; never less than the last time."""
        ...


class StoppedClock:
    """A clock that stands still: nothing that depends on it ever times out."""

    def date(self) -> bytes:
        return b"Thu, 01 Jan 1970 00:00:00 GMT"

    def elapsed(self) -> float:
        return 0.0
