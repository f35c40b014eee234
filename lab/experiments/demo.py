"""`lab demo`, which is `make demo`: the whole lab once, from nothing to a table and back to nothing, in two minutes.

Bring the models up, hold each to the conformance suite, load each for a few seconds, print one table, write it as a
page, take everything down: also when something fails, and on Ctrl-C.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from lab.base import interrupts
from lab.base.errors import LabError
from lab.base.paths import RESULTS, ROOT
from lab.cli.commands.load import SECONDS, split_names
from lab.experiments.environment import describe_environment, describe_servers
from lab.experiments.store import LATEST, make_folder, point, tolerated
from lab.load.generator import StandingGenerator
from lab.load.measurement import Measurement, measure, measure_together
from lab.load.workloads import SESSION
from lab.metrics.verdict import exit_code
from lab.report import demo_page
from lab.report.terminal import make_table, open_console
from lab.servers.backend import Backend, choose_models, open_backend
from lab.servers.catalogue import PEER, PEERS, Model

if TYPE_CHECKING:
    from lab.cli.main import Lab

# Several times what the suite takes on two busy cores.
_CHECK_SECONDS = 240

# A lab of its own, beside one that is up for other reasons. Always the same, so that the next demo finds what a killed
# one has left.
PROJECT = "socketlab-demo"

# Enough connections that one at a time shows, few enough that a thread or a process each is no question of size.
USERS = 16
WORKLOADS = {"command": "closed_session", "echo": "closed_session_echo"}
WAITS = "closed_sleep_20ms"
_WAITS_SECONDS = 1.0

CAPTIONS = (
    f"The load: {USERS} clients, each without a pause: connect, {SESSION} PINGs one after the other, close, again. "
    f"Every reply is checked. One request in {SESSION} carries the connecting and the wait for a turn, so p99 is that "
    "wait: a server that takes one client at a time looks fast at p50 and shows its queue at p99.",
    "A peer is a server of other people, as a reference line. One that has no PING returns as many bytes instead.",
    "CPU µs/request is the server's own CPU time, user and system, for one request with its share of a connection. "
    "Compare it before requests/s, which moves with whatever else the machine does. Where the verdict is waiting, "
    "both sides sleep between requests, and a part of it, on a virtual machine a large one, can be the waking of an "
    "idle core.",
    "The verdict says what limited the rate. server-bound: the rate is the server's own. generator-bound and "
    "machine-bound: the load generator, or the whole machine, ran out of CPU first, so the rate is a lower bound (≥) "
    "and no ranking. waiting: neither was busy, they waited for each other.",
    f"20 ms waits/s is another load: {USERS} clients on held connections, each asking for a reply that takes 20 ms of "
    f"waiting and no CPU. One at a time is at most 50 a second; all {USERS} at once is at most {USERS * 50}.",
    "Memory and threads are the highest that were seen under the first load. A process counts as a thread, and so does "
    "the small init process that each container has.",
    "One run of a few seconds shows what kind of server each is. To compare two that are close takes repeats.",
)


@dataclass(slots=True)
class Demo:
    """What has been found so far."""

    models: Sequence[Model]
    checks: dict[str, demo_page.Check] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    waits: dict[str, Measurement] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@click.command()
@click.option("--models", default="", metavar="A,B", help="Which; by default all of no profile, and the peers.")
@click.option("--seconds", type=SECONDS, default="2s", show_default=True, help="How long to load each model.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS / "demo",
    help="Where the page goes.",
)
@click.pass_obj
def demo(lab: "Lab", models: str, seconds: float, out: Path) -> None:
    """Everything once: up, check, load, one table and its page, down."""
    started = time.monotonic()
    backend = open_backend(lab.backend_name, lab.project or PROJECT, catalogue=lab.catalogue)
    profiles = [PEERS] if backend.name == "docker" and PEERS in lab.catalogue.profiles and not models else []
    found = Demo(choose_models(backend, split_names(models), profiles))
    steps = Steps(Console(stderr=True, highlight=False))

    def take_down() -> None:
        with steps.step("taking the lab down"):
            backend.down()

    with interrupts.sure(take_down):
        run(backend, found, steps, seconds=seconds)
        environment = describe(backend, found)
    console = open_console()
    if found.measurements:
        console.print(make_table(found.measurements, summaries=True, waits=found.waits))
    for model, reason in found.missing.items():
        console.print(f"not measured: {model}: {reason}", markup=False, style="red")
    if any(item.verdict.is_lower_bound for item in found.measurements):
        console.print(
            "≥: a lower bound. Not the server was the limit, but the load generator or the machine.", style="dim"
        )
    console.print(CAPTIONS[0], style="dim", markup=False)
    console.print(f"\n{time.monotonic() - started:.0f} s in all.")
    with tolerated(lambda line: click.echo(line, err=True)):
        folder = write(out, found, environment)
        click.echo("As a page, with the reason for each verdict and how to read it:")
        # Not through rich, which would break a long path into two lines.
        click.echo(f"  {_show_path(folder / 'index.html')}")
    sys.exit(find_exit_code(found))


def find_exit_code(found: Demo) -> int:
    """2 a measurement was disturbed; 1 a model is missing, or one request failed; 0 neither."""
    measured = [*found.measurements, *found.waits.values()]
    failed = bool(found.missing) or any(item.failures for item in measured)
    return exit_code(item.verdict for item in measured) or int(failed)


class Steps:
    """Says what is being done: a spinner on a terminal, a plain line when it is done everywhere else."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One step; its time is printed when it ends."""
        started = time.monotonic()
        with self.console.status(text) if self.console.is_terminal else contextlib.nullcontext():
            yield
        self.console.print(f"{time.monotonic() - started:5.1f} s  {text}", style="dim", markup=False)


def run(backend: Backend, found: Demo, steps: Steps, *, seconds: float) -> None:
    """Up, check, load. The lab is left up.

    Raises:
        LabError: a step could not be done at all. A model that does not hold is `missing` instead.
    """
    names = [model.name for model in found.models]
    with steps.step(f"{len(names)} models up and answering ({backend.name})"):
        backend.up(names)
    with steps.step("conformance: the same tests for each"):
        found.checks = check(backend, names)
    for model in found.models:
        if reason := found.checks.get(model.name, demo_page.Check(0, 0)).explain(model.name, backend.name):
            found.missing[model.name] = reason
    sound = [model for model in found.models if model.name not in found.missing]
    with StandingGenerator(backend) as standing:
        for model in sound:
            with steps.step(f"load: {model.name}"), _noted(found, model):
                workload = choose_workload(model)
                measured = measure(backend, model, workload, users=USERS, seconds=seconds, standing=standing)
                found.measurements.append(measured)
    # Together: whoever waits uses no CPU, so they do not disturb each other. Where this fails, its figures are missing,
    # and are shown as missing.
    if able := [model for model in sound if "command" in model.services and not model.holds_rfc_only]:
        with steps.step("load: replies that take 20 ms, all models at once"), contextlib.suppress(LabError):
            waits = measure_together(backend, able, WAITS, users=USERS, seconds=_WAITS_SECONDS)
            found.waits = {item.model: item for item in waits}


def choose_workload(model: Model) -> str:
    """What a model is asked: PINGs, or echoes of the same size where it has no `command`.

    Raises:
        LabError: it has neither.
    """
    for service, workload in WORKLOADS.items():
        if service in model.services:
            return workload
    raise LabError(f"no load for it: it speaks none of {', '.join(WORKLOADS)}")


@contextlib.contextmanager
def _noted(found: Demo, model: Model) -> Iterator[None]:
    try:
        yield
    except LabError as error:
        found.missing[model.name] = str(error)


def check(backend: Backend, models: Sequence[str]) -> dict[str, demo_page.Check]:
    """Hold the running models to the conformance suite, in a process of its own: one that hangs must not hang the demo.

    Raises:
        LabError: it gave no result, or none in time.
    """
    command = [
        sys.executable,
        "-m",
        "lab.cli.main",
        "--backend",
        backend.name,
        "--project",
        backend.project,
        "check",
        "--json",
    ]
    with subprocess.Popen(  # noqa: S603  # the lab's own command line
        [*command, *models],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=_CHECK_SECONDS)
        except BaseException as error:
            # SIGTERM lets it take its own children along.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"the conformance suite took longer than {_CHECK_SECONDS} s and was ended") from None
            raise
    try:
        return count_checks(json.loads(stdout)["findings"], models)
    except (ValueError, KeyError, TypeError):
        # `lab check` says itself what was wrong, in as many lines as that takes.
        said = stderr.strip().removeprefix("lab: ") or f"lab check gave no result (exit code {process.returncode})"
        raise LabError(said) from None


def count_checks(findings: Sequence[Mapping[str, str]], models: Sequence[str]) -> dict[str, demo_page.Check]:
    """The findings of `lab check --json`, counted for each model."""
    outcomes = Counter((finding["model"], finding["outcome"]) for finding in findings)
    return {
        model: demo_page.Check(
            passed=outcomes[model, "passed"],
            failed=outcomes[model, "failed"] + outcomes[model, "error"],
            expected_failures=outcomes[model, "xfailed"],
            failures=tuple(
                finding["name"]
                for finding in findings
                if finding["model"] == model and finding["outcome"] in ("failed", "error")
            ),
        )
        for model in models
    }


def describe(backend: Backend, found: Demo) -> dict[str, str | None]:
    """What the demo ran on; asked while the lab is still up."""
    versions = found.measurements[0].versions if found.measurements else None
    facts = describe_environment(backend.name, versions=versions)
    facts["servers"] = describe_servers(backend, found.models)
    return facts


def write(out: Path, found: Demo, environment: Mapping[str, str | None]) -> Path:
    """Write page and data.

    Returns:
        The folder of this run. `latest` beside it points there.
    """
    folder = make_folder(out, datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ"))
    data = {
        "environment": environment,
        "captions": CAPTIONS,
        "checks": {
            name: {
                "passed": item.passed,
                "failed": item.failed,
                "xfailed": item.expected_failures,
                "failures": item.failures,
            }
            for name, item in found.checks.items()
        },
        "measurements": [item.as_json() for item in found.measurements],
        "waits": [item.as_json() for item in found.waits.values()],
        "missing": found.missing,
    }
    (folder / "data.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    text = demo_page.render(
        found.measurements,
        title=_make_title(found.models),
        lead=f"One run of socketlab's demo: every server answers the same {USERS} clients, {environment['date']}.",
        captions=CAPTIONS,
        checks=found.checks,
        missing=found.missing,
        waits=found.waits,
        environment=environment,
    )
    (folder / "index.html").write_text(text, encoding="utf-8")
    point(out / LATEST, folder.name)
    return folder


def _make_title(models: Sequence[Model]) -> str:
    ours = sum(model.family != PEER for model in models)
    return f"{ours} socket server{'' if ours == 1 else 's'}, one protocol"


def _show_path(path: Path) -> str:
    """As short as it can be given to a browser from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
