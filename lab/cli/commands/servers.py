"""Commands for running servers: up, down, ls, logs, call, shell, new, doctor, clean."""

import contextlib
import json
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lab.base import interrupts
from lab.base.errors import LabError
from lab.cli.context import COULD_NOT_RUN, HELD, Lab
from lab.cli.params import DURATION, HOST, MODEL, PROFILE
from lab.report.tables import show_table

if TYPE_CHECKING:
    from lab.servers.backend import ModelState


@click.command()
@click.argument("models", nargs=-1, type=HOST, metavar="[MODEL]...")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=PROFILE,
    metavar="NAME",
    help="Start the models of this profile as well; repeatable.",
)
@click.option("--timeout", type=DURATION, default="30s", show_default=True, help="Time until all of them must answer.")
@click.option("--mutual-tls", is_flag=True, help="Over TLS, accept only clients with a certificate of the lab's CA.")
@click.pass_obj
def up(lab: Lab, models: tuple[str, ...], profiles: tuple[str, ...], timeout: float, mutual_tls: bool) -> None:
    """Start models (default: all of no profile), and return when each has answered.

    MODEL can also be a server of the gallery; --profile gallery starts all of them. If only servers of the gallery are
    named, no model is started.
    """
    from lab.servers.backend import choose_models
    from lab.servers.catalogue import GALLERY

    servers = lab.catalogue.select_gallery(models, profiles)
    names = [name for name in models if name not in {server.name for server in servers}]
    others = [profile for profile in profiles if profile != GALLERY or not servers]
    selected = choose_models(lab.backend, names, others) if names or others or not servers else ()
    if servers:
        lab.backend.up_gallery(servers, timeout=timeout)
        count = len(servers)
        click.echo(f"{count} of the gallery's servers {'answers' if count == 1 else 'answer'}: `lab ls` lists them")
    if selected:
        lab.backend.up(selected, timeout=timeout, mutual_tls=mutual_tls)
        count = len(selected)
        click.echo(f"{count} {'model answers' if count == 1 else 'models answer'}: `lab ls` lists them")


@click.command()
@click.pass_obj
def down(lab: Lab) -> None:
    """Stop and remove the models, the gallery and the network of this project."""
    with interrupts.untouched(_AS_IT_WAS):
        from lab.servers.cleanup import take_down

        catalogue = lab.catalogue
    with interrupts.sure(lambda: take_down(lab.backend_name, lab.project, catalogue)):
        pass


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print every listener of every model as JSON.")
@click.pass_obj
def ls(lab: Lab, as_json: bool) -> None:
    """List models by family, with their state and what each means for a client; then the gallery."""
    states = [*lab.backend.state(), *lab.backend.gallery()]
    if as_json:
        click.echo(json.dumps([state.as_json() for state in states], indent=2))
        return
    summaries = {model.name: model.summary for model in lab.catalogue.models}
    summaries |= {server.name: server.summary for server in lab.catalogue.gallery}
    families = dict.fromkeys(state.family for state in states)
    ordered = [state for family in families for state in states if state.family == family]
    rows = [[state.family, state.model, _show_state(state), summaries[state.model]] for state in ordered]
    show_table(["family", "model", "state", "meaning"], rows, group=0)
    for state in ordered:
        if state.state == "exited":
            click.echo(f"\n{state.model} ended{_show_exit(state.exit_code)}; the end of its log:", err=True)
            for line in state.last_lines or ("(empty)",):
                click.echo(f"  {line}", err=True)


@click.command()
@click.argument("models", nargs=-1, type=HOST, metavar="[MODEL]...")
@click.pass_obj
def logs(lab: Lab, models: tuple[str, ...]) -> None:
    """Print the logs of models and servers of the gallery (default: all that were started)."""
    named = [lab.catalogue.known_host(name) for name in models]
    states = [] if named else [*lab.backend.state(), *lab.backend.gallery()]
    for name in named or [state.model for state in states if state.state != "missing"]:
        for line in lab.backend.logs(name).splitlines():
            click.echo(f"{name}: {line}")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("model", type=MODEL)
@click.argument("service")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
@click.option(
    "--transport",
    type=click.Choice(["tcp", "tls", "udp", "unix", "unixgram"]),
    default="tcp",
    show_default=True,
    help="Transport.",
)
@click.option("--timeout", type=DURATION, default="5s", show_default=True, help="Timeout of the whole exchange.")
@click.pass_obj
def call(lab: Lab, model: str, service: str, arguments: tuple[str, ...], transport: str, timeout: float) -> None:
    """Send one request to a model, and print its reply.

    SERVICE and ARG are one of: greet, echo TEXT, discard TEXT, chargen LINES, command PING, http PATH.
    """
    known = lab.catalogue[model].services
    if service not in known:
        raise LabError(f"unknown service {service!r}; {model} speaks {', '.join(known)}")
    listeners = [listener for listener in lab.backend.targets() if listener.model == model]
    if not listeners:
        raise LabError(f"{model} is not running: start it with `lab up {model}`")
    address = next((item.address for item in listeners if (item.service, item.transport) == (service, transport)), None)
    if address is None:
        offered = [item.transport for item in listeners if item.service == service]
        raise LabError(f"{model} does not speak {service} over {transport}; it does over {', '.join(offered)}")
    command = ["python", "-m", "lab.clients.call", "--timeout", str(timeout), service, address, *arguments]
    # Its output goes through ours, which every terminal can print.
    done = lab.backend.helpers.run(command, capture=True)
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    sys.exit(done.returncode)


@click.command()
@click.argument("model", required=False, type=MODEL)
@click.option("-c", "command", metavar="COMMAND", help="Run this command instead of an interactive shell.")
@click.pass_obj
def shell(lab: Lab, model: str | None, command: str | None) -> None:
    """Open a shell inside the lab's network.

    In a container it has redis-cli, redis-benchmark, nc, curl, openssl, lftp and telnet.

    LAB_TARGETS contains the output of `lab ls --json`. With MODEL, LAB_HOST and LAB_PORT are the address of its
    `command` service.
    """
    from lab.servers.shell import open_shell

    if model:
        lab.catalogue.select([model])
    code = open_shell(lab.backend, model, command)
    sys.exit(128 - code if code < 0 else code)  # ended by a signal: the exit code that shells use


@click.command()
@click.argument("name")
@click.option("--extra", metavar="LIBRARY", help="Library that it needs, by its name on the package index.")
def new(name: str, extra: str | None) -> None:
    """Create the files of a new model: its module, its entry in compose.yaml, its extra."""
    from lab.servers.scaffold import create

    for number, step in enumerate(create(name, extra), 1):
        click.echo(f"{number}. {step}")
    click.echo("`make test TESTS=tests/repo` lists what is still missing")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> None:
    """List what is missing on this machine, and how to fix it.

    Exit code 2: the lab can run on no backend.
    """
    from lab.servers.doctor import can_run, examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        marks = {True: "yes", False: "no"}
        rows = [[marks[item.good], item.part, item.what, "" if item.good else item.fix] for item in findings]
        show_table(["", "part", "found", "fix"], rows)
    sys.exit(HELD if can_run(findings) else COULD_NOT_RUN)


@click.command()
@click.option(
    "--all", "everything", is_flag=True, help="Remove every lab of this machine, of all users, and the images."
)
@click.option("--yes", is_flag=True, help="Do not ask; required for --all without a terminal.")
@click.pass_context
def clean(ctx: click.Context, everything: bool, yes: bool) -> None:
    """Remove everything that is left of this project, on both backends, and of the labs that its commands started.

    All labs share the images, so only --all removes them. The engine's build cache stays.
    """
    lab: Lab = ctx.obj
    if everything:
        source = ctx.parent and ctx.parent.get_parameter_source("project")
        if source is click.core.ParameterSource.COMMANDLINE:
            raise LabError("--project names one lab and --all means every lab: use only one of the two")
        clean_all(lab, yes)
        return
    with interrupts.untouched(_AS_IT_WAS):
        from lab.servers.cleanup import take_down

        catalogue = lab.catalogue

    def take_all_down() -> None:
        for removed in take_down(lab.backend_name, lab.project, catalogue, satellites=True):
            click.echo(f"removed {removed}")

    with interrupts.sure(take_all_down):
        pass


def clean_all(lab: Lab, yes: bool) -> None:
    """List every lab of this machine, ask, and remove them."""
    with interrupts.untouched(_NOT_REMOVED):
        from lab.servers.cleanup import find_everything, remove

        found = find_everything()
        catalogue = lab.catalogue
    if not found.is_nothing:
        click.echo("every lab of this machine, of all users:")
        for line in found.describe():
            click.echo(f"  {line}")
        if not yes and not sys.stdin.isatty():
            raise LabError("nothing was removed, as there is no terminal to ask on: use `lab clean --all --yes`")
        if not yes and not _confirm("Remove all of it?"):
            raise LabError(_NOT_REMOVED)
        with interrupts.sure(lambda: remove(found, catalogue)):
            pass
        click.echo("removed")
    if found.engine_is_away:
        raise LabError("no Docker engine answers, so any containers and images remain: see `lab doctor`")


def _show_exit(code: int | None) -> str:
    """Describe an exit code: 128 plus a signal's number means that signal."""
    if code is None:
        return ", exit code unknown"
    if code > 128:
        with contextlib.suppress(ValueError):
            return f" by {signal.Signals(code - 128).name} (exit code {code})"
    return f" with exit code {code}"


def _show_state(state: "ModelState") -> str:
    return state.state if state.exit_code is None else f"{state.state} ({state.exit_code})"


# The message of an interrupt before anything was taken down.
_AS_IT_WAS = "nothing was taken down, the lab is as it was"
_NOT_REMOVED = "nothing was removed"


def _confirm(question: str) -> bool:
    try:
        return click.confirm(question)
    except click.Abort:  # click turns Ctrl-C into this
        raise KeyboardInterrupt(_NOT_REMOVED) from None
