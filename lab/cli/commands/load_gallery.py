"""Load the gallery's servers."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

import click

from lab.cli.commands.load import open_ui
from lab.cli.context import DID_NOT_HOLD, HELD, Lab
from lab.cli.params import DURATION
from lab.load.gallery import FILE, USERS, choose_users
from lab.load.locustfiles import Step, name_files, run_headless
from lab.report.tables import show_table

_MODELS_FILE = "loadtests/locustfile.py"


@click.command("load-gallery")
@click.argument("kinds", nargs=-1, type=click.Choice(list(USERS)), metavar="[KIND]...")
@click.option("--users", type=click.IntRange(1, 100), default=12, show_default=True, help="Users, of all kinds.")
@click.option("--duration", type=DURATION, default="10s", show_default=True, help="Length of a headless run.")
@click.option("--headless", is_flag=True, help="Print a table instead of opening the web UI.")
@click.option("--json", "as_json", is_flag=True, help="Run headless, and print the steps as JSON.")
@click.pass_obj
def load_gallery(lab: Lab, kinds: tuple[str, ...], users: int, duration: float, headless: bool, as_json: bool) -> None:
    """Load the gallery's servers (see `lab up --profile gallery`), and check every reply.

    KIND is a kind of user: ftp, mail, web, web-churn, xmlrpc or news (default: all whose servers run).

    Without --headless, Locust's web UI opens on 127.0.0.1:8089 (LAB_UI_PORT). It offers the running models as well, if
    no kind is named.

    Exit code 1: a step failed.
    """
    chosen = choose_users(kinds, {state.model for state in lab.backend.gallery() if state.state == "running"})
    if headless or as_json:
        rows = run_headless(lab.backend.helpers, name_files(FILE), chosen, users, duration)
        show(rows, as_json=as_json)
        sys.exit(DID_NOT_HOLD if any(row.failures for row in rows) or not rows else HELD)
    running = {listener.model for listener in lab.backend.targets()}
    models = [] if kinds else [model for model in lab.catalogue.models if model.name in running]
    arguments = ["-f", f"{_MODELS_FILE},{FILE}"] if models else [*name_files(FILE), *chosen]
    arguments += ["--class-picker", "--users", str(users), "--spawn-rate", str(users)]
    open_ui(lab.backend, models, arguments)


def show(rows: Iterable[Step], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    columns = ["protocol", "step", "taken", "failed", "per second", "p50 ms", "p99 ms"]
    ordered = sorted(rows, key=lambda row: row.protocol)
    cells = [
        [row.protocol, row.step, str(row.taken), str(row.failures)]
        + ["" if value is None else f"{value:.3g}" for value in (row.rate, row.p50_ms, row.p99_ms)]
        for row in ordered
    ]
    show_table(columns, cells, group=0)
