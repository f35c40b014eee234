"""Conditions that make a load test fail: `p99 > 5ms`, `failures > 0.1%`, `rate < 10k`."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from lab.errors import LabError
from lab.measurement import Measurement

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_TIMES = {"us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}  # both of Unicode's micro signs, as people type them
_RATIOS = {"": 1.0, "%": 0.01}
_RATES = {"": 1.0, "/s": 1.0, "k": 1e3, "k/s": 1e3}

# What can be compared, where it is found, and its units.
_METRICS: dict[str, tuple[Callable[[Measurement], float | None], dict[str, float], str]] = {
    "p50": (lambda found: found.percentile(0.5), _TIMES, "5ms"),
    "p90": (lambda found: found.percentile(0.9), _TIMES, "5ms"),
    "p99": (lambda found: found.percentile(0.99), _TIMES, "5ms"),
    "p99.9": (lambda found: found.percentile(0.999), _TIMES, "5ms"),
    "max": (lambda found: found.max_us, _TIMES, "5ms"),
    "failures": (lambda found: found.failure_ratio, _RATIOS, "0.1%"),
    "rate": (lambda found: found.rate, _RATES, "10k"),
}
_EXPRESSION = re.compile(r"\s*([a-z0-9.]+)\s*(>=|<=|>|<)\s*([0-9]+(?:\.[0-9]+)?)\s*([^\s0-9.]*)\s*")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition.

    Args:
        text: as it was given.
        metric: what is compared: a key of the table above.
        comparison: one of > >= < <=.
        limit: in microseconds, as a ratio, or in requests per second.
    """

    text: str
    metric: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Threshold":
        """Read a condition.

        Raises:
            LabError: what is wrong with it, in one line.
        """
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise LabError(f"--fail-if {text!r}: not of the form 'p99 > 5ms'")
        metric, comparison, number, unit = match.groups()
        if metric not in _METRICS:
            raise LabError(f"--fail-if {text!r}: {metric!r} is not measured; known: {', '.join(_METRICS)}")
        _, units, example = _METRICS[metric]
        if unit not in units:
            wanted = ", ".join(name or "no unit" for name in units if name != "μs")
            raise LabError(f"--fail-if {text!r}: {metric} takes {wanted}, as in '{metric} {comparison} {example}'")
        return cls(text.strip(), metric, comparison, float(number) * units[unit])

    def is_tripped_by(self, found: Measurement) -> bool:
        """Whether a measurement fulfils the condition. What was not measured does: it never passes."""
        value = _METRICS[self.metric][0](found)
        return value is None or _COMPARE[self.comparison](value, self.limit)
