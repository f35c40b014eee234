"""Compare models: rates, times and costs of each workload, with the noise of this machine."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from lab.base import interrupts
from lab.base.errors import LabError
from lab.cli.context import DID_NOT_HOLD, HELD, Lab, say
from lab.cli.params import DURATION, models_argument, out_option, split_names
from lab.experiments.bench.baseline import render_baseline
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import NAME, WORKLOADS, Plan, name_control
from lab.experiments.bench.runner import Progress, Runner
from lab.experiments.bench.setup import check_same, describe, keep_logs, make_plan
from lab.experiments.conformance.suite import check_in_subprocess
from lab.experiments.store import Run, tolerated
from lab.experiments.theory import describe_concurrency
from lab.load.cores import split_cores
from lab.report import bench_page
from lab.report.bench_export import render_charts, render_csv, render_parquet, render_theory
from lab.report.bench_text import print_report, render_markdown
from lab.report.terminal import open_console
from lab.servers.backend import Backend
from lab.servers.open import open_backend

# Projects apart from the one of `lab up`: one for the models, one for the second server of the control.
PROJECT = "socketlab-bench"
_CONTROL = "control"


@click.command()
@models_argument
@click.option("--quick", "preset", flag_value="quick", help="About two minutes: one workload, no sweep.")
@click.option("--full", "preset", flag_value="full", help="Every workload in every mode: hours.")
@click.option("--workloads", default="", metavar="A,B", help=f"Workloads, out of {', '.join(WORKLOADS)}.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Repetitions of each measurement.")
@click.option("--duration", type=DURATION, help="Measured time of each measurement.")
@click.option("--seed", type=int, help="Seed of the order.  [default: random]")
@click.option("--resume", "resumed", metavar="RUN", help="Continue an interrupted run: its time, or `latest`.")
@click.option("--show", "shown", metavar="RUN", help="Measure nothing; print the results of a run.")
@click.option(
    "--export",
    type=click.Choice(["csv", "parquet", "baseline", "theory", "svg"]),
    help="With --show: all measurements, a baseline for `lab compare`, theory for the docs, or the charts as files.",
)
@out_option
@click.pass_obj
def bench(
    lab: Lab,
    models: tuple[str, ...],
    preset: str | None,
    workloads: str,
    rounds: int | None,
    duration: float | None,
    seed: int | None,
    resumed: str | None,
    shown: str | None,
    export: str | None,
    out: Path,
) -> None:
    """Compare models (default: all of no profile): interleaved, with repetitions and intervals.

    The report lists only differences that are larger than the noise of this machine. Without an option, a run takes
    about ten minutes. Ctrl-C keeps the measurements so far; --resume continues.

    Exit code 1: requests failed, or the measurements cannot be trusted.
    """
    if export and not shown:
        raise LabError("--export goes with --show RUN: it exports a stored run")
    if shown:
        kept = Run.find(shown, NAME, root=out)
        if export:
            findings = read_findings(kept)
            exports: dict[str, Callable[[Findings], str | bytes]] = {
                "csv": render_csv,
                "parquet": render_parquet,
                "baseline": render_baseline,
                "theory": lambda found: render_theory(found, list(models)),
                "svg": write_charts,
            }
            click.echo(exports[export](findings), nl=False)
        else:
            report(kept)
        return
    backend = open_backend(lab.backend_name, lab.project or PROJECT, catalogue=lab.catalogue)
    control = open_backend(backend.name, f"{backend.project}-{_CONTROL}", catalogue=lab.catalogue)
    run = Run.find(resumed, NAME, root=out) if resumed else None
    if run:
        check_same(run, backend)
        plan = Plan.from_json(run.facts["plan"])
    else:
        plan = make_plan(
            backend,
            preset or "default",
            list(models),
            split_names(workloads),
            rounds=rounds,
            seconds=duration,
            seed=seed,
        )
    chosen = {
        model.name: model for model in lab.catalogue.select((*plan.models, *filter(None, [plan.generator_limit])))
    }
    progress = Progress(say)
    pinning = split_cores()
    with up(backend, list(chosen), progress), up(control, [plan.control] if plan.control else [], progress):
        environment = describe(backend, list(chosen.values()), pinning)
        run = run or Run.create(
            NAME,
            {
                "plan": plan.as_json(),
                "environment": environment,
                "models": describe_concurrency(lab.catalogue, chosen.values()),
            },
            root=out,
        )
        progress.say(f"stored in {run.folder}")
        runner = Runner(run, plan, backend, control if plan.control else None, chosen, pinning, progress)
        with run.writing():
            try:
                runner.measure_all(check_in_subprocess)
            finally:
                keep_logs(run, backend, {name: name for name in chosen})
                keep_logs(run, control, {plan.control: name_control(plan.control)} if plan.control else {})
                findings = report(run)
    failed = any(row.failures or findings.failing(row.workload, row.model) for row in findings.rows.values())
    click.get_current_context().exit(DID_NOT_HOLD if findings.unsound or failed else HELD)


@contextlib.contextmanager
def up(backend: Backend, models: Sequence[str], progress: Progress) -> Iterator[None]:
    """Run models during the block, and take them down after it."""
    if not models:
        yield
        return
    with interrupts.sure(backend.down):
        progress.say(f"{backend.project}: starting {', '.join(models)} ({backend.name})")
        backend.up(models)
        yield


def report(run: Run) -> Findings:
    """Print the findings, and write the report into the folder of the run."""
    findings = read_findings(run)
    print_report(findings, open_console())
    with tolerated(say):
        page, *others = bench_page.render_pages(findings).items()
        files = dict(others) | render_charts(findings)
        click.echo(f"\n{run.write_page(page[1], render_markdown(findings), files)}")
    return findings


def write_charts(findings: Findings) -> str:
    """Write the charts of a run as SVG into its folder; return a line with the path of each."""
    charts = render_charts(findings)
    for name, text in charts.items():
        findings.run.write_file(name, text)
    return "".join(f"{findings.run.folder / name}\n" for name in charts)
