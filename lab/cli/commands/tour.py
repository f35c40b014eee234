"""Show network modules of the standard library against real servers."""

import json
import sys
from dataclasses import asdict

import click

from lab.base.errors import LabError
from lab.cli.context import DID_NOT_HOLD, HELD, Lab
from lab.report.terminal import open_console
from lab.report.tour import COLUMNS, LOG_WIDTH, list_facts, make_list, show
from lab.tour import registry
from lab.tour.runner import ExhibitRun
from lab.tour.session import open_gallery


@click.command()
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@click.option("--all", "everything", is_flag=True, help="Every module.")
@click.option("--json", "as_json", is_flag=True, help="Print the list, or the results, as JSON.")
@click.pass_obj
def tour(lab: Lab, modules: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Show network modules of the standard library at work, each against a real server.

    Without MODULE, the command lists the modules and their status in current Python. MODULE is a name in Python 2 or
    3: the command starts its servers, runs it inside the lab's network, shows its code, its output and its traffic,
    and takes the servers down.

    Exit code 1: a module failed, or could not be shown.
    """
    chosen = registry.find(modules) if modules else registry.load()
    if not (modules or everything):
        _list(chosen, as_json=as_json)
        return
    console = open_console(LOG_WIDTH)
    runs: list[ExhibitRun] = []
    missing: dict[str, str] = {}
    with open_gallery(lab.backend, chosen) as session:
        for exhibit in chosen:
            reason = session.find_obstacle(exhibit)
            if reason is None:
                try:
                    runs.append(session.run(exhibit))
                except LabError as error:
                    reason = str(error)
            if reason is not None:
                missing[exhibit.module] = reason
            elif not as_json:
                show(exhibit, runs[-1], console)
    if as_json:
        click.echo(json.dumps({"tour": [asdict(each) for each in runs], "missing": missing}, indent=1))
    for module, reason in missing.items():
        click.echo(f"not shown: {module}: {reason}", err=True)
    failed = [each.module for each in runs if not each.held]
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
    sys.exit(DID_NOT_HOLD if failed or missing else HELD)


def _list(exhibits: tuple[registry.Exhibit, ...], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([exhibit.as_json() for exhibit in exhibits], indent=1))
    elif sys.stdout.isatty():
        open_console(LOG_WIDTH).print(make_list(exhibits))
    else:
        click.echo("\t".join(COLUMNS))
        for exhibit in exhibits:
            click.echo("\t".join(list_facts(exhibit)))
