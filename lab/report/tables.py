"""Print a table of text. Rich is imported only for a terminal: the import takes most of the time of `lab ls`."""

import sys
from collections.abc import Iterable, Sequence

import click


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, group: int | None = None) -> None:
    """Print a table on a terminal, and lines with tabs between the cells elsewhere.

    Args:
        group: a column whose repeated cells are left empty on a terminal, with an empty line between the groups.
    """
    rows = [list(row) for row in rows]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE)
    for number, row in enumerate(rows):
        cells = list(row)
        if group is not None and number and rows[number - 1][group] == row[group]:
            cells[group] = ""
        last = group is not None and number + 1 < len(rows) and rows[number + 1][group] != row[group]
        table.add_row(*map(Text, cells), end_section=last)
    Console().print(table)
