"""stdout and stderr that accept all output, so that no command fails because it cannot print.

* A character that the encoding lacks is replaced by one that it has.
* If the reader has closed its end (`lab logs | head -1`), the rest is dropped.
* If stdout has another error (a full disk), the rest goes to stderr.
* A stream that was closed before the start (`lab ls >&-`) becomes /dev/null.
"""

import codecs
import contextlib
import io
import os
import select
import sys
from typing import TextIO

# Replacements of characters that cannot be shown. A bound must not become an equation.
_PLAIN = {
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "×": "x",  # noqa: RUF001
    "½": "1/2",
    "→": "->",
    "µ": "u",
    "μ": "u",
    "\u2013": "-",
    "\u2014": "-",
    "…": "...",
    "●": "*",
    "◐": "+",
    "○": "o",
    "▲": "!",
    "\u00a0": " ",
    "\u202f": " ",
}
_HANDLER = "socketlab"


def install() -> None:
    """Replace `sys.stdout` and `sys.stderr` of this process."""
    # Fill closed descriptors 0 to 2: otherwise the next file that is opened would become stdout.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    register()
    sys.stdout = _open(1, sys.stdout, instead=2)
    sys.stderr = _open(2, sys.stderr, instead=None)


def register() -> None:
    """Register the replacements as the error handler `socketlab` of `codecs`."""
    codecs.register_error(_HANDLER, _replace)


class Sink(io.RawIOBase):
    """The raw file of such a stream.

    Args:
        number: its file descriptor.
        instead: the descriptor that takes the output after an error; None: none does.
    """

    def __init__(self, number: int, instead: int | None) -> None:
        self._number = number
        self._instead = instead
        self._now: int | None = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: "io.ReadableBuffer") -> int:  # type: ignore[name-defined]
        """Accept all data; drop what cannot be written."""
        view = memoryview(data).cast("B")
        while self._now is not None:
            try:
                return os.write(self._now, view)
            except BlockingIOError:
                # Another process that shares the pipe may have made it non-blocking.
                select.select([], [self._now], [])
            except BrokenPipeError:
                self._now = None
            except OSError as error:
                self._give_up(error)
        return len(view)

    def _give_up(self, error: OSError) -> None:
        self._now = None if self._now == self._instead else self._instead
        if self._now is not None:
            with contextlib.suppress(OSError):
                os.write(self._now, f"lab: stdout: {error.strerror}; the rest of the output follows here\n".encode())


def _open(number: int, known: TextIO | None, *, instead: int | None) -> TextIO:
    """Open such a stream with the encoding of the stream that it replaces, which is None if it was closed."""
    # PYTHONIOENCODING=ENCODING:ERRORS is the user's choice.
    is_chosen = ":" in os.environ.get("PYTHONIOENCODING", "")
    return io.TextIOWrapper(
        io.BufferedWriter(Sink(number, instead)),
        encoding=known.encoding if known else "utf-8",
        errors=known.errors if known and is_chosen else _HANDLER,
        line_buffering=number == 2 or os.isatty(number),
    )


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement of the first character that cannot be encoded, for `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if character in _PLAIN:
        return _PLAIN[character], error.start + 1
    if "\u2500" <= character <= "\u257f":  # lines of a table
        return "|" if character in "│┃║╎╏┆┇┊┋" else "-", error.start + 1
    if "\u2800" <= character <= "\u28ff":  # a spinner
        return "*", error.start + 1
    replaced, _ = codecs.backslashreplace_errors(
        UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    )
    return replaced, error.start + 1
