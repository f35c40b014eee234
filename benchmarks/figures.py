"""What the scripts make of what they have measured: medians, ratios, percentiles, and the order of the contestants.

Nothing here measures or starts anything, so `tests/benchmarks` holds it to figures that were worked out by hand.
"""

import random
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from loadtests.sockets import histogram

T = TypeVar("T")


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that `share` of all do not exceed, as the lab's histograms do (nearest rank).

    Raises:
        ValueError: there is no value.
    """
    found = histogram.percentile([(value, 1) for value in sorted(values)], share)
    if found is None:
        raise ValueError("no percentile of nothing")
    return found


def list_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours / theirs for each round: what the machine did beside it was then much the same for both."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def ratio_of_medians(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of ours / the median of theirs."""
    return median(ours) / median(theirs)


def show_range(values: Sequence[float], form: str = ",.0f") -> str:
    """Return `(smallest to largest)`."""
    return f"({min(values):{form}} to {max(values):{form}})"


def us_per_request(seconds: float, requests: float) -> float:
    """Return the microseconds of CPU for one request, of the seconds for all."""
    return seconds * 1e6 / requests


def in_turn(contestants: Sequence[T], number: int) -> list[T]:
    """Return the contestants in the order of a round, counted from 0: each goes first in turn."""
    first = number % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def read_children_cpu() -> float:
    """Return the seconds of CPU that ended children of this process have used, in user mode and in the kernel."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is timed.

    Args:
        calls: of `run`, for each figure.
    """

    run: Callable[[], object]
    calls: int


def time_calls(
    contestants: Mapping[str, Contestant], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Return the microseconds for a call, one figure for each repeat.

    Within a repeat all contestants run one after the other in a shuffled order, so that a busy moment of the machine
    hits them alike.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name in random.sample(list(contestants), len(contestants)):
            run, calls = contestants[name].run, contestants[name].calls
            begin = clock()
            for _ in range(calls):
                run()
            found[name].append((clock() - begin) / calls * 1e6)
    return found


def print_facts(facts: Mapping[str, str | None]) -> None:
    """Print what was measured on, a line for each fact."""
    for name, value in facts.items():
        print(f"{name}: {value or 'not known'}")
