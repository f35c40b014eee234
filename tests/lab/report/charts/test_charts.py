"""What each kind of chart contains."""

import math
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from lab.base.units import show_count, show_time
from lab.report.charts.chart import (
    STYLE,
    Chart,
    Margins,
    draw_across,
    draw_down,
    draw_mark,
    draw_path,
    label_width,
)
from lab.report.charts.intervals import Interval, draw_intervals, write_intervals
from lab.report.charts.lines import SHARES, Distribution, Events, Line, draw_lines, draw_percentiles
from lab.report.charts.palette import DARK, LIGHT, Tone, make_variables
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


def list_elements(chart: Chart, name: str, *, within: str = "") -> list[dict[str, str]]:
    """Return the attributes of the elements of a class, in order.

    Args:
        within: of the series of this name only.
    """
    root = ElementTree.fromstring(chart.render_file())  # noqa: S314 - a file of ours
    parts = [element for element in root.iter() if not within or element.get("data-name") == within]
    found = parts if not within else list(parts[0].iter())
    return [element.attrib for element in found if element.get("class") == name]


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
    chart = draw_rows(ROWS)
    seen = read_chart(chart)
    assert ["open" in each.classes for each in seen.series.values()] == [False, True, False]
    # From the middle to the end of the plot; what is known is left of it.
    (end,) = list_elements(chart, "open")
    (known,) = list_elements(chart, "range", within="bound <b>")
    assert (end["x1"], end["x2"], end["y1"], end["y2"]) == ("43.71%", "100%", "28.5", "28.5")
    assert (known["x1"], known["x2"], known["y1"], known["y2"]) == ("34.97%", "43.71%", "28.5", "28.5")


def test_labels_beside_a_plot_have_room() -> None:
    """A character of theirs takes 6.6 pixels, and they stand 8 or 6 pixels beside the plot."""
    margins = draw_rows(ROWS).margins
    assert margins.left >= 8 + 6.6 * len("bound <b>")
    assert margins.right >= 6 + 6.6 * len("≥ 500")
    # Also where no value is shown.
    assert draw_rows([Interval("a", 1, 1, 1)]).margins.right == 18
    axis = make_axis("x", [1, 2], show_count)
    lines = [Line("a long name of a model", [(1, 1), (2, 2)]), Line("b", [(1, 2), (2, 1)])]
    assert draw_lines("l", "L", lines, across=axis, up=axis).margins.right >= 8 + 6.6 * len(lines[0].name)


def test_name_and_value_of_a_row_stand_beside_its_mark() -> None:
    """The name left of the plot, the value right of it; the row can be pointed at in all of its height."""
    chart = draw_rows(ROWS, band=(900, 1100))
    middles = [each.marks[0][1] for each in read_chart(chart).series.values()]
    for kind, place, anchor in (("name", -1, "end"), ("value", 1, None)):
        labels = list_elements(chart, kind)
        # By the baseline of their text.
        assert [float(each["y"]) - 4 for each in labels] == middles
        assert {each.get("text-anchor") for each in labels} == {anchor}
        assert all(float(each["dx"] if kind == "value" else each["x"]) * place > 0 for each in labels)
    assert {each["x"] for each in list_elements(chart, "value")} == {"100%"}
    hits = list_elements(chart, "hit")
    assert [(each["y"], each["height"]) for each in hits] == [("0", "19"), ("19", "19"), ("38", "19")]
    # Its labels are a part of it.
    assert {(each["x"], each["width"]) for each in hits} == {("-50%", "170%")}
    # The band is behind all rows.
    (band,) = list_elements(chart, "band")
    assert float(band["y"]) <= 0
    assert float(band["y"]) + float(band["height"]) == 57


def test_interval_is_drawn_from_its_lowest_to_its_highest_value() -> None:
    """The axis ends at 1144; the mark of the row has the height of its line."""
    (line,) = list_elements(draw_rows(ROWS), "range", within="fast")
    assert (line["x1"], line["x2"]) == ("78.67%", "96.15%")
    assert line["y1"] == line["y2"] == "9.5"


def test_band_of_a_lower_bound_reaches_to_the_end_of_the_plot() -> None:
    seen = read_chart(draw_rows(ROWS, band=(572, math.inf)))
    assert seen.bands == [(50.0, 50.0)]
    assert read_chart(draw_rows(ROWS)).bands == []


def test_each_tick_has_its_label_and_its_line_at_the_place_of_its_value() -> None:
    """Across: 0, 500 and 1000 of 1144. Up: 0 to 30 of 31.2, from the bottom of 230 pixels."""
    chart = draw_rows(ROWS)
    across = ["0%", "43.71%", "87.41%"]
    assert [each["x"] for each in list_elements(chart, "tick")] == across
    assert [(each["x1"], each["x2"]) for each in list_elements(chart, "grid")] == [(at, at) for at in across]
    axis = make_axis("x", [1], show_count, is_log=False, ticks=())
    line = Line("a", [(0, 0), (1, 30)])
    chart = draw_lines("l", "L", [line], across=axis, up=make_axis("y", [30], show_count))
    down = [about(230 - 230 * value / 31.2, abs=0.01) for value in (0, 10, 20, 30)]
    assert [float(each["y1"]) for each in list_elements(chart, "grid")] == down
    assert [float(each["y2"]) for each in list_elements(chart, "grid")] == down
    # Labels stand a little lower, by their baseline.
    assert [float(each["y"]) - 4 for each in list_elements(chart, "tick")] == down
    # The line ends at the height of 30: in thousandths of the plot.
    ((_, (x, y)),) = read_chart(chart).series["a"].paths
    assert (x, y) == (round(1000 / 1.04), round(1000 * (1 - 30 / 31.2)))


def test_tones_have_their_own_shapes() -> None:
    chart = draw_rows(ROWS)
    assert [sorted(each) for each in list_elements(chart, "mark")] == [
        ["class", "cx", "cy", "r"],
        ["class", "cx", "cy", "r"],
        ["class", "points"],
    ]


def test_wide_intervals_are_on_a_logarithmic_axis_that_says_so() -> None:
    seen = read_chart(draw_rows([*ROWS, Interval("none", 5, 5, 5)]))
    assert seen.axes == ["requests/s, log scale"]
    assert seen.ticks == ["10", "100", "1k"]
    # From 5 / 1.12 to 1100 * 1.12.
    assert seen.series["none"].marks[0][0] == about(100 * math.log(1.12) / math.log(220 * 1.12**2), abs=0.01)


def test_axis_has_room_for_the_lowest_end_and_for_the_highest_bound() -> None:
    (row,) = read_chart(draw_rows([Interval("a", 100, 10, 1000)])).series.values()
    assert row.marks[0][0] == 50.0
    # From 10 / 1.12 to 1000 * 1.12.
    (row,) = read_chart(draw_rows([Interval("a", 1000, 10, math.inf)])).series.values()
    assert row.marks[0][0] == about(100 - 100 * math.log(1.12) / math.log(100 * 1.12**2), abs=0.01)


def test_groups_have_headings() -> None:
    rows = [
        Interval("a", 1, 1, 1, group="thread"),
        Interval("b", 2, 2, 2, group="thread"),
        Interval("c", 3, 3, 3, group="loop"),
    ]
    seen = read_chart(draw_rows(rows))
    assert seen.notes == ["thread", "loop"]
    assert [each.marks[0][1] for each in seen.series.values()] == [31.5, 50.5, 91.5]
    # Each stands above its first row, and below the row before.
    thread, loop = (float(each["y"]) for each in list_elements(draw_rows(rows), "group"))
    assert 11 < thread < 22
    assert 60 + 11 < loop < 60 + 22
    assert read_chart(draw_rows(rows[:2])).notes == ["thread"]


def test_chart_has_its_figures_as_text() -> None:
    seen = read_chart(draw_rows(ROWS))
    assert seen.title == "Rates"
    assert seen.description == "requests/s. fast: 1k, rank 1; bound <b>: ≥ 500; slow: 200."
    assert seen.series["fast"].tip == "fast: 1k, rank 1"
    # Of more than four names, the first and the last.
    rows = [Interval(name, number, number, number, text=f"{number}") for number, name in enumerate("abcde", 1)]
    assert read_chart(draw_rows(rows[:4])).description == "requests/s. a: 1; b: 2; c: 3; d: 4."
    assert read_chart(draw_rows(rows)).description == "requests/s. a: 1; 3 more; e: 5."
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
    drawn = draw_lines("l", "L", lines, across=axis, up=up)
    seen = read_chart(drawn)
    assert (drawn.name, drawn.title, seen.title) == ("l", "L", "L")
    # Grey lines are drawn first, below the others.
    assert list(seen.series) == ["b", "a"]
    assert [len(path) for path in seen.series["b"].paths] == [2, 2]
    assert [seen.series[name].classes.count("dashed") for name in ("a", "b")] == [0, 2]
    assert seen.series["a"].classes.count("ring") == 1
    # 10 is in the middle of a logarithmic axis from 1 to 100.
    assert seen.series["a"].paths[0][1][0] == 500
    assert seen.ticks == ["1", "10", "100", "0", "10", "20", "30"]
    assert seen.axes == ["connections", "rate"]
    # The ring is around the point of the knee: 10 connections, and 20 of 31.2.
    (ring,) = list_elements(drawn, "ring")
    assert float(ring["r"]) > 3
    assert (ring["cx"], float(ring["cy"])) == ("50%", about(230 - 230 * 20 / 31.2, abs=0.01))
    # Each known point has a dot.
    assert [len(seen.series[name].marks) for name in ("a", "b")] == [3, 4]


def test_line_without_dots_has_one_at_a_point_without_neighbours() -> None:
    axis = make_axis("x", [4], show_count)
    line = Line("a", [(0, 1), (1, 2), (2, None), (3, 4), (4, None)], has_dots=False)
    seen = read_chart(draw_lines("l", "L", [line], across=axis, up=axis)).series["a"]
    assert [len(path) for path in seen.paths] == [2]
    assert seen.marks == [(about(100 * 3 / 4.16, abs=0.01), about(230 - 230 * 4 / 4.16, abs=0.01))]
    # Lines are not dashed unless they say so.
    assert "dashed" not in seen.classes
    assert seen.tip == "a"


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


def test_label_away_from_the_end_of_its_line_is_connected_with_it() -> None:
    """The one ends in the middle of the plot, at half its height, and the other at the upper right corner."""
    short = Line("short", [(0, 0), (1, 9), (5, 5), (9, None)], tip="short: 0 to 5")
    whole = Line("whole", [(0, 2), (4, 3), (10, 10)])
    axis = make_axis("x", [0, 10], show_count, ticks=())
    across = replace(axis, high=10.0)
    chart = draw_lines("l", "L", [short, whole], across=across, up=across)
    (leader,) = list_elements(chart, "leader", within="short")
    assert (leader["x1"], float(leader["y1"]), leader["x2"], float(leader["y2"])) == ("50%", 115.0, "100%", 115.0)
    (name,) = list_elements(chart, "name", within="short")
    assert (name["x"], float(name["y"])) == ("100%", 119.0)
    # Its label would be above the plot, so it is moved by four pixels.
    (moved,) = list_elements(chart, "leader", within="whole")
    assert (moved["x1"], float(moved["y1"]), float(moved["y2"])) == ("100%", 0.0, 4.0)
    assert read_chart(chart).description == "x by x. short: 0 to 5; whole."
    # One that ends at the bottom has its label above the labels of the axis.
    low = draw_lines("l", "L", [Line("low", [(0, 2), (5, 0), (10, 0)])], across=across, up=across)
    assert [float(each["y"]) - 4 for each in list_elements(low, "name")] == [228.0]
    beside = draw_lines("l", "L", [Line("whole", [(0, 2), (10, 9)])], across=across, up=across)
    assert list_elements(beside, "leader") == []


def test_events_are_shaded_and_crossed() -> None:
    axis = make_axis("s", [0, 10], show_count, is_log=False, ticks=())
    events = Events([(2.6, 5.2, "a pause")], [(7.8, "3 failed")])
    seen = read_chart(draw_lines("l", "L", [Line("p99", [(0, 1), (10, 1)])], across=axis, up=axis, events=events))
    assert seen.bands == [(25.0, 25.0)]
    assert seen.notes == ["a pause", "3 failed"]
    assert "a pause; 3 failed" in seen.description
    chart = draw_lines("l", "L", [Line("p99", [(0, 1), (10, 1)])], across=axis, up=axis, events=events)
    (shade,) = list_elements(chart, "shade")
    assert (shade["y"], shade["height"]) == ("0", "230")
    # The cross is at its time, at the top: 7.8 of 10.4 seconds.
    assert 'x="75%" y="8"' in chart.render_file()
    (cross,) = list_elements(chart, "cross")
    assert cross["d"]
    quiet = replace(events, are_faults=False)
    chart = draw_lines("l", "L", [Line("p99", [(0, 1), (10, 1)])], across=axis, up=axis, events=quiet)
    assert len(list_elements(chart, "shade quiet")) == 1


def test_percentiles_need_ten_samples_beyond_them() -> None:
    found = [Distribution("many", Tone.BLUE, 10_000, TIMES), Distribution("few", Tone.GREY, 200, TIMES)]
    drawn = draw_percentiles("p", "P", found, show=show_time, up="time")
    seen = read_chart(drawn)
    assert (drawn.name, drawn.title, seen.axes[-1]) == ("p", "P", "time")
    assert [each.tone for each in seen.series.values()] == ["grey", "blue"]
    assert seen.ticks[:4] == ["p50", "p90", "p99", "p99.9"]
    assert seen.series["many"].tip == "many: p50 600 µs, p90 1.00 ms, p99 1.09 ms, p99.9 1.10 ms"
    assert seen.series["few"].tip == "few: p50 600 µs, p90 1.00 ms"
    assert SHARES == (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
    assert seen.series["many"].marks == []
    # The axis ends where the longest line does; its ticks do, too.
    (few,) = (read_chart(draw_percentiles("p", "P", found[1:], show=show_time, up="time")),)
    assert few.ticks[:2] == ["p50", "p90"]
    assert few.series["few"].paths[0][-1][0] == 1000
    # 1.10 ms is 11/9 of 0.9: on a logarithmic axis from 200 / 1.12 to 1099 * 1.12 µs.
    up = [y for _, y in seen.series["many"].paths[0]]
    room = math.log(1099 / 200 * 1.12**2)
    assert (up[0], up[-1]) == (round(1000 - 1000 * math.log(1.12) / room), round(1000 * math.log(1.12) / room))
    # Nor is what is not known.
    some = Distribution("some", Tone.GREY, 1000, {0.5: 100.0, 0.9: None})
    known = read_chart(draw_percentiles("p", "P", [some], show=show_time, up="time"))
    assert known.series["some"].tip == "some: p50 100 µs"
    # Without samples there is nothing to show.
    nothing = read_chart(draw_percentiles("p", "P", [], show=show_time, up="time"))
    assert (nothing.series, nothing.ticks[:2]) == ({}, ["p50", "p90"])
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


LONG = "a" * 20


@pytest.mark.parametrize(
    ("points", "found"),
    [
        # Of 200 pixels. A character takes 6.7, so a label of 20 takes 134. It begins 8 beside its point, and may end 12
        # farther than the plot, in the margin.
        ([(LONG, 35, 10)], "start"),
        ([(LONG, 35.1, 10)], None),
        ([(LONG, 71, 10)], "end"),
        ([(LONG, 70.9, 10)], None),
        # Right of the first point it covers 8 to 142 pixels. A mark is 8 wide, and a label 12 high.
        ([(LONG, 0, 10), ("b", 73, 10)], "start"),
        ([(LONG, 0, 10), ("b", 72.9, 10)], None),
        ([(LONG, 0, 10), ("b", 2, 10)], "start"),
        ([(LONG, 0, 10), ("b", 2.1, 10)], None),
        ([(LONG, 0, 10), ("b", 25, 22)], "start"),
        ([(LONG, 0, 10), ("b", 25, 21.9)], None),
        ([(LONG, 0, 10), ("b", 25, -2)], "start"),
        ([(LONG, 0, 10), ("b", 25, -1.9)], None),
        # A short one has room left of its point.
        ([("aaaaa", 50, 10), ("b", 57.5, 10)], "end"),
    ],
)
def test_label_of_a_point_covers_no_mark_and_ends_in_the_plot(
    points: list[tuple[str, float, float]], found: str | None
) -> None:
    name, *_ = points[0]
    assert place_labels(points, 200).get(name) == found


@pytest.mark.parametrize(("down", "found"), [(22.0, "start"), (21.9, "end"), (-1.9, "end"), (-2.0, "start")])
def test_label_of_a_point_covers_no_label(down: float, found: str) -> None:
    points = [("first", 50, 10), ("other", 50, down)]
    assert place_labels(points, 200) == {"first": "start", "other": found}


def test_scatter_has_a_point_for_each_name() -> None:
    axis = make_axis("x", [10], show_count)
    points = [Point("a", 1, 1), Point("b", 10, 10, Tone.BLUE, "b: 10, 10")]
    chart = draw_scatter("s", "S", points, across=axis, up=axis)
    seen = read_chart(chart)
    assert (chart.name, chart.title) == ("s", "S")
    assert [(name, each.tone) for name, each in seen.series.items()] == [("b", "blue"), ("a", "grey")]
    assert seen.series["b"].marks == [(about(100 / 1.04, abs=0.01), about(10, abs=0.01))]
    assert seen.series["b"].tip == "b: 10, 10"
    assert seen.series["a"].tip == "a"
    assert seen.description == "x by x. b: 10, 10; a."
    assert (chart.height, chart.margins) == (260, Margins(50, 16, 20, 38))
    # 10 of 10.4 are 10 pixels from the top; the label stands by its baseline, and these marks are larger.
    mark, label = (list_elements(chart, name, within="b")[0] for name in ("mark", "name"))
    assert (mark["cy"], mark["r"], label["y"]) == ("10", "4.4", "14")


def test_label_of_a_point_is_beside_it_and_hidden_in_windows_without_room() -> None:
    """The plot has 270 pixels in a narrow window, and 480 in a wide one."""
    axis = replace(make_axis("x", [0, 100], show_count), high=100.0)
    points = [Point("first", 50, 50, Tone.BLUE), Point("behind it", 35, 50, Tone.ORANGE), Point("last one", 99, 10)]
    chart = draw_scatter("s", "S", points, across=axis, up=axis)
    # A tone has its shape: of an orange one, it is a diamond.
    assert ["points" in mark for mark in list_elements(chart, "mark")] == [False, True, False]

    def read_label(name: str) -> tuple[str, str, str, str]:
        (label,) = (*list_elements(chart, "name", within=name), *list_elements(chart, "name wide", within=name))
        return label["class"], label["x"], label["dx"], label["text-anchor"]

    assert read_label("first") == ("name", "50%", "9", "start")
    assert read_label("behind it") == ("name", "35%", "-9", "end")
    assert read_label("last one") == ("name", "99%", "-9", "end")
    # A label of 15 characters takes 100 pixels; its point is 65 pixels left of the first, or 115.
    crowded = [Point("first", 50, 50, Tone.BLUE), Point("somewhat behind", 26, 50, Tone.ORANGE)]
    chart = draw_scatter("s", "S", crowded, across=axis, up=axis)
    assert read_label("somewhat behind") == ("name wide", "26%", "9", "start")
    # One that has room on the right in a wide window alone is on the left in both.
    chart = draw_scatter("s", "S", [Point("fifth", 90, 50)], across=axis, up=axis)
    assert read_label("fifth") == ("name", "90%", "-9", "end")
    # One that has no room in either has no label, and its name as a tooltip.
    hidden = [*points, Point("a name as long as the plot is wide on a desk, and a little more", 60, 90)]
    seen = read_chart(draw_scatter("s", "S", hidden, across=axis, up=axis))
    assert [each.labels for each in seen.series.values()] == [["first"], ["behind it"], ["last one"], []]


PLOT = Chart("rates", "Rates <b>", "in words", 100, Margins(50, 16, 20, 38), Markup("<g/>"))
NAMED = 'aria-labelledby="rates-title rates-desc"'
WORDS = '<title id="rates-title">Rates &lt;b&gt;</title><desc id="rates-desc">in words</desc>'


def test_chart_of_a_page_has_the_height_of_its_plot_and_its_margins() -> None:
    style = 'style="height:158px;padding:20px 16px 38px 50px"'
    assert PLOT.__html__() == f'<svg class="chart" role="img" {NAMED} {style}>{WORDS}<g/></svg>'


def test_file_has_its_title_above_the_plot_and_its_colours() -> None:
    """The title takes 26 pixels more; of the width of 500 the margins take 66."""
    text = PLOT.render_file(500)
    head, _, rest = text.partition("<style>")
    assert head == (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" {NAMED} width="500" height="184" '
        f'viewBox="0 0 500 184">{WORDS}'
    )
    style, _, body = rest.partition("</style>")
    assert style == f".chart {{ {make_variables(LIGHT)} }} {STYLE}"
    assert body == (
        '<rect width="500" height="184" style="fill:var(--card)"/><text x="12" y="20" '
        'style="font-size:14px;font-weight:600;fill:var(--ink)">Rates &lt;b&gt;</text>'
        '<svg x="50" y="46" width="434" height="100" overflow="visible"><g/></svg></svg>'
    )
    assert PLOT.render_file(is_dark=True) == PLOT.render_file(760).replace(make_variables(LIGHT), make_variables(DARK))


def test_grid_has_its_labels_outside_of_the_plot() -> None:
    axis = replace(make_axis("x", [0, 100], show_count), high=100.0, ticks=(25.0,))
    assert list(draw_across(axis, 200)) == [
        '<line class="grid" x1="25%" x2="25%" y1="0" y2="200"/>',
        '<text class="tick" x="25%" y="215" text-anchor="middle">25</text>',
        '<text class="axis" x="50%" y="231" text-anchor="middle">x</text>',
    ]
    assert list(draw_down(axis, 200)) == [
        '<line class="grid" x1="0" x2="100%" y1="150" y2="150"/>',
        '<text class="tick" x="-6" y="154" text-anchor="end">25</text>',
        '<text class="axis" x="-44" y="-9">x</text>',
    ]


def test_diamond_is_a_little_larger_than_a_disc() -> None:
    """So that their areas look alike: 1.35 times."""
    diamond = '<svg x="12.5%" y="30"><polygon class="mark" points="0,{0} {1},0 0,{1} {0},0"/></svg>'
    assert draw_mark("orange", 12.5, 30) == diamond.format("-4.86", "4.86")
    assert draw_mark("orange", 12.5, 30, 2) == diamond.format("-2.7", "2.7")
    assert draw_mark("blue", 12.5, 30) == '<circle class="mark" cx="12.5%" cy="30" r="3.6"/>'
    assert draw_mark("grey", 12.5, 30, 2) == '<circle class="mark" cx="12.5%" cy="30" r="2"/>'


def test_line_is_stretched_to_its_plot() -> None:
    assert draw_path([(0, 0), (50, 115), (100, 230)], 230) == (
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none"><path class="line" d="M0 0L500 500L1000 1000"/></svg>'
    )


def test_label_takes_its_characters_and_some_room() -> None:
    # 4 x 0.61 x 11 is 26.84.
    assert (label_width(["a", "abcd"]), label_width([])) == (37, 10)


def test_intervals_in_characters_are_on_one_axis() -> None:
    assert write_intervals(ROWS, 22) == [
        f"fast       {' ' * 17}─●──   1k",
        f"bound <b>  {' ' * 7}──○{'·' * 11}>  ≥ 500",
        f"slow          ─◆{' ' * 17}  200",
    ]
    assert write_intervals([Interval("a", 100, 10, 1000, text="100")], 21) == [f"a  {'─' * 10}○{'─' * 10}  100"]
    assert write_intervals([]) == []
    # The usual width.
    assert {len(line) for line in write_intervals(ROWS[:1])} == {len("fast") + 2 + 44 + 2 + len("1k")}


def test_lower_bound_at_the_end_of_the_axis_has_its_mark_in_the_last_column() -> None:
    """It is the highest value that is known. The axis has 4 % more: of 200 columns seven are left for what may be."""
    (line,) = write_intervals([Interval("a", 100, 50, math.inf, Tone.GREY, "≥ 100")], 201)
    # 192.3 and 96.2 of 200.
    assert line == f"a  {' ' * 96}{'─' * 96}○{'·' * 7}>  ≥ 100"
    # 18.3 of 19, and 2.9 of 3.
    (line,) = write_intervals([Interval("a", 100, 50, math.inf, Tone.GREY, "≥ 100")], 20)
    assert line == f"a  {' ' * 9}{'─' * 9}○>  ≥ 100"
    (line,) = write_intervals([Interval("a", 100, 50, math.inf, Tone.GREY, "≥ 100")], 4)
    assert line == "a   ──○  ≥ 100"
