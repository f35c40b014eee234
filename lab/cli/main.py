"""The command `lab`. Exit codes: 0 held, 1 did not hold, 2 could not run.

Each command imports what it needs when it is called: `lab --help` must be there at once, and `lab up` is measured.
"""

import errno
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from lab.base import interrupts, output
from lab.base.errors import LabError
from lab.cli import commands
from lab.cli.context import COULD_NOT_RUN, HELD, INTERRUPTED, Lab
from lab.cli.registry import COMMANDS, Entry

# What a machine may refuse at any time; the line that says it needs no stack trace.
_OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR),
}


class Deferred(click.Command):
    """A command of the registry, imported when it is called."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, short_help=entry.help)
        self._module = f"{commands.__name__}.{entry.module}"

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context of the real command, which click then invokes."""
        command: click.Command = getattr(importlib.import_module(self._module), (self.name or "").replace("-", "_"))
        return command.make_context(info_name, args, parent, **extra)


class InOrder(click.Group):
    """The commands in the order of the registry."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke a command. click itself takes any broken pipe for one of our output, and exits with 1 in silence."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise LabError("a process that this command was talking to has ended") from error


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--project", metavar="NAME", envvar="LAB_PROJECT", help="Keeps labs apart; several run side by side.")
@click.option(
    "--backend",
    "backend_name",
    type=click.Choice(["docker", "process"]),
    envvar="LAB_BACKEND",
    help="Where models run; by default docker where an engine answers, else process.",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    envvar="LAB_COMPOSE_FILE",
    help="A compose file that is not the project's.",
)
@click.version_option(package_name="socketlab", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, project: str | None, backend_name: str | None, file: Path | None) -> None:
    """A lab for socket servers in Python: every concurrency model behind one protocol.

    Exit codes: 0 what was asked about held, 1 it did not, 2 it could not be asked.
    """
    # click takes an empty variable for none. But a script whose own variable is unset means a lab, and not this one.
    if project == "" or (project is None and os.environ.get("LAB_PROJECT") == ""):
        raise LabError("--project (LAB_PROJECT) is empty: name a project, or leave it out for the default one")
    ctx.obj = Lab(project, backend_name, file)
    # For the commands that open a backend of their own, and for the processes that those start.
    for variable, value in (("LAB_PROJECT", project), ("LAB_BACKEND", backend_name)):
        if value:
            os.environ[variable] = value


for _entry in COMMANDS:
    cli.add_command(Deferred(_entry))


def main() -> NoReturn:
    """Run the command line; an error of ours is one line on stderr and exit code 2."""
    output.install()
    interrupts.install()
    code = _run()
    interrupts.end()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    sys.exit(code)


def _run() -> int:
    """The exit code of the command that was asked for; what went wrong has been said."""
    try:
        code = cli.main(prog_name="lab", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except LabError as error:
        click.echo(f"lab: {error}", err=True)
        return COULD_NOT_RUN
    except (click.Abort, KeyboardInterrupt) as error:
        said = str(error.__cause__ or error)  # click makes an Abort of a KeyboardInterrupt
        click.echo(f"lab: interrupted{f': {said}' if said else ''}", err=True)
        for problem in interrupts.settle():
            click.echo(f"lab: {problem}", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return COULD_NOT_RUN
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE or not error.filename:
            traceback.print_exc()
        click.echo(f"lab: {error.filename or 'the system refused something'}: {error.strerror or error}", err=True)
        return COULD_NOT_RUN
    except Exception as error:
        # A fault of the lab's own: 1 would say that what was asked about did not hold.
        traceback.print_exc()
        click.echo(f"lab: a fault of the lab itself ({type(error).__name__}): please report it", err=True)
        return COULD_NOT_RUN
    return code if isinstance(code, int) else HELD


if __name__ == "__main__":
    main()
