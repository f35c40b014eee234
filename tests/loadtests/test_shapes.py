"""How a load changes over time: exact fractions of the full load."""

import pytest

from loadtests.shapes import SHAPES, level
from tests.support.approx import about


@pytest.mark.parametrize(
    ("shape", "share", "expected"),
    [
        ("steady", 0.0, 1.0),
        ("steady", 0.5, 1.0),
        # Never 0: from a hundredth of the load.
        ("ramp", 0.0, 0.01),
        ("ramp", 0.005, 0.01),
        ("ramp", 0.02, 0.02),
        ("ramp", 0.75, 0.75),
        ("ramp", 1.0, 1.0),
        # Five steps of a fifth.
        ("steps", 0.0, 0.01),
        ("steps", 0.01, 0.2),
        ("steps", 0.2, 0.2),
        ("steps", 0.21, 0.4),
        ("steps", 0.81, 1.0),
        ("spike", 0.0, 0.1),
        ("spike", 0.39, 0.1),
        ("spike", 0.4, 1.0),
        ("spike", 0.59, 1.0),
        ("spike", 0.6, 0.1),
        ("spike", 1.0, 0.1),
        # Before the begin and after the end, the first and the last level.
        ("ramp", -1.0, 0.01),
        ("ramp", 1.7, 1.0),
        ("steps", 1.2, 1.0),
        ("spike", 7.0, 0.1),
    ],
)
def test_level_of_a_shape(shape: str, share: float, expected: float) -> None:
    assert level(shape, share) == about(expected)


def test_all_shapes_are_known() -> None:
    assert SHAPES == ("steady", "ramp", "steps", "spike")
