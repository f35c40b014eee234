"""Columns for further loads of the same models, beside the figures of the first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.load.measurement import Measurement
from lab.report.cells import Cell


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """One figure of a further load.

    Args:
        heading: of the column.
        found: the load by model; a model that is missing was not loaded.
        figure: the figure of a load; None if the model was not loaded.
    """

    heading: str
    found: Mapping[str, Measurement]
    figure: Callable[[Measurement | None], Cell]

    def cell(self, model: str) -> Cell:
        return self.figure(self.found.get(model))
