"""Who may be given a Docker engine without being asked."""

from collections.abc import Mapping
from typing import Literal


def decide(
    *, stdin_is_tty: bool, stdout_is_tty: bool, euid: int, environ: Mapping[str, str]
) -> Literal["install", "ask"]:
    """Say whether a missing engine is installed, or whether the caller only names the command that would.

    To install a daemon that runs as root is a person's decision. Where there is nobody to ask (CI: root, no terminal on
    either side) it was made by whoever runs the tests there; elsewhere `LAB_ENGINE=install` says it. Any other
    value of LAB_ENGINE is a no, also in CI.
    """
    said = environ.get("LAB_ENGINE", "")
    if said:
        return "install" if said == "install" else "ask"
    return "install" if euid == 0 and not stdin_is_tty and not stdout_is_tty else "ask"
