"""Rank models for a load that the user describes, from stored measurements and theory."""

import json
import sys
from pathlib import Path

import click

from lab.base.errors import LabError
from lab.base.paths import RESULTS
from lab.base.units import show_time
from lab.cli.context import DID_NOT_HOLD, HELD, Lab
from lab.cli.params import Duration, models_argument
from lab.experiments.advise.model import Demand, advise_model
from lab.experiments.advise.ranking import rank, read_slo
from lab.experiments.advise.sources import read_sources
from lab.report.advise_text import print_advice
from lab.report.terminal import open_console

_TIME = Duration(shortest=0.0)


@click.command()
@models_argument
@click.option("--connections", type=click.IntRange(1, 10_000_000), required=True, help="Open connections.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 10_000_000, min_open=True),
    required=True,
    help="Requests per second, over all connections.",
)
@click.option(
    "--service-time", type=_TIME, required=True, help="Time of one request on an idle server: waiting and computing."
)
@click.option("--cpu", type=_TIME, required=True, help="The computing part of --service-time.")
@click.option("--slo", metavar="CONDITION", help="Condition to meet, such as 'p99 < 50ms'.")
@click.option("--cores", type=click.IntRange(1, 1024), help="Cores of the server.  [default: this machine's]")
@click.option(
    "--run",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Folder of a run of `lab bench`.  [default: the last one]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the advice as JSON.")
@click.pass_obj
def advise(
    lab: Lab,
    models: tuple[str, ...],
    connections: int,
    rate: float,
    service_time: float,
    cpu: float,
    slo: str | None,
    cores: int | None,
    run: Path | None,
    as_json: bool,
) -> None:
    """Rank models (default: all of no profile) for a load, with the reasons.

    For each model: the CPU and memory that it needs, the time that requests wait, and the limit that it reaches first.

    The cost of a request, the memory of a connection and each model's maximum are measured. The rest is theory; its
    formulas are printed below the table.

    Exit code 1: no model can serve the load.
    """
    if cpu > service_time:
        raise LabError(
            f"--cpu {show_time(cpu * 1e6)} is a part of --service-time, which is {show_time(service_time * 1e6)}"
        )
    share, limit = read_slo(slo)
    sources = read_sources(lab.catalogue, run, RESULTS)
    demand = Demand(connections, rate, service_time - cpu, cpu, share, limit, cores or sources.machine_cores)
    chosen = lab.catalogue.select(models)
    found = rank([advise_model(demand, sources.read(lab.catalogue, model, share)) for model in chosen])
    if as_json:
        click.echo(json.dumps({"sources": sources.notes, "models": [item.as_json() for item in found]}, indent=2))
    else:
        print_advice(demand, found, sources, open_console())
    sys.exit(HELD if any(item.holds for item in found) else DID_NOT_HOLD)
