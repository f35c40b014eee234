"""A fault in the middle of a load: when somebody notices, and when it is over."""

import os

import pytest

from lab.backends.processes import Processes
from lab.faults.around import Ping, apply_under_load, look
from lab.faults.scorecard import FAULTS
from lab.witness import TIMEOUT
from tests.faults.conftest import CATALOGUE

MODEL = "asyncio_streams"


def every_tenth(begin: float, end: float, took: float | None) -> list[Ping]:
    return [(begin + number / 10, took) for number in range(round((end - begin) * 10))]


QUIET = every_tenth(0.0, 2.0, 0.001)


@pytest.mark.parametrize(
    ("during", "after", "detect", "recover"),
    [
        (every_tenth(2.0, 3.0, 0.001), every_tenth(3.0, 5.0, 0.001), None, 0.0),
        (every_tenth(2.0, 3.0, 0.1), every_tenth(3.0, 5.0, 0.001), 0.005, 0.0),
        (every_tenth(2.0, 3.0, None), every_tenth(3.0, 3.5, None) + every_tenth(3.5, 5.0, 0.001), 0.005, 0.5),
        (every_tenth(2.0, 3.0, 0.001), every_tenth(3.0, 5.0, None), 1.005, None),
        # Too few in turn.
        (every_tenth(2.0, 3.0, None), every_tenth(3.0, 3.5, 0.001), 0.005, None),
    ],
)
def test_what_pings_say(during: list[Ping], after: list[Ping], detect: float | None, recover: float | None) -> None:
    around = look(QUIET + during + after, broken=2.0, mended=3.0)
    assert (around.quiet_p99, around.detect, around.recover) == (
        pytest.approx(0.001),
        None if detect is None else pytest.approx(detect),
        None if recover is None else pytest.approx(recover),
    )


def test_one_that_was_under_way_when_it_broke_is_the_first_to_be_late() -> None:
    around = look([*QUIET, (1.99, None), *every_tenth(2.5, 5.0, 0.001)], broken=2.0, mended=2.4)
    assert around.detect == 0.0


def test_without_an_answer_before_it_nothing_is_known() -> None:
    around = look(every_tenth(0.0, 4.0, None), broken=2.0, mended=3.0)
    assert (around.quiet_p99, around.detect, around.recover) == (None, None, None)
    assert around.seconds == tuple((second, None, None, 10) for second in (-2, -1, 0, 1))


def test_a_pause_in_the_middle_of_a_load_is_seen_and_over() -> None:
    backend = Processes(f"around-{os.getpid()}", CATALOGUE)
    try:
        backend.up([MODEL])
        seen = apply_under_load(backend, MODEL, FAULTS["pause"], "closed_session", seconds=2 * TIMEOUT)
    finally:
        backend.down()
    assert seen.measurement.answered
    assert seen.around.detect is not None
    assert seen.around.recover is not None
    assert any(failed for *_, failed in seen.around.seconds)
    assert seen.around.seconds[0][3] == 0
