"""The page of `lab load --out`: the measurements of one preset as one HTML file."""

from collections.abc import Mapping, Sequence

from lab.base.units import show_bytes, show_number, show_us
from lab.load.measurement import Measurement
from lab.report.cells import Cell, make_verdict, show_rate
from lab.report.html import load_template
from lab.report.measurement_charts import (
    choose_tones,
    draw_costs,
    draw_course,
    draw_figures,
    draw_latency,
    make_answer,
    make_estimates,
)

TEXTS = ("model", "verdict")


def render(measurements: Sequence[Measurement], *, title: str, lead: str) -> str:
    """Return the page of one measurement or more.

    Args:
        measurements: one row each.
        title: the heading.
        lead: a sentence under the heading.
    """
    costs = make_estimates(measurements, lambda found: found.server.cpu_us)
    rates = make_estimates(measurements, lambda found: found.rate)
    tones = choose_tones(measurements, costs)
    several = len(measurements) > 1
    return load_template("load.html.j2").render(
        title=title,
        lead=lead,
        answer=make_answer(measurements, costs, tones),
        charts=[
            *(draw_figures(measurements, costs, rates, tones) if several else ()),
            *draw_latency(measurements, tones),
            *(draw_costs(measurements, costs, tones) if several else ()),
            *draw_course(measurements, tones),
        ],
        rows=[make_row(found) for found in measurements],
        texts=TEXTS,
        environment=_describe(measurements[0]),
    )


def make_row(found: Measurement) -> dict[str, Cell]:
    """Return the cells of a measurement; those of an open loop only if it was one."""
    is_open = found.load.asked_rate is not None
    service = None if found.load.intended is None else found.load.service.percentile(0.99)
    of_open = {
        "service p99 µs": Cell.of(service, show_us),
        "late": Cell.of(found.load.late, show_number),
        "dropped": Cell.of(found.load.dropped, show_number),
    }
    return {
        "model": Cell(found.model, found.model, note=found.summary),
        "requests/s": Cell(found.rate, show_rate(found)),
        "p50 µs": Cell.of(found.percentile(0.5), show_us),
        "p99 µs": Cell.of(found.percentile(0.99), show_us),
        **(of_open if is_open else {}),
        "CPU µs/req": Cell.of(found.server.cpu_us, show_us),
        "memory": Cell.of(found.server.memory_bytes, show_bytes),
        "threads": Cell.of(found.server.threads, show_number),
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
