"""Find the knee: the fewest connections at which a server reaches nearly its best rate. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit

# Smallest relative gain over the best rate so far that counts as an improvement.
_GAIN = 0.05

# The largest share of failures of a level that counts as served.
_MAX_FAILED = 0.001

# Verdicts of a level that was not served: no client, or not every client, got an answer.
_UNSERVED = (Limit.WRONG, Limit.FAILED, Limit.STARVED)

STOP_RULE = (
    f"The sweep adds connections until the rate rises by less than {_GAIN:.0%} over the best so far, or a level is not "
    f"served (a client without an answer, or more than {_MAX_FAILED:.1%} failures). Levels with inconsistent counts "
    f"are left out. The knee is the fewest connections with {1 - _GAIN:.0%} of the best rate."
)


@dataclass(frozen=True, slots=True)
class Level:
    """One step of a sweep.

    Args:
        users: connections.
        rate: requests per second.
        is_served: whether every client got an answer.
    """

    users: int
    rate: float
    is_served: bool


@dataclass(frozen=True, slots=True)
class Knee:
    """The knee of a case.

    Args:
        users: connections at the knee.
        rate: requests per second there.
        most_users: the highest level that was served.
    """

    users: int
    rate: float
    most_users: int


def is_telling(found: Measurement) -> bool:
    """Return whether a level says something about the server; one with inconsistent counts does not."""
    return found.verdict.bound is not Limit.INCONSISTENT


def make_level(users: int, found: Measurement) -> Level:
    sound = found.verdict.bound not in _UNSERVED and (found.load.failure_ratio or 0.0) <= _MAX_FAILED
    return Level(users, found.rate, sound)


def is_over(levels: Sequence[Level]) -> bool:
    """Return whether another level would show nothing new."""
    if not levels:
        return False
    *before, last = levels
    best = max((level.rate for level in before if level.is_served), default=0.0)
    return not last.is_served or last.rate < best * (1 + _GAIN)


def find_knee(levels: Sequence[Level]) -> Knee | None:
    served = sorted((level for level in levels if level.is_served), key=lambda level: level.users)
    if not served:
        return None
    best = max(level.rate for level in served)
    knee = next(level for level in served if level.rate >= best * (1 - _GAIN))
    return Knee(knee.users, knee.rate, served[-1].users)
