"""The machine's clock, for the core."""

import time

# Of the field Date, RFC 9110, 5.6.7: in English, whatever the locale is. `email.utils` knows them too, but its import
# is a quarter of the CPU time of a server's start.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def show_date(second: int) -> str:
    """Return a time, in seconds since the epoch, as HTTP writes it."""
    year, month, day, hour, minute, seconds, weekday, *_ = time.gmtime(second)
    clock = f"{hour:02}:{minute:02}:{seconds:02}"
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {clock} GMT"


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
            text = show_date(second).encode("ascii")
            self._now = second, text
        return text

    def elapsed(self) -> float:
        """Return seconds that no change of the machine's date affects."""
        return time.monotonic()


CLOCK = SystemClock()
