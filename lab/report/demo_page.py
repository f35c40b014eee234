"""Make the page of `lab demo`: one HTML file that needs no network and no other file."""

from collections.abc import Mapping, Sequence

from lab.base.units import show_us
from lab.experiments.conformance.results import ModelResult
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate, show_estimate
from lab.report.cells import FAILURE_MARK, Cell, make_verdict, read_cells
from lab.report.extra_columns import ExtraColumn
from lab.report.html import load_template
from lab.report.measurement_charts import Comparison

TEXTS = ("model", "family", "verdict")


def render(
    compared: Comparison,
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
        captions: how to read it, a paragraph each.
        checks: the results of the conformance suite by model; a model without one was not tested.
        missing: models that were not measured, with the reason.
        extra: columns of further loads.
        environment: facts about the machine; None is shown as not known.
    """
    measurements = compared.measurements
    return load_template("demo.html.j2").render(
        title=title,
        lead=lead,
        answer=compared.make_answer(),
        captions=captions,
        charts=[*compared.draw_figures(), *compared.draw_latency(), *compared.draw_costs()],
        rows=[
            _make_row(found, compared.costs, above, checks.get(found.model), extra)
            for above, found in zip([None, *measurements], measurements, strict=False)
        ],
        texts=TEXTS,
        missing=missing,
        environment={name: value if value else "not known" for name, value in environment.items()},
    )


def _make_row(
    found: Measurement,
    costs: Mapping[str, Estimate],
    above: Measurement | None,
    check: ModelResult | None,
    extra: Sequence[ExtraColumn],
) -> dict[str, Cell]:
    return {
        "model": Cell(found.model, found.model, note=found.summary),
        "family": Cell(found.family, found.family),
        "CPU µs/req": _show_cost(found, costs, above),
        **read_cells(found, "requests/s", "p50 µs", "p99 µs", "memory", "threads"),
        **{column.heading: column.cell(found.model) for column in extra},
        "tests": _show_check(check),
        "verdict": make_verdict(found),
    }


def _show_cost(found: Measurement, costs: Mapping[str, Estimate], above: Measurement | None) -> Cell:
    """Return the cost with the mark of a tie, if the row above is of the same family and its interval overlaps."""
    cost = costs.get(found.model)
    if cost is None:
        return Cell.of(None, show_us)
    other = costs.get(above.model) if above and above.family == found.family else None
    ties = other is not None and cost.overlaps(other) and cost.repeats > 1
    note = show_estimate(cost, show_us)
    return Cell(
        cost.middle,
        f"{'≈ ' if ties else ''}{show_us(cost.middle)}",
        note=f"ties with {above.model}; {note}" if ties and above else note,
    )


def _show_check(check: ModelResult | None) -> Cell:
    """Return the result of the conformance suite: the passed tests, or how many fail."""
    if check is None:
        return Cell.of(None, str)
    note = ", ".join(filter(None, [str(check), check.known_limits]))
    text = f"{FAILURE_MARK} {check.failed} fail" if check.failed else f"● {check.passed}"
    return Cell(check.passed, text, note=note, is_good=not check.failed)
