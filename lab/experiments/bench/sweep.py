"""Where the knee is: the fewest connections that give nearly all that a server has. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit

# Less than this more than the best so far is no more.
_GAIN = 0.05

# Of the exchanges of a level that counts.
_MOST_FAILURES = 0.001

# What cannot be the load that a server holds: nobody, or not everybody, was answered.
_UNSERVED = (Limit.WRONG, Limit.FAILED, Limit.STARVED)

STOP_RULE = (
    f"More connections are tried until the rate rises by less than {_GAIN:.0%} over the best so far, or until a level "
    f"is not served: a client without an answer, or more than {_MOST_FAILURES:.1%} failures. A level whose counts "
    f"contradict each other is left out. The knee is the fewest connections that gave {1 - _GAIN:.0%} of the best rate."
)


@dataclass(frozen=True, slots=True)
class Level:
    """One step of a sweep.

    Args:
        users: connections.
        rate: requests per second.
        is_served: whether everybody was.
    """

    users: int
    rate: float
    is_served: bool


@dataclass(frozen=True, slots=True)
class Knee:
    """What the rounds build on.

    Args:
        users: connections at the knee.
        rate: requests per second there.
        most_users: the most connections that were tried and served.
    """

    users: int
    rate: float
    most_users: int


def make_level(users: int, found: Measurement) -> Level:
    """A measurement as a step of a sweep."""
    sound = found.verdict.bound not in _UNSERVED and (found.failure_ratio or 0.0) <= _MOST_FAILURES
    return Level(users, found.rate, sound)


def is_over(levels: Sequence[Level]) -> bool:
    """Whether another level would tell nothing more."""
    if not levels:
        return False
    *before, last = levels
    best = max((level.rate for level in before if level.is_served), default=0.0)
    return not last.is_served or last.rate < best * (1 + _GAIN)


def find_knee(levels: Sequence[Level]) -> Knee | None:
    """The knee; None if not even one level was served."""
    served = sorted((level for level in levels if level.is_served), key=lambda level: level.users)
    if not served:
        return None
    best = max(level.rate for level in served)
    knee = next(level for level in served if level.rate >= best * (1 - _GAIN))
    return Knee(knee.users, knee.rate, served[-1].users)
