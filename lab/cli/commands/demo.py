"""Run everything once."""

import contextlib
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from lab.base import interrupts, progress
from lab.cli.context import Lab, say
from lab.cli.params import DURATION, models_argument, out_option
from lab.experiments.demo import NAME, Demo, describe, read, run
from lab.experiments.store import Run, tolerated
from lab.metrics.verdict import exit_code
from lab.report.demo_files import describe_load, explain_further_loads, make_columns, render, warn_of_hypervisor, write
from lab.report.terminal import make_table, open_console
from lab.servers.backend import choose_models
from lab.servers.catalogue import PEERS
from lab.servers.open import open_backend

# A project apart from the one of `lab up`. It is always the same, so a demo finds the rest of one that was killed.
PROJECT = "socketlab-demo"


@click.command()
@models_argument
@click.option("--duration", type=DURATION, default="2s", show_default=True, help="Measured time of each model.")
@click.option("--show", "shown", metavar="RUN", help="Run nothing; print the results of a run.")
@out_option
@click.pass_obj
def demo(lab: Lab, models: tuple[str, ...], duration: float, shown: str | None, out: Path) -> None:
    """Start models (default: all of no profile, and the peers), check and load them, report, and take them down.

    The table is printed; the page with its details is results/demo/<UTC time>/index.html.

    Exit code 1: a model is missing, or a request failed. 2: a measurement was disturbed.
    """
    if shown:
        kept = Run.find(shown, NAME, root=out)
        found = read(kept)
        print_demo(found)
        with tolerated(say):
            print_page(kept.write_page(render(kept)))
        sys.exit(find_exit_code(found))
    started = time.monotonic()
    backend = open_backend(lab.backend_name, lab.project or PROJECT, catalogue=lab.catalogue)
    profiles = [PEERS] if backend.in_containers and PEERS in lab.catalogue.profiles and not models else []
    chosen = choose_models(backend, models, profiles)
    found = Demo({model.name: model.family for model in chosen})
    step = partial(show_step, Console(stderr=True, highlight=False))

    def take_down() -> None:
        with step("taking the lab down"):
            backend.down()

    with interrupts.sure(take_down):
        run(backend, chosen, found, step, seconds=duration)
        environment = describe(backend, chosen, found)
    print_demo(found)
    click.echo(f"\n{time.monotonic() - started:.0f} s in total.")
    with tolerated(say):
        print_page(write(out, found, environment))
    sys.exit(find_exit_code(found))


def print_demo(found: Demo) -> None:
    """Print the table, and the models that are not in it."""
    console = open_console()
    if found.measurements:
        console.print(make_table(found.measurements, summaries=True, extra=make_columns(found)))
    for model, reason in found.missing.items():
        console.print(f"not measured: {model}: {reason}", markup=False, style="red")
    for trouble in explain_further_loads(found):
        console.print(trouble, markup=False, style="red")
    for warning in warn_of_hypervisor(found):
        console.print(warning, style="yellow")
    if any(item.verdict.is_lower_bound for item in found.measurements):
        console.print("≥: a lower bound. The limit was the load generator or the machine, not the server.", style="dim")
    for line in describe_load(found):
        console.print(line, style="dim")


def print_page(page: Path) -> None:
    """Print where the page is, relative to the current folder if it is below it."""
    click.echo("The page, with the reason for each verdict and an explanation of each figure:")
    # Not through rich, which would break a long path into two lines.
    click.echo(f"  {page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page}")


def find_exit_code(found: Demo) -> int:
    """Return 2 if a measurement was disturbed, 1 if a model is missing or a request failed, else 0."""
    measured = [*found.measurements, *found.waits.values(), *found.http.values()]
    failed = bool(found.missing) or any(item.load.failures for item in measured)
    return exit_code(item.verdict for item in measured) or int(failed)


@contextlib.contextmanager
def show_step(console: Console, text: str) -> Iterator[None]:
    """Show a step while it is done: a spinner on a terminal, and in the end a line everywhere."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        if console.is_terminal:
            status = stack.enter_context(console.status(text))
            # Text, because rich takes the brackets of a build's step for markup. The spinner takes four columns.
            width = console.width - 4
            stack.enter_context(
                progress.shown_by(lambda more: status.update(Text(progress.shorten(more or text, width))))
            )
        yield
    console.print(f"{time.monotonic() - started:5.1f} s  {text}", style="dim", markup=False)
