"""Axes: which values they cover, where a value is, and which ticks have a label."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# A linear axis has about so many ticks; a logarithmic one gets ticks at 2 and 5 only if it has fewer decades than that.
_TICKS = 4
_FEW_DECADES = 2

# The room beyond the smallest and the largest value of an axis, as a factor (logarithmic) and a share (linear).
_ROOM = 1.12
_LINEAR_ROOM = 0.04

# From this ratio of the largest to the smallest value, a logarithmic axis separates the small ones better.
_WIDE = 8

# Zeros after the point that say nothing: those of 5.00k, 0.50 and 10.0.
_ZEROS = re.compile(r"\.0+(?!\d)|(?<=\.[1-9])0+(?!\d)")


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to places.

    Args:
        low, high: the range of values.
        start, end: the places of the two; `end` is less than `start` on an axis that points up.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the place of a value, within the range; the middle if all values are equal."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a chart.

    Args:
        title: what it shows, with the unit.
        low, high: the range of values.
        ticks: values with a label.
    """

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    show: Callable[[float], str]
    is_log: bool = False

    def label(self, value: float) -> str:
        """Return the label of a tick: without zeros at its end."""
        return _ZEROS.sub("", self.show(value))

    def scale(self, start: float, end: float) -> Scale:
        """Return the scale between two places."""
        return Scale(self.low, self.high, start, end, self.is_log)


def make_axis(
    title: str,
    values: Iterable[float],
    show: Callable[[float], str],
    *,
    is_log: bool | None = None,
    ticks: Sequence[float] | None = None,
) -> Axis:
    """Return an axis that has room for all values: logarithmic, or from 0.

    Args:
        values: those to be shown. A value of 0 or less cannot be on a logarithmic axis, and is put at its beginning.
        is_log: default: whether the values differ by more than a factor of 8, and none is negative.
        ticks: default: round values.
    """
    known = [value for value in values if math.isfinite(value)]
    positive = [value for value in known if value > 0]
    if is_log is None:
        is_log = bool(positive) and min(known) >= 0 and max(positive) > _WIDE * min(positive)
    if is_log and positive:
        low, high = min(positive) / _ROOM, max(positive) * _ROOM
        return Axis(title, low, high, tuple(ticks if ticks is not None else _log_ticks(low, high)), show, is_log=True)
    low, high = min([*known, 0.0]), max([*known, 0.0])
    high = high if high > low else 1.0
    room = (high - low) * _LINEAR_ROOM
    low, high = (low - room if low < 0 else 0.0), high + room
    return Axis(title, low, high, tuple(ticks if ticks is not None else _linear_ticks(low, high)), show)


def _linear_ticks(low: float, high: float) -> list[float]:
    """Return round values from `low` to `high`, at a step of 1, 2 or 5 times a power of ten, with 0 among them."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (2, 5, 10) if factor * power >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten within the range, with 2 and 5 of each if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > _FEW_DECADES else (1, 2, 5)
    return [tick for power in powers for factor in factors if low <= (tick := factor * 10.0**power) <= high]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart, as little as possible, so that none covers another; keep their order.

    Args:
        places: where each label would be.
        gap: the smallest distance of two labels; less if the range has no room for that.
        low, high: the range of the labels.
    """
    if not places:
        return []
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    order = sorted(range(len(places)), key=lambda number: places[number])
    # Isotonic regression (pool adjacent violators): each block of labels that touch is where its members wish on
    # average. Without the gaps, the labels of one block have the same place.
    blocks: list[tuple[float, int]] = []  # the sum of the wishes, and their number
    for rank, number in enumerate(order):
        total, count = places[number] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            other, members = blocks.pop()
            total, count = total + other, count + members
        blocks.append((total, count))
    means = [total / count for total, count in blocks for _ in range(count)]
    last = high - (len(places) - 1) * gap
    found = {number: min(max(means[rank], low), last) + rank * gap for rank, number in enumerate(order)}
    return [found[number] for number in range(len(places))]
