"""Errors of the lab itself. Those of a connection to a server are in loadtests/sockets/errors.py."""

# Of a line that an error quotes: some programs write hundreds of kilobytes without a line feed.
_LONGEST = 300


class LabError(Exception):
    """The lab could not do what was asked. The message says what is wrong, where, and what to do.

    The command line prints it, and exits with code 2.
    """


class EngineAwayError(LabError):
    """No Docker engine answers."""


class NotReadyError(LabError):
    """A model did not answer in time, or has exited."""


def last_lines(output: str, count: int = 10) -> list[str]:
    """Return the last lines of a program's output that are not empty, each cut to 300 characters, for an error."""
    said = [line for line in output.splitlines() if line.strip()][-count:]
    return [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in said]


def last_line(output: str, instead: str) -> str:
    """Return the last of these; `instead` if there is none."""
    return next(iter(last_lines(output, 1)), instead)
