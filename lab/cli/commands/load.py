"""Load models: live in Locust's web UI, or headless with a table and conditions."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click
from rich.console import Console

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.units import show_duration
from lab.cli.context import DID_NOT_HOLD, Lab, say
from lab.cli.params import DURATION, models_argument
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.remote_requests import FaultRequestReader
from lab.experiments.store import check_writable, tolerated, write_new
from lab.load.exports import describe_changes, render_files
from lab.load.external_server import ExternalServer
from lab.load.measure import measure
from lab.load.measurement import Measurement
from lab.load.presets import PRESETS, Preset, combine, find_preset
from lab.load.selection import check_fit, select_able
from lab.load.thresholds import Threshold, find_tripped
from lab.load.web_ui import check_settings, serve_ui
from lab.load.workloads import CUSTOM_PROTOCOL, HIGHEST_RATE, LARGEST_PAYLOAD, WORKLOADS
from lab.metrics.verdict import exit_code
from lab.report import load_page
from lab.report.terminal import make_table, open_console
from lab.servers.backend import Backend, Loadable, choose_models
from lab.servers.catalogue import Model
from lab.servers.helper import Helper
from loadtests.contract import FLAGS, LoadSpec, option_of
from services.protocol import Transport

FC = TypeVar("FC", bound=Callable[..., Any])

# Limits of one command on one machine. A loop of ours holds 10,000 connections; other models a tenth.
_MOST_USERS = 10_000
# More workers than cores share the cores; a few more can help where the machine waits.
_MOST_WORKERS = 32

_DEFAULT = "closed_session"
_OF_PRESET = "[default: the preset's]"


workers_option = click.option(
    "--workers",
    type=click.IntRange(0, _MOST_WORKERS),
    default=0,
    show_default=True,
    help="Generator processes, each on its own core; 0: a single process.",
)


def load_option(
    name: str, kind: click.ParamType[Any] | None = None, default: str = _OF_PRESET, metavar: str | None = None
) -> Callable[[FC], FC]:
    """Declare an option of `LoadSpec`, with its help and its choices."""
    flag = FLAGS[name]
    shown = f"{flag.help}  {default}" if default else flag.help
    return click.option(option_of(name), type=kind or click.Choice(flag.choices), metavar=metavar, help=shown)


def _default(name: str) -> str:
    return f"[default: {show_duration(getattr(LoadSpec(), name))}]"


@click.command()
@models_argument
@click.option(
    "--preset",
    "preset_name",
    type=click.Choice(list(PRESETS)),
    metavar="NAME",
    help=f"Workload, loop and shape; listed below.  [default: {_DEFAULT}]",
)
@load_option("workload", click.Choice(list(WORKLOADS)), "[default: session]", metavar="NAME")
@load_option("loop", default="[default: closed]")
@load_option("shape")
@load_option("arrivals")
@click.option("--up", is_flag=True, help="If no model is running, start them, and take them down afterwards.")
@click.option(
    "--target", "targets", multiple=True, metavar="SERVICE=URL", help="Load your own server, headless; repeatable."
)
@click.option(
    "--any-body", is_flag=True, help="Accept each body of a --target with a path; default: that of the first reply."
)
@click.option(
    "--codec",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Python file that speaks the target's own protocol; --target is then a URL.",
)
@click.option("--users", type=click.IntRange(1, _MOST_USERS), help=f"Concurrent connections.  {_OF_PRESET}")
@load_option("rate", click.FloatRange(0, HIGHEST_RATE, min_open=True))
@click.option("--duration", type=DURATION, help=f"{FLAGS['window'].help}  {_OF_PRESET}")
@load_option("transport")
@load_option("payload", click.IntRange(1, LARGEST_PAYLOAD), default="")
@load_option("warm_up", DURATION, _default("warm_up"))
@load_option("timeout", DURATION, _default("timeout"))
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Fail (exit code 1) if this is true; repeatable: 'p99 > 5ms', 'failures > 10', 'failures > 1%', "
    "'rate < 10k', 'rate < 99%'.",
)
@click.option("--allow-failures", is_flag=True, help="Exit with 0 after wrong replies, or over 1% of failures.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Results folder: keep each measurement in DIR/load, as JSON, .hgrm and CSV, and a page of all.",
)
@workers_option
@click.option("--headless", is_flag=True, help="No web UI: load one model after the other, and print a table.")
@click.option("--json", "as_json", is_flag=True, help="Run headless, and print the measurements as JSON.")
@click.pass_obj
def load(
    lab: Lab,
    models: tuple[str, ...],
    preset_name: str | None,
    workload: str | None,
    loop: str | None,
    shape: str | None,
    arrivals: str | None,
    up: bool,
    targets: tuple[str, ...],
    any_body: bool,
    codec: Path | None,
    users: int | None,
    rate: float | None,
    duration: float | None,
    transport: str | None,
    payload: int | None,
    warm_up: float | None,
    timeout: float | None,
    conditions: Sequence[str],
    allow_failures: bool,
    out: Path | None,
    workers: int,
    headless: bool,
    as_json: bool,
) -> None:
    """Load running models (default: all that run), and check every reply.

    If no model is running, the command offers to start them. Models that it starts are taken down afterwards. Without
    a terminal it does not ask: use --up.

    Without --headless, Locust's web UI opens on 127.0.0.1:8089 (LAB_UI_PORT). LAB_UI_LOGIN=USER:PASSWORD adds a login.
    Behind a proxy, LAB_UI_ORIGINS lists the allowed origins and LAB_UI_BASE_PATH sets the path. --fail-if, --out and
    --json imply --headless.

    Exit code 1: a --fail-if condition is true, a reply was wrong, or over 1% of all exchanges failed. 2: the
    measurement failed or was disturbed.
    """
    thresholds = [Threshold.parse(condition) for condition in conditions]
    if (targets and models) or (not targets and (codec or any_body)):
        raise LabError("load either models of the catalogue or a --target; --codec and --any-body go with a --target")
    if codec and any((preset_name, workload, loop, shape, arrivals)):
        raise LabError("a --codec has its own requests, in a closed loop: omit the preset, workload, loop and shape")
    if up and targets:
        raise LabError("--up starts models of the catalogue; start the server of a --target yourself")
    target = ExternalServer(targets, any_body=any_body) if targets else None
    if codec:
        preset = find_preset(CUSTOM_PROTOCOL.name)
    else:
        preset = choose_preset(preset_name, workload, loop=loop, shape=shape, arrivals=arrivals)
    over = choose_transport(target, preset, Transport(transport) if transport else None)
    asked = preset.change(
        users=users,
        rate=rate,
        duration=duration,
        transport=over,
        payload=payload,
        warm_up=warm_up,
        timeout=timeout,
    )
    check_fit(asked, thresholds)
    shows_ui = not (headless or as_json or thresholds or out or target)
    if shows_ui:
        check_settings()
    backend: Loadable = target or lab.backend
    with contextlib.nullcontext([target.model]) if target else running(lab, models, start=up) as available:
        chosen = select_able(backend, available, asked, named=bool(models or targets))
        if target:
            target.check(asked.workload, asked.spec.transport)
        if shows_ui:
            # The run lasts until the user stops it.
            spec = replace(asked.spec, models=tuple(model.name for model in chosen), window=None)
            open_ui(lab.backend, chosen, spec.to_arguments(), workers=workers)
            return
        folder = out and out / "load"
        if folder:
            check_writable(folder)
        progress = Console(stderr=True, highlight=False)
        measured: list[Measurement] = []
        try:
            for model in chosen:
                progress.print(
                    f"{asked.name}: {model.name}, {asked.spec.users} users, {asked.duration:g} s", style="dim"
                )
                measured.append(measure(backend, model, asked, codec=codec, workers=workers))
        finally:
            # After Ctrl-C and after a failure, print and keep the models that were measured.
            report(measured, folder, describe_changes(asked, preset, workers=workers), as_json=as_json)
    tripped = list(find_tripped(measured, thresholds))
    for line in tripped:
        progress.print(line, style="red")
    code = exit_code((item.verdict for item in measured), allow_failures=allow_failures)
    sys.exit(code or (DID_NOT_HOLD if tripped else 0))


def choose_preset(
    name: str | None, workload: str | None, *, loop: str | None, shape: str | None, arrivals: str | None
) -> Preset:
    """Return the preset that the options name, or that has their workload, loop and shape.

    Raises:
        LabError: the options contradict each other.
    """
    if not (workload or loop or shape or arrivals):
        return find_preset(name or _DEFAULT)
    if name:
        raise LabError("--preset sets workload, loop, shape and arrivals: use either --preset or those options")
    return combine(workload or find_preset(_DEFAULT).workload.name, loop=loop, shape=shape, arrivals=arrivals)


def choose_transport(target: ExternalServer | None, preset: Preset, transport: Transport | None) -> Transport | None:
    """Return the user's transport, or the first that a target has; None: the preset's.

    Raises:
        LabError: the target does not speak the preset's service.
    """
    if target is None:
        return transport
    asked = preset.workload.service
    if asked not in target.model.services:
        spoken = ", ".join(target.model.services)
        if spoken == CUSTOM_PROTOCOL.service:
            raise LabError("a --target without a service needs a --codec that knows its protocol")
        raise LabError(f"the target speaks {spoken}, and {preset.name} asks {asked}: choose another --preset")
    offered = [item.transport for item in target.targets() if item.service == asked]
    return Transport(offered[0]) if not transport and preset.spec.transport not in offered else transport


@contextlib.contextmanager
def running(lab: Lab, names: Sequence[str], *, start: bool) -> Iterator[list[Model]]:
    """Yield the models to load: the named ones, else all that run. Start them first if nothing of the lab runs.

    Args:
        start: start them without asking. What was started is taken down at the end.

    Raises:
        LabError: a named model does not run, or none does, and they were not started.
    """
    backend = lab.backend
    up = {listener.model for listener in backend.targets()}
    chosen = list(lab.catalogue.select(names)) if names else [item for item in lab.catalogue.models if item.name in up]
    absent = [model.name for model in chosen if model.name not in up]
    if chosen and not absent:
        yield chosen
        return
    if any(state.state != "missing" for state in (*backend.state(), *backend.gallery())):
        # `down` takes down the whole lab, so only a lab that this command has started.
        if absent:
            raise LabError(f"not running: {', '.join(absent)}; start with: lab up {' '.join(absent)}")
        raise LabError("no model is running; start them with: lab up")
    wanted = choose_models(backend, names)
    count = f"{len(wanted)} model{'' if len(wanted) == 1 else 's'}"
    if not start:
        which = f"not running: {', '.join(absent)}" if absent else "no model is running"
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise LabError(f"{which}; start with: lab up{''.join(f' {name}' for name in names)}, or add --up")
        if not click.confirm(f"{which}. Start {count} for this load?", default=True, err=True):
            raise LabError(f"{which}; start with: lab up{''.join(f' {name}' for name in names)}")
    with interrupts.sure(backend.down):
        click.echo(f"starting {count}; this command takes them down again", err=True)
        backend.up(wanted)
        yield list(wanted)


def open_ui(
    backend: Backend,
    models: Sequence[Model],
    arguments: Sequence[str],
    *,
    workers: int = 0,
    worker_arguments: Sequence[str] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run Locust's web UI, whose form can inject faults as well; see `serve_ui`."""

    def open_requests(names: Sequence[str], generator: Helper) -> FaultRequestReader:
        return FaultRequestReader(backend, names, generator, say)

    serve_ui(
        backend,
        models,
        arguments,
        faults=list(FAULTS),
        open_requests=open_requests,
        workers=workers,
        worker_arguments=worker_arguments,
        environ=environ,
    )


def report(measured: Sequence[Measurement], folder: Path | None, changes: str, *, as_json: bool) -> None:
    """Print measurements, and keep them in a folder; nothing is overwritten."""
    if not measured:
        return
    if as_json:
        click.echo(json.dumps([item.as_json() for item in measured], indent=2))
    else:
        open_console().print(make_table(measured))
    if folder:
        with tolerated(say):
            for found in measured:
                write_new(folder, f"{found.workload}-{found.model}{changes}", render_files(found))
            first = measured[0]
            lead = f"{first.users} users, {first.load.seconds:.2g} s of each model."
            text = load_page.render(measured, title=f"Load: {first.workload}", lead=lead)
            click.echo(f"the page: {write_new(folder, f'{first.workload}{changes}', {'.html': text})}.html", err=True)


# \b keeps click from filling the lines.
load.epilog = f"Workloads: {', '.join(WORKLOADS)}.\n\n\b\nPresets:\n" + "\n".join(
    f"  {item.name:<25}{item.summary}" for item in PRESETS.values()
)
