"""What the scripts of benchmarks/ share, with figures worked out by hand."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from benchmarks.figures import (
    Contestant,
    in_turn,
    list_ratios,
    percentile,
    print_facts,
    ratio_of_medians,
    read_children_cpu,
    show_range,
    time_calls,
    us_per_request,
)


@pytest.mark.parametrize(
    ("count", "share", "value"),
    # Nearest rank: half of 100 do not exceed the 50th, and half of 5 the third.
    [(100, 0.5, 50), (100, 0.99, 99), (101, 0.99, 100), (5, 0.5, 3), (5, 0.9, 5), (1000, 0.999, 999), (1, 0.99, 1)],
)
def test_percentile_is_by_nearest_rank(count: int, share: float, value: int) -> None:
    assert percentile(range(count, 0, -1), share) == value


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_ratios_are_ours_to_theirs() -> None:
    assert list_ratios([6, 8], [3, 2]) == [2, 4]
    # Of the medians 6 and 3, and not the median of 2, 4 and 1.5.
    assert ratio_of_medians([6, 8, 6], [3, 2, 4]) == 2
    with pytest.raises(ValueError, match="shorter"):
        list_ratios([6, 8], [3])


def test_range_is_from_the_smallest_to_the_largest() -> None:
    assert show_range([2_000.4, 1_000.4, 1_500]) == "(1,000 to 2,000)"
    assert show_range([2.25, 1.5], ".1f") == "(1.5 to 2.2)"


def test_cpu_for_a_request_is_in_microseconds() -> None:
    assert us_per_request(2.0, 50_000) == 40


def test_each_contestant_goes_first_in_turn() -> None:
    assert [in_turn("abc", number) for number in range(4)] == [[*"abc"], [*"bca"], [*"cab"], [*"abc"]]


def test_cpu_of_children_is_that_of_user_and_kernel() -> None:
    """Also of what was used before: a difference of two readings is one child's."""
    code = (
        "import os, time\n"
        "end = time.process_time() + 0.05\n"
        "while time.process_time() < end: os.read(zero, 1 << 20)\n"
        "print(sum(os.times()[:2]), os.times().system)"
    )
    before = read_children_cpu()
    done = subprocess.run(
        [sys.executable, "-c", f"import os; zero = os.open('/dev/zero', 0)\n{code}"], capture_output=True, check=True
    )
    spent = read_children_cpu() - before
    used, system = map(float, done.stdout.split())
    assert system > 0
    assert used <= spent + 0.011  # os.times counts in hundredths


def test_calls_are_timed_in_a_shuffled_order_with_all_of_each_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ran = 0.0, list[str]()

    def spend(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            now += seconds
            ran.append(name)

        return run

    monkeypatch.setattr("random.sample", lambda names, count: names[::-1] if len(ran) < 5 else names)
    found = time_calls({"a": Contestant(spend("a", 0.002), 2), "b": Contestant(spend("b", 0.004), 3)}, 2, lambda: now)
    assert "".join(ran) == "bbbaa" + "aabbb"
    assert {name: [round(value) for value in values] for name, values in found.items()} == {
        "a": [2000, 2000],
        "b": [4000, 4000],
    }


def test_clock_is_that_of_the_cpu() -> None:
    """A contestant that sleeps costs nothing."""
    (asleep,) = time_calls({"asleep": Contestant(lambda: time.sleep(0.02), 1)}, 1)["asleep"]
    assert 0 <= asleep < 20_000


def test_facts_that_are_not_known_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"date": "today", "commit": None})
    assert capsys.readouterr().out == "date: today\ncommit: not known\n"
