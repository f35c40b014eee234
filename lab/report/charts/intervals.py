"""Intervals of one figure on a common axis: a row for each name, and a band that shows which rows tie with the best."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.report.charts.chart import (
    Chart,
    Margins,
    describe,
    draw_across,
    draw_mark,
    draw_series,
    label_width,
    percent,
    tag,
)
from lab.report.charts.palette import Tone
from lab.report.charts.scale import make_axis

# Shapes of the tones in characters.
_CHARACTERS = {Tone.BLUE: "●", Tone.ORANGE: "◆", Tone.GREY: "○"}

_ROW = 19
_HEADING = 22


@dataclass(frozen=True, slots=True)
class Interval:
    """A row.

    Args:
        middle: the value.
        low, high: the interval; equal to `middle` if there is none. A `high` of infinity is a lower bound.
        tone: of the mark.
        text: the value as shown at the end of the row.
        note: shown after the value when the row is pointed at.
        group: rows of one group are together, under its name; empty for no groups.
    """

    name: str
    middle: float
    low: float
    high: float
    tone: Tone = Tone.GREY
    text: str = ""
    note: str = ""
    group: str = ""


def draw_intervals(
    name: str,
    title: str,
    rows: Sequence[Interval],
    *,
    axis: str,
    show: Callable[[float], str],
    band: tuple[float, float] | None = None,
) -> Chart:
    """Draw intervals in the order of the rows.

    Args:
        axis: the title of the axis.
        band: an interval drawn behind all rows: rows that touch it tie with the one that it belongs to.
    """
    ends = [value for row in rows for value in (row.low, row.middle, row.high)]
    across = make_axis(axis, ends, show)
    if across.is_log:
        across = make_axis(f"{axis}, log scale", ends, show, is_log=True)
    place = across.scale(0, 100).place
    drawn: list[Markup] = []
    tops, top = [], 0
    for number, row in enumerate(rows):
        if row.group and (number == 0 or rows[number - 1].group != row.group):
            drawn.append(tag("text", row.group, class_="group", x=0, y=top + _HEADING - 7))
            top += _HEADING
        tops.append(top)
        top += _ROW
    body = [*_draw_band(band, place, top), *draw_across(across, top), *drawn]
    body += [_draw_row(row, place, at) for row, at in zip(rows, tops, strict=True)]
    return Chart(
        name,
        title,
        describe([_tell(row) for row in rows], across.title),
        top,
        Margins(label_width([row.name for row in rows]), max(label_width([row.text for row in rows]), 18), 6, 38),
        Markup("").join(body),
    )


def _draw_band(band: tuple[float, float] | None, place: Callable[[float], float], height: int) -> list[Markup]:
    if band is None:
        return []
    left, right = place(band[0]), place(band[1]) if math.isfinite(band[1]) else 100.0
    return [tag("rect", class_="band", x=percent(left), width=percent(max(right - left, 0.4)), y=-4, height=height + 4)]


def _draw_row(row: Interval, place: Callable[[float], float], top: int) -> Markup:
    y = top + _ROW / 2
    left, middle = place(row.low), place(row.middle)
    is_open = math.isinf(row.high)
    right = middle if is_open else place(row.high)
    parts = [
        tag("rect", class_="hit", x="-50%", width="170%", y=top, height=_ROW),
        tag("text", row.name, class_="name", x=-8, y=y + 4, text_anchor="end"),
        tag("line", class_="range", x1=percent(left), x2=percent(right), y1=y, y2=y),
        draw_mark(row.tone, middle, y),
        tag("text", row.text, class_="value", x="100%", dx=6, y=y + 4),
    ]
    if is_open:
        parts.insert(2, tag("line", class_="open", x1=percent(middle), x2="100%", y1=y, y2=y))
    return draw_series(row.name, row.tone, _tell(row), parts)


def _tell(row: Interval) -> str:
    return f"{row.name}: {row.text}{f', {row.note}' if row.note else ''}"


def write_intervals(rows: Sequence[Interval], width: int = 44) -> list[str]:
    """Return the intervals as lines of characters, for places that show no pictures: `name  ──●───  12.3k`.

    Args:
        width: of the plot in characters.
    """
    ends = [value for row in rows for value in (row.low, row.middle, row.high)]
    place = make_axis("", ends, str).scale(0, width - 1).place
    longest = max((len(row.name) for row in rows), default=0)
    return [f"{row.name:<{longest}}  {_write_bar(row, place, width)}  {row.text}" for row in rows]


def _write_bar(row: Interval, place: Callable[[float], float], width: int) -> str:
    first, middle = round(place(row.low)), round(place(row.middle))
    last = round(place(row.high))  # infinity is at the end of the axis
    cells = ["─" if first <= at <= last else " " for at in range(width)]
    if math.isinf(row.high):
        cells[middle + 1 :] = "·" * (width - middle - 2) + ">" if middle < width - 1 else ""
    cells[middle] = _CHARACTERS[row.tone]
    return "".join(cells)
