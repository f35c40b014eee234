"""Points of two figures, with as many labels as fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.report.charts.chart import (
    Chart,
    Margins,
    describe,
    draw_across,
    draw_down,
    draw_mark,
    draw_series,
    percent,
    tag,
)
from lab.report.charts.palette import Tone
from lab.report.charts.scale import Axis

_HEIGHT = 260
_CHARACTER, _LINE = 6.7, 12.0

# Widths of the plot in pixels for which labels are chosen: that of a phone, and that of a desk. A label that only the
# second one has room for is hidden in narrow windows.
_NARROW, _WIDE = 270, 480


@dataclass(frozen=True, slots=True)
class Point:
    """A point with its figures in words."""

    name: str
    x: float
    y: float
    tone: Tone = Tone.GREY
    tip: str = ""


def draw_scatter(name: str, title: str, points: Sequence[Point], *, across: Axis, up: Axis) -> Chart:
    """Draw points. Labels of coloured points come first; one that would cover another is left out."""
    x, y = across.scale(0, 100).place, up.scale(_HEIGHT, 0).place
    found = sorted(points, key=lambda point: (point.tone is Tone.GREY, point.y))
    placed = [(point.name, x(point.x), y(point.y)) for point in found]
    narrow, wide = (place_labels(placed, width) for width in (_NARROW, _WIDE))
    body = [*draw_across(across, _HEIGHT), *draw_down(up, _HEIGHT)]
    for point, (_, left, top) in zip(found, placed, strict=True):
        parts = [draw_mark(point.tone, left, top, size=4.4)]
        anchor = narrow.get(point.name) or wide.get(point.name)
        if anchor:
            seen = "name" if point.name in narrow else "name wide"
            side = 9 if anchor == "start" else -9
            parts.append(tag("text", point.name, class_=seen, x=percent(left), dx=side, y=top + 4, text_anchor=anchor))
        body.append(draw_series(point.name, point.tone, point.tip or point.name, parts))
    tips = [point.tip or point.name for point in found]
    return Chart(
        name,
        title,
        describe(tips, f"{up.title} by {across.title}"),
        _HEIGHT,
        Margins(50, 16, 20, 38),
        Markup("").join(body),
    )


def place_labels(points: Sequence[tuple[str, float, float]], width: int) -> dict[str, str]:
    """Return the labels that fit, with the side on which each is: `start` for right of its point, `end` for left.

    Args:
        points: the name, per cent across and pixels down; the most important first.
        width: of the plot in pixels.
    """
    marks = [(left * width / 100, top) for _, left, top in points]
    taken: list[tuple[float, float, float]] = []
    found: dict[str, str] = {}
    for name, left, top in points:
        at, length = left * width / 100, len(name) * _CHARACTER
        for anchor, begin in (("start", at + 8), ("end", at - 8 - length)):
            box = (begin, begin + length, top)
            if begin < 0 or begin + length > width + 12 or any(_touch(box, other) for other in taken):
                continue
            if any(_touch(box, (mark - 4, mark + 4, down)) for mark, down in marks):
                continue
            taken.append(box)
            found[name] = anchor
            break
    return found


def _touch(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and abs(one[2] - other[2]) < _LINE
