"""Read what a chart contains: its marks, ticks and labels. Pixels are never compared."""

from dataclasses import dataclass
from xml.etree import ElementTree

from lab.report.charts.chart import Chart

_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True, slots=True)
class SeenSeries:
    """What is drawn for one name.

    Args:
        tone, tip: of the series.
        marks: (per cent across, pixels down) of dots, in order.
        paths: the points of each line, in thousandths of the plot across and down.
        labels: all texts.
        classes: of all its elements.
    """

    tone: str
    tip: str
    marks: list[tuple[float, float]]
    paths: list[list[tuple[int, int]]]
    labels: list[str]
    classes: list[str]


@dataclass(frozen=True, slots=True)
class SeenChart:
    """A chart as its reader gets it."""

    title: str
    description: str
    ticks: list[str]
    axes: list[str]
    series: dict[str, SeenSeries]
    bands: list[tuple[float, float]]
    notes: list[str]


def read_chart(chart: Chart) -> SeenChart:
    """Parse the file of a chart."""
    return read_svg(chart.render_file())


def read_svg(text: str) -> SeenChart:
    """Parse an SVG file.

    Raises:
        ParseError: It is not well-formed.
    """
    root = ElementTree.fromstring(text)  # noqa: S314 - a file of ours
    found = [(element.get("class", ""), element) for element in root.iter()]
    series = [element for name, element in found if "series" in name.split()]
    shades = [element for name, element in found if name.startswith("shade")]
    crosses = [element for element in root.iter() if element.find(f"{_SVG}path[@class='cross']") is not None]
    return SeenChart(
        title=_title(root),
        description=root.findtext(f"{_SVG}desc", ""),
        ticks=[_text(element) for name, element in found if name == "tick"],
        axes=[_text(element) for name, element in found if name == "axis"],
        series={element.attrib["data-name"]: _read_series(element) for element in series},
        bands=[
            (_percent(element.attrib["x"]), _percent(element.attrib["width"]))
            for name, element in found
            if name.split()[:1] in (["band"], ["shade"])
        ],
        notes=[
            *(_text(element) for name, element in found if name == "group"),
            *(_title(element) for element in (*shades, *crosses)),
        ],
    )


def _read_series(group: ElementTree.Element) -> SeenSeries:
    marks, paths = [], []
    for element in group.iter():
        if element.get("class") == "mark" and element.tag == f"{_SVG}circle":
            marks.append((_percent(element.attrib["cx"]), float(element.attrib["cy"])))
        elif element.find(f"{_SVG}polygon") is not None:
            marks.append((_percent(element.attrib["x"]), float(element.attrib["y"])))
        elif element.tag == f"{_SVG}path":
            points = (point.split() for point in element.attrib["d"].removeprefix("M").split("L"))
            paths.append([(int(x), int(y)) for x, y in points])
    return SeenSeries(
        tone=group.attrib["class"].split()[1],
        tip=_title(group),
        marks=marks,
        paths=paths,
        labels=[_text(element) for element in group.iter(f"{_SVG}text")],
        classes=[name for element in group.iter() for name in element.get("class", "").split()],
    )


def _title(element: ElementTree.Element) -> str:
    return element.findtext(f"{_SVG}title", "")


def _text(element: ElementTree.Element) -> str:
    return "".join(element.itertext())


def _percent(text: str) -> float:
    return float(text.removesuffix("%"))
