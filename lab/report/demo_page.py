"""Make the page of `lab demo`: one HTML file that needs no network and no other file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.base.units import UNKNOWN, show_bytes, show_number, show_us
from lab.experiments.conformance.results import ModelResult
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, show_failures
from lab.report.cells import Cell, list_widths, show_rate
from lab.report.extra_columns import ExtraColumn
from lab.report.html import load_template

# A shape for each limit, so that colour is not needed.
_MARKS = {
    Limit.HELD: "●",
    Limit.SERVER: "●",
    Limit.GENERATOR: "◐",
    Limit.MACHINE: "◐",
    Limit.WAITING: "○",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A model as the template needs it. Widths and positions are in per cent."""

    found: Measurement
    rate: Cell
    rate_width: float
    p50: Cell
    p99: Cell
    span_left: float
    span_width: float
    cpu: Cell
    memory: Cell
    threads: Cell
    extra: Sequence[tuple[str, Cell]]
    checks: Cell
    verdict: Cell
    failures: str


def render(
    measurements: Sequence[Measurement],
    *,
    title: str,
    lead: str,
    captions: Sequence[str],
    checks: Mapping[str, ModelResult],
    missing: Mapping[str, str],
    extra: Sequence[ExtraColumn],
    environment: Mapping[str, str | None],
) -> str:
    """Return the page.

    Args:
        measurements: one row each.
        title: the heading.
        lead: a sentence under the heading.
        captions: how to read it, a paragraph each.
        checks: the results of the conformance suite by model; a model without one was not tested.
        missing: models that were not measured, with the reason.
        extra: columns of further loads.
        environment: facts about the machine; None is shown as not known.
    """
    rates = [Cell(found.rate, show_rate(found)) for found in measurements]
    times = [value for found in measurements for share in (0.5, 0.99) if (value := found.percentile(share))]
    low, high = (
        (10 ** math.floor(math.log10(min(times))), 10 ** math.ceil(math.log10(max(times)))) if times else (1, 10)
    )
    scale = (low, high if high > low else low * 10)
    return load_template("demo.html.j2").render(
        title=title,
        lead=lead,
        captions=captions,
        rows=[
            _row(found, rate, width, scale, checks.get(found.model), extra)
            for found, rate, width in zip(measurements, rates, list_widths(rates), strict=True)
        ],
        scale=[_show_scale(value) for value in scale],
        extra=extra,
        missing=missing,
        environment={name: value if value else "not known" for name, value in environment.items()},
    )


def _row(
    found: Measurement,
    rate: Cell,
    width: float,
    scale: tuple[float, float],
    check: ModelResult | None,
    extra: Sequence[ExtraColumn],
) -> Row:
    p50, p99 = found.percentile(0.5), found.percentile(0.99)
    left, right = _position(p50, scale), _position(p99, scale)
    bound = found.verdict.bound
    return Row(
        found=found,
        rate=rate,
        rate_width=width,
        p50=Cell.of(p50, show_us),
        p99=Cell.of(p99, show_us),
        span_left=left,
        span_width=max(right - left, 0),
        cpu=Cell.of(found.server.cpu_us, show_us),
        memory=Cell.of(found.server.memory_bytes, show_bytes),
        threads=Cell.of(found.server.threads, show_number),
        extra=[(column.heading, column.cell(found.model)) for column in extra],
        checks=Cell(check.passed, str(check), note=check.known_limits, is_good=not check.failed)
        if check
        else Cell(None, UNKNOWN),
        verdict=Cell(bound, f"{_MARKS.get(bound, '▲')} {bound}", note=found.verdict.reason, is_good=bound in _MARKS),
        failures=show_failures(found.load.failures) if found.load.failures else "",
    )


def _position(value: float | None, scale: tuple[float, float]) -> float:
    if not value:
        return 0.0
    low, high = (math.log10(end) for end in scale)
    return 100 * (math.log10(value) - low) / (high - low)


def _show_scale(value: float) -> str:
    for limit, factor, unit in ((1e3, 1, "µs"), (1e6, 1e3, "ms")):
        if value < limit:
            return f"{value / factor:g} {unit}"
    return f"{value / 1e6:g} s"
