"""Print tables: on a terminal, and to a log file, where no column may be lost to a narrow width."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, show_failures
from lab.report.cells import OF_DATAGRAMS, OF_OPEN_LOOPS, read_cells
from lab.report.extra_columns import ExtraColumn

# Colours of the limits. The word itself says the same without colour.
_STYLES = {
    Limit.HELD: "green",
    Limit.SERVER: "green",
    Limit.GENERATOR: "yellow",
    Limit.MACHINE: "yellow",
    Limit.WRONG: "bold red",
    Limit.DISTURBED: "bold red",
    Limit.FAILED: "bold red",
    Limit.STARVED: "bold red",
    Limit.INCONSISTENT: "bold red",
    Limit.UNKNOWN: "bold red",
}

# The width of a log file: enough for every table of measurements.
LOG_WIDTH = 140


def open_console(log_width: int = LOG_WIDTH) -> Console:
    """Return a console on stdout, as wide as the terminal; `log_width` if it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=log_width)


def make_table(
    measurements: Sequence[Measurement], *, summaries: bool = False, extra: Sequence[ExtraColumn] = ()
) -> Table:
    """Return a table with a row for each model.

    Args:
        summaries: add the model's summary under its name, and shorten the verdict to a word.
        extra: columns of further loads.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("model", max_width=46, no_wrap=not summaries)
    figures = ["requests/s", "p50 µs", "p99 µs", "CPU µs/req", "memory"]
    is_open = any(found.load.asked_rate is not None for found in measurements)
    are_datagrams = any(found.load.lost or found.load.duplicates or found.load.reordered for found in measurements)
    figures += OF_OPEN_LOOPS * is_open + OF_DATAGRAMS * are_datagrams
    for name in [*figures, *(column.heading for column in extra)]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=15, no_wrap=summaries)
    for found in measurements:
        # Text: a name in brackets is no markup.
        heading = Text(found.model, style="bold")
        if summaries:
            heading.append(f"\n{found.summary}", style="not bold dim")
        verdict = Text(found.verdict.bound, style=_STYLES.get(found.verdict.bound, ""))
        if not summaries:
            verdict.append(f": {found.verdict.reason}", style="not bold dim")
        if found.load.failures:
            verdict.append(f"\nfailures: {show_failures(found.load.failures)}", style="bold red")
        cells = [*read_cells(found, *figures).values(), *(column.cell(found.model) for column in extra)]
        table.add_row(heading, *(Text(cell.text) for cell in cells), verdict)
    return table
