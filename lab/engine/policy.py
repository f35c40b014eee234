"""Decide whether a Docker engine is installed without a question."""

from collections.abc import Mapping
from typing import Literal


def decide(
    *, stdin_is_tty: bool, stdout_is_tty: bool, euid: int, environ: Mapping[str, str]
) -> Literal["install", "ask"]:
    """Return whether to install a missing engine, or to ask: to print the command that would.

    The user decides about a daemon that runs as root. In CI (root, and neither stdin nor stdout is a terminal) the user
    has decided by running the tests there; elsewhere `LAB_ENGINE=install` is the decision. Any other value means no,
    also in CI.
    """
    said = environ.get("LAB_ENGINE", "")
    if said:
        return "install" if said == "install" else "ask"
    return "install" if euid == 0 and not stdin_is_tty and not stdout_is_tty else "ask"
