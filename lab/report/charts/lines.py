"""Lines over a common axis, with labels at their ends, marked points, shaded intervals and gaps; and percentiles."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from markupsafe import Markup

from lab.report.charts.chart import (
    Chart,
    Margins,
    describe,
    draw_across,
    draw_down,
    draw_mark,
    draw_path,
    draw_series,
    label_width,
    percent,
    tag,
)
from lab.report.charts.palette import Tone
from lab.report.charts.scale import Axis, make_axis, spread

_LABEL = 13  # pixels from one label to the next
_SHORT = 230

# Ticks of a percentile axis. A share needs enough samples beyond it to mean something.
_TICKS = (0.5, 0.9, 0.99, 0.999)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_BEYOND = 10


@dataclass(frozen=True, slots=True)
class Line:
    """A line.

    Args:
        name: shown at its end.
        points: (across, up); the line has a gap where the value is None.
        tone: of the line.
        tip: its figures in words.
        marked: the places across of points with a ring around them, such as a knee.
        is_dashed: whether the line is dashed.
        has_dots: whether each point has a dot. A point without neighbours always has one.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    tone: Tone = Tone.GREY
    tip: str = ""
    marked: Sequence[float] = ()
    is_dashed: bool = False
    has_dots: bool = True

    @property
    def known(self) -> list[tuple[float, float]]:
        """The points with a value."""
        return [(x, y) for x, y in self.points if y is not None]


@dataclass(frozen=True, slots=True)
class Events:
    """What a chart shows besides lines.

    Args:
        shades: (begin, end, text) of shaded intervals.
        crosses: (place, text) of crosses at the top.
        are_faults: whether the shade warns.
    """

    shades: Sequence[tuple[float, float, str]] = field(default_factory=tuple)
    crosses: Sequence[tuple[float, str]] = field(default_factory=tuple)
    are_faults: bool = True


def draw_lines(
    name: str, title: str, lines: Sequence[Line], *, across: Axis, up: Axis, events: Events | None = None
) -> Chart:
    """Draw lines, those in grey first, so that they cover no other."""
    found = sorted((line for line in lines if line.known), key=lambda line: line.tone is not Tone.GREY)
    height = max(_SHORT, _LABEL * len(found))
    x, y = across.scale(0, 100).place, up.scale(height, 0).place
    events = events or Events()
    shade = "shade" if events.are_faults else "shade quiet"
    body = [
        tag("rect", tag("title", text), class_=shade, x=percent(x(a)), width=percent(x(b) - x(a)), y=0, height=height)
        for a, b, text in events.shades
    ]
    body += [*draw_across(across, height), *draw_down(up, height)]
    ends = [(x(line.known[-1][0]), y(line.known[-1][1])) for line in found]
    labels = spread([down for _, down in ends], _LABEL, 4, height - 2)
    for line, end, label in zip(found, ends, labels, strict=True):
        parts = [*_draw_line(line, x, y, height), *_draw_label(line.name, end, label)]
        body.append(draw_series(line.name, line.tone, line.tip or line.name, parts))
    for at, text in events.crosses:
        body.append(
            tag(
                "svg",
                tag("title", text),
                tag("path", class_="cross", d="M-4 -4l8 8m0 -8l-8 8"),
                x=percent(x(at)),
                y=8.0,
            )
        )
    tips = [
        *(line.tip or line.name for line in found),
        *(text for *_, text in events.shades),
        *(text for _, text in events.crosses),
    ]
    return Chart(
        name,
        title,
        describe(tips, f"{up.title} by {across.title}"),
        height,
        Margins(50, label_width([line.name for line in found]) + 8, 20, 38),
        Markup("").join(body),
    )


def _draw_line(line: Line, x: Callable[[float], float], y: Callable[[float], float], height: int) -> Iterable[Markup]:
    for _, part in groupby(line.points, lambda point: point[1] is not None):
        places = [(x(at), y(value)) for at, value in part if value is not None]
        if len(places) > 1:
            yield draw_path(places, height, "line dashed" if line.is_dashed else "line")
        if line.has_dots or len(places) == 1:
            yield from (draw_mark(line.tone, *place, size=2.6) for place in places)
    yield from (
        tag("circle", class_="ring", cx=percent(x(at)), cy=y(value), r=5.5)
        for at, value in line.known
        if at in line.marked
    )


def _draw_label(name: str, end: tuple[float, float], label: float) -> Iterable[Markup]:
    """Yield the label in the right margin, and a thin line to it if it is not beside the end of its line."""
    if abs(label - end[1]) > 3 or end[0] < 99:
        yield tag("line", class_="leader", x1=percent(end[0]), y1=end[1], x2="100%", y2=label)
    yield tag("text", name, class_="name", x="100%", dx=8, y=label + 4)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Response times of one name.

    Args:
        name, tone: see `Line`.
        count: the number of samples.
        times: by share of the samples, in microseconds.
    """

    name: str
    tone: Tone
    count: int
    times: Mapping[float, float | None]


def draw_percentiles(
    name: str, title: str, found: Sequence[Distribution], *, show: Callable[[float], str], up: str
) -> Chart:
    """Draw the percentiles of all names, each share with one nine more as far from the one before.

    Shares with fewer than ten samples beyond them are left out.
    """
    lines = [
        Line(
            each.name,
            [(_depth(share), time) for share, time in known],
            each.tone,
            f"{each.name}: " + ", ".join(f"p{100 * share:g} {show(time)}" for share, time in known if share in _TICKS),
            has_dots=False,
        )
        for each in found
        if (known := _enough(each))
    ]
    deepest = max((line.points[-1][0] for line in lines), default=_depth(0.9))
    shown = {_depth(share): f"p{100 * share:g}" for share in _TICKS}
    ticks = [at for at in shown if at <= deepest + 1e-9]
    across = Axis("share of the requests", _depth(SHARES[0]), deepest, tuple(ticks), lambda at: shown[at])
    times = [time for line in lines for _, time in line.known]
    return draw_lines(name, title, lines, across=across, up=make_axis(up, times, show, is_log=True))


def _depth(share: float) -> float:
    """Return the number of nines of a share."""
    return -math.log10(1 - share)


def _enough(found: Distribution) -> list[tuple[float, float]]:
    return [
        (share, time) for share, time in found.times.items() if time and found.count * (1 - share) >= _BEYOND - 1e-6
    ]
