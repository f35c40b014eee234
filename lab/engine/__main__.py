"""`python3 -m lab.engine install|base|ensure|status`: for the Makefile, before there is a venv."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence

from lab.engine import probe
from lab.engine.errors import EngineError
from lab.engine.policy import decide

DONE, COULD_NOT_RUN, UNDECIDED = 0, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done; 2 it could not be done; 3 no engine answers, and the user has to decide (`ensure` only).
    """
    parser = argparse.ArgumentParser(prog="python3 -m lab.engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="provide a Docker engine with Compose v2 and buildx, unless they answer")
    commands.add_parser("base", help=f"provide the image {probe.BASE_IMAGE}, unless the engine has it")
    commands.add_parser(
        "ensure", help="like install, if no question is needed; else name the command that would, and exit with 3"
    )
    commands.add_parser("status", help="print as JSON what answers, and how to fix what does not")
    command = parser.parse_args(argv).command
    try:
        match command:
            case "install":
                install()
            case "ensure":
                return ensure()
            case "base":
                from lab.engine import base_image

                base_image.provide()
            case "status":
                print(json.dumps(dataclasses.asdict(probe.status()), indent=2))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    return DONE


def install() -> None:
    """Install what is missing. Usually nothing is; the modules for it are then not even imported (0.2 s)."""
    if not probe.is_complete():
        from lab.engine import provide

        provide.install()


def ensure() -> int:
    """Install if the policy allows it without a question; else name the command in one line."""
    if probe.is_complete():
        return DONE
    answer = decide(
        stdin_is_tty=sys.stdin is not None and sys.stdin.isatty(),
        stdout_is_tty=sys.stdout.isatty(),
        euid=os.geteuid(),
        environ=os.environ,
    )
    if answer == "ask":
        problem = probe.status().problems[0]
        print(f"{problem.what}: {problem.fix}", file=sys.stderr)
        return UNDECIDED
    install()
    return DONE


if __name__ == "__main__":
    sys.exit(main())
