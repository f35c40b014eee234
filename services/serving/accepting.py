"""What every model does while the process or the machine has nothing left to accept with.

Strategy: the client stays in the backlog, where it costs nothing, and its listening socket stays readable. A loop that
tries again at once takes a whole core for nothing, and fills the log. So the model leaves the socket alone for a while,
longer after each failure, and the log has one line when the shortage begins, at most one a minute while it lasts, and
one when it is over. Over means that for a second nothing has failed: where clients come and go at the limit, every one
that leaves lets one in, and the next attempt fails again.
"""

import errno
import logging
import selectors
import time
from collections.abc import Callable

log = logging.getLogger("services")

# accept(2): no descriptor left in the process (EMFILE) or on the machine (ENFILE), or no memory for one more socket.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 0.5
# Without a failure for as long, the shortage is over. Longer than any pause: between two failures it is not.
QUIET = 1.0
# For a timer that looks whether it is over: timers may fire early by their resolution, a millisecond of libuv's, and
# one that looks too early would be the last.
LOOK_AFTER = QUIET + 0.1
# Between two lines in the log while the shortage lasts.
REMINDER = 60.0


class Shortage:
    """Whether this process can accept, how long to pause if not, and what the log says of it.

    Args:
        clock: seconds, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._delay = FIRST_PAUSE
        self._failures = 0  # since it began; 0: there is no shortage
        self._began = self._last = self._said = 0.0
        # Seconds to leave all listening sockets alone for: 0, unless the last attempt has failed.
        self.pause = 0.0

    def __bool__(self) -> bool:
        return self._failures > 0

    @property
    def timeout(self) -> float | None:
        """Seconds until it is over if nothing fails until then; None if there is no shortage."""
        return max(self._last + QUIET - self._clock(), 0.0) if self else None

    def failed(self, what: str) -> float:
        """Count an attempt that failed for lack of a resource, and log `what` if a line is due; return the pause."""
        self._last = now = self._clock()
        if not self:
            self._began = self._said = now
            log.warning("exhausted: %s; clients wait, and are served as soon as that is possible", what)
        elif now - self._said >= REMINDER:
            self._said = now
            log.warning("still exhausted after %.0f s: %s", now - self._began, what)
        self._failures += 1
        self.pause, self._delay = self._delay, min(2 * self._delay, LONGEST_PAUSE)
        return self.pause

    def look(self) -> None:
        """Log that the shortage is over, if it is. To be called after an attempt, or when `timeout` has passed."""
        if self and self._clock() - self._last >= QUIET:
            log.warning(
                "no longer exhausted after %.1f s, %d attempts failed", self._last - self._began, self._failures
            )
            self._failures = 0
            self._delay = FIRST_PAUSE

    def forget(self) -> None:
        """Nothing is to be accepted any more, so that it cannot be is no news."""
        self._failures = 0

    def select(self, selector: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as `selector` does, but no longer than until the shortage may be over."""
        ready = selector.select(self.timeout)
        if not ready:
            self.look()
        return ready
