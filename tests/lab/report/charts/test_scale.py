"""Axes, ticks, and labels that do not cover each other."""

import pytest

from lab.base.units import show_count
from lab.report.charts.scale import Scale, make_axis, spread
from tests.support.approx import about


def test_place_is_linear_or_logarithmic_and_stays_within_the_range() -> None:
    linear, log = Scale(0, 10, 0, 100), Scale(1, 100, 200, 0, is_log=True)
    assert [linear.place(value) for value in (0, 2.5, 10, 12, -1)] == [0, 25, 100, 100, 0]
    assert [log.place(value) for value in (1, 10, 100, 0.1)] == [200, 100, 0, 200]
    assert Scale(5, 5, 0, 100).place(5) == 50
    assert Scale(10, 20, 0, 100).place(12) == 20


@pytest.mark.parametrize(
    ("values", "ticks", "is_log"),
    [
        ([0, 9_000], ["0", "5k"], False),
        ([3, 19], ["0", "5", "10", "15"], False),
        ([0.02, 0.03], ["0", "0.01", "0.02", "0.03"], False),
        ([900, 12_000], ["1k", "2k", "5k", "10k"], True),
        ([1, 8], ["0", "5"], False),
        ([1, 500], ["1", "10", "100"], True),
        ([0, 1, 100], ["1", "10", "100"], True),
        ([1, 100_000], ["1", "10", "100", "1k", "10k", "100k"], True),
        ([-5, 5], ["-5", "0", "5"], False),
        ([-20, 0.1, 50], ["-20", "0", "20", "40"], False),
        ([], ["0", "0.5", "1"], False),
    ],
)
def test_axis_has_round_ticks_and_is_logarithmic_if_values_differ_much(
    values: list[float], ticks: list[str], is_log: bool
) -> None:
    axis = make_axis("x", values, lambda value: show_count(value) if value >= 0 else f"{value:.1f}")
    assert ([axis.label(tick) for tick in axis.ticks], axis.is_log) == (ticks, is_log)
    # A logarithmic axis has no 0.
    assert all(axis.low <= value <= axis.high for value in values if value)


def test_linear_axis_has_a_little_room() -> None:
    axis = make_axis("x", [-5, 5], str)
    assert (axis.low, axis.high) == (about(-5.4), about(5.4))
    assert (make_axis("x", [10, 20], str).low, make_axis("x", [10, 20], str).high) == (0.0, about(20.8))


def test_unknown_end_and_zero_do_not_break_an_axis() -> None:
    axis = make_axis("x", [0.0, 5.0, 100.0, float("inf")], str, is_log=True)
    assert (axis.low, axis.high) == (about(5 / 1.12), about(112))
    assert axis.scale(0, 100).place(0.0) == 0


def test_labels_are_moved_apart_as_little_as_possible() -> None:
    assert spread([10, 50, 90], 13, 0, 100) == [10, 50, 90]
    assert spread([50, 50, 50], 10, 0, 100) == [40, 50, 60]
    assert spread([50, 20, 50], 10, 0, 100) == [45, 20, 55]
    # At the edges they stay inside.
    assert spread([0, 0, 100], 10, 0, 100) == [0, 10, 100]
    assert spread([100, 99], 10, 0, 100) == [100, 90]
    # Too many for the range: closer.
    assert spread([7] * 5, 30, 0, 100) == [0, 25, 50, 75, 100]
    assert spread([7] * 5, 30, 100, 200) == [100, 125, 150, 175, 200]
    assert spread([5, 5], 100, 0, 100) == [0, 100]
    assert spread([], 10, 0, 100) == []
    # A block of two leaves the third where it is; and three become one block, though the last two were one before.
    assert spread([20, 20, 40], 10, 0, 100) == [15, 25, 40]
    assert spread([29, 40, 46], 10, 0, 100) == [about(28.33, abs=0.01), about(38.33, abs=0.01), about(48.33, abs=0.01)]
