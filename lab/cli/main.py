"""The command `lab`. Exit codes: 0 held, 1 did not hold, 2 could not run.

Each command imports what it needs when it is called: `lab --help` must be there at once, and `lab up` is measured.
"""

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lab.base import interrupts, output
from lab.base.errors import LabError

if TYPE_CHECKING:
    from lab.servers.backend import Backend, ModelState
    from lab.servers.catalogue import Catalogue

HELD, DID_NOT_HOLD, COULD_NOT_RUN, INTERRUPTED = 0, 1, 2, 130

# What an interrupt says that came before anything was taken down, or removed.
_AS_IT_WAS = "nothing was taken down, the lab is as it was"
_NOT_REMOVED = "nothing was removed"

# What a machine may refuse at any time; the line that says it needs no stack trace.
_OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR),
}


@dataclass
class Lab:
    """What the options before the command have chosen; opened when a command first needs it."""

    project: str | None
    backend_name: str | None
    file: Path | None

    @cached_property
    def catalogue(self) -> "Catalogue":
        """The models of the compose file."""
        from lab.servers.catalogue import Catalogue

        return Catalogue.load(self.file)

    @cached_property
    def backend(self) -> "Backend":
        """Where the models run."""
        from lab.servers.backend import open_backend

        return open_backend(self.backend_name, self.project, catalogue=self.catalogue)


class Deferred(click.Command):
    """A command in a module of its own, imported when it is called."""

    def __init__(self, name: str, module: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._module = module

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Called by click; the context is that of the real command, which click then invokes."""
        command: click.Command = getattr(importlib.import_module(self._module), (self.name or "").replace("-", "_"))
        return command.make_context(info_name, args, parent, **extra)


class InOrder(click.Group):
    """Lists its commands in the order in which a person needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Called by click."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Called by click, which would take a broken pipe for one of our output, and exit with 1 without a word."""
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


@cli.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--profile", "profiles", multiple=True, metavar="NAME", help="The models of this profile as well; repeatable."
)
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds for all of them to answer.")
@click.option("--mutual-tls", is_flag=True, help="Over TLS, let in only clients with a certificate of the lab's CA.")
@click.pass_obj
def up(lab: Lab, names: tuple[str, ...], profiles: tuple[str, ...], timeout: float, mutual_tls: bool) -> None:
    """Start models (by default all that belong to no profile); returns when each has answered.

    Servers of the gallery take part only where they are named, or all of them by --profile gallery; where nothing else
    is asked for, no model is started.
    """
    from lab.servers.backend import choose_models
    from lab.servers.catalogue import GALLERY

    servers = lab.catalogue.select_gallery(names, profiles)
    models = [name for name in names if name not in {server.name for server in servers}]
    others = [profile for profile in profiles if profile != GALLERY or not servers]
    selected = choose_models(lab.backend, models, others) if models or others or not servers else ()
    if servers:
        lab.backend.up_gallery(servers, timeout=timeout)
        count = len(servers)
        click.echo(f"{count} of the gallery's servers {'answers' if count == 1 else 'answer'}: `lab ls` says where")
    if selected:
        lab.backend.up(selected, timeout=timeout, mutual_tls=mutual_tls)
        count = len(selected)
        click.echo(f"{count} {'model answers' if count == 1 else 'models answer'}: `lab ls` says where")


@cli.command()
@click.pass_obj
def down(lab: Lab) -> None:
    """Take the lab down; nothing of it is left."""
    with interrupts.untouched(_AS_IT_WAS):
        from lab.servers.backend import take_down

        catalogue = lab.catalogue
    with interrupts.sure(lambda: take_down(lab.backend_name, lab.project, catalogue)):
        pass


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Every listener of every model, for a script.")
@click.pass_obj
def ls(lab: Lab, as_json: bool) -> None:
    """List the models, by family: what they mean for a client, and whether they run. Then the gallery."""
    states = [*lab.backend.state(), *lab.backend.gallery()]
    if as_json:
        click.echo(json.dumps([state.as_json() for state in states], indent=2))
        return
    summaries = {model.name: model.summary for model in lab.catalogue.models}
    summaries |= {server.name: server.summary for server in lab.catalogue.gallery}
    families = dict.fromkeys(state.family for state in states)
    ordered = [state for family in families for state in states if state.family == family]
    rows = [[state.family, state.model, _show_state(state), summaries[state.model]] for state in ordered]
    show_table(["family", "model", "state", "what it means"], rows, group=0)
    for state in ordered:
        if state.state == "exited":
            click.echo(f"\n{state.model} ended{_show_exit(state.exit_code)}; the end of its log:", err=True)
            for line in state.last_lines or ("(it is empty)",):
                click.echo(f"  {line}", err=True)


@cli.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.pass_obj
def logs(lab: Lab, models: tuple[str, ...]) -> None:
    """Print what models and servers of the gallery (all that were started by default) have written so far."""
    named = [lab.catalogue.check_host(name) for name in models]
    states = [] if named else [*lab.backend.state(), *lab.backend.gallery()]
    for name in named or [state.model for state in states if state.state != "missing"]:
        for line in lab.backend.logs(name).splitlines():
            click.echo(f"{name}: {line}")


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("model")
@click.argument("service")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
@click.option(
    "--transport", type=click.Choice(["tcp", "tls", "udp", "unix", "unixgram"]), default="tcp", show_default=True
)
@click.option("--timeout", type=float, default=5.0, show_default=True, help="Seconds for the whole exchange.")
@click.pass_obj
def call(lab: Lab, model: str, service: str, arguments: tuple[str, ...], transport: str, timeout: float) -> None:
    """Have one exchange with a model: greet, echo TEXT, discard TEXT, chargen LINES, command PING."""
    known = lab.catalogue[model].services
    if service not in known:
        raise LabError(f"unknown service {service!r}; {model} speaks {', '.join(known)}")
    listeners = [listener for listener in lab.backend.targets() if listener.model == model]
    if not listeners:
        raise LabError(f"{model} is not running: `lab up {model}` starts it")
    address = next((item.address for item in listeners if (item.service, item.transport) == (service, transport)), None)
    if address is None:
        offered = [item.transport for item in listeners if item.service == service]
        raise LabError(f"{model} does not speak {service} over {transport}; it does over {', '.join(offered)}")
    command = ["python", "-m", "lab.clients.call", "--timeout", str(timeout), service, address, *arguments]
    # Its output goes through ours, which can be printed anywhere.
    done = lab.backend.run(command, capture=True)
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    sys.exit(done.returncode)


@cli.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--target", "targets", multiple=True, metavar="SERVICE=URL", help="A server that is not ours; repeatable."
)
@click.option("--rfc", is_flag=True, help="Hold a --target to RFCs, RESP and textbooks, not to what this lab adds.")
@click.option("--json", "as_json", is_flag=True, help="Each test with its outcome, for a script.")
@click.pass_obj
def check(lab: Lab, models: tuple[str, ...], targets: tuple[str, ...], rfc: bool, as_json: bool) -> None:
    """Prove that models behave: the conformance suite, as a table of model and transport.

    Models that run are checked as they are; if none runs, those asked for are started, and taken down afterwards.
    """
    from lab.experiments.conformance.suite import check_foreign, check_models
    from lab.servers.backend import choose_models

    if targets and models:
        raise LabError("check either models of the catalogue or, with --target, a server of your own")
    if rfc and not targets:
        raise LabError("--rfc goes with --target: what a model is held to stands in compose.yaml (lab.contract)")
    on_terminal = sys.stderr.isatty() and not as_json
    chosen = [] if targets else [model.name for model in choose_models(lab.backend, models)]
    report = (
        check_foreign(targets, rfc_only=rfc, progress=on_terminal)
        if targets
        else check_models(lab.backend, chosen, progress=on_terminal)
    )
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        for failure in report.failures:
            click.echo(f"FAILED {failure.name}\n{failure.detail}\n")
        show_table(*report.table())
        click.echo(report.summary())
    sys.exit(HELD if report.holds else DID_NOT_HOLD)


@cli.command()
@click.argument("model", required=False)
@click.option("-c", "command", help="Run this instead of an interactive shell.")
@click.pass_obj
def shell(lab: Lab, model: str | None, command: str | None) -> None:
    """Open a shell where the models can be reached.

    In a container it has redis-cli, redis-benchmark, nc, curl, openssl, lftp and telnet.

    LAB_TARGETS holds what `lab ls --json` prints; with MODEL, LAB_HOST and LAB_PORT hold where its `command` listens.
    """
    from lab.cli.commands.shell import open_shell

    if model:
        lab.catalogue.select([model])
    code = open_shell(lab.backend, model, command)
    sys.exit(128 - code if code < 0 else code)  # ended by a signal: as shells say it


@cli.command()
@click.argument("name")
@click.option("--extra", metavar="LIBRARY", help="A library that it needs, by its name on the package index.")
def new(name: str, extra: str | None) -> None:
    """Begin a model of your own: its file, its stanza in compose.yaml, its extra."""
    from lab.servers.scaffold import create

    for number, step in enumerate(create(name, extra), 1):
        click.echo(f"{number}. {step}")
    click.echo("`make test TESTS=tests/repo` names what is still missing")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Each finding, for a script.")
def doctor(as_json: bool) -> None:
    """Say what this machine can and cannot do, and the mend for each."""
    from lab.servers.doctor import can_run, examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        marks = {True: "yes", False: "no"}
        rows = [[marks[item.good], item.part, item.what, "" if item.good else item.mend] for item in findings]
        show_table(["", "part", "found", "mend"], rows)
    sys.exit(HELD if can_run(findings) else COULD_NOT_RUN)


@cli.command()
@click.option("--all", "everything", is_flag=True, help="Every lab of this machine, whosever it is, and the images.")
@click.option("--yes", is_flag=True, help="Remove without asking; needed for --all where there is no terminal.")
@click.pass_context
def clean(ctx: click.Context, everything: bool, yes: bool) -> None:
    """Remove all that is left of this project: on both backends, and of the labs that its commands have started.

    Images are shared by all labs, so only --all removes them. The engine's build cache stays.
    """
    lab: Lab = ctx.obj
    if everything:
        source = ctx.parent and ctx.parent.get_parameter_source("project")
        if source is click.core.ParameterSource.COMMANDLINE:
            raise LabError("--project names one lab and --all means every lab: take one of the two")
        clean_all(lab, yes)
        return
    with interrupts.untouched(_AS_IT_WAS):
        from lab.servers.backend import take_down

        catalogue = lab.catalogue

    def take_all_down() -> None:
        for removed in take_down(lab.backend_name, lab.project, catalogue, satellites=True):
            click.echo(f"removed {removed}")

    with interrupts.sure(take_all_down):
        pass


def clean_all(lab: Lab, yes: bool) -> None:
    """Say what would be removed, ask, and remove it."""
    with interrupts.untouched(_NOT_REMOVED):
        from lab.servers.cleanup import find_everything, remove

        found = find_everything()
        catalogue = lab.catalogue
    if not found.is_nothing:
        click.echo("every lab of this machine, whosever it is:")
        for line in found.describe():
            click.echo(f"  {line}")
        if not yes and not sys.stdin.isatty():
            raise LabError("nothing was removed, as there is no terminal to ask on: `lab clean --all --yes` removes it")
        if not yes and not _confirm("Remove all of it?"):
            raise LabError(_NOT_REMOVED)
        with interrupts.sure(lambda: remove(found, catalogue)):
            pass
        click.echo("removed")
    if found.engine_is_away:
        raise LabError("no Docker engine answers, so containers and images, if there are any, remain: `lab doctor`")


def _confirm(question: str) -> bool:
    try:
        return click.confirm(question)
    except click.Abort:  # click's own word for Ctrl-C
        raise KeyboardInterrupt(_NOT_REMOVED) from None


cli.add_command(
    Deferred("load", "lab.cli.commands.load", "Load the models: live in Locust's web UI, or headless with a table.")
)
cli.add_command(
    Deferred("load-gallery", "lab.cli.commands.load_gallery", "Load the gallery's servers: in the web UI, or headless.")
)
cli.add_command(
    Deferred("faults", "lab.cli.commands.faults", "Break models under load, and account for every request.")
)
cli.add_command(
    Deferred("soak", "lab.experiments.soak", "Mixed load and hostile clients for long: does anything grow?")
)
cli.add_command(
    Deferred("tour", "lab.cli.commands.tour", "Network modules of the standard library, against real servers.")
)
cli.add_command(Deferred("bench", "lab.cli.commands.bench", "Which model for which work: by turns, with intervals."))
cli.add_command(
    Deferred("compare", "lab.cli.commands.compare", "What changed between two runs of bench, beyond noise.")
)
cli.add_command(Deferred("advise", "lab.cli.commands.advise", "Which model for a load that you have in mind, and why."))
cli.add_command(Deferred("demo", "lab.experiments.demo", "Up, check, a few seconds of load for each, one table, down."))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, group: int | None = None) -> None:
    """Print a table on a terminal, and lines with tabs between the cells elsewhere.

    Args:
        group: a column whose repeated cells are left empty on a terminal, with a rule between the groups.
    """
    rows = [list(row) for row in rows]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE)
    for number, row in enumerate(rows):
        cells = list(row)
        if group is not None and number and rows[number - 1][group] == row[group]:
            cells[group] = ""
        last = group is not None and number + 1 < len(rows) and rows[number + 1][group] != row[group]
        table.add_row(*(Text(cell) for cell in cells), end_section=last)
    Console().print(table)


def _show_exit(code: int | None) -> str:
    """An exit code for a person: 128 plus a signal's number is that signal."""
    if code is None:
        return ", its exit code is not known"
    if code > 128:
        with contextlib.suppress(ValueError):
            return f" by {signal.Signals(code - 128).name} (exit code {code})"
    return f" with exit code {code}"


def _show_state(state: "ModelState") -> str:
    return state.state if state.exit_code is None else f"{state.state} ({state.exit_code})"


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
