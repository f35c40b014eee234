"""`lab advise`: which model for a load that somebody has in mind, from what was measured and from theory."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.errors import LabError
from lab.base.paths import RESULTS
from lab.base.units import UNKNOWN, show_bytes, show_time
from lab.cli.params import split_names
from lab.experiments.advise.model import Advice, Demand, advise_model
from lab.experiments.advise.sources import Sources, read_sources
from lab.load.thresholds import TIMES, Threshold
from lab.report.terminal import open_console

if TYPE_CHECKING:
    from lab.cli.context import Lab

_LONGEST_SECONDS = 3600.0

# So much nearer to a limit than the best, and no more, is as good: costs are known to some per cent.
_ALIKE = 1.1


class Duration(click.ParamType[float]):
    """`20ms`, `200us` or `1.5s`; a number without its unit is refused, since nobody can know which one was meant."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Called by click."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([^\d\s.]+)", str(value).strip())
        if match is None or match[2] not in TIMES:
            self.fail(f"{value!r} is not a time with its unit, such as 20ms, 200us or 1.5s", param, ctx)
        seconds = float(match[1]) * TIMES[match[2]] / 1e6
        if seconds > _LONGEST_SECONDS:
            self.fail(f"{value!r} is more than an hour", param, ctx)
        return seconds


DURATION = Duration()


@click.command()
@click.option("--connections", type=click.IntRange(1, 10_000_000), required=True, help="That are open at a time.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 10_000_000, min_open=True),
    required=True,
    help="Requests per second, of all connections together.",
)
@click.option(
    "--service-time",
    type=DURATION,
    required=True,
    help="What a request takes with nobody else there, waiting and computing.",
)
@click.option("--cpu", type=DURATION, required=True, help="The part of it that computes.")
@click.option("--slo", metavar="CONDITION", help="What has to hold, such as 'p99 < 50ms'.")
@click.option("--cores", type=click.IntRange(1, 1024), help="That the server has.  [those of this machine]")
@click.option("--model", "models", default="", metavar="A,B", help="Which; by default all of no profile.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A run of `lab bench`.  [the last one]",
)
@click.option("--json", "as_json", is_flag=True, help="Everything, for a script.")
@click.pass_obj
def advise(
    lab: "Lab",
    connections: int,
    rate: float,
    service_time: float,
    cpu: float,
    slo: str | None,
    cores: int | None,
    models: str,
    results: Path | None,
    as_json: bool,
) -> None:
    """Rank models for a load, and say why: what each needs of it, how long requests wait, what breaks first.

    Measured is what a request costs by itself, what a connection takes of memory, and how far each model went; the
    rest is theory, with its formula below the table. Exit code 1 if no model can serve it.
    """
    if cpu > service_time:
        raise LabError(
            f"--cpu {show_time(cpu * 1e6)} is a part of --service-time, which is {show_time(service_time * 1e6)}"
        )
    share, limit = read_slo(slo)
    sources = read_sources(lab.catalogue, results, RESULTS)
    demand = Demand(connections, rate, service_time - cpu, cpu, share, limit, cores or sources.machine_cores)
    chosen = lab.catalogue.select(split_names(models))
    found = rank([advise_model(demand, sources.read(lab.catalogue, model, share)) for model in chosen])
    if as_json:
        click.echo(json.dumps({"sources": sources.notes, "models": [item.as_json() for item in found]}, indent=2))
    else:
        print_advice(demand, found, sources, open_console())
    sys.exit(0 if any(item.holds for item in found) else 1)


def read_slo(text: str | None) -> tuple[float, float | None]:
    """The share of the requests and the seconds that they have to stay within; of no condition, 0.99 and None.

    Raises:
        LabError: it is not a condition on a percentile from above.
    """
    if text is None:
        return 0.99, None
    found = Threshold.parse(text, option="--slo")
    share = found.share
    if share is None or share == 1 or found.comparison not in ("<", "<="):
        raise LabError(
            f"--slo {text!r}: what can be foretold is a percentile that stays below a time, as in 'p99 < 50ms'"
        )
    return share, found.limit / 1e6


def rank(found: list[Advice]) -> list[Advice]:
    """Those that hold first, then by how far the next limit is."""
    return sorted(found, key=lambda item: (not item.holds, item.strain, item.memory_bytes or 0, item.model))


def print_advice(demand: Demand, found: list[Advice], sources: Sources, console: Console) -> None:
    """The answer, the table, the reasoning, and what it was made from."""
    best = [item.model for item in found if item.holds and item.strain <= found[0].strain * _ALIKE]
    answer = f"Take: {', '.join(best)}." if best else "None of them can serve this."
    console.print(answer, style="bold", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (
        "model",
        "CPU",
        "requests in hand",
        f"p{100 * demand.share:g}",
        "memory",
        "holds",
        "what breaks first",
    ):
        table.add_column(name, justify="right" if name in ("CPU", "requests in hand", "memory") else "left")
    for item in found:
        cells = [
            item.model,
            f"{item.cpu_load:.0%} of {item.cores}",
            f"{item.in_hand:.3g} of {item.places}",
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
    """What stands behind it."""
    yield from sources.notes
    yield (
        "Nothing of this was measured under this load itself. CPU: rate x (--cpu and the measured cost of a PING, at "
        "rates around this one) / cores that it can use. Requests in hand: rate x time, of as many as there are "
        "places. Its time: the work, and the wait for a core and for a place by M/M/c: P(wait > t) = C x exp(-(c / S - "
        "rate) x t), with Erlang's C. It takes requests for independent of each other, and their times for "
        "exponential; alike ones wait half as long. Computing and its wait are taken for no shorter than what a PING "
        "took at half of what the model can do. Memory: that of the server with few connections, and connections x the "
        "memory of one."
    )
