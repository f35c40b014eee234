"""The leak test: does a series grow? Pure functions.

Strategy: all readings are taken at rest, without clients and after the counts have settled, so they show what a server
keeps and not what it is doing. The first third is warm-up and is left out: in it, the allocator's pools and the
libraries' caches fill, under several times more clients than later.

* **Memory** is noisy, so its slope is estimated: the Theil-Sen estimator, which is the median of the slopes of all
  pairs of readings, with Sen's confidence interval from the variance of Kendall's S. A single step, as allocators make
  them, hardly changes it. Consecutive readings are correlated, which would make the interval too narrow. The variance
  is therefore multiplied by (1 + r) / (1 - r), where r is the lag-1 autocorrelation of the residuals, if it is
  positive. Memory is flat if the whole interval is below the limit, and grows if the whole interval is above it.
  Otherwise the series is too short to decide, which is not a pass.
* **Counts** (descriptors, threads, zombies) have no noise. They grow if the median of the last third is above the
  maximum of the first third: a temporary peak in between is not growth.

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

# The fewest readings after the warm-up that decide anything.
FEWEST = 6

# At this autocorrelation, a hundred readings are worth two independent ones.
_LARGEST_CORRELATION = 0.96


Reading = TypeVar("Reading")


class Trend(StrEnum):
    FLAT = "flat"
    GROWS = "grows"
    UNKNOWN = "unknown"  # a reading is missing, or there are too few: not a pass


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope of a series, in its unit per unit of time.

    Args:
        middle: the Theil-Sen estimate.
        low, high: its confidence interval; infinite if there are too few independent readings.
    """

    middle: float
    low: float
    high: float

    def judge(self, limit: float) -> Trend:
        """Return the trend, where the slope has to stay below `limit`."""
        if self.high < limit:
            return Trend.FLAT
        return Trend.GROWS if self.low >= limit else Trend.UNKNOWN


def after_warm_up(readings: Sequence[Reading]) -> Sequence[Reading]:
    """Return the readings without those of the warm-up."""
    return readings[round(len(readings) * WARM_UP) :]


def find_slope(times: Sequence[float], values: Sequence[float], *, confidence: float = CONFIDENCE) -> Slope:
    """Estimate the slope of a series and its confidence interval.

    Args:
        times: of the readings, ascending.
        values: one per time, at least two.
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
    """Return the lag-1 autocorrelation, at least 0."""
    around = median(residuals)
    centred = [value - around for value in residuals]
    total = sum(value * value for value in centred)
    if not total:
        return 0.0
    product = sum(one * other for one, other in pairwise(centred))
    return min(max(product / total, 0.0), _LARGEST_CORRELATION)


def judge_counts(counts: Sequence[int | None]) -> Trend:
    """Return the trend of a count, which has no noise.

    Args:
        counts: after the warm-up; None if a count is unknown.
    """
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or len(known) < FEWEST:
        return Trend.UNKNOWN
    third = len(known) // 3
    return Trend.GROWS if median(known[-third:]) > max(known[:third]) else Trend.FLAT
