"""Statistics over repeats: against values worked out by hand, and against resampling in earnest."""

import random
from collections import Counter
from itertools import product
from math import inf
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.metrics.estimates import Estimate, _medians, compare, drift, estimate, noise_floor, rank, show_estimate

some = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=9)


def test_three_repeats_reach_from_the_smallest_to_the_largest() -> None:
    assert estimate([30.0, 10.0, 20.0]) == Estimate(20.0, 10.0, 30.0, 3)


def test_one_repeat_has_no_width_and_says_that_it_is_one() -> None:
    assert estimate([7.0]) == Estimate(7.0, 7.0, 7.0, 1)


def test_what_is_not_known_is_left_out_and_nothing_is_none() -> None:
    assert estimate([None, 5.0, None]) == Estimate(5.0, 5.0, 5.0, 1)
    assert estimate([None, None]) is None
    assert estimate([]) is None


def test_lower_bound_has_no_upper_end() -> None:
    found = estimate([10.0, 20.0, 30.0], is_lower_bound=True)
    assert found is not None
    assert (found.low, found.high, found.is_lower_bound, found.spread) == (10.0, inf, True, None)


@pytest.mark.parametrize("count", [4, 5, 7, 10, 15])
def test_interval_equals_that_of_resampling(count: int) -> None:
    chance = random.Random(count)
    values = [chance.gauss(100, 10) for _ in range(count)]
    medians = sorted(median(chance.choices(values, k=count)) for _ in range(20_000))
    found = estimate(values)
    assert found is not None
    assert found.middle == median(values)
    # The bootstrap's medians are few values with gaps: a random sample may miss the edge by one of them.
    assert medians[200] <= found.low <= medians[800]
    assert medians[-800] <= found.high <= medians[-200]


@given(some)
def test_interval_contains_the_median_and_lies_within_the_values(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert min(values) <= found.low <= found.middle <= found.high <= max(values)


def test_interval_is_narrower_with_more_repeats() -> None:
    chance = random.Random(1)
    values = [chance.gauss(100, 10) for _ in range(41)]
    few, many = estimate(values[:5]), estimate(values)
    assert few is not None
    assert many is not None
    assert many.high - many.low < few.high - few.low


def _of(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 3)


def test_rank_differs_only_where_intervals_do_not_overlap() -> None:
    found = rank({"slow": _of(10, 20), "fast": _of(90, 100), "faster": _of(95, 110)})
    assert found == {"faster": (1, 2), "fast": (1, 2), "slow": (3, 3)}
    assert list(found) == ["faster", "fast", "slow"]


def test_rank_of_a_cost_puts_the_lowest_first() -> None:
    assert rank({"dear": _of(30, 31), "cheap": _of(10, 11)}, higher_is_better=False) == {
        "cheap": (1, 1),
        "dear": (2, 2),
    }


def test_ties_are_in_the_order_of_the_medians() -> None:
    """Whatever the ends of their intervals are."""
    found = {"b": Estimate(5, 3, 9, 5), "a": Estimate(4, 4, 8, 5), "c": Estimate(6, 2, 7, 5)}
    tie = (1, 3)
    assert list(rank(found).items()) == [("c", tie), ("b", tie), ("a", tie)]
    assert list(rank(found, higher_is_better=False).items()) == [("a", tie), ("b", tie), ("c", tie)]


def test_costs_whose_intervals_overlap_are_a_tie() -> None:
    assert rank({"a": Estimate(5, 1, 9, 5), "b": Estimate(12, 7, 15, 5)}, higher_is_better=False) == {
        "a": (1, 2),
        "b": (1, 2),
    }


def test_interval_is_widened_by_a_share_of_the_median() -> None:
    assert Estimate(10.0, 4.0, 20.0, 5).widen(0.1) == Estimate(10.0, 3.0, 21.0, 5)
    assert Estimate(-10.0, -20.0, -4.0, 5).widen(0.1) == Estimate(-10.0, -21.0, -3.0, 5)


def test_estimate_is_shown_with_its_interval() -> None:
    assert show_estimate(Estimate(5, 1, 9, 3), str) == "5 [1 9]"
    assert show_estimate(Estimate(5, 1, 9, 1), str) == "5"
    assert show_estimate(Estimate(5, 1, inf, 3), str) == "≥ 5"
    assert show_estimate(None, str) == "–"  # noqa: RUF001


def test_change_is_relative_to_the_median_before() -> None:
    found = compare(Estimate(2.0, 0.0, 4.0, 3), Estimate(3.0, 1.0, 9.0, 3))
    assert found is not None
    assert found.ratio == 1.5
    assert compare(Estimate(0.0, -1.0, 1.0, 3), _of(1, 1)) is None


def test_lower_bound_is_never_ranked_behind_another() -> None:
    bound = Estimate(50.0, 45.0, inf, 3)
    assert rank({"bound": bound, "fast": _of(90, 100)}) == {"fast": (1, 2), "bound": (1, 2)}
    assert rank({"bound": bound, "slow": _of(10, 20)}) == {"bound": (1, 1), "slow": (2, 2)}


def test_rank_has_ties_within_the_noise() -> None:
    close = {"one": _of(100, 101), "other": _of(103, 104)}
    assert rank(close) == {"other": (1, 1), "one": (2, 2)}
    assert rank(close, noise=0.02) == {"other": (1, 2), "one": (1, 2)}


def test_noise_floor_is_the_median_difference_of_equal_pairs() -> None:
    assert noise_floor([(100.0, 100.0), (99.0, 101.0), (90.0, 110.0)]) == pytest.approx(0.02)
    assert noise_floor([(None, 1.0), (1.0, None)]) is None


def test_drift_is_the_median_change_of_cases_in_both_rounds() -> None:
    assert drift([(100.0, 110.0), (10.0, 9.0), (1.0, 1.05)]) == pytest.approx(0.05)
    assert drift([(100.0, None), (None, 1.0), (0.0, 1.0)]) is None


def test_change_counts_beyond_the_noise() -> None:
    small, large = compare(_of(99, 101), _of(102, 104), noise=0.02), compare(_of(99, 101), _of(120, 122), noise=0.02)
    assert small is not None
    assert large is not None
    assert not small.is_beyond_noise
    assert large.is_beyond_noise
    assert large.ratio == pytest.approx(1.21)
    assert compare(_of(0, 0), _of(1, 1)) is None


@pytest.mark.parametrize(
    ("after", "is_beyond"),
    [
        # 3 % of the median wider on each side: before, 99 to 101 is 96 to 104.
        (106.0, False),  # 102.82 to 109.18: neither 106 to 104, nor 102.82 to 101 would overlap
        (108.0, True),  # 104.76 to 111.24
        (94.0, False),  # 91.18 to 96.82
        (93.0, True),  # 90.21 to 95.79
    ],
)
def test_both_intervals_of_a_change_are_widened_by_the_noise(after: float, is_beyond: bool) -> None:
    found = compare(_of(99, 101), _of(after, after), noise=0.03)
    assert found is not None
    assert found.is_beyond_noise is is_beyond


def test_spread_is_half_the_interval_relative_to_the_median() -> None:
    # (130 - 90) / 2 = 20, of 100.
    assert Estimate(100.0, 90.0, 130.0, 3).spread == 0.2
    assert Estimate(0.0, -1.0, 1.0, 3).spread is None


def test_medians_of_four_values_have_their_probabilities() -> None:
    # 256 resamples; the median is the mean of the second and the third value. It is 1 where three draws or more are 1:
    # 4 x 3 + 1 = 13. It is 1.5 where two draws are 1 and the least of the others is 2: 6 x (9 - 4) = 30.
    found: dict[float, float] = {}
    for middle, chance in _medians([1.0, 2.0, 3.0, 4.0]):
        found[middle] = found.get(middle, 0.0) + chance * 256
    counted = Counter(median(draw) for draw in product([1.0, 2.0, 3.0, 4.0], repeat=4))
    assert found == pytest.approx(dict(counted))
    assert (counted[1.0], counted[1.5]) == (13, 30)


def test_interval_of_seven_values_at_90_percent() -> None:
    # The median of 7 draws is at most the k-th smallest with the chance 0.0101, 0.0985, 0.3021 for k = 1 to 3.
    # 5 % lie below the second; by symmetry 5 % above the sixth.
    assert estimate([1, 2, 3, 4, 5, 6, 7], confidence=0.9) == Estimate(4, 2, 6, 7)
    # 0.5 % are less than the chance of the smallest.
    assert estimate([1, 2, 3, 4, 5, 6, 7], confidence=0.99) == Estimate(4, 1, 7, 7)
    # 2.5 % lie between 0.0101 and 0.0985 as well.
    assert estimate([1, 2, 3, 4, 5, 6, 7]) == Estimate(4, 2, 6, 7)


def test_noise_floor_ignores_pairs_of_zeros() -> None:
    assert noise_floor([(0.0, 0.0), (1.0, 3.0)]) == 1.0
    assert noise_floor([(0.2, 0.4)]) == pytest.approx(2 / 3)
    assert noise_floor([(0.0, 0.0)]) is None


def test_compare_without_noise_takes_the_intervals_as_they_are() -> None:
    found = compare(_of(99, 101), _of(101.1, 103))
    assert found is not None
    assert found.is_beyond_noise
