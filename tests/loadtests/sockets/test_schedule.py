"""Due times: their number follows the rate."""

import random
from itertools import pairwise
from math import inf

import pytest

from loadtests.sockets.schedule import Schedule


def take(schedule, seconds, *, start=100.0):
    due = schedule.start(start)
    while due < start + seconds:
        yield due - start
        due = schedule.after(due)


def test_constant_rate_is_even():
    times = list(take(Schedule(lambda _: 250.0), 4))
    assert len(times) == pytest.approx(1000, abs=1)
    assert all(b - a == pytest.approx(0.004) for a, b in pairwise(times))


def test_rate_below_one_per_step_is_even():
    times = list(take(Schedule(lambda _: 4.0), 5))
    assert times == pytest.approx([number / 4 for number in range(1, 20)], abs=1e-6)


def test_random_times_are_exponential_with_the_rate():
    times = list(take(Schedule(lambda _: 1000.0, poisson=True, chance=random.Random(1)), 20))
    assert len(times) == pytest.approx(20_000, rel=0.03)
    gaps = [b - a for a, b in pairwise(times)]
    # Of exponential gaps, a share of 1/e is longer than the mean.
    assert sum(gap > 0.001 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_ramp_has_the_number_of_times_of_its_area():
    times = list(take(Schedule(lambda seconds: max(seconds * 100, 1)), 10))
    assert len(times) == pytest.approx(5000, rel=0.01)
    assert sum(time < 5 for time in times) == pytest.approx(1250, rel=0.02)


def test_share_scales_the_rate():
    schedule = Schedule(lambda _: 100.0)
    schedule.share = 0.25
    assert len(list(take(schedule, 10))) == pytest.approx(250, abs=1)


def test_share_of_zero_has_no_due_times():
    schedule = Schedule(lambda _: 100.0)
    schedule.share = 0.0
    assert schedule.start(5.0) == inf


def test_random_times_use_the_given_generator():
    first, second = (Schedule(lambda _: 100.0, poisson=True, chance=random.Random(7)) for _ in range(2))
    assert list(take(first, 1)) == list(take(second, 1))
    # Without one each has its own.
    first, second = (Schedule(lambda _: 100.0, poisson=True) for _ in range(2))
    assert list(take(first, 1)) != list(take(second, 1))
