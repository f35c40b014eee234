"""Print tables: on a terminal, and to a log file, where no column may be lost to a narrow width."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.base.units import show_bytes, show_number, show_us
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, show_failures
from lab.report.cells import show_rate
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
    return console if console.is_terminal else Console(highlight=False, width=log_width)


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
    # Figures of an open loop, and of datagrams.
    is_open = any(found.load.asked_rate is not None for found in measurements)
    are_datagrams = any(found.load.lost or found.load.duplicates or found.load.reordered for found in measurements)
    figures += ["service p99 µs", "late", "dropped"] * is_open + ["lost", "duplicate", "reordered"] * are_datagrams
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
        cells = [
            show_rate(found),
            show_us(found.percentile(0.5)),
            show_us(found.percentile(0.99)),
            show_us(found.server.cpu_us),
            show_bytes(found.server.memory_bytes),
        ]
        if is_open:
            service = None if found.load.intended is None else found.load.service.percentile(0.99)
            cells += [show_us(service), show_number(found.load.late), show_number(found.load.dropped)]
        if are_datagrams:
            cells += [
                show_number(found.load.lost),
                show_number(found.load.duplicates),
                show_number(found.load.reordered),
            ]
        cells += [column.cell(found.model).text for column in extra]
        table.add_row(heading, *map(Text, cells), verdict)
    return table
