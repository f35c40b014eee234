"""Statistics of repeats: medians with intervals, ranks with ties, the noise floor, drift. Pure functions.

Strategy: the interval is the bootstrap percentile interval of the median, computed without random numbers. The median
of a resample is one order statistic, or the mean of two, and their probabilities follow from the binomial distribution.
So the same repeats always have the same interval, and there is no seed. With three repeats it reaches from the smallest
to the largest: three repeats cannot say more.

Source: Efron, "Bootstrap methods: another look at the jackknife", 1979, section 3, which has the case of the median.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb, inf
from statistics import median

from lab.base.units import UNKNOWN

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with its confidence interval, in the unit of the measured value.

    Args:
        low, high: the interval. `high` is infinity if the repeats are lower bounds.
    """

    middle: float
    low: float
    high: float
    repeats: int

    @property
    def is_lower_bound(self) -> bool:
        return self.high == inf

    @property
    def spread(self) -> float | None:
        """Return half the interval relative to the median; None for a lower bound or a median of 0."""
        return None if self.is_lower_bound or not self.middle else (self.high - self.low) / 2 / self.middle

    def widen(self, noise: float) -> "Estimate":
        """Widen the interval on both sides by the noise, given relative to the median."""
        margin = noise * abs(self.middle)
        return Estimate(self.middle, self.low - margin, self.high + margin, self.repeats)

    def overlaps(self, other: "Estimate") -> bool:
        """Return whether the intervals overlap, so that there is no difference."""
        return self.low <= other.high and other.low <= self.high


def estimate(
    values: Iterable[float | None], *, confidence: float = CONFIDENCE, is_lower_bound: bool = False
) -> Estimate | None:
    """Return the median of the known values and its confidence interval.

    Args:
        values: one per repeat; None if unknown.
        confidence: of the interval, from 0 to 1.
        is_lower_bound: the server was not the limit and could have reached more.

    Returns:
        None if no value is known. The interval of a single value has no width; check `repeats`.
    """
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    tail = (1 - confidence) / 2
    low = high = known[0]
    seen = 0.0
    for value, chance in sorted(_medians(known)):
        if seen <= tail:
            low = value
        if seen < 1 - tail:
            high = value
        seen += chance
    return Estimate(median(known), low, inf if is_lower_bound else high, len(known))


def find_median(values: Iterable[float | None]) -> float | None:
    """Return the median of the known values; None if no value is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _medians(values: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield each median that a resample of sorted values can have, with its probability."""
    count = len(values)
    if count % 2:
        middle = count // 2 + 1
        for number, value in enumerate(values, 1):
            yield value, _reached(middle, number, count) - _reached(middle, number - 1, count)
        return
    half = count // 2
    for low in range(1, count + 1):
        # The middle two draws are `low` and `high`: half of the draws end at `low`, the other half starts at `high`.
        ends = comb(count, half) * ((low / count) ** half - ((low - 1) / count) ** half)
        apart = 0.0
        for high in range(low + 1, count + 1):
            begins = ((count - high + 1) / count) ** half - ((count - high) / count) ** half
            apart += ends * begins
            yield (values[low - 1] + values[high - 1]) / 2, ends * begins
        yield values[low - 1], _reached(half, low, count) - _reached(half, low - 1, count) - apart


def _reached(draws: int, number: int, count: int) -> float:
    """Return the probability that `draws` or more of `count` draws are among the first `number` values."""
    share = number / count
    return sum(comb(count, hits) * share**hits * (1 - share) ** (count - hits) for hits in range(draws, count + 1))


def rank(
    estimates: Mapping[str, Estimate], *, noise: float = 0.0, higher_is_better: bool = True
) -> dict[str, tuple[int, int]]:
    """Rank estimates; overlapping intervals are ties.

    Args:
        estimates: by name.
        noise: of the machine, relative to a value; each interval is widened by it.
        higher_is_better: true for a rate, false for a cost.

    Returns:
        By name, in the order of the medians, best first: the best possible rank (1 + the number that are clearly
        better) and the worst possible rank (the number that are not clearly worse, itself included). If the two
        differ, it is a tie.
    """
    wide = {name: item.widen(noise) for name, item in estimates.items()}

    def is_better(one: Estimate, other: Estimate) -> bool:
        return one.low > other.high if higher_is_better else one.high < other.low

    order = sorted(estimates, key=lambda name: (estimates[name].middle, name), reverse=higher_is_better)
    return {
        name: (
            1 + sum(is_better(other, wide[name]) for other in wide.values()),
            len(wide) - sum(is_better(wide[name], other) for other in wide.values()),
        )
        for name in order
    }


def noise_floor(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Return the relative difference of two measurements of the same thing; smaller differences mean nothing.

    Args:
        pairs: of the A/A control: the same model under two names, in the same round.

    Returns:
        The median over the pairs; None if no pair has two known values.
    """
    return find_median(
        abs(one - other) / ((one + other) / 2)
        for one, other in pairs
        if one is not None and other is not None and one + other > 0
    )


def drift(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Return the relative change of the machine from the first round to the last: the median over all cases.

    Args:
        pairs: the value of each case in the two rounds.

    Returns:
        0.05 for 5 % more; None if no case has a value in both.
    """
    return find_median(last / first - 1 for first, last in pairs if first and last is not None)


@dataclass(frozen=True, slots=True)
class Change:
    """The difference of a value between two runs.

    Args:
        before, after: the value in each.
        ratio: after / before, of the medians.
        is_beyond_noise: whether the intervals, widened by the noise, do not overlap.
    """

    before: Estimate
    after: Estimate
    ratio: float
    is_beyond_noise: bool


def compare(before: Estimate, after: Estimate, *, noise: float = 0.0) -> Change | None:
    """Return the change; None if the value before was 0."""
    if not before.middle:
        return None
    return Change(before, after, after.middle / before.middle, not before.widen(noise).overlaps(after.widen(noise)))


def show_estimate(found: Estimate | None, show: Callable[[float], str]) -> str:
    """Format a median with its interval; a lower bound has `≥` and no interval."""
    if found is None:
        return UNKNOWN
    if found.is_lower_bound:
        return f"≥ {show(found.middle)}"
    return show(found.middle) if found.repeats < 2 else f"{show(found.middle)} [{show(found.low)} {show(found.high)}]"
