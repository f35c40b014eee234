"""Figures as people read them. What is not known is a dash, never 0."""

from lab.base.units import UNKNOWN, show_count
from lab.load.measurement import Measurement
from lab.metrics import verdict


def show_rate(found: Measurement) -> str:
    """Requests per second; `≥` where the server could have done more than it was asked."""
    if not found.answered:
        return "0"
    return ("≥ " if found.verdict.is_lower_bound else "") + show_count(found.rate)


def show_waits(found: Measurement | None) -> str:
    """The same for the load that waits; a dash where it was not measured."""
    return UNKNOWN if found is None else show_rate(found)


def show_failures(found: Measurement) -> str:
    """How many failed, and of what."""
    return verdict.show_failures(found.failures)
