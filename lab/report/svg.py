"""Parts of drawings in SVG: scales and lines. The templates hold the markup."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# (across, down, tooltip) in pixels.
Dot = tuple[float, float, str]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels.

    Args:
        low, high: the range of values.
        start, end: the pixels of the two; `end` is less than `start` on an axis that points up.
        is_log: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value; the middle if all values are equal."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def join_points(points: Iterable[tuple[float, float]]) -> str:
    """Return the points of a polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
