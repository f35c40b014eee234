"""Conditions that make a load test fail: `p99 > 5ms`, `failures > 10`, `failures > 0.1%`, `rate < 10k`, `rate < 99%`.

A number without a unit is a count; with % it is a share. A condition that can never be true, or never be false, checks
nothing and is refused.

In an open loop, times count from when a request was due; `service.p99` counts from sending.
"""

import math
import operator
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from lab.base.errors import LabError
from lab.base.units import TIME_UNITS, parse_share
from lab.load.measurement import Measurement

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_RATES = {"": 1.0, "/s": 1.0, "k": 1e3, "k/s": 1e3}
_COUNTS = {"": 1.0}
_SHARES = {"%": 0.01}

_UNLIMITED = sys.float_info.max
# The generator checks for time-outs periodically, so a time-out can be recorded a little late.
_LATE_TIMEOUT = 1.2

_Read = Callable[[Measurement], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that a condition can compare.

    Args:
        read: returns it from a measurement; None if it was not measured.
        units: factor by unit.
        example: a limit, for messages.
        lowest, why_not_lower: the smallest possible value, and why none is smaller.
        highest, why_not_higher: the largest possible value, and why none is larger.
        is_count: only whole numbers are allowed.
        needs_open_loop, needs_datagrams: only such a load has it.
    """

    read: _Read
    units: dict[str, float]
    example: str
    lowest: float = 0.0
    why_not_lower: str = "it is never below 0"
    highest: float = _UNLIMITED
    why_not_higher: str = "no number is that large"
    is_count: bool = False
    needs_open_loop: bool = False
    needs_datagrams: bool = False


# Figures that are a count or a share, and how to read each.
_COUNTED: dict[str, tuple[Callable[[Measurement], int], _Read]] = {
    "failures": (lambda found: found.load.failed, lambda found: found.load.failure_ratio),
    "late": (lambda found: found.load.late, lambda found: found.load.ratio(found.load.late)),
    "dropped": (lambda found: found.load.dropped, lambda found: found.load.ratio(found.load.dropped)),
    "lost": (lambda found: found.load.lost, lambda found: found.load.loss_ratio),
}
_KNOWN = ("p50 or any other percentile", "service.p50", "max", "rate", *_COUNTED)
_PERCENTILE = re.compile(r"(service\.)?p([0-9]+(?:\.[0-9]+)?)")
_EXPRESSION = re.compile(r"\s*([a-z0-9.]+)\s*(>=|<=|>|<)\s*([0-9]+(?:\.[0-9]+)?)\s*([^\s0-9.]*)\s*")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition.

    Args:
        name: of the figure, as given.
        metric: the figure.
        comparison: one of > >= < <=.
        limit: in microseconds, requests per second, or as a count or ratio.
    """

    text: str
    name: str
    metric: Metric
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str, *, option: str = "--fail-if") -> "Threshold":
        """Parse a condition.

        Args:
            option: the option that it was given to, for the message.

        Raises:
            LabError: the condition is invalid, or always true, or never true.
        """
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise LabError(f"{option} {text!r}: not of the form 'p99 > 5ms'")
        name, comparison, number, unit = match.groups()
        metric = _find_metric(name, unit)
        if metric is None:
            raise LabError(f"{option} {text!r}: {name!r} is not measured; known: {', '.join(_KNOWN)}")
        if unit not in metric.units:
            units = [each or "no unit" for each in metric.units if each != "μs"]
            units += ["%"] if name == "rate" or name in _COUNTED else []
            raise LabError(
                f"{option} {text!r}: {name} takes {', '.join(units)}, as in '{name} {comparison} {metric.example}'"
            )
        limit = float(number) * metric.units[unit]
        if metric.is_count and not float(number).is_integer():
            raise LabError(
                f"{option} {text!r}: a number without a unit is a count of {name}, which is whole; "
                f"a share takes %, as in '{name} {comparison} 0.1%'"
            )
        found = cls(text.strip(), name, metric, comparison, limit)
        if reason := found.find_constant(metric.highest, metric.why_not_higher):
            raise LabError(f"{option} {text!r}: {reason}")
        return found

    @property
    def share(self) -> float | None:
        """Return the share of a percentile; None for other figures and for service times."""
        match = _PERCENTILE.fullmatch(self.name)
        return None if match is None or match[1] else parse_share(f"{match[2]}%")

    def find_misfit(
        self, *, open_loop: bool, datagrams: bool, timeout: float = _UNLIMITED, rate: float = _UNLIMITED
    ) -> str | None:
        """Return why a load lacks the figure, or why the condition would be constant for it.

        Args:
            open_loop, datagrams: the kind of load.
            timeout: seconds after which an exchange has failed.
            rate: the highest requested rate, in requests per second.

        Returns:
            The reason; None if the condition can be true and false.
        """
        if self.metric.needs_open_loop and not open_loop:
            return "needs an open loop"
        if self.metric.needs_datagrams and not datagrams:
            return "needs datagrams: a stream loses nothing, it fails"
        if self.metric.units is _RATES:
            return self.find_constant(min(rate, _UNLIMITED), f"at most {rate:g} requests/s are sent")
        # In an open loop a time counts from when a request was due, and it may wait for its connection.
        if self.metric.units is TIME_UNITS and (
            not open_loop or self.name == "max" or self.name.startswith("service.")
        ):
            longest = min(timeout * 1e6 * _LATE_TIMEOUT, _UNLIMITED)
            return self.find_constant(longest, f"an exchange has failed after {timeout:g} s (--timeout)")
        return None

    def find_constant(self, highest: float, why: str) -> str | None:
        """Return why the condition has the same result for every possible value; None if it does not.

        Args:
            highest: the largest possible value.
            why: why no value is higher.
        """
        compare = _COMPARE[self.comparison]
        # The result changes at most once between the two ends.
        first, last = compare(self.metric.lowest, self.limit), compare(highest, self.limit)
        if first != last:
            return None
        reason = why if self.limit else self.metric.why_not_lower
        return f"it cannot be {'false' if first else 'true'}: {reason}"

    def is_tripped_by(self, found: Measurement) -> bool:
        """Return whether the condition is true for a measurement. A figure that was not measured never passes."""
        value = self.metric.read(found)
        return value is None or math.isnan(value) or _COMPARE[self.comparison](value, self.limit)


def _find_metric(name: str, unit: str) -> Metric | None:
    """Return the figure for a name and unit; with a wrong unit, the name's default figure."""
    if match := _PERCENTILE.fullmatch(name):
        share = parse_share(f"{match[2]}%")
        if not 0 < share <= 1:
            return None
        if match[1]:
            return _time(lambda found: found.load.service.percentile(share))
        return _time(lambda found: found.percentile(share))
    if name == "max":
        return _time(lambda found: found.load.service.max_us)
    if name == "rate" and unit == "%":
        of_asked = _share(lambda found: found.load.rate_ratio, "99%", "at most all requests can be answered")
        return replace(of_asked, needs_open_loop=True)
    if name == "rate":
        return Metric(lambda found: found.rate, _RATES, "10k")
    if name not in _COUNTED:
        return None
    count, ratio = _COUNTED[name]
    metric = _share(ratio) if unit == "%" else _count(count, ratio)
    return replace(metric, needs_open_loop=name in ("late", "dropped"), needs_datagrams=name == "lost")


def _time(read: _Read) -> Metric:
    return Metric(read, TIME_UNITS, "5ms", sys.float_info.min, "each exchange takes some time")


def _share(read: _Read, example: str = "0.1%", why: str = "a share is at most 100%") -> Metric:
    return Metric(read, _SHARES, example, highest=1.0, why_not_higher=why)


def _count(read: Callable[[Measurement], int], share: _Read) -> Metric:
    """Make the figure of a count; like its share, it is unknown without any exchange."""
    return Metric(lambda found: None if share(found) is None else read(found), _COUNTS, "10", is_count=True)


def find_tripped(measurements: Sequence[Measurement], thresholds: Sequence[Threshold]) -> Iterator[str]:
    """Yield a line for each condition that is true, and for each model without a correct reply."""
    for found in measurements:
        if not found.answered:
            yield f"{found.model}: not one correct reply"
        for threshold in thresholds:
            if threshold.is_tripped_by(found):
                yield f"{found.model}: {threshold.text} ({found.verdict.bound}: {found.verdict.reason})"
