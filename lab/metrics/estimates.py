"""What repeats say: a median with an interval, ranks with ties, the noise floor of the machine, drift. Pure functions.

Strategy: the interval is the bootstrap's percentile interval of the median. Nothing is drawn at random for it: the
median of a resample is one order statistic, or the mean of two, and how likely each of them is follows from the
binomial distribution. So the same repeats always have the same interval, and no seed has to be kept. With three
repeats it reaches from the smallest to the largest, which is as much as three repeats can say.

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
    """A median and how far it can be trusted, in the unit of what was measured.

    Args:
        middle: the median of the repeats.
        low, high: the interval. `high` is infinity where repeats are lower bounds: nothing says how much more it is.
        repeats: how many stand behind it.
    """

    middle: float
    low: float
    high: float
    repeats: int

    @property
    def is_lower_bound(self) -> bool:
        """Whether it can be any value above `low`."""
        return self.high == inf

    @property
    def spread(self) -> float | None:
        """Half the interval, as a part of the median; None where there is no upper end, or nothing to divide by."""
        return None if self.is_lower_bound or not self.middle else (self.high - self.low) / 2 / self.middle

    def widen(self, noise: float) -> "Estimate":
        """The interval with the machine's noise added on both sides, as a part of the median."""
        margin = noise * abs(self.middle)
        return Estimate(self.middle, self.low - margin, self.high + margin, self.repeats)

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the two cannot be told apart."""
        return self.low <= other.high and other.low <= self.high


def estimate(
    values: Iterable[float | None], *, confidence: float = CONFIDENCE, is_lower_bound: bool = False
) -> Estimate | None:
    """The median of those values that are known, and its interval.

    Args:
        values: one a repeat; None is "not known".
        confidence: of the interval, from 0 to 1.
        is_lower_bound: whether the values are those of a server that could have done more.

    Returns:
        None if no value is known. One value alone has an interval without a width: `repeats` says how much it is worth.
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


def _medians(values: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Every median that a resample of sorted values can have, with its chance."""
    count = len(values)
    if count % 2:
        middle = count // 2 + 1
        for number, value in enumerate(values, 1):
            yield value, _reached(middle, number, count) - _reached(middle, number - 1, count)
        return
    half = count // 2
    for low in range(1, count + 1):
        # That the two in the middle are values `low` and `high`: half of the draws end at one, half begin at the other.
        ends = comb(count, half) * ((low / count) ** half - ((low - 1) / count) ** half)
        apart = 0.0
        for high in range(low + 1, count + 1):
            begins = ((count - high + 1) / count) ** half - ((count - high) / count) ** half
            apart += ends * begins
            yield (values[low - 1] + values[high - 1]) / 2, ends * begins
        yield values[low - 1], _reached(half, low, count) - _reached(half, low - 1, count) - apart


def _reached(draws: int, number: int, count: int) -> float:
    """The chance that at least so many of `count` draws are among the first `number` of `count` values."""
    share = number / count
    return sum(comb(count, hits) * share**hits * (1 - share) ** (count - hits) for hits in range(draws, count + 1))


def rank(
    estimates: Mapping[str, Estimate], *, noise: float = 0.0, higher_is_better: bool = True
) -> dict[str, tuple[int, int]]:
    """The places that each can have: only what is beyond doubt is a difference.

    Args:
        estimates: by name.
        noise: of the machine, as a part of a value; every interval is widened by it.
        higher_is_better: as for a rate; or lower, as for a cost.

    Returns:
        By name, in the order of the medians, the best first: the best place that it can have (one more than are
        certainly better) and the worst (as many as are not certainly worse). Where the two differ, it is a tie with
        somebody.
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
    """How far two measurements of the same thing are apart, as a part of it: what is below that is no difference.

    Args:
        pairs: of the A/A run: the same model under two names, both in the same round.

    Returns:
        The median over the pairs; None if in none of them both are known.
    """
    apart = [
        abs(one - other) / ((one + other) / 2)
        for one, other in pairs
        if one is not None and other is not None and one + other > 0
    ]
    return median(apart) if apart else None


def drift(first: Mapping[str, float | None], last: Mapping[str, float | None]) -> float | None:
    """By how much the machine changed from the first round to the last: the median change over all that is in both.

    Args:
        first, last: a figure of each cell in that round.

    Returns:
        0.05 for 5 % more; None if no figure is known in both.
    """
    changes = [
        last_value / first_value - 1
        for name, first_value in first.items()
        if first_value and (last_value := last.get(name)) is not None
    ]
    return median(changes) if changes else None


@dataclass(frozen=True, slots=True)
class Change:
    """How a figure differs between two runs.

    Args:
        before, after: the figure in each.
        ratio: after / before, of the medians.
        is_beyond_noise: whether the intervals, widened by the noise of both machines, lie apart.
    """

    before: Estimate
    after: Estimate
    ratio: float
    is_beyond_noise: bool


def compare(before: Estimate, after: Estimate, *, noise: float = 0.0) -> Change | None:
    """What has changed; None where nothing can be divided by."""
    if not before.middle:
        return None
    return Change(before, after, after.middle / before.middle, not before.widen(noise).overlaps(after.widen(noise)))


def show_estimate(found: Estimate | None, show: Callable[[float], str]) -> str:
    """A median with its interval; with `≥`, and no interval, where it is a lower bound."""
    if found is None:
        return UNKNOWN
    if found.is_lower_bound:
        return f"≥ {show(found.middle)}"
    return show(found.middle) if found.repeats < 2 else f"{show(found.middle)} [{show(found.low)} {show(found.high)}]"
