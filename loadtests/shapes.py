"""The loops of a load, and how it changes over time."""

from collections.abc import Callable
from math import ceil

# Closed: a connection sends its next request when the last one is answered, so a slow server gets fewer requests, and
# the requests that would have arrived meanwhile are not seen. Open: requests are due at fixed times, whatever the
# server does, and response times count from those.
CLOSED, OPEN = "closed", "open"
LOOPS = (CLOSED, OPEN)

STEADY = "steady"
_SHAPES: dict[str, Callable[[float], float]] = {
    STEADY: lambda share: 1.0,
    "ramp": lambda share: share,
    "steps": lambda share: ceil(share * 5) / 5,
    # One tenth, and the full load in the middle fifth of the time.
    "spike": lambda share: 1.0 if 0.4 <= share < 0.6 else 0.1,
}
SHAPES = tuple(_SHAPES)

# Never 0: a rate always has a next request.
_LOWEST = 0.01


def level(shape: str, share: float) -> float:
    """Return the fraction of the full load that a shape has at a point in time.

    Args:
        shape: one of `SHAPES`.
        share: the fraction of the shape's time that has passed; beyond 1 the last level stays.
    """
    return max(_SHAPES[shape](min(max(share, 0.0), 1.0)), _LOWEST)
