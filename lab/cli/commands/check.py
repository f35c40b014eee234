"""Run the conformance suite."""

import json
import sys

import click

from lab.base.errors import LabError
from lab.cli.context import DID_NOT_HOLD, HELD, Lab
from lab.cli.params import models_argument
from lab.report.tables import show_table


@click.command()
@models_argument
@click.option("--target", "targets", multiple=True, metavar="SERVICE=URL", help="Check your own server; repeatable.")
@click.option(
    "--rfc", is_flag=True, help="Check a --target against RFCs, RESP and textbooks only, not the lab's additions."
)
@click.option("--json", "as_json", is_flag=True, help="Print each test with its outcome as JSON.")
@click.pass_obj
def check(lab: Lab, models: tuple[str, ...], targets: tuple[str, ...], rfc: bool, as_json: bool) -> None:
    """Run the conformance suite on models (default: all of no profile), and print a table of model and transport.

    If no model is running, the command starts them, and takes them down afterwards.

    Exit code 1: a test failed.
    """
    from lab.experiments.conformance.suite import check_external, check_models
    from lab.servers.backend import choose_models

    if targets and models:
        raise LabError("check either models of the catalogue or a --target")
    if rfc and not targets:
        raise LabError("--rfc goes with --target: compose.yaml (lab.contract) says what a model is checked against")
    on_terminal = sys.stderr.isatty() and not as_json
    chosen = [] if targets else [model.name for model in choose_models(lab.backend, models)]
    report = (
        check_external(targets, rfc_only=rfc, progress=on_terminal)
        if targets
        else check_models(lab.backend, chosen, progress=on_terminal)
    )
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        for failure in report.failures:
            click.echo(f"FAILED {failure.name}\n{failure.detail}\n")
        show_table(*report.table())
        click.echo(report.summary())
    sys.exit(HELD if report.holds else DID_NOT_HOLD)
