"""docs/commands.md: the help of each command, as it is printed. `python -m tools.docs.commands` writes it."""

import importlib
from pathlib import Path

import click

from lab.base.paths import ROOT
from lab.cli import commands
from lab.cli.main import cli
from lab.cli.registry import COMMANDS

PAGE = ROOT / "docs" / "commands.md"
_WIDTH = 100

_HEAD = """# Commands

`lab --help` and `lab COMMAND --help` print the same. `make docs` writes this page. Completion for a shell:
[working with the lab](usage.md).
"""


def render() -> str:
    """Return the page."""
    # With the group's own settings, as `main` has them.
    top = click.Context(cli, info_name="lab", terminal_width=_WIDTH, max_content_width=_WIDTH, **cli.context_settings)
    blocks = [("lab", cli.get_help(top))]
    for entry in COMMANDS:
        module = importlib.import_module(f"{commands.__name__}.{entry.module}")
        command: click.Command = getattr(module, entry.name.replace("-", "_"))
        # click caches the help option of the first context, which in a test may be one without the group's settings.
        command._help_option = None
        context = click.Context(command, info_name=entry.name, parent=top)
        blocks.append((f"lab {entry.name}", command.get_help(context)))
    return "\n".join([_HEAD, *(f"## {name}\n\n```\n{text}\n```\n" for name, text in blocks)])


def main(path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
