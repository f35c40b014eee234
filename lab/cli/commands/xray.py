"""Record who waits for whom in a running server, and show it on one time axis."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.base import interrupts
from lab.base.environ import ENV_XRAY
from lab.base.errors import LabError
from lab.cli.context import DID_NOT_HOLD, HELD, Lab
from lab.cli.params import models_argument, out_option
from lab.experiments.environment import describe_environment
from lab.experiments.store import LATEST, make_folder, point, tolerated
from lab.experiments.xray.analysis import Analysis
from lab.experiments.xray.count import Cost, measure
from lab.experiments.xray.record import ROUNDS, choose_folder, record, record_target
from lab.experiments.xray.recording import Recording, read_recordings, write_recordings
from lab.experiments.xray.scenes import SCENES
from lab.load.external_server import check_reachable, parse_target
from lab.metrics.socket_owner import find_owner
from lab.report import xray_page, xray_svg, xray_text
from lab.report.tables import show_table
from lab.report.xray_costs import COLUMNS, list_rows
from lab.report.xray_trace import make_trace
from lab.servers.backend import choose_speakers
from lab.servers.open import open_backend
from lab.servers.runtime import runtime_directory
from services.protocol import Transport

if TYPE_CHECKING:
    from lab.servers.backend import Backend

# A project apart from the one of `lab up`, whose servers have no recorder.
PROJECT = "socketlab-xray"
# Columns: where there is no terminal, and at most.
_USUAL, _WIDEST = 100, 160
_SCENES = ("sleep", "slow")


@click.command()
@models_argument
@click.option(
    "--scene",
    "scenes",
    type=click.Choice([*_SCENES, "all"]),
    default="sleep",
    show_default=True,
    help="sleep: waiting and computing. slow: a slow reader and a slow sender.",
)
@click.option(
    "--target",
    "target",
    metavar="SERVICE=URL",
    help="A server of your own instead, for example echo=tcp://127.0.0.1:7000 or command=tcp://127.0.0.1:6379.",
)
@click.option("--rounds", type=click.IntRange(1, 50), default=ROUNDS, show_default=True, help="One of them is shown.")
@click.option(
    "--show", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Show a stored recording."
)
@click.option(
    "--export", type=click.Choice(["trace", "svg"]), multiple=True, help="Also write a trace for Perfetto, or pictures."
)
@click.option(
    "--kernel",
    "is_traced",
    is_flag=True,
    help="Show the system calls of each thread too, by strace, which slows it down.",
)
@click.option("--count", "is_count", is_flag=True, help="Count system calls, switches and bytes of a request instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the recordings, or the counts, as JSON.")
@click.option("--open", "is_opened", is_flag=True, help="Open the page in a browser.")
@out_option
@click.pass_obj
def xray(
    lab: Lab,
    models: tuple[str, ...],
    scenes: str,
    target: str | None,
    rounds: int,
    show: Path | None,
    export: tuple[str, ...],
    is_traced: bool,
    is_count: bool,
    as_json: bool,
    is_opened: bool,
    out: Path,
) -> None:
    """Record one scene against models (default: all of no profile), and show who waits for whom, and why.

    Three clients connect: A asks the server to sleep, B to compute, C for a PING. The lanes of the clients and of the
    server's threads and processes are printed, with a sentence for each wait; the page with its pictures is
    results/xray/<UTC time>/index.html.

    The models are started for it, with a recorder, and taken down. A server of --target has no recorder: its clients
    are shown, and what the kernel shows of its threads if it runs on this machine.

    With --kernel, a second row below each thread has its system calls. Times are longer than without it.

    With --count, the same request is made many times instead, and what it costs the server in the kernel is printed:
    system calls (by strace), context switches, and bytes copied.

    Exit code 1: a model could not be recorded, or ended while it was, or a client had no reply.
    """
    missing: dict[str, str] = {}
    if is_traced and (is_count or show):
        raise click.UsageError("--kernel is for recording a scene: leave out --count and --show")
    if is_count:
        costs = _count_all(lab, models, missing, is_quiet=as_json)
        if as_json:
            click.echo(json.dumps([each.as_json() for each in costs]))
        else:
            show_table(COLUMNS, list_rows(costs))
        for model, reason in missing.items():
            click.echo(f"not counted: {model}: {reason}", err=True)
        sys.exit(DID_NOT_HOLD if missing else HELD)
    if show:
        found = read_recordings(show)
    elif target:
        found = [_record_target(target, scenes, rounds, is_traced=is_traced)]
    else:
        chosen = _SCENES if scenes == "all" else (scenes,)
        found = _record_all(lab, models, chosen, rounds, missing, is_quiet=as_json, is_traced=is_traced)
    if as_json:
        click.echo(json.dumps([each.as_json() for each in found]))
    else:
        _print(found)
    for model, reason in missing.items():
        click.echo(f"not recorded: {model}: {reason}", err=True)
    if found and not as_json:
        with tolerated(lambda line: click.echo(line, err=True)):
            page = _write(out, found, missing, export)
            click.echo(f"The page, with pictures: {page}")
            if is_opened:
                click.launch(str(page))
    failed = missing or any(each.has_ended or any(client.error for client in each.clients) for each in found)
    sys.exit(DID_NOT_HOLD if failed else HELD)


def _record_all(
    lab: Lab,
    models: Sequence[str],
    scenes: Sequence[str],
    rounds: int,
    missing: dict[str, str],
    *,
    is_quiet: bool,
    is_traced: bool,
) -> list[Recording]:
    backend = open_backend(lab.backend_name, lab.project or PROJECT, catalogue=lab.catalogue)
    folder = choose_folder(backend, runtime_directory(backend.project))
    machine = describe_environment(backend.describe())
    found: list[Recording] = []

    def act(name: str) -> None:
        for scene in scenes:
            found.append(
                record(backend, name, SCENES[scene], folder, rounds=rounds, is_traced=is_traced, machine=machine)
            )

    with _set_variable(ENV_XRAY, folder):
        _visit(backend, models, act, missing, is_quiet=is_quiet)
    return found


def _record_target(target: str, scene: str, rounds: int, *, is_traced: bool) -> Recording:
    found = parse_target(target)
    service, address = found.service, found.address
    scenes = {"echo": "echo", "command": "sleep" if scene == "all" else scene}
    if service not in scenes or address.transport is not Transport.TCP:
        raise LabError(f"--target {target}: there are scenes for echo=tcp://... and command=tcp://... only")
    check_reachable(service, address)
    backend = open_backend("process")
    machine = describe_environment()
    owner = find_owner(address)
    played = SCENES[scenes[service]]
    return record_target(backend, address, played, owner, rounds=rounds, is_traced=is_traced, machine=machine)


def _count_all(lab: Lab, models: Sequence[str], missing: dict[str, str], *, is_quiet: bool) -> list[Cost]:
    backend = open_backend(lab.backend_name, lab.project or PROJECT, catalogue=lab.catalogue)
    folder = choose_folder(backend, runtime_directory(backend.project))
    found: list[Cost] = []

    def act(name: str) -> None:
        costs, uncounted = measure(backend, name, folder.replace("{model}", name))
        found.extend(costs)
        missing.update(uncounted)

    _visit(backend, models, act, missing, is_quiet=is_quiet)
    return found


def _visit(
    backend: "Backend",
    models: Sequence[str],
    act: Callable[[str], None],
    missing: dict[str, str],
    *,
    is_quiet: bool,
) -> None:
    """Start each model, act on it, and stop it: one after the other, as they must not take cores from each other.

    A model that cannot be started, or on which `act` fails, is added to `missing` with the reason.
    """
    names = choose_speakers(backend, models, "command")
    with interrupts.sure(backend.down):
        for name in names:
            if not is_quiet:
                click.echo(name, err=True)
            try:
                backend.up([name])
                act(name)
                backend.stop(name)
            except LabError as error:
                missing[name] = str(error)


@contextmanager
def _set_variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment, which the servers inherit."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _print(found: Sequence[Recording]) -> None:
    width = min(_WIDEST, shutil.get_terminal_size((_USUAL, 0)).columns)
    analyses = [Analysis(each) for each in found]
    for scene in dict.fromkeys(each.scene for each in found):
        click.echo(f"{xray_text.describe_scene(scene)}\n")
        for analysis in analyses:
            if analysis.recording.scene == scene:
                click.echo(f"{xray_text.render(analysis, width)}\n")
    click.echo(xray_text.make_legend(analyses, width))


def _write(out: Path, found: list[Recording], missing: dict[str, str], export: Sequence[str]) -> Path:
    root = out / "xray"
    folder = make_folder(root, datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ"))
    write_recordings(folder / "recordings.json", found)
    page = folder / "index.html"
    page.write_text(xray_page.render(found, missing=missing), encoding="utf-8")
    if "trace" in export:
        (folder / "trace.json").write_text(json.dumps(make_trace(found)), encoding="utf-8")
    if "svg" in export:
        for each in found:
            analysis = Analysis(each)
            label = xray_svg.measure_label(analysis)
            text = xray_svg.draw(analysis, width=xray_svg.WIDE, end=each.end, label=label, standalone=True)
            name = re.sub(r"\W+", "-", f"{each.model}-{each.scene}")  # an address has slashes
            (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    point(root / LATEST, folder.name)
    return page
