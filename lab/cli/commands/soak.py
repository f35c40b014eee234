"""Run mixed and hostile traffic, and find resource leaks."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from lab.base import interrupts
from lab.base.messages import build
from lab.cli.context import COULD_NOT_RUN, DID_NOT_HOLD, HELD, Lab, say
from lab.cli.params import Duration, models_argument, out_option
from lab.experiments.environment import describe_environment
from lab.experiments.soak import _HOUR, COUNTS, MEGABYTE, NAME, UNASKED, SoakResult, run
from lab.experiments.store import Run, tolerated
from lab.metrics.trend import CONFIDENCE, FEWEST, Trend, after_warm_up
from lab.report import soak_page
from lab.report.tables import show_table
from lab.servers.backend import choose_speakers

_MAX_SECONDS = 30 * 24 * _HOUR


@click.command()
@models_argument
@click.option(
    "--duration", type=Duration(longest=_MAX_SECONDS), default="10m", show_default=True, help="Length of the traffic."
)
@click.option(
    "--every", type=Duration(shortest=0.1), default="10s", show_default=True, help="Time between two readings."
)
@click.option("--limit", default=1.0, show_default=True, metavar="MB", help="Allowed growth of memory, in MB per hour.")
@click.option("--show", "shown", metavar="RUN", help="Run nothing; print the results of a run.")
@click.option("--json", "as_json", is_flag=True, help="Print each finding with its readings as JSON.")
@out_option
@click.pass_obj
def soak(
    lab: Lab,
    models: tuple[str, ...],
    duration: float,
    every: float,
    limit: float,
    shown: str | None,
    as_json: bool,
    out: Path,
) -> None:
    """Run mixed and hostile traffic on models (default: all of no profile), and test for leaks.

    At regular intervals the traffic pauses, and memory, descriptors, threads and zombies are read without any
    connection. The first third is warm-up, with several times more clients. Memory is flat if the 95 % interval of its
    slope (Theil-Sen) is below the limit. A count is flat if the median of its last third does not exceed the maximum
    of its first third. An inconclusive series is not a pass.

    If no model is running, the command starts them, and takes them down afterwards. The page is index.html in the
    folder of the run.

    Exit code 1: something grows, or a client was not served. 2: inconclusive; a longer run is needed.
    """
    if shown:
        kept = Run.find(shown, NAME, root=out)
        plan = kept.facts["plan"]
        findings = [build(SoakResult, kept.read(model)) for model in plan["models"] if kept.has(model)]
        print_findings(findings, plan["limit_bytes_per_hour"] / MEGABYTE, as_json=as_json)
        sys.exit(exit_code(findings))
    backend = lab.backend
    chosen = choose_speakers(backend, models, "command")
    is_running = any(state.state == "running" for state in backend.state())
    plan = {"models": chosen, "seconds": duration, "every": every, "limit_bytes_per_hour": limit * MEGABYTE}
    stored = Run.create(NAME, {"plan": plan, "environment": describe_environment(backend.describe())}, root=out)
    with nullcontext() if is_running else interrupts.sure(backend.down):
        backend.up(chosen)
        told = str if as_json else say
        findings = run(backend, chosen, seconds=duration, every=every, limit=limit * MEGABYTE, say=told)
    print_findings(findings, limit, as_json=as_json)
    with tolerated(say):
        for finding in findings:
            stored.keep(finding.model, finding.as_json())
        stored.finish({"flat": all(finding.is_flat for finding in findings)})
        page = soak_page.render(
            findings, stored, limit=limit * MEGABYTE, resolution=_describe_resolution(findings, limit)
        )
        stored.write_page(page)
        if not as_json:
            click.echo(f"stored in {stored.folder}; the page: {stored.folder / 'index.html'}")
    sys.exit(exit_code(findings))


def print_findings(findings: Sequence[SoakResult], limit: float, *, as_json: bool) -> None:
    """Print the results as a table or as JSON.

    Args:
        limit: Allowed growth of memory in MB per hour.
    """
    if as_json:
        click.echo(json.dumps([finding.as_json() for finding in findings], indent=2))
        return
    columns = ["model", "memory, MB/h", "95 % interval", *COUNTS, "requests", "verdict"]
    show_table(columns, [_row(finding) for finding in findings])
    if findings:
        click.echo(_describe_resolution(findings, limit))


def exit_code(findings: Sequence[SoakResult]) -> int:
    """Return 0 if all is flat, 1 if something grows or a client was not served, 2 if it is inconclusive."""
    if findings and all(finding.is_flat for finding in findings):
        return HELD
    grows = any(Trend.GROWS in finding.growth.values() or finding.visits.failures for finding in findings)
    return DID_NOT_HOLD if grows else COULD_NOT_RUN


def _row(finding: SoakResult) -> list[str]:
    late = after_warm_up(finding.readings)
    memory = finding.memory
    grown = [f"{name} {growth}" for name, growth in finding.growth.items() if growth is not Trend.FLAT]
    grown += [f"{count} x {what}" for what, count in finding.visits.failures.items()]
    grown += [] if finding.visits.requests else [UNASKED]
    return [
        finding.model,
        "?" if memory is None else f"{memory.middle / MEGABYTE:+.2f}",
        "?" if memory is None else f"{memory.low / MEGABYTE:+.2f} to {memory.high / MEGABYTE:+.2f}",
        *(f"{getattr(late[0], name)} -> {getattr(late[-1], name)}" for name in COUNTS),
        f"{finding.visits.requests:,}",
        "; ".join(grown) or "flat",
    ]


def _describe_resolution(findings: Sequence[SoakResult], limit: float) -> str:
    late = after_warm_up(findings[0].readings)
    seconds = late[-1].seconds - late[0].seconds
    basis = (
        f"{len(late)} readings over {seconds:.0f} s, after a warm-up of {late[0].seconds:.0f} s. In that time "
        f"{limit:g} MB/h are {limit * MEGABYTE * seconds / _HOUR / 1000:.0f} kB."
    )
    widths = sorted((item.memory.high - item.memory.low) / 2 / MEGABYTE for item in findings if item.memory)
    if not widths:
        return f"{basis} No slope: that takes at least {FEWEST} readings after the warm-up."
    return (
        f"{basis} The intervals ({CONFIDENCE:.0%}) are ±{widths[0]:.2f} to ±{widths[-1]:.2f} MB/h: this run cannot "
        "show slower growth, a longer run can."
    )
