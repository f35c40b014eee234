"""The verdicts of benchmarks/truth.py, with figures worked out by hand."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import truth
from loadtests.contract import LoadResult
from loadtests.sockets.histogram import Histogram


@pytest.mark.parametrize(
    ("value", "holds"), [(103.0, True), (103.1, False), (97.0, True), (96.9, False), (100.0, True)]
)
def test_figure_is_right_within_a_share_on_both_sides(value: float, holds: bool) -> None:
    assert truth.tell("p99", value, 100.0, 0.0301, "µs") == holds


def test_figure_is_printed_beside_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    truth.tell("p99", 90.0, 100.0, 0.03, "µs")
    said = " ".join(capsys.readouterr().out.split())
    assert said == "p99 90.0 µs right: 100.0 -10.00% (at most 3.0%)"


@pytest.mark.parametrize(("value", "holds"), [(199.9, True), (200.0, True), (200.1, False)])
def test_upper_bound_is_the_most(value: float, holds: bool) -> None:
    assert truth.tell_most("error", value, 200.0, "µs") == holds


def test_schedule_is_kept_if_sendings_are_as_far_apart_as_was_due() -> None:
    # 1 ms late, 1 ms late, 3 ms late, 2 ms late.
    lags, errors = truth.compare_with_schedule([(1.001, 1.0), (1.101, 1.1), (1.203, 1.2), (1.302, 1.3)])
    assert [round(value) for value in lags] == [1000, 1000, 3000, 2000]
    assert [round(value) for value in errors] == [0, 2000, 1000]


def test_memory_grows_from_the_end_of_the_first_minute() -> None:
    # Six samples a minute: from the sixth to the largest behind it.
    assert truth.find_growth([10, 99, 20, 30, 40, 50, 55, 70, 60]) == 20
    assert truth.find_growth([10, 20, 30, 40, 50, 60, 55, 55]) == -5


def test_every_check_that_does_not_hold_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {"rate": lambda: True, "ramp": lambda: False, "soak": lambda: False}
    monkeypatch.setattr(truth, "CHECKS", checks)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    for arguments, failed in ((["rate"], None), (["rate", "ramp", "soak"], "ramp, soak"), ([], "ramp")):
        monkeypatch.setattr(sys, "argv", ["truth", *arguments])
        if failed is None:
            truth.main()
            continue
        with pytest.raises(SystemExit, match=f"^not as it should be: {failed}$"):
            truth.main()
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["truth", "speed"])
    with pytest.raises(SystemExit) as ended:
        truth.main()
    assert ended.value.code == 2
    assert "unknown: speed" in capsys.readouterr().err


# 20,000 requests in 20 s, of 1 ms each.
RESULT = LoadResult("it", "tcp", 50.0, 1, 20.0, 20_000, {}, Histogram.from_pairs([(1_000.0, 20_000)]))


@pytest.fixture
def finish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, ...]]]:
    """Replace server and generator; the latter's result is given, and what it is asked is returned."""

    @contextmanager
    def open_server(command: str, kind: str = "", said: list[str] | None = None) -> Any:
        yield "tcp://127.0.0.1:1"
        if said is not None:
            said.append("[10.0, 1000.0, 1000.0, 1000.0]")

    def put(result: LoadResult, sent: Sequence[tuple[float, float]] = ()) -> list[tuple[str, ...]]:
        asked: list[tuple[str, ...]] = []

        class Process:
            returncode = 0

        def start(url: str, *arguments: str, **environ: str) -> Any:
            asked.append(arguments)
            if "SENT" in environ:
                Path(environ["SENT"]).write_text(json.dumps(sent))
            return Process()

        monkeypatch.setattr(truth, "open_server", open_server)
        monkeypatch.setattr(truth, "start", start)
        monkeypatch.setattr(truth, "finish", lambda process: result)
        return asked

    return put


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"failures": {"timed out": 1}}, False),
        ({"intended": Histogram.from_pairs([(700_000.0, 20_000)])}, False),
        # The stall must not be seen in the times from the sending.
        ({"service": Histogram.from_pairs([(100_100.0, 20_000)])}, False),
    ],
)
def test_stall_is_in_the_times_from_when_it_was_due_alone(finish, changes: dict[str, Any], holds: bool) -> None:
    due = Histogram.from_pairs([(800_000.0, 20_000)])
    asked = finish(replace(RESULT, **({"intended": due} | changes)))
    assert truth.check_stall() == holds
    words = "--loop open --rate 1000 --users 50 --spawn-rate 10000 --window 20 --warm-up 1"
    assert list(map(" ".join, asked)) == [words]


@pytest.mark.parametrize(
    ("users", "answered", "holds"), [(9_991.0, 20_000, True), (9_990.0, 20_000, False), (9_991.0, 19_800, False)]
)
def test_crowd_is_there_and_answered(finish, users: float, answered: int, holds: bool) -> None:
    finish(replace(RESULT, users=users, answered=answered))
    assert truth.check_crowd() == holds


@pytest.mark.parametrize(
    ("changes", "holds"),
    [({}, True), ({"users": 4_990.0}, False), ({"starved": 1}, False), ({"failures": {"refused": 1}}, False)],
)
def test_ramp_leaves_nobody_out(finish, changes: dict[str, Any], holds: bool) -> None:
    finish(replace(RESULT, **({"users": 4_999.0} | changes)))
    assert truth.check_ramp() == holds


@pytest.mark.parametrize(("microseconds", "holds"), [(1_000.0, True), (1_100.0, False)])
def test_delay_is_that_of_the_server(finish, microseconds: float, holds: bool) -> None:
    finish(replace(RESULT, service=Histogram.from_pairs([(microseconds, 20_000)])))
    assert truth.check_delay() == holds


@pytest.mark.parametrize(
    ("late", "answered", "holds"), [(0.0, 400_000, True), (0.0005, 400_000, False), (0.0, 390_000, False)]
)
def test_rate_is_answered_and_almost_every_sending_comes_in_time(
    finish, late: float, answered: int, holds: bool
) -> None:
    # One of a hundred sendings is late, so two of 99 times between them are wrong: more than one in a hundred.
    sent = [(number / 1000 + (late if number == 50 else 0.0), number / 1000) for number in range(100)]
    finish(replace(RESULT, answered=answered), sent)
    assert truth.check_rate() == holds
