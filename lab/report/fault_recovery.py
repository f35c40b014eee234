"""How long the longest PING of each fault took, and how long its models took to recover, for charts and Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from lab.experiments.faults.judge import Score
from lab.experiments.faults.probe_reader import ProbeReport, show
from lab.report.charts.intervals import Interval
from lab.report.charts.palette import Tone


@dataclass(frozen=True, slots=True)
class Recovery:
    """A figure of all faults.

    Args:
        name, title: of its chart.
        rows: a row for each fault: the median of the models, the lowest and the highest; the least harmful first.
    """

    name: str
    title: str
    rows: tuple[Interval, ...]


# Name, title, and how to read the figure in seconds; None if there is none.
_FIGURES: tuple[tuple[str, str, Callable[[ProbeReport], float | None]], ...] = (
    ("slowest", "Slowest PING of each fault", lambda report: report.slowest),
    # A model that was never late has nothing to recover from.
    ("recovery", "Time to recover from each fault", lambda report: None if report.detect is None else report.recover),
)


def list_recoveries(scores: Sequence[Score], faults: Sequence[str]) -> list[Recovery]:
    """Return the figures that are known for at least one fault."""
    found = []
    for name, title, read in _FIGURES:
        rows = [row for fault in faults if (row := _make_row(fault, scores, read))]
        if rows:
            found.append(Recovery(name, title, tuple(sorted(rows, key=lambda row: row.middle))))
    return found


def _make_row(fault: str, scores: Sequence[Score], read: Callable[[ProbeReport], float | None]) -> Interval | None:
    known = {
        score.model: value
        for score in scores
        if score.fault == fault and score.probe_report and (value := read(score.probe_report)) is not None
    }
    if not known:
        return None
    middle, low, last = median(known.values()), min(known.values()), max(known, key=lambda model: known[model])
    note = f"{show(low)} to {show(known[last])} ({last})"
    return Interval(fault, middle, low, known[last], Tone.BLUE, show(middle), note)
