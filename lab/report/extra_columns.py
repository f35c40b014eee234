"""Columns for further loads of the same models, beside the figures of the first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.base.units import show_us
from lab.experiments.demo import Demo
from lab.load.measurement import Measurement
from lab.report.cells import Cell, show_rate


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


def make_columns(found: Demo) -> tuple[ExtraColumn, ...]:
    """Return the columns of a demo: requests that sleep, and HTTP."""
    return (
        ExtraColumn("20 ms waits/s", found.waits, _rate),
        ExtraColumn("HTTP/s", found.http, _rate),
        ExtraColumn("HTTP CPU µs", found.http, _cpu),
    )


def _rate(found: Measurement | None) -> Cell:
    return Cell(found.rate if found else None, show_rate(found))


def _cpu(found: Measurement | None) -> Cell:
    return Cell.of(found.server.cpu_us if found else None, show_us)
