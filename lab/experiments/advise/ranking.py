"""Read the condition that an advice has to meet, and rank the models."""

from lab.base.errors import LabError
from lab.experiments.advise.model import Advice
from lab.load.thresholds import Threshold

# A model this close to the best one is as good: measured costs are a few per cent off.
_TOLERANCE = 1.1


def read_slo(text: str | None) -> tuple[float, float | None]:
    """Return the percentile of a condition, as a ratio, and its limit in seconds; without one, 0.99 and None.

    Raises:
        LabError: it is not an upper limit of a percentile.
    """
    if text is None:
        return 0.99, None
    found = Threshold.parse(text, option="--slo")
    share = found.share
    if share is None or share == 1 or found.comparison not in ("<", "<="):
        raise LabError(f"--slo {text!r} is not an upper limit of a percentile, such as 'p99 < 50ms'")
    return share, found.limit / 1e6


def rank(found: list[Advice]) -> list[Advice]:
    """Sort models: first those that hold, each by the utilization of its nearest limit."""
    return sorted(found, key=lambda item: (not item.holds, item.utilization, item.memory_bytes or 0, item.model))


def find_best(ranked: list[Advice]) -> list[str]:
    """Return the models that are as good as the first one; none if none holds."""
    return [item.model for item in ranked if item.holds and item.utilization <= ranked[0].utilization * _TOLERANCE]
