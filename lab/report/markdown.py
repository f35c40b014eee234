"""Parts of reports in Markdown."""

from collections.abc import Sequence


def make_head(titles: Sequence[str]) -> list[str]:
    """Return the first two lines of a table in Markdown."""
    return [make_row(titles), make_row(["---"] * len(titles))]


def make_row(cells: Sequence[str]) -> str:
    """Return a line of a table in Markdown."""
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def fence(lines: Sequence[str]) -> list[str]:
    """Return lines of characters whose columns stay below each other."""
    return ["```text", *lines, "```"]
