"""A line of progress on a terminal."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

Show = Callable[[str], object]

# The spinners that are running; the last one shows the text.
_spinners: list[Show] = []


@contextlib.contextmanager
def shown_by(spinner: Show) -> Iterator[None]:
    """Let a spinner show the text of `progress_line` during a block, because both use the terminal's last line.

    Args:
        spinner: called with each text, and with "" when there is no more.
    """
    _spinners.append(spinner)
    try:
        yield
    finally:
        _spinners.remove(spinner)


@contextlib.contextmanager
def progress_line() -> Iterator[Show]:
    """Yield a function that replaces the text of the line; the end of the block removes the line.

    The line is on stderr. If that is not a terminal, nothing is shown.
    """
    show = _spinners[-1] if _spinners else _rewrite if is_shown() else _ignore
    try:
        yield show
    finally:
        show("")


def is_shown() -> bool:
    """Return whether `progress_line` shows anything."""
    return bool(_spinners) or sys.stderr.isatty()


def _rewrite(text: str) -> None:
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        columns = 80
    # One column stays free: in the last one some terminals wrap the line.
    sys.stderr.write(f"\r{shorten(text, columns - 1)}\x1b[K")
    sys.stderr.flush()


def shorten(text: str, columns: int) -> str:
    """Cut a text to this number of columns."""
    return text if len(text) <= columns else f"{text[: columns - 1]}…"


def _ignore(text: str) -> None:
    pass
