"""The page of `lab load --out`: the measurements of one preset as one HTML file."""

from collections.abc import Mapping, Sequence

from lab.base.units import show_number
from lab.load.measurement import Measurement
from lab.report.cells import OF_OPEN_LOOPS, Cell, make_verdict, read_cells
from lab.report.html import load_template
from lab.report.measurement_charts import Comparison

TEXTS = ("model", "verdict")


def render(measurements: Sequence[Measurement], *, title: str, lead: str) -> str:
    """Return the page of one measurement or more.

    Args:
        measurements: one row each.
        title: the heading.
        lead: a sentence under the heading.
    """
    found = Comparison.of(measurements)
    several = len(measurements) > 1
    return load_template("load.html.j2").render(
        title=title,
        lead=lead,
        answer=found.make_answer(),
        charts=[
            *(found.draw_figures() if several else ()),
            *found.draw_latency(),
            *(found.draw_costs() if several else ()),
            *found.draw_course(),
        ],
        rows=[make_row(found) for found in measurements],
        texts=TEXTS,
        environment=_describe(measurements[0]),
    )


def make_row(found: Measurement) -> dict[str, Cell]:
    """Return the cells of a measurement; those of an open loop only if it was one."""
    of_open = OF_OPEN_LOOPS if found.load.asked_rate is not None else ()
    return {
        "model": Cell(found.model, found.model, note=found.summary),
        **read_cells(found, "requests/s", "p50 µs", "p99 µs", *of_open, "CPU µs/req", "memory", "threads"),
        "failures": Cell(found.load.failed, show_number(found.load.failed), is_good=not found.load.failed),
        "verdict": make_verdict(found),
    }


def _describe(found: Measurement) -> Mapping[str, str]:
    facts = {
        "load generator": ", ".join(f"{name} {version}" for name, version in found.load.versions.items()),
        "backend": found.backend,
        "cores": show_number(found.load.cores),
    }
    return {name: text for name, text in facts.items() if text}
