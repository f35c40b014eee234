"""When the requests of an open loop are due: arithmetic, and no clock."""

import random
from collections.abc import Callable
from math import inf

# How long a rate is taken to be the same, in seconds: fine against every shape, coarse against the arithmetic.
_STEP = 0.01


class Schedule:
    """Times, one after the other, whose density is a rate.

    Args:
        rate: seconds since the start -> requests per second, above 0.
        poisson: at random, independent times, and not at even ones.
        chance: where the randomness comes from.
    """

    __slots__ = ("_chance", "_poisson", "_rate", "_start", "share")

    def __init__(
        self, rate: Callable[[float], float], *, poisson: bool = False, chance: random.Random | None = None
    ) -> None:
        self._rate = rate
        self._poisson = poisson
        self._chance = chance or random.Random()  # noqa: S311  # spreads requests; no secret
        # Of the rate that is asked for, what this process has to do.
        self.share = 1.0

    def start(self, now: float) -> float:
        """Begin at a time; returns the first that is due."""
        self._start = now
        return self.after(now)

    def after(self, due: float) -> float:
        """The time that follows one that was due; infinity where there is no share."""
        if not self.share:
            return inf
        left = self._chance.expovariate(1.0) if self._poisson else 1.0
        while True:
            rate = self._rate(due - self._start) * self.share
            if left <= rate * _STEP:
                return due + left / rate
            left -= rate * _STEP
            due += _STEP
