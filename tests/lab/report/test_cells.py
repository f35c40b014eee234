"""A cell keeps the value beside its text, and says how long its bar is."""

from dataclasses import replace

from lab.base.units import UNKNOWN, show_us
from lab.metrics.verdict import Limit, Verdict
from lab.report.cells import Cell, list_widths, show_rate
from tests.support.made_up import MEASUREMENT, vary


def test_cell_of_a_figure_keeps_its_value() -> None:
    assert Cell.of(1239.6, show_us) == Cell(1239.6, "1\u202f240")
    # Not measured, unlike nothing.
    assert Cell.of(0.0, show_us) == Cell(0.0, "0.00")
    assert Cell.of(None, show_us) == Cell(None, UNKNOWN, note="", link="", is_good=True)


def test_bar_is_drawn_from_the_value() -> None:
    cells = [Cell(10.4, "10"), Cell(None, UNKNOWN), Cell(20.8, "≥ 21"), Cell(0.0, "0")]
    assert list_widths(cells) == [50.0, 0.0, 100.0, 0.0]
    assert list_widths(cells[1:2]) == [0.0]
    assert list_widths([]) == []


def test_rate_is_marked_as_a_lower_bound() -> None:
    assert show_rate(MEASUREMENT) == "10.0k"
    assert show_rate(replace(MEASUREMENT, verdict=Verdict(Limit.GENERATOR, "it was"))) == "≥ 10.0k"
    assert show_rate(vary(MEASUREMENT, answered=0)) == "0"
    assert show_rate(None) == UNKNOWN
