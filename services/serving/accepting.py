"""The policy of all models while the process or the machine lacks the resources to accept.

Strategy: a client stays in the backlog, where it costs nothing, and its listening socket stays readable. A loop that
retries at once uses a whole core for nothing, and fills the log. So the model pauses, longer after each failure. The
log gets a line when the shortage begins, at most one per minute while it lasts, and one at its end. It ends after a
second without a failure: at the limit, each client that disconnects makes room for one, and the next attempt fails
again.
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
# The shortage ends after so many seconds without a failure. This is longer than any pause between two attempts.
QUIET = 1.0
# Added to the timer that checks for the end: timers may fire early by their resolution, a millisecond in libuv, and no
# further check would follow.
LOOK_AFTER = QUIET + 0.1
# Seconds between two lines in the log during a shortage.
REMINDER = 60.0


class Shortage:
    """The state of a shortage: whether the process can accept, the pause, and the lines in the log.

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
        """Return the seconds until the end of the shortage, if nothing fails until then; None if there is none."""
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
        """Log that the shortage is over, if it is. Call it after an attempt, and when `timeout` has passed."""
        if self and self._clock() - self._last >= QUIET:
            log.warning(
                "no longer exhausted after %.1f s, %d attempts failed", self._last - self._began, self._failures
            )
            self._failures = 0
            self._delay = FIRST_PAUSE

    def forget(self) -> None:
        """Forget the shortage: the model no longer accepts."""
        self._failures = 0

    def select(self, selector: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait like `selector`, but at most until the shortage may have ended."""
        ready = selector.select(self.timeout)
        if not ready:
            self.look()
        return ready
