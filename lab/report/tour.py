"""The tour on a terminal: the table of all modules, and for one its code, output and traffic."""

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from lab.tour.dialogue import Message
from lab.tour.registry import Exhibit
from lab.tour.runner import ExhibitRun, Failure

# Width from which code (up to 120 characters, wrapped) and dialogue fit in two columns.
WIDE = 160
# Width of output that is not a terminal: that of the code.
LOG_WIDTH = 120

# Lines that are shown of one message.
SHOWN = 12

COLUMNS = ("module", "Python 2", "Python 3", "gone since", "use instead", "servers")
MARKS = {"client": "C", "server": "S"}
_STYLES = {"client": "cyan", "server": "green"}
_NOTHING = "-"


def list_facts(exhibit: Exhibit) -> list[str]:
    """Return the cells of an exhibit's row, in the order of `COLUMNS`."""
    return [
        exhibit.module,
        ", ".join(exhibit.python2) or _NOTHING,
        ", ".join(exhibit.python3) or _NOTHING,
        exhibit.gone_since or _NOTHING,
        exhibit.instead,
        ", ".join(exhibit.servers) or _NOTHING,
    ]


def make_list(exhibits: Iterable[Exhibit]) -> Table:
    """Return the table of all modules."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for exhibit in exhibits:
        table.add_row(*map(Text, list_facts(exhibit)), style="" if exhibit.gone_since is None else "yellow")
    return table


def show(exhibit: Exhibit, run: ExhibitRun, console: Console) -> None:
    """Print code and result of an exhibit: side by side if the terminal is wide enough, else one below the other."""
    console.print(Rule(Text(exhibit.module, style="bold"), style="dim"))
    console.print(Text(exhibit.purpose, style="italic"))
    names = f"Python 2: {', '.join(exhibit.python2) or _NOTHING}. Python 3: {', '.join(exhibit.python3) or _NOTHING}"
    status = f"gone since {exhibit.gone_since}" if exhibit.gone_since else "still available"
    console.print(Text(f"{names}; {status}. Use instead: {exhibit.instead}.", style="dim"))
    code = Syntax(exhibit.code.rstrip(), "python", theme="ansi_dark", background_color="default", word_wrap=True)
    result = Group(*_render_run(run))
    if console.width >= WIDE:
        sides = Table.grid(expand=True, padding=(0, 2, 0, 0))
        sides.add_column(ratio=1)
        sides.add_column(ratio=1)
        sides.add_row(Group(_heading(exhibit.file), code), result)
        console.print(sides)
    else:
        console.print(_heading(exhibit.file), code, result)


def mark_lines(messages: Sequence[Message]) -> Iterator[tuple[Message | None, str]]:
    """Yield the lines of a dialogue, with the first lines of long messages.

    Returns:
        Each line's message, and its text with the mark of its side; None and the heading for each new connection.
    """
    before = None
    for message in messages:
        where = message.peer, message.connection, message.tls
        if where != before:
            yield None, f"-- connection {message.connection}, {message.peer}{', inside TLS' if message.tls else ''}"
            before = where
        lines = list(message.lines())
        if len(lines) > SHOWN + 1:
            lines[SHOWN:] = [f"... {len(lines) - SHOWN} more lines"]
        for line in lines:
            yield message, f"{MARKS[message.side]}: {line}".rstrip()


def show_failure(failure: Failure) -> str:
    """Return the class and the message of a failure in one line."""
    if failure.raised is None:
        return "nothing was raised"
    return ": ".join(filter(None, (failure.raised, " ".join((failure.message or "").split()))))


def _render_run(run: ExhibitRun) -> Iterator[RenderableType]:
    yield _heading(f"what it prints, on Python {run.python}")
    yield Text(run.output.rstrip())
    if run.error:
        yield Text(run.error.rstrip(), style="bold red")
    yield _heading("what goes over the wire (C: client, S: server)")
    for message, line in mark_lines(run.messages):
        yield Text(line, style="dim" if message is None else _STYLES[message.side], overflow="fold")
    if run.failures:
        yield _heading("what it raises")
        table = Table(box=None, show_header=False, pad_edge=False)
        for failure in run.failures:
            table.add_row(Text(failure.what), Text(show_failure(failure), style="" if failure.raised else "bold red"))
        yield table


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
