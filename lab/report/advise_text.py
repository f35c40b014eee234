"""Print an advice: the answer, a table, the reasons, and the sources."""

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.units import UNKNOWN, show_bytes, show_time
from lab.experiments.advise.model import Advice, Demand
from lab.experiments.advise.ranking import find_best
from lab.experiments.advise.sources import Sources

_RIGHT = ("CPU", "requests in flight", "memory")


def print_advice(demand: Demand, found: list[Advice], sources: Sources, console: Console) -> None:
    best = find_best(found)
    answer = f"Best: {', '.join(best)}." if best else "No model can serve this."
    console.print(answer, style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    columns = ("model", "CPU", "requests in flight", f"p{100 * demand.share:g}", "memory", "holds", "what breaks first")
    for name in columns:
        table.add_column(name, justify="right" if name in _RIGHT else "left")
    for item in found:
        cells = [
            item.model,
            f"{item.cpu_load:.0%} of {item.cores}",
            f"{item.in_flight:.3g} of {item.slots}",
            UNKNOWN if item.response is None else show_time(item.response * 1e6),
            show_bytes(item.memory_bytes),
            "yes" if item.holds else "no",
            item.breaks_first,
        ]
        table.add_row(*map(Text, cells))
    console.print(table)
    for item in found:
        console.print(f"{item.model}: {item.reason}", markup=False)
    console.print()
    for line in list_notes(sources):
        console.print(line, style="dim", markup=False)


def list_notes(sources: Sources) -> Iterator[str]:
    """Yield the sources and the formulas."""
    yield from sources.notes
    yield (
        "No model was measured under this very load. CPU: rate x (--cpu + the measured cost of a PING, at similar "
        "rates) / usable cores. Requests in flight: rate x time, out of the available slots. Percentile: the work plus "
        "the wait for a core and for a slot by M/M/c: P(wait > t) = C x exp(-(c / S - rate) x t), with Erlang's C. "
        "The model assumes independent arrivals and exponential service times; with constant times the wait is half as "
        "long. Computing and its wait are at least as long as a PING took at half of the model's maximum. Memory: the "
        "server with few connections, plus connections x the memory of one."
    )
