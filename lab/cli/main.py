"""The command `lab`. Exit codes: 0 success, 1 a check failed, 2 the command could not run, 130 interrupted.

A command is imported when it is called, so `lab --help` and `lab up` start fast.
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
from lab.base.environ import ENV_BACKEND, ENV_COMPOSE_FILE, ENV_PROJECT
from lab.base.errors import LabError
from lab.cli import commands
from lab.cli.context import COULD_NOT_RUN, HELD, INTERRUPTED, Lab
from lab.cli.registry import COMMANDS, Entry

# Errors that any machine can raise at any time; their message needs no stack trace.
_OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR),
}


class Deferred(click.Command):
    """A command of the registry, imported when it is needed."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, short_help=entry.help)
        self._module = f"{commands.__name__}.{entry.module}"

    def load(self) -> click.Command:
        command: click.Command = getattr(importlib.import_module(self._module), (self.name or "").replace("-", "_"))
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context of the imported command, which click then invokes or completes."""
        return self.load().make_context(info_name, args, parent, **extra)


class InOrder(click.Group):
    """The commands in the order of the registry."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke a command. click takes every broken pipe for one of stdout, and exits with 1 without a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise LabError("a process that this command was talking to has ended") from error


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--project", metavar="NAME", envvar=ENV_PROJECT, help="Name of the lab; several can run at the same time."
)
@click.option(
    "--backend",
    "backend_name",
    type=click.Choice(["docker", "process"]),
    envvar=ENV_BACKEND,
    help="Where models run.  [default: docker if an engine answers, else process]",
)
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar=ENV_COMPOSE_FILE,
    help="Compose file.  [default: the project's compose.yaml]",
)
@click.version_option(package_name="socketlab", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, project: str | None, backend_name: str | None, file: Path | None) -> None:
    """Run socket servers in Python, every concurrency model behind one protocol; test and measure them.

    Exit codes: 0 success, 1 a check failed, 2 the command could not run, 130 interrupted.
    """
    # click ignores an empty variable. A script whose own variable is unset means some lab, but not the default one.
    if project == "" or (project is None and os.environ.get(ENV_PROJECT) == ""):
        raise LabError("--project (LAB_PROJECT) is empty: name a project, or omit it for the default one")
    ctx.obj = Lab(project, backend_name, file)
    # For commands that open another backend, and for the processes that they start.
    for variable, value in ((ENV_PROJECT, project), (ENV_BACKEND, backend_name)):
        if value:
            os.environ[variable] = value


for _entry in COMMANDS:
    cli.add_command(Deferred(_entry))


def main() -> NoReturn:
    """Run the command line. A LabError is one line on stderr and exit code 2."""
    output.install()
    interrupts.install()
    code = _run()
    interrupts.end()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    sys.exit(code)


def _run() -> int:
    """Run the command, print its error if it fails, and return the exit code."""
    try:
        code = cli.main(prog_name="lab", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except (LabError, click.Abort, KeyboardInterrupt) as error:
        said = str(error.__cause__ or error)  # click turns a KeyboardInterrupt into an Abort
        if isinstance(error, LabError):
            if not interrupts.take_dropped():
                click.echo(f"lab: {error}", err=True)
                return COULD_NOT_RUN
            said = ""  # only a consequence of the signal
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
        click.echo(f"lab: {error.filename or 'the system refused a request'}: {error.strerror or error}", err=True)
        return COULD_NOT_RUN
    except Exception as error:
        # A bug in the lab. Exit code 1 would mean that a check failed.
        traceback.print_exc()
        click.echo(f"lab: internal error ({type(error).__name__}): please report it", err=True)
        return COULD_NOT_RUN
    return code if isinstance(code, int) else HELD


if __name__ == "__main__":
    main()
