"""Table cells: a figure as a value, which sorts, and as text, which people read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from lab.base.units import UNKNOWN, show_bytes, show_count, show_number, show_us
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, show_failures
from loadtests.contract import LoadResult


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Args:
        value: as sorted; None for an unknown figure, which goes last.
        text: as shown.
        note: shown when the cell is pointed at.
        link: to the data behind it.
        words: paragraphs that a page shows on demand.
        is_good: whether it needs no highlight.
    """

    value: float | str | None
    text: str
    note: str = ""
    link: str = ""
    is_good: bool = True
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: float | None, show: Callable[[float], str]) -> Self:
        """Make the cell of a figure; a dash if it is unknown."""
        return cls(value, UNKNOWN if value is None else show(value))


# A shape for each limit, so that colour is not needed; all others are failures.
_MARKS: Mapping[str, str] = {
    Limit.HELD: "●",
    Limit.SERVER: "●",
    Limit.GENERATOR: "◐",
    Limit.MACHINE: "◐",
    Limit.WAITING: "○",
}
FAILURE_MARK = "▲"


def mark(bound: str) -> str:
    """Return the mark of a limit, such as `●` for `server-bound`."""
    return _MARKS.get(bound, FAILURE_MARK)


def mark_bounds(text: str) -> str:
    """Return a verdict on several rounds as marks and its first word: `◐ machine` for `machine-bound (2 of 3), ...`."""
    bounds = [part.split(" (")[0] for part in text.split(", ")]
    if bounds == ["not measured"]:
        return text
    marks = "".join(dict.fromkeys(FAILURE_MARK if "FAILED" in bound else mark(bound) for bound in bounds))
    return f"{marks} {bounds[0].removesuffix('-bound')}"


def make_verdict(found: Measurement) -> Cell:
    """Return the verdict as a mark and a word, with its reason and the failures on demand."""
    bound = found.verdict.bound
    words = [f"{bound}: {found.verdict.reason}"]
    words += [f"failures: {show_failures(found.load.failures)}"] if found.load.failures else []
    return Cell(bound, mark_bounds(bound), is_good=mark(bound) != FAILURE_MARK, words=tuple(words))


def show_rate(found: Measurement | None) -> str:
    """Format requests per second, with `≥` for a lower bound; a dash if it was not measured."""
    if found is None:
        return UNKNOWN
    if not found.answered:
        return "0"
    return ("≥ " if found.verdict.is_lower_bound else "") + show_count(found.rate)


# The columns of measurements in every table: their headings, and how to read the cell of one measurement.
COLUMNS: Mapping[str, Callable[[Measurement], Cell]] = {
    "requests/s": lambda found: Cell(found.rate, show_rate(found)),
    "p50 µs": lambda found: Cell.of(found.percentile(0.5), show_us),
    "p99 µs": lambda found: Cell.of(found.percentile(0.99), show_us),
    "CPU µs/req": lambda found: Cell.of(found.server.cpu_us, show_us),
    "memory": lambda found: Cell.of(found.server.memory_bytes, show_bytes),
    "threads": lambda found: Cell.of(found.server.threads, show_number),
    "service p99 µs": lambda found: Cell.of(_read_service(found.load), show_us),
    "late": lambda found: Cell.of(found.load.late, show_number),
    "dropped": lambda found: Cell.of(found.load.dropped, show_number),
    "lost": lambda found: Cell.of(found.load.lost, show_number),
    "duplicate": lambda found: Cell.of(found.load.duplicates, show_number),
    "reordered": lambda found: Cell.of(found.load.reordered, show_number),
}
# Of an open loop, and of datagrams.
OF_OPEN_LOOPS = ("service p99 µs", "late", "dropped")
OF_DATAGRAMS = ("lost", "duplicate", "reordered")


def _read_service(load: LoadResult) -> float | None:
    return None if load.intended is None else load.service.percentile(0.99)


def read_cells(found: Measurement, *headings: str) -> dict[str, Cell]:
    """Return cells of `COLUMNS` by their headings."""
    return {heading: COLUMNS[heading](found) for heading in headings}
