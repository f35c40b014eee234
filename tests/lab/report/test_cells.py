"""A cell keeps the value beside its text, and a verdict becomes a mark."""

from dataclasses import replace

from lab.base.units import UNKNOWN, show_us
from lab.metrics.verdict import Limit, Verdict
from lab.report.cells import COLUMNS, Cell, make_verdict, mark, mark_bounds, show_rate
from tests.support.made_up import MEASUREMENT, vary


def test_cell_of_a_figure_keeps_its_value() -> None:
    assert Cell.of(1239.6, show_us) == Cell(1239.6, "1\u202f240")
    # Not measured, unlike nothing.
    assert Cell.of(0.0, show_us) == Cell(0.0, "0.00")
    assert Cell.of(None, show_us) == Cell(None, UNKNOWN, note="", link="", is_good=True)


def test_verdict_is_a_mark_and_a_word() -> None:
    assert [mark(bound) for bound in (Limit.SERVER, Limit.MACHINE, Limit.WAITING, Limit.WRONG)] == ["●", "◐", "○", "▲"]
    assert mark_bounds("server-bound") == "● server"
    assert mark_bounds("machine-bound (2 of 3), waiting (1 of 3)") == "◐○ machine"
    assert mark_bounds("0.1% FAILED, server-bound") == "▲● 0.1% FAILED"
    assert mark_bounds("not measured") == "not measured"


def test_rate_is_marked_as_a_lower_bound() -> None:
    assert show_rate(MEASUREMENT) == "10.0k"
    assert show_rate(replace(MEASUREMENT, verdict=Verdict(Limit.GENERATOR, "it was"))) == "≥ 10.0k"
    assert show_rate(vary(MEASUREMENT, answered=0)) == "0"
    assert show_rate(None) == UNKNOWN


def test_verdict_has_its_reason_and_the_failures() -> None:
    words = ("server-bound: the server used 99% of a core",)
    assert make_verdict(MEASUREMENT) == Cell("server-bound", "● server", words=words)
    failing = vary(
        MEASUREMENT, failures={"reset": 3, "timeout": 1}, verdict=Verdict(Limit.WRONG, "3 replies were wrong")
    )
    assert make_verdict(failing) == Cell(
        Limit.WRONG,
        f"▲ {Limit.WRONG}",
        is_good=False,
        words=(f"{Limit.WRONG}: 3 replies were wrong", "failures: 3 × reset; 1 × timeout"),  # noqa: RUF001  # as the failures are shown
    )


def test_columns_have_the_percentiles_of_the_intended_and_of_the_service_times() -> None:
    """98 of 100 requests took 100 µs to serve, and two 700 µs; counted from when they were due, 90 and 10 others."""
    found = vary(MEASUREMENT, histogram=((200.0, 90), (5_000.0, 10)), service=((100.0, 98), (700.0, 2)))
    shown = [COLUMNS[name](found).text for name in ("p50 µs", "p99 µs", "service p99 µs")]
    assert shown == ["200", "5\u202f000", "700"]
    assert COLUMNS["service p99 µs"](MEASUREMENT) == Cell(None, UNKNOWN)
