"""Run the conformance suite."""

import json
import sys

import click

from lab.base.errors import LabError
from lab.cli.context import DID_NOT_HOLD, HELD, Lab
from lab.cli.tables import show_table


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--target", "targets", multiple=True, metavar="SERVICE=URL", help="A server that is not ours; repeatable."
)
@click.option("--rfc", is_flag=True, help="Hold a --target to RFCs, RESP and textbooks, not to what this lab adds.")
@click.option("--json", "as_json", is_flag=True, help="Each test with its outcome, for a script.")
@click.pass_obj
def check(lab: Lab, models: tuple[str, ...], targets: tuple[str, ...], rfc: bool, as_json: bool) -> None:
    """Prove that models behave: the conformance suite, as a table of model and transport.

    Models that run are checked as they are; if none runs, those asked for are started, and taken down afterwards.
    """
    from lab.experiments.conformance.suite import check_foreign, check_models
    from lab.servers.backend import choose_models

    if targets and models:
        raise LabError("check either models of the catalogue or, with --target, a server of your own")
    if rfc and not targets:
        raise LabError("--rfc goes with --target: what a model is held to stands in compose.yaml (lab.contract)")
    on_terminal = sys.stderr.isatty() and not as_json
    chosen = [] if targets else [model.name for model in choose_models(lab.backend, models)]
    report = (
        check_foreign(targets, rfc_only=rfc, progress=on_terminal)
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
