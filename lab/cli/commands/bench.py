"""`lab bench`: compare models under each workload."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.paths import RESULTS
from lab.cli.params import SECONDS, split_names
from lab.experiments.bench.baseline import render_baseline
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import CONTROL, NAME, WORKLOADS, Plan
from lab.experiments.bench.runner import Progress, Runner
from lab.experiments.bench.setup import check_same, describe, keep_logs, make_plan
from lab.experiments.conformance.suite import check
from lab.experiments.store import Run, tolerated
from lab.experiments.theory import describe_concurrency
from lab.load.cores import split_cores
from lab.report import bench_page
from lab.report.bench_export import render_csv, render_parquet, render_theory
from lab.report.bench_text import print_report, render_markdown
from lab.report.terminal import open_console
from lab.servers.backend import Backend
from lab.servers.open import open_backend

if TYPE_CHECKING:
    from lab.cli.context import Lab

# Projects of its own: one for the models, apart from a lab that is up, and one for the control server.
PROJECT = "socketlab-bench"
_CONTROL = "control"


@click.command()
@click.option("--quick", "preset", flag_value="quick", help="About two minutes: one workload, no sweep.")
@click.option("--full", "preset", flag_value="full", help="All workloads in all modes: hours.")
@click.option("--models", default="", metavar="A,B", help="Which; by default all of no profile.")
@click.option("--workloads", default="", metavar="A,B", help=f"Any of {', '.join(WORKLOADS)}.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Repeats of each measurement.")
@click.option("--seconds", type=SECONDS, help="The measured window of each.")
@click.option("--seed", type=int, help="Of the order; by default another one each time.")
@click.option(
    "--resume", "resumed", metavar="RUN", help="Go on with a run that was interrupted: its time, or `latest`."
)
@click.option("--show", "shown", metavar="RUN", help="Measure nothing; print what a run has found.")
@click.option(
    "--export",
    type=click.Choice(["csv", "parquet", "baseline", "theory"]),
    help="With --show: every measurement; what `lab compare baseline` holds to; theory beside it, for the docs.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Where all results are.",
    hidden=True,
)
@click.pass_obj
def bench(
    lab: "Lab",
    preset: str | None,
    models: str,
    workloads: str,
    rounds: int | None,
    seconds: float | None,
    seed: int | None,
    resumed: str | None,
    shown: str | None,
    export: str | None,
    out: Path,
) -> None:
    """Measure models by turns, with repeats, and say what is beyond the noise.

    Without an option it takes about ten minutes. Ctrl-C keeps what was measured; --resume goes on.
    """
    if export and not shown:
        raise LabError("--export goes with --show RUN: what is exported is what a run has kept")
    if shown:
        kept = Run.find(shown, NAME, root=out)
        if export:
            findings = read_findings(kept)
            exports: dict[str, Callable[[Findings], str | bytes]] = {
                "csv": render_csv,
                "parquet": render_parquet,
                "baseline": render_baseline,
                "theory": lambda found: render_theory(found, split_names(models)),
            }
            click.echo(exports[export](findings), nl=False)
        else:
            report(kept)
        return
    backend = open_backend(lab.backend_name, lab.project or PROJECT, catalogue=lab.catalogue)
    control = open_backend(backend.name, f"{backend.project}-{_CONTROL}", catalogue=lab.catalogue)
    if resumed:
        run: Run | None = Run.find(resumed, NAME, root=out)
        assert run is not None  # noqa: S101 - for mypy
        check_same(run, backend)
        plan = Plan.from_json(run.facts["plan"])
    else:
        run = None
        plan = make_plan(
            backend,
            preset or "default",
            split_names(models),
            split_names(workloads),
            rounds=rounds,
            seconds=seconds,
            seed=seed,
        )
    chosen = {
        model.name: model for model in lab.catalogue.select((*plan.models, *filter(None, [plan.generator_limit])))
    }
    progress = Progress(lambda line: click.echo(line, err=True))
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
        progress.say(f"kept in {run.folder}")
        runner = Runner(run, plan, backend, control if plan.control else None, chosen, pinning, progress)
        with run.writing():
            try:
                runner.measure_all(check)
            finally:
                keep_logs(run, backend, {name: name for name in chosen})
                keep_logs(run, control, {plan.control: f"{CONTROL}{plan.control}"} if plan.control else {})
                findings = report(run)
    click.get_current_context().exit(
        1
        if findings.unsound
        or any(row.failures or findings.failing(row.workload, row.model) for row in findings.rows.values())
        else 0
    )


@contextlib.contextmanager
def up(backend: Backend, models: Sequence[str], progress: Progress) -> Iterator[None]:
    """Models up while the block runs; nothing is left after it."""
    if not models:
        yield
        return
    with interrupts.sure(backend.down):
        progress.say(f"{backend.project}: starting {', '.join(models)} ({backend.name})")
        backend.up(models)
        yield


def report(run: Run) -> Findings:
    """Print what there is, and write it beside what it was made from."""
    findings = read_findings(run)
    print_report(findings, open_console())
    with tolerated(lambda line: click.echo(line, err=True)):
        run.write_report("report.md", render_markdown(findings))
        run.write_report("index.html", bench_page.render(findings))
        click.echo(f"\n{run.folder / 'index.html'}")
    return findings
