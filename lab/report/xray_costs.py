"""The table of `lab xray --count`: what a request costs in the kernel."""

from collections.abc import Iterator, Sequence

from lab.base.units import UNKNOWN
from lab.experiments.xray.count import Cost

COLUMNS = ("model", "request", "system calls", "by name", "context switches", "bytes copied")


def list_rows(costs: Sequence[Cost]) -> Iterator[list[str]]:
    """Give a row for each model and exchange."""
    for cost in costs:
        yield [
            cost.model,
            cost.exchange,
            show(cost.all_calls),
            UNKNOWN
            if cost.calls is None
            else ", ".join(f"{name} {show(number)}" for name, number in cost.calls.items()),
            show(cost.switches),
            UNKNOWN if cost.copied is None else f"{cost.copied:,.0f}".replace(",", "\u202f"),
        ]


def show(number: float | None) -> str:
    """Return a number for each request, with the digits that repeat."""
    return UNKNOWN if number is None else f"{number:.2f}".rstrip("0").rstrip(".")
