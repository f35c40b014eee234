"""Soak: find resource leaks."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from lab.base import interrupts
from lab.base.paths import RESULTS
from lab.cli.context import COULD_NOT_RUN, DID_NOT_HOLD, HELD, Lab
from lab.cli.tables import show_table
from lab.experiments.environment import describe_environment
from lab.experiments.soak import _HOUR, COUNTS, MEGABYTE, NAME, Finding, run
from lab.experiments.store import Run, tolerated
from lab.metrics.trend import CONFIDENCE, FEWEST, Growth, after_warm_up
from lab.servers.backend import choose_speakers


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Instead of minutes.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds between two rests."
)
@click.option("--limit", default=1.0, show_default=True, help="MB an hour that memory must not grow by.")
@click.option("--json", "as_json", is_flag=True, help="Each finding with its readings, for a script.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="Where it is kept.")
@click.pass_obj
def soak(
    lab: Lab,
    models: tuple[str, ...],
    minutes: float,
    hours: float | None,
    every: float,
    limit: float,
    as_json: bool,
    out: Path,
) -> None:
    """Visit models for long, with good and with bad intentions, and see whether anything grows.

    At every rest, when nobody is connected, memory, descriptors, threads and zombies are read. The first third is
    warm-up, with several times as many clients. Memory is flat if its slope (Theil-Sen, with a 95 % interval) is
    certainly below the limit. Counts are flat if the median of the last third is not above the largest of the first.
    What cannot be told does not count as flat. Exit code 1: something grows; 2: nothing does, but it takes longer to
    tell.

    Models that run are used as they are; if none runs, those asked for are started, and taken down.
    """
    backend = lab.backend
    chosen = choose_speakers(backend, models, "command")
    is_running = any(state.state == "running" for state in backend.state())
    seconds = hours * _HOUR if hours else minutes * 60
    progress = None if as_json else lambda line: click.echo(line, err=True)
    plan = {"models": chosen, "seconds": seconds, "every": every, "limit_bytes_per_hour": limit * MEGABYTE}
    kept = Run.create(NAME, {"plan": plan, "environment": describe_environment(backend.name)}, root=out)
    with nullcontext() if is_running else interrupts.sure(backend.down):
        backend.up(chosen)
        findings = run(backend, chosen, seconds=seconds, every=every, limit=limit * MEGABYTE, say=progress or str)
    if as_json:
        click.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        columns = ["model", "memory, MB/h", "95 % interval", *COUNTS, "requests", "verdict"]
        show_table(columns, [_row(finding) for finding in findings])
        click.echo(_say_what_it_shows(findings, limit))
    with tolerated(lambda line: click.echo(line, err=True)):
        for finding in findings:
            kept.keep(finding.model, finding.as_json())
        kept.finish({"flat": all(finding.is_flat for finding in findings)})
        if not as_json:
            click.echo(f"kept in {kept.folder}")
    sys.exit(exit_code(findings))


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 0 if all is flat; 1 if something grows or a client was not served; 2 if it cannot be told."""
    if findings and all(finding.is_flat for finding in findings):
        return HELD
    grows = any(Growth.GROWS in finding.growth.values() or finding.visits["failures"] for finding in findings)
    return DID_NOT_HOLD if grows else COULD_NOT_RUN


def _row(finding: Finding) -> list[str]:
    late = after_warm_up(finding.readings)
    memory = finding.memory
    grown = [f"{name} {growth}" for name, growth in finding.growth.items() if growth is not Growth.FLAT]
    grown += [f"{count} x {what}" for what, count in finding.visits["failures"].items()]
    return [
        finding.model,
        "?" if memory is None else f"{memory.middle / MEGABYTE:+.2f}",
        "?" if memory is None else f"{memory.low / MEGABYTE:+.2f} to {memory.high / MEGABYTE:+.2f}",
        *(f"{getattr(late[0], name)} -> {getattr(late[-1], name)}" for name in COUNTS),
        f"{finding.visits['requests']:,}",
        "; ".join(grown) or "flat",
    ]


def _say_what_it_shows(findings: Sequence[Finding], limit: float) -> str:
    """What a run of this length can show, and what it cannot."""
    late = after_warm_up(findings[0].readings)
    seconds = late[-1].seconds - late[0].seconds
    told = (
        f"{len(late)} readings over {seconds:.0f} s, after a warm-up of {late[0].seconds:.0f} s. In that time "
        f"{limit:g} MB/h are {limit * MEGABYTE * seconds / _HOUR / 1000:.0f} kB."
    )
    widths = sorted((item.memory.high - item.memory.low) / 2 / MEGABYTE for item in findings if item.memory)
    if not widths:
        return f"{told} There is no slope: it takes {FEWEST} readings after the warm-up."
    return (
        f"{told} The intervals ({CONFIDENCE:.0%}) are {widths[0]:.2f} to {widths[-1]:.2f} MB/h to either side: what "
        "grows by less cannot be told from standing still, and a longer run tells more."
    )
