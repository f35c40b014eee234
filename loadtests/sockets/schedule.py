"""The times at which requests of an open loop are due: arithmetic, no clock."""

import random
from collections.abc import Callable
from math import inf

# Seconds for which a rate counts as constant: short against every shape, long against the cost of the arithmetic.
_STEP = 0.01


class Schedule:
    """Times whose density is a rate.

    Args:
        rate: seconds since the start -> requests per second, above 0.
        poisson: at independent random times instead of even ones.
    """

    __slots__ = ("_chance", "_poisson", "_rate", "_start", "share")

    def __init__(
        self, rate: Callable[[float], float], *, poisson: bool = False, chance: random.Random | None = None
    ) -> None:
        self._rate = rate
        self._poisson = poisson
        self._chance = chance or random.Random()  # noqa: S311  # spreads requests; no secret
        # The part of the rate that this process has to do.
        self.share = 1.0

    def start(self, now: float) -> float:
        """Begin at a time; return the first time at which a request is due."""
        self._start = now
        return self.after(now)

    def after(self, due: float) -> float:
        """Return the time that follows `due`; infinity if the share is 0."""
        if not self.share:
            return inf
        left = self._chance.expovariate(1.0) if self._poisson else 1.0
        while True:
            rate = self._rate(due - self._start) * self.share
            if left <= rate * _STEP:
                return due + left / rate
            left -= rate * _STEP
            due += _STEP
