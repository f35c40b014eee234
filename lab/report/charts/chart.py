"""A drawn chart: its text alternative, its frame, and how it stands in a page or in a file of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lab.report.charts.palette import DARK, LIGHT, make_variables
from lab.report.charts.scale import Axis

# Side of the square to which the places of a path refer; the square is stretched to the plot.
SQUARE = 1000

# Sizes of text in pixels. A character of the monospaced labels takes 0.6 of its size.
_SMALL = 11

# A text alternative of more figures than these names the first and the last.
_MOST_TIPS = 4

STYLE = """
.chart svg { overflow: visible; } .chart { font: 11px system-ui, sans-serif; } .chart text { fill: var(--soft); }
.chart .name { font: 11px ui-monospace, "DejaVu Sans Mono", monospace; fill: var(--ink); }
.chart .grid { stroke: var(--line); } .chart .leader { stroke: var(--grey); stroke-width: .6; }
.chart .band { fill: var(--band); } .chart .shade { fill: var(--bad); opacity: .14; }
.chart .quiet { fill: var(--band); opacity: 1; }
.chart path { fill: none; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.chart .blue { --tone: var(--blue); } .chart .orange { --tone: var(--orange); }
.chart .grey { --tone: var(--grey); }
.chart .mark { fill: var(--tone); stroke: var(--tone); stroke-width: 1.5; } .chart .grey .mark { fill: var(--card); }
.chart .line { stroke: var(--tone); stroke-width: 1.7; } .chart .grey .line { stroke-width: 1.1; opacity: .75; }
.chart .range { stroke: var(--tone); stroke-width: 3.5; stroke-linecap: round; opacity: .55; }
.chart .open { stroke: var(--tone); stroke-width: 1.2; stroke-dasharray: 3 3; }
.chart .dashed { stroke-dasharray: 4 3; }
.chart .ring { fill: none; stroke: var(--tone); stroke-width: 1.2; }
.chart .cross { stroke: var(--bad); stroke-width: 2; }
.chart .blue .name, .chart .orange .name { font-weight: 700; } .chart .blue .value { fill: var(--ink); }
.chart .hit { fill: transparent; stroke: none; }
.chart .span { fill: var(--tone); } .chart .grey .span { opacity: .6; }
""".strip()


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """Return an element. Text and values are escaped.

    Args:
        children: Markup, or text.
        attributes: `_` in a name stands for `-`, at its end for nothing. A number gets at most two decimals; None
            leaves the attribute out.
    """
    words = [Markup(name)]  # noqa: S704 - a name of ours, as all of these
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            words.append(Markup('{}="{}"').format(key.rstrip("_").replace("_", "-"), text))
    opened = Markup(" ").join(words)
    if not children:
        return Markup("<{}/>").format(opened)
    return Markup("<{}>{}</{}>").format(opened, Markup("").join(escape(child) for child in children), name)


def percent(share: float) -> str:
    """Return a place across: per cent of the width, as an attribute."""
    return f"{share:.2f}".rstrip("0").rstrip(".") + "%"


@dataclass(frozen=True, slots=True)
class Margins:
    """The room around a plot for its labels, in pixels."""

    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart without its width.

    Args:
        name: unique on a page, and the name of the exported file.
        title: one line; a page shows it above the chart.
        description: the text alternative: the figures in words.
        body: the elements of the plot.
    """

    name: str
    title: str
    description: str
    height: int
    margins: Margins
    body: Markup

    def __html__(self) -> str:
        """Return the chart as an element of a page, which has the styles."""
        margins = self.margins
        style = (
            f"height:{self.height + margins.top + margins.bottom}px;"
            f"padding:{margins.top}px {margins.right}px {margins.bottom}px {margins.left}px"
        )
        names = f"{self.name}-title {self.name}-desc"
        return tag("svg", *self._describe(), self.body, class_="chart", role="img", aria_labelledby=names, style=style)

    def render_file(self, width: int = 760, *, is_dark: bool = False) -> str:
        """Return the chart as a file of its own: the title above the plot, colours and fonts inside.

        Args:
            width: in pixels.
        """
        margins, head = self.margins, 26
        height = self.height + margins.top + margins.bottom + head
        colours = make_variables(DARK if is_dark else LIGHT)
        style = tag("style", Markup(f".chart {{ {colours} }} {STYLE}"))  # noqa: S704 - constants
        heading = tag("text", self.title, x=12, y=20, style="font-size:14px;font-weight:600;fill:var(--ink)")
        plot = tag(
            "svg",
            self.body,
            x=margins.left,
            y=margins.top + head,
            width=width - margins.left - margins.right,
            height=self.height,
            overflow="visible",
        )
        return str(
            tag(
                "svg",
                *self._describe(),
                style,
                tag("rect", width=width, height=height, style="fill:var(--card)"),
                heading,
                plot,
                xmlns="http://www.w3.org/2000/svg",
                class_="chart",
                role="img",
                aria_labelledby=f"{self.name}-title {self.name}-desc",
                width=width,
                height=height,
                viewBox=f"0 0 {width} {height}",
            )
        )

    def _describe(self) -> tuple[Markup, Markup]:
        return tag("title", self.title, id=f"{self.name}-title"), tag("desc", self.description, id=f"{self.name}-desc")


def draw_across(axis: Axis, height: int) -> Iterator[Markup]:
    """Yield the grid, the labels and the title of the axis at the bottom."""
    place = axis.scale(0, 100).place
    for value in axis.ticks:
        at = percent(place(value))
        yield tag("line", class_="grid", x1=at, x2=at, y1=0, y2=height)
        yield tag("text", axis.label(value), class_="tick", x=at, y=height + 15, text_anchor="middle")
    yield tag("text", axis.title, class_="axis", x="50%", y=height + 31, text_anchor="middle")


def draw_down(axis: Axis, height: int) -> Iterator[Markup]:
    """Yield the grid, the labels and the title of the axis at the left."""
    place = axis.scale(height, 0).place
    for value in axis.ticks:
        at = place(value)
        yield tag("line", class_="grid", x1=0, x2="100%", y1=at, y2=at)
        yield tag("text", axis.label(value), class_="tick", x=-6, y=at + 4, text_anchor="end")
    yield tag("text", axis.title, class_="axis", x=-44, y=-9)


def draw_mark(tone: str, x: float, y: float, size: float = 3.6) -> Markup:
    """Return the mark of a tone: a disc, a diamond or a ring.

    Args:
        x: in per cent.
        y: in pixels.
    """
    if tone == "orange":
        # A nested element has its origin at a place in per cent, which a polygon cannot have.
        points = f"0,{-size * 1.35:g} {size * 1.35:g},0 0,{size * 1.35:g} {-size * 1.35:g},0"
        shape = tag("polygon", class_="mark", points=points)
        return tag("svg", shape, x=percent(x), y=y)
    return tag("circle", class_="mark", cx=percent(x), cy=y, r=size)


def draw_path(points: Sequence[tuple[float, float]], height: float, class_: str = "line") -> Markup:
    """Return a line through points.

    Args:
        points: across in per cent, and down in pixels.
    """
    across, down = SQUARE / 100, SQUARE / height
    steps = "L".join(f"{round(x * across)} {round(y * down)}" for x, y in points)
    return tag(
        "svg",
        tag("path", class_=class_, d=f"M{steps}"),
        viewBox=f"0 0 {SQUARE} {SQUARE}",
        preserveAspectRatio="none",
    )


def draw_series(name: str, tone: str, tip: str, children: Sequence[Markup]) -> Markup:
    """Return what belongs to one name, with its figures as a tooltip."""
    return tag("g", tag("title", tip), *children, class_=f"series {tone}", data_name=name)


def describe(tips: Sequence[str], axes: str) -> str:
    """Return the text alternative of a chart: its axes, and the figures of its first and its last name.

    All figures are in the tooltips, and in the tables of a page.
    """
    if len(tips) > _MOST_TIPS:
        tips = [tips[0], f"{len(tips) - 2} more", tips[-1]]
    return f"{axes}. {'; '.join(tips)}."


def label_width(names: Sequence[str]) -> int:
    """Return the pixels that the longest of some labels takes."""
    return round(max((len(name) for name in names), default=0) * 0.61 * _SMALL) + 10
