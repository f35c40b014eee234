"""Table cells: a figure as text for people, with the number that it is sorted by."""

from dataclasses import dataclass

from lab.base.units import UNKNOWN, show_count
from lab.load.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Args:
        text: as shown.
        value: as sorted; None for an unknown figure, which goes last.
        note: shown when the cell is pointed at.
        link: to the data behind it.
        is_good: whether it needs no highlight.
    """

    text: str
    value: float | str | None = None
    note: str = ""
    link: str = ""
    is_good: bool = True


def show_rate(found: Measurement | None) -> str:
    """Format requests per second, with `≥` for a lower bound; a dash if it was not measured."""
    if found is None:
        return UNKNOWN
    if not found.answered:
        return "0"
    return ("≥ " if found.verdict.is_lower_bound else "") + show_count(found.rate)
