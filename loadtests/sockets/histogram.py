"""Response times at full resolution: an HDR histogram that keeps only what occurred.

Strategy: as in HdrHistogram, a time keeps a precision of one part in a thousand at any size: it is a whole number of
ticks of which only the eleven highest bits are kept. The counts are a dict of such integers with some hundred entries,
where HdrHistogram's array has 27,648, so that workers can send the new ones to their master. Its port to Python
(hdrhistogram 0.10.8) was tried: it takes 1 µs to record a value, a tenth of a request here; this takes 0.2.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import sqrt
from typing import Any, Self, TextIO

# A tenth of a microsecond: finer than Python can read a clock, and a day is still a small integer.
TICKS = 10_000_000
_BITS = 11

# Percentiles of an .hgrm file: number of steps in each half of the rest.
_STEPS = 5

# The percentiles in results and tables, by the name of their figure.
PERCENTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p99.9_us": 0.999}


class Histogram:
    """Counts of times.

    Attributes:
        counts: by time in ticks, lower bits cleared.
        total: number of times.
        ticks: the sum of all times, exact.
        smallest, largest: the extremes in ticks, exact; None if it is empty.
    """

    __slots__ = ("counts", "largest", "smallest", "ticks", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0
        self.ticks = 0
        self.smallest: int | None = None
        self.largest: int | None = None

    def __eq__(self, other: object) -> bool:
        """Compare what both show; the exact sum is not a part of a file."""
        return isinstance(other, Histogram) and self.pairs() == other.pairs()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def record(self, seconds: Iterable[float]) -> None:
        found = Counter([int(value * TICKS) for value in seconds])
        if not found:
            return
        counts, cut = self.counts, _cut
        for ticks, count in found.items():
            key = cut(ticks)
            counts[key] = counts.get(key, 0) + count
            self.ticks += ticks * count
        self.total += found.total()
        self._stretch(min(found), max(found))

    def merge(self, other: "Histogram") -> None:
        for key, count in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count
        self.total += other.total
        self.ticks += other.ticks
        if other.smallest is not None and other.largest is not None:
            self._stretch(other.smallest, other.largest)

    def since(self, earlier: Mapping[int, int]) -> "Histogram":
        """Return the times that were added after a copy of `counts`; their largest is at most that of all times."""
        found = Histogram()
        found.counts = {
            key: count - before for key, count in self.counts.items() if count > (before := earlier.get(key, 0))
        }
        found.total = sum(found.counts.values())
        found.ticks = sum(key * count for key, count in found.counts.items())
        if found.counts:
            found._stretch(min(found.counts), self.largest or 0)
        return found

    def percentile(self, share: float) -> float | None:
        """Return the smallest time in microseconds that `share` of all do not exceed; None if it is empty."""
        return percentile(self.pairs(), share)

    def percentiles(self) -> dict[str, float | None]:
        """Return those of `PERCENTILES` by name."""
        return dict(zip(PERCENTILES, percentiles(self.pairs(), PERCENTILES.values()), strict=True))

    @property
    def mean_us(self) -> float | None:
        """The mean in microseconds, exact; None if it is empty."""
        return _us(self.ticks / self.total) if self.total else None

    @property
    def min_us(self) -> float | None:
        """The shortest time in microseconds; None if it is empty."""
        return None if self.smallest is None else _us(self.smallest)

    @property
    def max_us(self) -> float | None:
        """The longest time in microseconds; None if it is empty."""
        return None if self.largest is None else _us(self.largest)

    def pairs(self) -> list[tuple[float, int]]:
        """Return (microseconds, count) in rising order."""
        return [(self._shown(key), self.counts[key]) for key in sorted(self.counts)]

    def encode(self) -> list[object]:
        """Return data for a message or a file, for `decode`."""
        return [self.ticks, self.smallest, self.largest, list(self.counts), list(self.counts.values())]

    @classmethod
    def decode(cls, data: Sequence[Any]) -> Self:
        found = cls()
        found.ticks, found.smallest, found.largest, keys, counts = data
        found.counts = dict(zip(keys, counts, strict=True))
        found.total = sum(found.counts.values())
        return found

    def as_json(self) -> dict[str, object]:
        """Return data for a file, in units that people read, for `from_json`."""
        return {"pairs": self.pairs(), "mean_us": self.mean_us, "min_us": self.min_us, "max_us": self.max_us}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Restore the histogram that `as_json` was called on.

        Raises:
            KeyError, TypeError, ValueError: the data is not a histogram.
        """
        found = cls.from_pairs(data["pairs"])
        if data["mean_us"] is not None:
            found.ticks = round(_ticks(data["mean_us"]) * found.total)
            found.smallest, found.largest = round(_ticks(data["min_us"])), round(_ticks(data["max_us"]))
        return found

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[float, int]]) -> Self:
        """Restore a histogram from its `pairs`; sum and extremes have their precision."""
        found = cls()
        for microseconds, count in pairs:
            ticks = round(_ticks(microseconds))
            found.counts[_cut(ticks)] = found.counts.get(_cut(ticks), 0) + count
            found.ticks += ticks * count
            found.total += count
            found._stretch(ticks, ticks)
        return found

    def write_hgrm(self, file: TextIO) -> None:
        """Write the percentile distribution in milliseconds, in the format of HdrHistogram's plotters.

        Source: HdrHistogram's `outputPercentileDistribution`.
        """
        file.write(f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n")
        for value, share, seen in self._distribution():
            rest = f"{1 / (1 - share):14.2f}" if share < 1 else f"{'inf':>14}"
            file.write(f"{value / 1000:12.4f} {share:14.12f} {seen:10d} {rest}\n")
        mean = self.mean_us or 0.0
        spread = sum(count * (value - mean) ** 2 for value, count in self.pairs())
        deviation = sqrt(spread / self.total) if self.total else 0.0
        file.write(f"#[Mean    = {mean / 1000:12.4f}, StdDeviation   = {deviation / 1000:12.4f}]\n")
        file.write(f"#[Max     = {(self.max_us or 0.0) / 1000:12.4f}, Total count    = {self.total:12d}]\n")
        file.write(f"#[Buckets = {max(self.counts, default=0).bit_length():12d}, SubBuckets     = {1 << _BITS:12d}]\n")

    def _distribution(self) -> Iterator[tuple[float, float, int]]:
        """Yield (microseconds, share, count up to there) for shares that approach 1."""
        seen, wanted = 0, 0.0
        for value, count in self.pairs():
            seen += count
            share = seen / self.total
            if share >= wanted:
                yield value, share, seen
            while wanted <= share < 1:
                # The step shrinks with the rest: the half that it is in, divided by _STEPS.
                half = 1.0
                while half / 2 >= 1 - wanted:
                    half /= 2
                wanted += half / 2 / _STEPS

    def _stretch(self, smallest: int, largest: int) -> None:
        self.smallest = smallest if self.smallest is None else min(self.smallest, smallest)
        self.largest = largest if self.largest is None else max(self.largest, largest)

    def _shown(self, key: int) -> float:
        """Return the largest time that a key stands for, at most the longest that occurred."""
        width = 1 << max(key.bit_length() - _BITS, 0)
        return _us(min(key + width - 1, self.largest if self.largest is not None else key))


def percentiles(pairs: Sequence[tuple[float, int]], shares: Iterable[float]) -> list[float | None]:
    """Return the percentile for each share by nearest rank; None for an empty histogram.

    Several at once, because adding up the counts takes most of the time.

    Args:
        pairs: as `Histogram.pairs` returns them, or values of another unit with their counts, in rising order.
    """
    seen = list(accumulate(count for _, count in pairs))
    # The margin absorbs the rounding of a share times the total, which would miss the percentile by a rank.
    return [pairs[bisect_left(seen, share * seen[-1] - 1e-6)][0] if seen else None for share in shares]


def percentile(pairs: Sequence[tuple[float, int]], share: float) -> float | None:
    """Return one percentile; see `percentiles`."""
    return percentiles(pairs, [share])[0]


def _cut(ticks: int) -> int:
    shift = max(ticks.bit_length() - _BITS, 0)
    return ticks >> shift << shift


def _ticks(microseconds: float) -> float:
    return microseconds * TICKS / 1_000_000


def _us(ticks: float) -> float:
    return round(ticks * 1_000_000 / TICKS, 1)
