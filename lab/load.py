"""`lab load`: drive the models, live in Locust's web UI or headless with a table and conditions."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from lab.catalogue import Model
from lab.errors import LabError
from lab.measurement import Measurement, encode_targets, measure
from lab.report.terminal import make_table, open_console
from lab.thresholds import Threshold
from lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from lab.cli import Lab

# Bounds on what one command may do to a machine: a model's containers are sized for less than either.
_MOST_USERS = 1000
_LONGEST_SECONDS = 3600.0


class Seconds(click.ParamType[float]):
    """`5s`, `500ms`, `1m` or a plain number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Called by click."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)):
            if text.endswith(unit):
                number = text.removesuffix(unit)
                try:
                    seconds = float(number) * factor
                except ValueError:
                    break
                if 0 < seconds <= _LONGEST_SECONDS:
                    return seconds
                return self.fail(f"{text!r} is not above 0 and at most {_LONGEST_SECONDS / 60:.0f}m", param, ctx)
        return self.fail(f"{text!r} is not a duration such as 5s or 500ms", param, ctx)


SECONDS = Seconds()


@click.command()
@click.argument(
    "scenario", type=click.Choice(list(WORKLOADS)), default="closed_session", required=False, metavar="[SCENARIO]"
)
@click.option("--models", default="", metavar="A,B", help="Which; by default all that run and belong to no profile.")
@click.option(
    "--users", type=click.IntRange(1, _MOST_USERS), default=16, show_default=True, help="Connections at a time."
)
@click.option("--duration", type=SECONDS, default="5s", show_default=True, help="How long to measure each model.")
@click.option("--warm-up", type=SECONDS, default="1s", show_default=True, help="Load before it that does not count.")
@click.option("--timeout", type=SECONDS, default="5s", show_default=True, help="After which an exchange has failed.")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if so: 'p99 > 5ms', 'failures > 0', 'rate < 10k'.",
)
@click.option("--headless", is_flag=True, help="No web UI: one model after the other, then a table.")
@click.option("--json", "as_json", is_flag=True, help="Headless, and print the measurements as JSON.")
@click.pass_obj
def load(
    lab: "Lab",
    scenario: str,
    models: str,
    users: int,
    duration: float,
    warm_up: float,
    timeout: float,
    conditions: Sequence[str],
    headless: bool,
    as_json: bool,
) -> None:
    """Load models that run (see `lab up`), every reply checked.

    Without --headless, Locust's web UI opens on 127.0.0.1:8089 (LAB_UI_PORT), with model and scenario to choose from.
    """
    thresholds = [Threshold.parse(condition) for condition in conditions]
    backend = lab.backend
    running = {listener.model for listener in backend.targets()}
    chosen = [model for model in lab.catalogue.models if model.name in running]
    if models:
        chosen = list(lab.catalogue.select(split_names(models)))
    if absent := [model.name for model in chosen if model.name not in running]:
        raise LabError(f"not running: {', '.join(absent)}; start with: lab up {' '.join(absent)}")
    if not chosen:
        raise LabError("no model is running; start them with: lab up")
    if not (headless or as_json or thresholds):
        serve_ui(backend, chosen, scenario, users, timeout)
        return

    progress = Console(stderr=True, highlight=False)
    found = []
    for model in chosen:
        progress.print(f"{scenario}: {model.name}, {users} users, {duration:g} s", style="dim")
        found.append(measure(backend, model, scenario, users=users, seconds=duration, warm_up=warm_up, timeout=timeout))
    if as_json:
        click.echo(json.dumps([item.as_json() for item in found], indent=2))
    else:
        open_console().print(make_table(found))
    tripped = list(find_tripped(found, thresholds))
    for line in tripped:
        progress.print(line, style="red")
    sys.exit(1 if tripped else 0)


# The list of scenarios has one home, lab/workloads.py. \b keeps click from filling the lines.
load.epilog = "\b\nScenarios (by default closed_session):\n" + "\n".join(
    f"  {item.name:<19}{item.summary}" for item in WORKLOADS.values()
)


def split_names(text: str) -> list[str]:
    """`a,b` as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def find_tripped(measurements: Sequence[Measurement], thresholds: Sequence[Threshold]) -> Iterator[str]:
    """What did not hold, a line each. A model that answered nothing never holds."""
    for found in measurements:
        if not found.answered:
            yield f"{found.model}: not one correct reply"
        for threshold in thresholds:
            if threshold.is_tripped_by(found):
                yield f"{found.model}: {threshold.text} ({found.verdict.bound}: {found.verdict.reason})"


def serve_ui(backend: Any, models: Sequence[Model], scenario: str, users: int, timeout: float) -> None:
    """Run Locust's web UI until it is interrupted."""
    port = read_ui_port()
    names = [model.name for model in models]
    # In its container Locust listens to all of that container's network, which compose publishes on 127.0.0.1 alone.
    binding = (
        ["--web-port", "8089"] if backend.name == "docker" else ["--web-host", "127.0.0.1", "--web-port", str(port)]
    )
    listeners = [item for item in backend.targets() if item.model in names]
    arguments = [*binding, "--model", names[0] if len(names) == 1 else "all", "--workload", scenario]
    arguments += [
        "--users",
        str(users),
        "--spawn-rate",
        str(users),
        "--timeout",
        f"{timeout:g}",
        "--loglevel",
        "WARNING",
    ]
    click.echo(f"Locust's web UI: http://127.0.0.1:{port}  (choose a model and a scenario, Start; Ctrl-C here ends it)")
    try:
        finished = backend.run_service(
            "locust", arguments, environ={"LAB_TARGETS": encode_targets(listeners)}, publish=True
        )
    except KeyboardInterrupt:
        click.echo("\nended")
        return
    # Ctrl-C reaches Locust as well, which ends on its own: with what it counted as failed (1), or as interrupted.
    if finished.returncode not in (0, 1, 130, -2):
        raise LabError(
            f"the web UI ended with exit code {finished.returncode}; is port {port} taken? LAB_UI_PORT chooses another"
        )


def read_ui_port() -> int:
    """The port of the web UI on this machine.

    Raises:
        LabError: LAB_UI_PORT is not a port.
    """
    text = os.environ.get("LAB_UI_PORT") or "8089"
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise LabError(f"LAB_UI_PORT={text!r} is not a port")
    return int(text)
