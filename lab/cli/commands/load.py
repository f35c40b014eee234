"""`lab load`: drive the models, live in Locust's web UI or headless with a table and conditions."""

import contextlib
import io
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from lab.base.errors import LabError
from lab.cli.params import SECONDS, split_names
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.remote_requests import FaultRequestReader
from lab.experiments.store import check_writable, tolerated, write_new
from lab.load import messages, origins
from lab.load.external_server import ExternalServer
from lab.load.generator import open_generator
from lab.load.measure import arguments_for, measure
from lab.load.measurement import Measurement, encode_targets
from lab.load.presets import PRESETS, Preset, find_preset
from lab.load.telemetry import feed
from lab.load.thresholds import Threshold
from lab.load.workloads import CUSTOM_PROTOCOL, HIGHEST_RATE, LARGEST_PAYLOAD, OPEN, make_exchange
from lab.metrics.verdict import exit_code
from lab.report.terminal import make_table, open_console
from lab.servers.catalogue import Model
from loadtests.sockets.histogram import Histogram
from services.protocol import Transport

if TYPE_CHECKING:
    from lab.cli.context import Lab
    from lab.servers.backend import Backend

# Bounds on what one command may do to a machine. A loop of ours holds 10,000 connections; other models a tenth.
_MOST_USERS = 10_000
# More workers than this machine has cores only take turns; a few may be of use where it waits.
_MOST_WORKERS = 32

# How long Locust may take to end when it was told to, before it is made to.
_END_SECONDS = 3.0

# USER:PASSWORD for the web UI; see loadtests/web/access.py.
_LOGIN = "LAB_UI_LOGIN"


@click.command()
@click.argument(
    "scenario", type=click.Choice(list(PRESETS)), default="closed_session", required=False, metavar="[SCENARIO]"
)
@click.option("--models", default="", metavar="A,B", help="Which; by default all that run.")
@click.option(
    "--target", "targets", multiple=True, metavar="SERVICE=URL", help="A server that is not ours, headless; repeatable."
)
@click.option(
    "--codec",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A Python file that knows the target's own protocol; then --target is a URL alone.",
)
@click.option("--users", type=click.IntRange(1, _MOST_USERS), help="Connections at a time.  [the scenario's]")
@click.option(
    "--rate",
    type=click.FloatRange(0, HIGHEST_RATE, min_open=True),
    help="Of an open loop: requests per second, for each model.  [the scenario's]",
)
@click.option("--duration", type=SECONDS, help="How long to measure each model.  [the scenario's]")
@click.option("--transport", type=click.Choice([item.value for item in Transport]), help="Over what.  [the scenario's]")
@click.option("--payload", type=click.IntRange(1, LARGEST_PAYLOAD), help="Bytes, of a workload that has a payload.")
@click.option("--warm-up", type=SECONDS, default="1s", show_default=True, help="Load before it that does not count.")
@click.option("--timeout", type=SECONDS, default="5s", show_default=True, help="After which an exchange has failed.")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if so: 'p99 > 5ms', 'failures > 10', 'failures > 1%', 'rate < 10k', 'rate < 99%'; repeatable.",
)
@click.option("--allow-failures", is_flag=True, help="Exit with 0 also if replies were wrong, or over 1% failed.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder to write into: the measurements as JSON, and their times as .hgrm. Nothing is overwritten.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, _MOST_WORKERS),
    default=0,
    show_default=True,
    help="Generators, each on a core of its own, with a master that leads them; 0: one process does it all.",
)
@click.option("--headless", is_flag=True, help="No web UI: one model after the other, then a table.")
@click.option("--json", "as_json", is_flag=True, help="Headless, and print the measurements as JSON.")
@click.pass_obj
def load(
    lab: "Lab",
    scenario: str,
    models: str,
    targets: tuple[str, ...],
    codec: Path | None,
    users: int | None,
    rate: float | None,
    duration: float | None,
    transport: str | None,
    payload: int | None,
    warm_up: float,
    timeout: float,
    conditions: Sequence[str],
    allow_failures: bool,
    out: Path | None,
    workers: int,
    headless: bool,
    as_json: bool,
) -> None:
    """Load models that run (see `lab up`), every reply checked.

    Exit code 1: a condition of --fail-if, a wrong reply, or over 1% of all exchanges failed. 2: it could not be
    measured, or was disturbed.

    Without --headless, Locust's web UI opens on 127.0.0.1:8089 (LAB_UI_PORT), with model and scenario to choose from;
    LAB_UI_LOGIN=USER:PASSWORD puts a login in front of it. Behind a proxy, LAB_UI_ORIGINS names the origins that are
    allowed, and LAB_UI_BASE_PATH the path.
    """
    thresholds = [Threshold.parse(condition) for condition in conditions]
    if (targets and models) or (codec and not targets):
        raise LabError("load either models of the catalogue or a --target; a --codec goes with a --target")
    if targets:
        backend: Any = ExternalServer(targets)
        chosen = [backend.model]
        headless = True
        scenario = CUSTOM_PROTOCOL.name if codec else scenario
        asked = find_preset(scenario).workload.service
        if asked not in backend.model.services:
            spoken = ", ".join(backend.model.services)
            if spoken == CUSTOM_PROTOCOL.service:
                raise LabError("a --target without a service needs a --codec that knows its protocol")
            raise LabError(f"the target speaks {spoken}, and {scenario} asks {asked}: name another scenario")
        ways = [item.transport for item in backend.targets() if item.service == asked]
        if not transport and find_preset(scenario).transport not in ways:
            transport = ways[0]
    else:
        backend = lab.backend
        chosen = choose(lab, backend, models)
    found = find_preset(scenario)
    users, duration = users or found.users, duration or found.duration
    over = Transport(transport) if transport else found.transport
    check_fit(found, thresholds, rate=rate, transport=over, payload=payload, timeout=timeout)
    chosen = keep_able(backend, chosen, found, over, named=bool(models or targets))
    if targets:
        backend.check_reachable(found.workload.service, over)
    if not (headless or as_json or thresholds or out):
        names = [model.name for model in chosen]
        arguments = arguments_for(found, names, users=users, rate=rate, transport=transport, payload=payload)
        serve_ui(backend, chosen, [*arguments, "--timeout", f"{timeout:g}"], workers=workers)
        return

    if out:
        check_writable(out)
    progress = Console(stderr=True, highlight=False)
    measured: list[Measurement] = []
    try:
        for model in chosen:
            progress.print(f"{scenario}: {model.name}, {users} users, {duration:g} s", style="dim")
            measured.append(
                measure(
                    backend,
                    model,
                    scenario,
                    users=users,
                    seconds=duration,
                    warm_up=warm_up,
                    timeout=timeout,
                    rate=rate,
                    transport=transport,
                    payload=payload,
                    codec=codec,
                    workers=workers,
                )
            )
    finally:
        # Also where a later model could not be measured, or on Ctrl-C.
        if measured:
            if as_json:
                click.echo(json.dumps([item.as_json() for item in measured], indent=2))
            else:
                open_console().print(make_table(measured))
        if measured and out:
            given = describe_changes(
                found, users=users, rate=rate, transport=over, payload=payload, duration=duration, workers=workers
            )
            with tolerated(lambda line: click.echo(line, err=True)):
                write_measurements(out, measured, given)
    tripped = list(find_tripped(measured, thresholds))
    for line in tripped:
        progress.print(line, style="red")
    code = exit_code((item.verdict for item in measured), allow_failures=allow_failures)
    sys.exit(code or int(bool(tripped)))


def check_fit(
    scenario: Preset,
    thresholds: Sequence[Threshold],
    *,
    rate: float | None,
    transport: Transport,
    payload: int | None,
    timeout: float,
) -> None:
    """See that a scenario can be had as it is asked for, before anything is started.

    Raises:
        LabError: what cannot be had.
    """
    if scenario.loop != OPEN and rate:
        raise LabError(f"--rate goes with an open loop, and {scenario.name} is a closed one")
    # At random times, as many as are asked for on average can be more in one window.
    limited = scenario.loop == OPEN and not scenario.poisson
    for item in thresholds:
        misfit = item.find_misfit(
            open_loop=scenario.loop == OPEN,
            datagrams=transport.is_datagram,
            timeout=timeout,
            rate=rate or scenario.rate if limited else math.inf,
        )
        if misfit:
            raise LabError(f"--fail-if {item.text!r} {misfit} ({scenario.name} over {transport})")
    try:
        make_exchange(scenario.workload, transport, payload)
    except ValueError as error:
        raise LabError(str(error)) from None


def keep_able(
    backend: Any, models: Sequence[Model], scenario: Preset, transport: Transport, *, named: bool
) -> list[Model]:
    """The models that can be asked what a scenario asks.

    Args:
        named: somebody has named them, and wants to know if one of them cannot.

    Raises:
        LabError: one that was named cannot, or none can.
    """
    service = scenario.workload.service
    offered = {item.model for item in backend.targets() if (item.service, item.transport) == (service, transport)}
    unable = [model.name for model in models if model.name not in offered]
    if unable and (named or len(unable) == len(models)):
        raise LabError(f"{scenario.name} asks {service} over {transport}, which {', '.join(unable)} does not speak")
    if unable:
        click.echo(f"lab: left out, as they do not speak {service} over {transport}: {', '.join(unable)}", err=True)
    return [model for model in models if model.name in offered]


def describe_changes(
    scenario: Preset,
    *,
    users: int,
    rate: float | None,
    transport: Transport,
    payload: int | None,
    duration: float,
    workers: int,
) -> str:
    """What a load has that is not the scenario's own, as a part of a file's name; empty if nothing."""
    changes = {
        transport.value: transport is not scenario.transport,
        f"{users}users": users != scenario.users,
        f"{rate or 0:g}rps": rate is not None and rate != scenario.rate,
        f"{payload}bytes": payload is not None,
        f"{duration:g}s": duration != scenario.duration,
        f"{workers}workers": workers != 0,
    }
    return "".join(f"-{text}" for text, is_changed in changes.items() if is_changed)


def write_measurements(folder: Path, measurements: Sequence[Measurement], changes: str = "") -> None:
    """Write measurements as JSON, and their times in the format of HdrHistogram's plotters; nothing is overwritten.

    Args:
        changes: see `describe_changes`.

    Raises:
        StoreError: it cannot be written there.
    """
    for found in measurements:
        kinds = (
            {"service": found.histogram}
            if found.service is None
            else {"intended": found.histogram, "service": found.service}
        )
        texts = {".json": json.dumps(found.as_json(), indent=1) + "\n"}
        for kind, pairs in kinds.items():
            file = io.StringIO()
            Histogram.from_pairs(pairs).write_hgrm(file)
            texts[f"-{kind}.hgrm"] = file.getvalue()
        write_new(folder, f"{found.workload}-{found.model}{changes}", texts)


def choose(lab: "Lab", backend: "Backend", models: str) -> list[Model]:
    """The models that are to be loaded: those that are named, or else all that run.

    Raises:
        LabError: one of them does not run, or none does.
    """
    running = {listener.model for listener in backend.targets()}
    chosen = [model for model in lab.catalogue.models if model.name in running]
    if models:
        chosen = list(lab.catalogue.select(split_names(models)))
    if absent := [model.name for model in chosen if model.name not in running]:
        raise LabError(f"not running: {', '.join(absent)}; start with: lab up {' '.join(absent)}")
    if not chosen:
        raise LabError("no model is running; start them with: lab up")
    return chosen


# The list of presets has one home, lab/load/presets.py. \b keeps click from filling the lines.
load.epilog = "\b\nScenarios (by default closed_session):\n" + "\n".join(
    f"  {item.name:<25}{item.summary}" for item in PRESETS.values()
)


def find_tripped(measurements: Sequence[Measurement], thresholds: Sequence[Threshold]) -> Iterator[str]:
    """What did not hold, a line each. A model that answered nothing never holds."""
    for found in measurements:
        if not found.answered:
            yield f"{found.model}: not one correct reply"
        for threshold in thresholds:
            if threshold.is_tripped_by(found):
                yield f"{found.model}: {threshold.text} ({found.verdict.bound}: {found.verdict.reason})"


def serve_ui(backend: Any, models: Sequence[Model], chosen: Sequence[str], *, workers: int = 0) -> None:
    """Run Locust's web UI until it is interrupted.

    Args:
        models: which can be chosen in it.
        chosen: the load generator's arguments, which are what it begins with.
        workers: how many processes give the load, led by the one with the UI; 0: that one does.

    Raises:
        LabError: its port is taken, its login is none, a worker did not join, or it ended by itself.
    """
    port = read_ui_port()
    names = [model.name for model in models]
    # In its container Locust listens to all of that container's network, which compose publishes on 127.0.0.1 alone.
    binding = (
        ["--web-port", "8089"] if backend.name == "docker" else ["--web-host", "127.0.0.1", "--web-port", str(port)]
    )
    listeners = [item for item in backend.targets() if item.model in names]
    base_path = read_base_path()
    arguments = [*binding, *chosen, "--loglevel", "WARNING", *read_login()]
    arguments += ["--web-base-path", base_path] if base_path else []
    environ = {"LAB_TARGETS": encode_targets(listeners)}
    own = {messages.VARIABLE: "stdin", messages.FAULTS_VARIABLE: ",".join(FAULTS)}
    own |= {name: os.environ[name] for name in (_LOGIN, origins.VARIABLE) if name in os.environ}
    try:
        with open_generator(
            backend, arguments, workers=workers, environ=environ, own=own, publish=True, capture=True
        ) as generator:
            process, log = generator.main.process, generator.main.log
            assert process.stdin is not None and log is not None  # noqa: S101, PT018 - for mypy: it was opened with both
            requests = FaultRequestReader(backend, names, log, lambda line: click.echo(line, err=True))
            with_workers = f" with {workers} workers" if workers else ""
            where = f"http://127.0.0.1:{port}{base_path}"
            click.echo(f"Locust's web UI{with_workers}: {where}  (choose, Start; Ctrl-C here ends it)")
            try:
                with feed(backend, names, process.stdin):
                    code = generator.wait(meanwhile=requests.advance)
            finally:
                # Ctrl-C reaches Locust as well, which has something to say in the end.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_SECONDS)
                requests.advance(obey=False)
    except KeyboardInterrupt:
        click.echo("\nended")
        return
    # Ctrl-C reaches Locust as well, which ends on its own: with what it counted as failed (1), or as interrupted.
    if code not in (0, 1, 130, -2):
        raise LabError(f"the web UI ended with exit code {code}")


def read_login() -> list[str]:
    """What Locust needs to be told of a login, which LAB_UI_LOGIN=USER:PASSWORD asks for.

    Raises:
        LabError: that is not what it holds.
    """
    text = os.environ.get(_LOGIN)
    if not text:
        return []
    user, _, password = text.partition(":")
    if not (user and password):
        raise LabError(f"{_LOGIN} is not USER:PASSWORD")
    return ["--web-login"]


def read_base_path() -> str:
    """The path that the web UI has behind a proxy; empty if it has none. The allowed origins are looked at as well.

    Raises:
        LabError: LAB_UI_BASE_PATH is not a path, or LAB_UI_ORIGINS holds what is no origin.
    """
    name = origins.VARIABLE
    try:
        origins.parse_origins(os.environ.get(name, ""))
        name = origins.BASE_PATH_VARIABLE
        return origins.parse_base_path(os.environ.get(name, ""))
    except ValueError as error:
        raise LabError(f"{name}: {error}") from None


def read_ui_port() -> int:
    """The port of the web UI on this machine.

    Raises:
        LabError: LAB_UI_PORT is not a port, or somebody has it.
    """
    text = os.environ.get("LAB_UI_PORT") or "8089"
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise LabError(f"LAB_UI_PORT={text!r} is not a port")
    try:
        socket.create_server(("127.0.0.1", int(text))).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise LabError(f"port {text} cannot be had ({why}): LAB_UI_PORT chooses another") from None
    return int(text)
