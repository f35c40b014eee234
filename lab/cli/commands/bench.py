"""`lab bench`: which model for which work, how far it goes, what it costs, and whether the answer can be trusted."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.paths import RESULTS
from lab.cli.commands.load import SECONDS, split_names
from lab.experiments.bench.baseline import render_baseline
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import AGAIN, PRESETS, WORKS, Plan
from lab.experiments.bench.runner import Progress, Runner
from lab.experiments.demo import check
from lab.experiments.environment import describe_environment, describe_servers, read_commit
from lab.experiments.store import Run, tolerated
from lab.experiments.theory import describe_concurrency
from lab.load.cores import Pinning, split_cores
from lab.report import bench_page
from lab.report.bench_export import render_csv, render_parquet, render_theory
from lab.report.bench_text import print_report, render_markdown
from lab.report.terminal import open_console
from lab.servers.backend import Backend, choose_models, open_backend
from lab.servers.catalogue import Catalogue, Model

if TYPE_CHECKING:
    from lab.cli.main import Lab

# A lab of its own, beside one that is up for other reasons; and one for the second server of the twin.
PROJECT = "socketlab-bench"
_TWIN = "twin"

# What shows how far the generator goes: answered by C, and by nothing that takes longer.
_CEILING = "peer_redis"

NAME = "bench"

# Whom to measure twice: one that serves many at once and needs no library.
_USUAL_TWIN = "asyncio_streams"

# What changes how a process gets its memory.
_ALLOCATOR = ("PYTHONMALLOC", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@click.command()
@click.option("--quick", "preset", flag_value="quick", help="About two minutes: one kind of work, no sweep.")
@click.option("--full", "preset", flag_value="full", help="Every kind of work, in every way: hours.")
@click.option("--models", default="", metavar="A,B", help="Which; by default all of no profile.")
@click.option("--works", default="", metavar="A,B", help=f"Which of {', '.join(WORKS)}.")
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
    works: str,
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
    twin = open_backend(backend.name, f"{backend.project}-{_TWIN}", catalogue=lab.catalogue)
    if resumed:
        run: Run | None = Run.find(resumed, NAME, root=out)
        assert run is not None  # noqa: S101 - for mypy
        check_same(run, backend)
        plan = Plan.from_json(run.facts["plan"])
    else:
        run = None
        plan = make_plan(backend, preset or "default", models, works, rounds=rounds, seconds=seconds, seed=seed)
    chosen = {model.name: model for model in lab.catalogue.select((*plan.models, *filter(None, [plan.ceiling])))}
    progress = Progress(lambda line: click.echo(line, err=True))
    pinning = split_cores()
    with up(backend, list(chosen), progress), up(twin, [plan.twin] if plan.twin else [], progress):
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
        runner = Runner(run, plan, backend, twin if plan.twin else None, chosen, pinning, progress)
        with run.writing():
            try:
                runner.measure_all(check)
            finally:
                keep_logs(run, backend, {name: name for name in chosen})
                keep_logs(run, twin, {plan.twin: f"{AGAIN}{plan.twin}"} if plan.twin else {})
                findings = report(run)
    click.get_current_context().exit(
        1
        if findings.unsound
        or any(row.failures or findings.failing(row.work, row.model) for row in findings.rows.values())
        else 0
    )


def make_plan(
    backend: Backend,
    preset: str,
    models: str,
    works: str,
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    seed: int | None = None,
) -> Plan:
    """What a person has asked for.

    Raises:
        LabError: an unknown model or kind of work.
    """
    values = dict(PRESETS[preset])
    names = split_names(works)
    if unknown := [name for name in names if name not in WORKS]:
        raise LabError(f"unknown work {', '.join(unknown)}; known: {', '.join(WORKS)}")
    values |= {"works": tuple(names)} if names else {}
    values |= {"rounds": rounds} if rounds else {}
    values |= {"seconds": seconds} if seconds else {}
    chosen = choose_models(backend, split_names(models))
    return Plan(
        models=tuple(model.name for model in chosen),
        seed=random.randrange(2**31) if seed is None else seed,  # noqa: S311 - an order, no secret
        twin=choose_twin(chosen),
        ceiling=_CEILING if backend.name == "docker" or _CEILING in {model.name for model in chosen} else None,
        **values,
    )


def choose_twin(models: Sequence[Model]) -> str | None:
    """Whom to measure twice."""
    able = [model.name for model in models if "overlap" not in model.limits]
    return _USUAL_TWIN if _USUAL_TWIN in able else next(iter(able), None)


def check_same(run: Run, backend: Backend) -> None:
    """See that a run can go on: with what it was begun.

    Raises:
        LabError: it has ended, or something else than what it has measured would be measured now.
    """
    if run.is_finished:
        raise LabError(f"{run.started} is finished; `lab bench --show {run.started}` prints it")
    before = run.facts.get("environment") or {}
    for name, now in (("commit", read_commit()), ("backend", backend.name)):
        if before.get(name) != now:
            raise LabError(
                f"{run.started} was begun with {name} {before.get(name)}, and this is {now}: begin a new one"
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


def describe(backend: Backend, models: Sequence[Model], pinning: Pinning | None) -> dict[str, str | None]:
    """What the benchmark runs on."""
    facts = describe_environment(backend.name)
    facts["servers"] = describe_servers(backend, models)
    if backend.name == "docker":
        facts["images"] = read_images(backend.catalogue, models)
    facts["cores"] = str(pinning) if pinning else "one for all: nothing could be separated"
    facts["governor"] = _GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None
    facts["libc"] = read_libc(backend)
    # A container has the environment that compose.yaml gives it, and a process this one's.
    environs = (
        {"": os.environ}
        if backend.name == "process"
        else {f"{model.name}: ": backend.catalogue.environ(model.name) for model in models}
    )
    chosen = [
        f"{whose}{name}={environ[name]}"
        for whose, environ in environs.items()
        for name in _ALLOCATOR
        if name in environ
    ]
    facts["allocator"] = ", ".join(chosen) or "as built"
    return facts


def read_libc(backend: Backend) -> str | None:
    """The C library of the servers: their images and that of the lab's shell have one base."""
    done = backend.run(["python", "-c", "import platform; print(*platform.libc_ver())"], capture=True, timeout=60)
    return done.stdout.strip() or None


def read_images(catalogue: Catalogue, models: Sequence[Model]) -> str | None:
    """The ids of the images that were measured: a tag can come to mean another one."""
    import docker
    import docker.errors
    import requests

    try:
        client = docker.from_env()
        try:
            found = {model.name: client.images.get(catalogue.image(model.name)).short_id for model in models}
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException):
        return None
    return ", ".join(f"{name} {short}" for name, short in found.items())


def keep_logs(run: Run, backend: Backend, models: Mapping[str, str]) -> None:
    """What the servers have written goes with the figures, each under the name that its rows have."""
    for model, name in models.items():
        run.keep_log(name, backend.logs(model))


def report(run: Run) -> Findings:
    """Print what there is, and write it beside what it was made from."""
    findings = read_findings(run)
    print_report(findings, open_console())
    with tolerated(lambda line: click.echo(line, err=True)):
        run.write_report("report.md", render_markdown(findings))
        run.write_report("index.html", bench_page.render(findings))
        click.echo(f"\n{run.folder / 'index.html'}")
    return findings
