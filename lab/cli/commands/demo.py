"""Run everything once."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from lab.base import interrupts, progress
from lab.base.paths import RESULTS
from lab.cli.params import SECONDS, split_names
from lab.experiments.demo import USERS, Demo, run
from lab.experiments.environment import describe_environment, describe_servers
from lab.experiments.store import LATEST, make_folder, point, tolerated
from lab.load.workloads import SESSION
from lab.metrics.verdict import exit_code
from lab.report import demo_page
from lab.report.terminal import make_table, open_console
from lab.servers.backend import Backend, choose_models
from lab.servers.catalogue import PEER, PEERS, Model
from lab.servers.open import open_backend

if TYPE_CHECKING:
    from lab.cli.context import Lab

# A lab of its own, beside one that is up for other reasons. Always the same, so that the next demo finds what a killed
# one has left.
PROJECT = "socketlab-demo"


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
        run(backend, found, steps.step, seconds=seconds)
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
        with contextlib.ExitStack() as stack:
            if self.console.is_terminal:
                status = stack.enter_context(self.console.status(text))
                # As Text: the brackets of a build's step are markup otherwise. Four columns are the spinner's.
                width = self.console.width - 4
                stack.enter_context(
                    progress.shown_by(lambda more: status.update(Text(progress.shorten(more or text, width))))
                )
            yield
        self.console.print(f"{time.monotonic() - started:5.1f} s  {text}", style="dim", markup=False)


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
