"""`lab tour`: the modules of the classic table with their fate; or of some of them, code, output and wire."""

import json
import sys
from typing import TYPE_CHECKING

import click

from lab.base.errors import LabError
from lab.report.tour import COLUMNS, list_facts, make_list, open_console, show
from lab.tour import registry
from lab.tour.runner import Performance
from lab.tour.session import open_gallery
from tools.docs import gallery_page

if TYPE_CHECKING:
    from lab.cli.context import Lab


@click.command()
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@click.option("--all", "everything", is_flag=True, help="Every module.")
@click.option("--json", "as_json", is_flag=True, help="The list, or what came of the modules, for a script.")
@click.option("--record", is_flag=True, help="Keep what came of the modules for docs/gallery.md, and make it anew.")
@click.pass_obj
def tour(lab: "Lab", modules: tuple[str, ...], everything: bool, as_json: bool, record: bool) -> None:
    """See network modules of the standard library at work, each against a real server.

    Without MODULE: which there are, and what became of them. With one, by its name in Python 2 or 3: its servers come
    up, it runs inside the lab's network, and its code, its output and what it said on the wire are shown; then what
    was brought up goes again.
    """
    chosen = registry.find(modules) if modules else registry.load()
    if not (modules or everything or record):
        _list(chosen, as_json=as_json)
        return
    console = open_console()
    performances: list[Performance] = []
    missing: dict[str, str] = {}
    with open_gallery(lab.backend, chosen, fresh=record) as visit:
        for exhibit in chosen:
            reason = visit.why_not(exhibit)
            if reason is None:
                try:
                    performances.append(visit.see(exhibit))
                except LabError as error:
                    reason = str(error)
            if reason is not None:
                missing[exhibit.module] = reason
            elif not as_json and not record:
                show(exhibit, performances[-1], console)
    if as_json:
        click.echo(json.dumps({"tour": [each.as_json() for each in performances], "missing": missing}, indent=1))
    for module, reason in missing.items():
        click.echo(f"not shown: {module}: {reason}", err=True)
    failed = [each.module for each in performances if not each.held]
    if failed:
        click.echo(f"not as it should be: {', '.join(failed)}", err=True)
    if record:
        if failed or missing:
            raise LabError("nothing was recorded: an exhibit that fails has no place on the page")
        gallery_page.record(performances)
        has_changed = gallery_page.write()
        click.echo(f"docs/gallery.md: {'written' if has_changed else 'nothing has changed'}")
    sys.exit(1 if failed or missing else 0)


def _list(exhibits: tuple[registry.Exhibit, ...], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([exhibit.as_json() for exhibit in exhibits], indent=1))
    elif sys.stdout.isatty():
        open_console().print(make_list(exhibits))
    else:
        click.echo("\t".join(COLUMNS))
        for exhibit in exhibits:
            click.echo("\t".join(list_facts(exhibit)))
