"""Conditions that make a load test fail: `p99 > 5ms`, `failures > 0.1%`, `rate < 10k`, `rate < 99%`.

In an open loop times count from when a request was due; `service.p99` is the one from its sending.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from lab.errors import LabError
from lab.measurement import PERCENTILES, Measurement, percentile

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
# Microseconds of each unit.
TIMES = {"us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}  # both of Unicode's micro signs, as people type them
_RATIOS = {"": 1.0, "%": 0.01}
_RATES = {"": 1.0, "/s": 1.0, "k": 1e3, "k/s": 1e3}

_Read = Callable[[Measurement], float | None]


def _times(share: float) -> tuple[_Read, _Read]:
    return lambda found: found.percentile(share), lambda found: percentile(found.service or found.histogram, share)


_PERCENTILES = {name.removesuffix("_us"): _times(share) for name, share in PERCENTILES.items()}

# What can be compared, where it is found, and its units. A rate in per cent is a metric of its own: of what was asked.
_OF_ASKED = "rate of what was asked"
_METRICS: dict[str, tuple[_Read, dict[str, float], str]] = {
    **{name: (read, TIMES, "5ms") for name, (read, _) in _PERCENTILES.items()},
    **{f"service.{name}": (read, TIMES, "5ms") for name, (_, read) in _PERCENTILES.items()},
    "max": (lambda found: found.max_us, TIMES, "5ms"),
    "failures": (lambda found: found.failure_ratio, _RATIOS, "0.1%"),
    "late": (lambda found: found.ratio(found.late), _RATIOS, "0.1%"),
    "dropped": (lambda found: found.ratio(found.dropped), _RATIOS, "0.1%"),
    "lost": (lambda found: found.loss_ratio, _RATIOS, "0.1%"),
    "rate": (lambda found: found.rate, _RATES, "10k"),
    _OF_ASKED: (lambda found: found.rate_ratio, _RATIOS, "99%"),
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
    def parse(cls, text: str, *, option: str = "--fail-if") -> "Threshold":
        """Read a condition.

        Args:
            option: where it was given, for the message.

        Raises:
            LabError: what is wrong with it, in one line.
        """
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise LabError(f"{option} {text!r}: not of the form 'p99 > 5ms'")
        metric, comparison, number, unit = match.groups()
        if (metric, unit) == ("rate", "%"):
            metric = _OF_ASKED
        if metric not in _METRICS:
            known = ", ".join(name for name in _METRICS if name != _OF_ASKED)
            raise LabError(f"{option} {text!r}: {metric!r} is not measured; known: {known}")
        _, units, example = _METRICS[metric]
        if unit not in units:
            wanted = ", ".join(name or "no unit" for name in units if name != "μs")
            raise LabError(f"{option} {text!r}: {metric} takes {wanted}, as in '{metric} {comparison} {example}'")
        return cls(text.strip(), metric, comparison, float(number) * units[unit])

    @property
    def share(self) -> float | None:
        """Of the exchanges, that which a percentile speaks of; None if it is about something else."""
        return PERCENTILES.get(f"{self.metric}_us")

    @property
    def needs_open_loop(self) -> bool:
        """Whether only an open loop has what is compared."""
        return self.metric in (_OF_ASKED, "late", "dropped")

    def is_tripped_by(self, found: Measurement) -> bool:
        """Whether a measurement fulfils the condition. What was not measured does: it never passes."""
        value = _METRICS[self.metric][0](found)
        return value is None or _COMPARE[self.comparison](value, self.limit)
