"""Figures of a load over time, worked out by hand."""

import gevent
import pytest
from gevent import GreenletExit

from lab.load.messages import Usage
from loadtests import course
from loadtests.course import Point
from loadtests.sockets.histogram import Histogram
from tests.support.approx import about
from tests.support.made_up_course import OPEN, PING, SLEEP, CourseLab, make_tally


@pytest.fixture
def lab() -> CourseLab:
    return CourseLab()


def test_figures_cover_three_seconds(lab: CourseLab) -> None:
    memory = 7 * 2**20
    first = lab.second(Usage("prefork", 0.5, memory), a=(PING, make_tally(1000, [0.001])))["prefork"]
    # No second has passed since the first sample.
    assert first == Point(0.0, None, None, 0.0, None, memory, 3)
    # One second: 200 requests. 0.5 cores for 200 requests per second: 2.5 ms each.
    assert lab.second(Usage("prefork", 0.5, memory), a=(PING, make_tally(200, [0.002], failed=4)))["prefork"] == Point(
        200.0, about(2000, rel=1e-3), about(2000, rel=1e-3), 4.0, 2500.0, memory, 3
    )
    # Two: 200 + 400 in 2 s; (0.5 + 0.7) / 2 cores. Times of 2, 4, 6 ms: the median is 4, p99 is 6.
    point = lab.second(Usage("prefork", 0.7, memory), a=(PING, make_tally(400, [0.004, 0.006])))["prefork"]
    assert point.rate == 300.0
    assert (point.p50_us, point.p99_us) == (about(4000, rel=1e-3), about(6000, rel=1e-3))
    assert (point.failures, point.cpu_us) == (2.0, about(2000.0))
    # Four: only the last three count, (400 + 0 + 80) / 3; cores 0.7, unknown, 0.1.
    assert lab.second()["prefork"].rate == 200.0
    point = lab.second(Usage("prefork", 0.1), a=(PING, make_tally(80, [])))["prefork"]
    assert (point.rate, point.failures, point.memory_bytes) == (160.0, 0.0, None)
    assert point.cpu_us == about(0.4 / 160 * 1e6)


def test_cost_of_a_request_is_unknown_while_none_is_answered(lab: CourseLab) -> None:
    lab.second(Usage("prefork", 0.5), a=(PING, make_tally(1000, [])))
    point = lab.second(Usage("prefork", 0.5), a=(PING, make_tally(0, [])))["prefork"]
    assert (point.rate, point.cpu_us) == (0.0, None)


def test_series_of_a_model_are_added_and_an_open_loop_has_its_intended_times(lab: CourseLab) -> None:
    both = {
        "a": (PING, make_tally(5, [0.001])),
        "b": (SLEEP, make_tally(7, [0.02])),
        "c": (OPEN, make_tally(1, [0.001])),
    }
    lab.second(**both)
    points = lab.second(
        a=(PING, make_tally(10, [0.001])),
        b=(SLEEP, make_tally(20, [0.02])),
        c=(OPEN, make_tally(1, [0.001], intended=[0.5])),
    )
    assert points["prefork"].rate == 30.0
    assert points["prefork"].connections == 6
    assert points["prefork"].p99_us == about(20_000, rel=1e-3)
    assert points["selector_loop"].p50_us == about(500_000, rel=1e-3)


def test_reset_starts_again_instead_of_going_below_zero(lab: CourseLab) -> None:
    lab.second(a=(PING, make_tally(500, [0.001] * 5)))
    lab.recorder.reset()
    assert lab.second(a=(PING, make_tally(10, [0.002])))["prefork"].rate == 0.0
    assert lab.second(a=(PING, make_tally(30, [0.002])))["prefork"].rate == 30.0


def test_failures_alone_show_a_reset_too(lab: CourseLab) -> None:
    lab.second(a=(PING, make_tally(0, [], failed=9)))
    lab.recorder.reset()
    assert lab.second(a=(PING, make_tally(0, [], failed=1)))["prefork"].failures == 0.0


def test_new_test_has_no_past_of_the_last_one(lab: CourseLab) -> None:
    lab.second(a=(PING, make_tally(500, [0.001])))
    lab.recorder.clear()
    assert lab.second()["prefork"].rate == 0.0  # the last sample: without a series there is no new one
    assert len(lab.course.since(0)) == 1
    # More than before, so that the counts themselves show no reset.
    assert lab.second(a=(PING, make_tally(900, [0.001] * 2)))["prefork"].rate == 0.0


def test_other_workload_of_a_model_has_no_past(lab: CourseLab) -> None:
    lab.second(a=(PING, make_tally(500, [0.001])))
    assert lab.second(a=(SLEEP, make_tally(900, [0.02])))["prefork"].rate == 0.0


def test_samples_have_numbers_and_the_oldest_are_forgotten(lab: CourseLab) -> None:
    for _ in range(course.SECONDS + 2):
        lab.second(a=(PING, make_tally(1, [])))
    samples = lab.course.since(0)
    assert [samples[0]["number"], samples[-1]["number"], len(samples)] == [3, 302, 300]
    assert [sample["number"] for sample in lab.course.since(300)] == [301, 302]
    assert samples[-1]["at"] == 1_000_402.123


def test_times_since_a_copy_of_the_counts() -> None:
    histogram = Histogram()
    histogram.record([0.001, 0.002])
    before = dict(histogram.counts)
    assert histogram.since(before).percentile(0.5) is None
    histogram.record([0.001, 0.004, 0.004])
    news = histogram.since(before)
    assert [count for _, count in news.pairs()] == [1, 2]
    assert news.total == 3
    assert news.max_us == about(4000, rel=1e-3)


def test_course_is_sampled_every_second(lab: CourseLab, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise GreenletExit

    lab.recorder.add(PING, make_tally(1, []), users=1, in_flight=0)
    monkeypatch.setattr(gevent, "sleep", sleep)
    with pytest.raises(GreenletExit):
        course.sample_forever(lab.course)
    # At once, and after each second.
    assert slept == [1.0] * 3
    assert len(lab.course.since(0)) == 3


def test_rows_of_a_window_begin_with_its_second_sample(lab: CourseLab) -> None:
    begin = 1_000_101.1
    lab.second(a=(PING, make_tally(1000, [0.001])))
    lab.second(a=(PING, make_tally(200, [0.002, 0.002, 0.009], failed=4)), b=(OPEN, make_tally(1, [0.001])))
    lab.second(a=(PING, make_tally(400, [])))
    (second, rate, p50, p99, failures, connections), after = lab.course.rows("prefork", begin)
    assert (second, rate, failures, connections) == (1.023, 200.0, 4.0, 3)
    assert (p50, p99) == (about(2000, rel=1e-3), about(9000, rel=1e-3))
    assert after[:2] == (2.023, 300.0)
    assert [row[0] for row in lab.course.rows("selector_loop", begin)] == [1.023, 2.023]
    assert lab.course.rows("nope", begin) == ()


def test_course_of_a_long_window_is_kept() -> None:
    lab = CourseLab(kept=None)
    for _ in range(course.SECONDS + 2):
        lab.second(a=(PING, make_tally(1, [])))
    assert len(lab.course.rows("prefork", 0.0)) == course.SECONDS + 1
