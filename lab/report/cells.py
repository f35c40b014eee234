"""Table cells: a figure as a value, which sorts and draws, and as text, which people read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from lab.base.units import UNKNOWN, show_count
from lab.load.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Args:
        value: as sorted, and as drawn in a bar; None for an unknown figure, which goes last.
        text: as shown.
        note: shown when the cell is pointed at.
        link: to the data behind it.
        is_good: whether it needs no highlight.
    """

    value: float | str | None
    text: str
    note: str = ""
    link: str = ""
    is_good: bool = True

    @classmethod
    def of(cls, value: float | None, show: Callable[[float], str]) -> Self:
        """Make the cell of a figure; a dash if it is unknown."""
        return cls(value, UNKNOWN if value is None else show(value))


def list_widths(cells: Iterable[Cell]) -> list[float]:
    """Return the width of each cell's bar in per cent of the longest; 0 for an unknown figure."""
    values = [0.0 if cell.value is None else float(cell.value) for cell in cells]
    longest = max(values, default=None)
    return [100 * value / longest if longest else 0.0 for value in values]


def show_rate(found: Measurement | None) -> str:
    """Format requests per second, with `≥` for a lower bound; a dash if it was not measured."""
    if found is None:
        return UNKNOWN
    if not found.answered:
        return "0"
    return ("≥ " if found.verdict.is_lower_bound else "") + show_count(found.rate)
