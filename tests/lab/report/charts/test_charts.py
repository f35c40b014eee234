"""What each kind of chart contains."""

import math
from itertools import pairwise

from lab.base.units import show_count, show_time
from lab.report.charts.chart import Chart
from lab.report.charts.intervals import Interval, draw_intervals, write_intervals
from lab.report.charts.lines import SHARES, Distribution, Events, Line, draw_lines, draw_percentiles
from lab.report.charts.palette import Tone
from lab.report.charts.scale import make_axis
from lab.report.charts.scatter import Point, draw_scatter, place_labels
from tests.support.approx import about
from tests.support.chart_reading import read_chart

ROWS = [
    Interval("fast", 1000, 900, 1100, Tone.BLUE, "1k", "rank 1"),
    Interval("bound <b>", 500, 400, math.inf, Tone.GREY, "≥ 500"),
    Interval("slow", 200, 180, 220, Tone.ORANGE, "200"),
]
TIMES = {share: 100.0 + 1000 * share for share in SHARES}


def draw_rows(rows: list[Interval], **changes: tuple[float, float]) -> Chart:
    return draw_intervals("rates", "Rates", rows, axis="requests/s", show=show_count, **changes)


def test_intervals_are_on_one_axis_in_the_given_order() -> None:
    seen = read_chart(draw_rows(ROWS, band=(900, 1100)))
    assert list(seen.series) == ["fast", "bound <b>", "slow"]
    (fast,), (bound,), (slow,) = (each.marks for each in seen.series.values())
    # 1144 is the end of the axis: the highest value and 4 % more. Rows are 19 pixels high.
    assert fast == (about(100 * 1000 / 1144, abs=0.01), 9.5)
    assert bound == (about(100 * 500 / 1144, abs=0.01), 28.5)
    assert slow == (about(100 * 200 / 1144, abs=0.01), 47.5)
    assert seen.bands == [(about(78.67, abs=0.01), about(17.48, abs=0.01))]
    assert (seen.ticks, seen.axes) == (["0", "500", "1k"], ["requests/s"])
    assert [each.tone for each in seen.series.values()] == ["blue", "grey", "orange"]
    assert seen.series["fast"].labels == ["fast", "1k"]


def test_lower_bound_has_an_open_end() -> None:
    seen = read_chart(draw_rows(ROWS))
    assert ["open" in each.classes for each in seen.series.values()] == [False, True, False]


def test_wide_intervals_are_on_a_logarithmic_axis_that_says_so() -> None:
    seen = read_chart(draw_rows([*ROWS, Interval("none", 5, 5, 5)]))
    assert seen.axes == ["requests/s, log scale"]
    assert seen.ticks == ["10", "100", "1k"]


def test_groups_have_headings() -> None:
    rows = [
        Interval("a", 1, 1, 1, group="thread"),
        Interval("b", 2, 2, 2, group="thread"),
        Interval("c", 3, 3, 3, group="loop"),
    ]
    seen = read_chart(draw_rows(rows))
    assert seen.notes == ["thread", "loop"]
    assert [each.marks[0][1] for each in seen.series.values()] == [31.5, 50.5, 91.5]


def test_chart_has_its_figures_as_text() -> None:
    seen = read_chart(draw_rows(ROWS))
    assert seen.title == "Rates"
    assert seen.description == "requests/s. fast: 1k, rank 1; bound <b>: ≥ 500; slow: 200."
    assert seen.series["fast"].tip == "fast: 1k, rank 1"
    text = str(draw_rows(ROWS).__html__())
    assert 'role="img" aria-labelledby="rates-title rates-desc"' in text
    assert "<b>" not in text


def test_knee_and_gap_of_a_line_are_drawn() -> None:
    lines = [
        Line("a", [(1, 10), (10, 20), (100, 30)], Tone.BLUE, "a: 10 to 30", marked=(10,)),
        Line("b", [(1, 5), (2, 6), (10, None), (50, 9), (100, 9)], is_dashed=True),
        Line("nothing", [(1, None)]),
    ]
    axis = make_axis("connections", [1, 100], show_count, is_log=True, ticks=(1, 10, 100))
    up = make_axis("rate", [30], show_count)
    seen = read_chart(draw_lines("l", "L", lines, across=axis, up=up))
    # Grey lines are drawn first, below the others.
    assert list(seen.series) == ["b", "a"]
    assert [len(path) for path in seen.series["b"].paths] == [2, 2]
    assert seen.series["b"].classes.count("dashed") == 2
    assert seen.series["a"].classes.count("ring") == 1
    # 10 is in the middle of a logarithmic axis from 1 to 100.
    assert seen.series["a"].paths[0][1][0] == 500
    assert seen.ticks == ["1", "10", "100", "0", "10", "20", "30"]
    assert seen.axes == ["connections", "rate"]


def test_labels_of_lines_do_not_cover_each_other() -> None:
    lines = [Line(f"model {number}", [(1, 10), (2, 10 + number / 100)]) for number in range(20)]
    axis = make_axis("x", [1, 2], show_count)
    text = draw_lines("l", "L", lines, across=axis, up=make_axis("y", [10], show_count)).render_file()
    downs = sorted(float(part.split('"')[0]) for part in text.split('class="name" x="100%" dx="8" y="')[1:])
    assert len(downs) == 20
    assert min(b - a for a, b in pairwise(downs)) >= 12.9


def test_label_of_a_line_is_at_its_end() -> None:
    lines = [Line("rises", [(1, 0.0), (2, 100.0)]), Line("falls", [(1, 100.0), (2, 0.0)])]
    axis = make_axis("x", [1, 2], show_count)
    text = draw_lines("l", "L", lines, across=axis, up=make_axis("y", [100.0], show_count)).render_file()
    down = {
        part.partition(">")[2].partition("<")[0]: float(part.split('"')[0])
        for part in text.split('class="name" x="100%" dx="8" y="')[1:]
    }
    assert down["rises"] < down["falls"]


def test_events_are_shaded_and_crossed() -> None:
    axis = make_axis("s", [0, 10], show_count, is_log=False, ticks=())
    events = Events([(2.6, 5.2, "a pause")], [(7.8, "3 failed")])
    seen = read_chart(draw_lines("l", "L", [Line("p99", [(0, 1), (10, 1)])], across=axis, up=axis, events=events))
    assert seen.bands == [(25.0, 25.0)]
    assert seen.notes == ["a pause", "3 failed"]
    assert "a pause; 3 failed" in seen.description


def test_percentiles_need_ten_samples_beyond_them() -> None:
    found = [Distribution("many", Tone.BLUE, 10_000, TIMES), Distribution("few", Tone.GREY, 200, TIMES)]
    seen = read_chart(draw_percentiles("p", "P", found, show=show_time, up="time"))
    assert seen.ticks[:4] == ["p50", "p90", "p99", "p99.9"]
    assert seen.series["many"].tip == "many: p50 600 µs, p90 1.00 ms, p99 1.09 ms, p99.9 1.10 ms"
    assert seen.series["few"].tip == "few: p50 600 µs, p90 1.00 ms"
    # Each nine takes the same room: p10 is 0.046 nines, p99.9 is 3.
    many = [x for x, _ in seen.series["many"].paths[0]]
    assert (many[0], many[SHARES.index(0.9)], many[-1]) == (0, round(1000 * (1 - 0.0458) / (3 - 0.0458)), 1000)


def test_scatter_labels_leave_out_what_would_be_covered() -> None:
    points = [("first", 50.0, 100.0), ("same place", 50.5, 101.0), ("far", 10.0, 20.0)]
    found = place_labels(points, 300)
    assert (found["first"], found["far"]) == ("start", "start")
    assert found.get("same place") in (None, "end")
    # No room at the right edge: left of the point.
    assert place_labels([("a long name", 97.0, 10.0)], 300) == {"a long name": "end"}
    assert place_labels([("a name as long as the whole plot is wide, and more", 50.0, 10.0)], 300) == {}


def test_scatter_has_a_point_for_each_name() -> None:
    axis = make_axis("x", [10], show_count)
    points = [Point("a", 1, 1), Point("b", 10, 10, Tone.BLUE, "b: 10, 10")]
    seen = read_chart(draw_scatter("s", "S", points, across=axis, up=axis))
    assert list(seen.series) == ["b", "a"]
    assert seen.series["b"].marks == [(about(100 / 1.04, abs=0.01), about(10, abs=0.01))]
    assert seen.series["b"].tip == "b: 10, 10"


def test_file_has_its_colours_and_size() -> None:
    text = draw_rows(ROWS).render_file(500, is_dark=True)
    assert 'width="500"' in text
    assert "--card: #1b1e23" in text
    assert ">Rates</text>" in text


def test_intervals_in_characters_are_on_one_axis() -> None:
    assert write_intervals(ROWS, 22) == [
        f"fast       {' ' * 17}─●──   1k",
        f"bound <b>  {' ' * 7}──○{'·' * 11}>  ≥ 500",
        f"slow          ─◆{' ' * 17}  200",
    ]
    assert write_intervals([]) == []
