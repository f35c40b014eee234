"""Whether a series grows: the test that a soak is judged by. Pure functions.

Strategy: all readings are taken at rest, when every client has gone and the counts have settled, so they differ by what
a server keeps and not by what it is doing. The first third of them is warm-up, and is left out: an allocator's pools
fill, and a library's caches. A crowd fills them, larger than all that comes afterwards.

* **Memory** has noise, so it is estimated: the Theil-Sen slope, which is the median of the slopes of all pairs of
  readings, and Sen's interval for it, from the variance of Kendall's S. One step, as an allocator makes them, hardly
  moves it. A reading is like the one before it, which would make the interval too narrow: the variance is multiplied by
  (1 + r) / (1 - r), with r the correlation of each residual with the one before it, where that is above 0. The memory
  is flat if the whole interval is below the limit, and grows if the whole interval is above; otherwise the series is
  too short to tell, and that is no pass.
* **Counts** (descriptors, threads, zombies) have none. They grow if the median of the last third is above the largest
  of the first: what comes and goes between the two is not growth.

Sources: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968; for the correlation, Bayley
and Hammersley, "The 'effective' number of independent observations in an autocorrelated time series", 1946.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from math import inf, sqrt
from statistics import NormalDist, median
from typing import TypeVar

CONFIDENCE = 0.95
WARM_UP = 1 / 3

# Below so many readings after the warm-up nothing is said.
FEWEST = 6

# A correlation that leaves no more than two independent readings in a hundred.
_LARGEST_CORRELATION = 0.96


Reading = TypeVar("Reading")


class Growth(StrEnum):
    """What a series says."""

    FLAT = "flat"
    GROWS = "grows"
    UNKNOWN = "unknown"  # a reading is missing, or there are too few to tell: never a pass


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast something grows, in its unit per unit of time.

    Args:
        middle: the Theil-Sen estimate.
        low, high: its interval; infinite where there are too few independent readings to have one.
    """

    middle: float
    low: float
    high: float

    def judge(self, limit: float) -> Growth:
        """What that means where a slope of `limit` must not be reached."""
        if self.high < limit:
            return Growth.FLAT
        return Growth.GROWS if self.low >= limit else Growth.UNKNOWN


def after_warm_up(readings: Sequence[Reading]) -> Sequence[Reading]:
    """The readings that count."""
    return readings[round(len(readings) * WARM_UP) :]


def find_slope(times: Sequence[float], values: Sequence[float], *, confidence: float = CONFIDENCE) -> Slope:
    """The slope of a series, and how far it can be trusted.

    Args:
        times: of the readings, ascending.
        values: as many, at least two.
    """
    points = list(zip(times, values, strict=True))
    slopes = sorted((later - earlier) / (then - now) for (now, earlier), (then, later) in combinations(points, 2))
    middle = median(slopes)
    count = len(points)
    ties = [values.count(value) for value in set(values)]
    variance = (count * (count - 1) * (2 * count + 5) - sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)) / 18
    residuals = [value - middle * time for time, value in points]
    correlation = _correlate(residuals)
    width = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(variance * (1 + correlation) / (1 - correlation))
    below, above = round((len(slopes) - width) / 2), round((len(slopes) + width) / 2)
    low = slopes[below] if below >= 0 else -inf
    high = slopes[min(above, len(slopes) - 1)] if above <= len(slopes) else inf
    return Slope(middle, low, high)


def _correlate(residuals: Sequence[float]) -> float:
    """Of each with the one before it, at least 0."""
    around = median(residuals)
    centred = [value - around for value in residuals]
    total = sum(value * value for value in centred)
    if not total:
        return 0.0
    product = sum(one * other for one, other in pairwise(centred))
    return min(max(product / total, 0.0), _LARGEST_CORRELATION)


def judge_counts(counts: Sequence[int | None]) -> Growth:
    """Whether a number grows that does not vary by itself.

    Args:
        counts: after the warm-up; None is one that is not known.
    """
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or len(known) < FEWEST:
        return Growth.UNKNOWN
    third = len(known) // 3
    return Growth.GROWS if median(known[-third:]) > max(known[:third]) else Growth.FLAT
