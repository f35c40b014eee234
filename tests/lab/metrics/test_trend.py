"""The leak test, on series that are short enough to be calculated by hand."""

import random
from collections.abc import Sequence
from math import inf
from statistics import NormalDist

import pytest

from lab.metrics.trend import (
    CONFIDENCE,
    FEWEST,
    WARM_UP,
    Slope,
    Trend,
    _correlate,
    after_warm_up,
    find_slope,
    judge_counts,
)
from tests.support.approx import about

# 15 pairs; no two values are the same, and no residual is like the one before it. In order, their slopes are
# -2 -2 -1/3 0.5 (6 times) 1 4/3 4/3 3 3 3. Var(S) = 6 x 5 x 17 / 18 = 28.33, of which the root is 5.323.
ZIGZAG = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
TIMES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
HOURS = [number / 360 for number in range(40)]


@pytest.mark.parametrize(
    ("confidence", "low", "high"),
    [
        # z 0.6745: 3.59 wide; from the (15 - 3.59) / 2 = 5.7th, so 6, to the (15 + 3.59) / 2 = 9.3th, so 9. From 0 on.
        (0.5, 0.5, 1.0),
        # z 1.96: 10.43 wide; 2.3 and 12.7: the slopes 2 and 13.
        (0.95, -1 / 3, 3.0),
        # z 2.697: 14.35 wide; 0.3 and 14.7: 0 and 15, which is behind the last.
        (0.993, -2.0, 3.0),
        # z 3.29: 17.5 wide; -1.3 and 16.3: beyond both ends.
        (0.999, -inf, inf),
    ],
)
def test_interval_is_sens(confidence: float, low: float, high: float) -> None:
    assert find_slope(TIMES, ZIGZAG, confidence=confidence) == Slope(0.5, about(low), high)


def test_default_confidence_is_95_percent() -> None:
    assert CONFIDENCE == 0.95
    assert find_slope(TIMES, ZIGZAG) == find_slope(TIMES, ZIGZAG, confidence=0.95)


def test_interval_of_a_long_series_is_not_as_wide_as_all_slopes() -> None:
    # 66 pairs: 15 slopes below 1 (the highest 1 - 0.5 / 9), 30 of 1, then 1 + 0.5 / 11, twice 1 + 0.5 / 9 and higher
    # ones. Var(S) = 12 x 11 x 29 / 18 = 212.67, of which the root is 14.58; 28.58 wide: from (66 - 28.58) / 2 = 18.7 to
    # 47.3, the slopes 19 and 47. From 0 on.
    times = [float(number) for number in range(12)]
    values = [number + number % 2 / 2 for number in range(12)]
    assert find_slope(times, values) == Slope(1.0, 1.0, about(1 + 0.5 / 9))


def test_interval_of_a_short_series_reaches_the_last_slope() -> None:
    # In order, the slopes are 1 1.5 2 2 2.5 3. Var(S) = 4 x 3 x 13 / 18 = 8.67, of which the root is 2.944; 5.77 wide:
    # from 0.1 to 5.9, the slopes 0 and 6, which is the end.
    assert find_slope([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 3.0, 6.0]) == Slope(2.0, 1.0, 3.0)


def test_ties_make_the_interval_narrower() -> None:
    # One tie of three: Var(S) = (510 - 3 x 2 x 11) / 18 = 24.67, of which the root is 4.967. With z 2.4 it is 11.92
    # wide: 1.54 and 13.46, the slopes 2 and 13. Without the tie it were 12.77 wide: 1.11 and 13.89, so 1 and 14.
    values = [1.0, 1.0, 1.0, 2.0, 4.0, 3.0]
    # In order, they are -1 0 0 0 1/3 0.4 0.5 0.5 0.5 2/3 0.75 1 1 1.5 2.
    confidence = 2 * NormalDist().cdf(2.4) - 1
    assert find_slope(TIMES, values, confidence=confidence) == Slope(0.5, 0.0, 1.5)


def test_autocorrelated_series_has_a_wider_interval() -> None:
    # 28 pairs: nine negative (-2 -1 -1 -2/3 -2/3 -2/3 -0.5 -0.5 -0.4), 13 zeros, six positive (0.5 2/3 2/3 1 1 2).
    # The median is 0. Residuals less their median, which is 1: 0 0 0 -2 -2 -2 0 0, so r = (4 + 4) / 12 = 2/3, and the
    # variance is multiplied by (5/3) / (1/3) = 5. Ties of 5 and 3: (8 x 7 x 21 - 5 x 4 x 15 - 3 x 2 x 11) / 18 = 45.
    # The root of 45 x 5 is 15; with z 1.2816 it is 19.22 wide, 4.4 and 23.6: the slopes 4 and 24. Without r it is 8.6
    # wide: 10 and 18.
    times = [float(number) for number in range(8)]
    found = find_slope(times, [1, 1, 1, -1, -1, -1, 1, 1], confidence=0.8)
    assert found == Slope(0.0, about(-2 / 3), about(2 / 3))


def test_slope_takes_uneven_times() -> None:
    # Of (0, 0), (1, 3), (3, 5): 3, 5/3 and 1.
    assert find_slope([0.0, 1.0, 3.0], [0.0, 3.0, 5.0]).middle == pytest.approx(5 / 3)
    with pytest.raises(ValueError, match="shorter"):
        find_slope([0.0, 1.0, 3.0], [0.0, 3.0])


@pytest.mark.parametrize(
    ("residuals", "correlation"),
    [
        ([-2, -1, 0, 1, 2], 0.4),  # (2 + 0 + 0 + 2) / (4 + 1 + 0 + 1 + 4)
        ([8, 9, 10, 11, 12], 0.4),  # the same around 10
        ([1, -1, 1, -1], 0.0),  # -3 / 4
        ([3, 3, 3, 3], 0.0),
        (range(-50, 51), 0.96),  # 83,300 / 85,850 is 0.97
    ],
)
def test_correlation_is_at_lag_one(residuals: Sequence[float], correlation: float) -> None:
    assert _correlate(residuals) == pytest.approx(correlation)


@pytest.mark.parametrize(
    ("low", "high", "trend"),
    [
        (-2.0, 0.9, Trend.FLAT),
        (-2.0, 1.0, Trend.UNKNOWN),  # the limit must not be reached
        (0.9, 1.1, Trend.UNKNOWN),
        (1.0, 1.1, Trend.GROWS),
        (1.0, 1.0, Trend.GROWS),
        (-inf, inf, Trend.UNKNOWN),
    ],
)
def test_slope_is_judged_by_both_ends_of_its_interval(low: float, high: float, trend: Trend) -> None:
    assert Slope(0.0, low, high).judge(1.0) is trend


@pytest.mark.parametrize(("readings", "first"), [(3, 1), (4, 1), (5, 2), (9, 3), (30, 10)])
def test_first_third_is_warm_up(readings: int, first: int) -> None:
    assert WARM_UP == 1 / 3
    assert after_warm_up(range(readings)) == range(first, readings)


@pytest.mark.parametrize(
    ("counts", "trend"),
    [
        ([1, 2, 9, 9, 3, 2], Trend.GROWS),  # 2.5 above 2
        ([1, 3, 9, 9, 3, 3], Trend.FLAT),  # 3 is not above 3
        ([3, 1, 0, 0, 0, 9], Trend.GROWS),  # 4.5 above 3
        ([2, 1, 0, 0, 0, 4], Trend.FLAT),  # 2 is not above 2
        ([1, 1, 1, 0, 0, 0, 0, 2], Trend.FLAT),  # thirds of two: 1 is not above 1
        ([1, 2, 1, 2, 2], Trend.UNKNOWN),
        ([1, 1, None, 1, 1, 1, 1], Trend.UNKNOWN),
        ([], Trend.UNKNOWN),
    ],
)
def test_counts_grow_if_the_median_of_the_last_third_is_above_the_first_third(
    counts: Sequence[int | None], trend: Trend
) -> None:
    assert FEWEST == 6
    assert judge_counts(counts) is trend


def noise(seed: int, *, correlation: float = 0.0) -> list[float]:
    """Return noise with a standard deviation of 1 and this correlation at lag 1."""
    generator = random.Random(seed)
    values = [generator.gauss(0, 1)]
    for _ in HOURS[1:]:
        values.append(correlation * values[-1] + (1 - correlation**2) ** 0.5 * generator.gauss(0, 1))
    return values


def test_straight_line_has_an_exact_slope() -> None:
    assert find_slope([0, 1, 2, 3, 5, 8, 9], [7, 9, 11, 13, 17, 23, 25]) == Slope(2, 2, 2)
    assert find_slope(HOURS, [5.0] * 40) == Slope(0, 0, 0)


def test_single_step_does_not_move_the_slope() -> None:
    for at in (3, 10, 30, 37):
        assert find_slope(HOURS, [0.0] * at + [1000.0] * (40 - at)).middle == 0


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_interval_contains_the_true_slope_as_often_as_its_confidence(correlation: float) -> None:
    """On 200 series with a slope of 3; the seeds determine the exact share."""
    slopes = [
        find_slope(
            HOURS,
            [3 * hour + value for hour, value in zip(HOURS, noise(seed, correlation=correlation), strict=True)],
        )
        for seed in range(200)
    ]
    assert sum(slope.low <= 3 <= slope.high for slope in slopes) >= 0.88 * 200


def test_correlation_widens_the_interval() -> None:
    widths = [
        sum((slope := find_slope(HOURS, noise(seed, correlation=correlation))).high - slope.low for seed in range(20))
        for correlation in (0.0, 0.8)
    ]
    assert widths[0] < widths[1]
