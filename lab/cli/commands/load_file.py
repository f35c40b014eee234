"""Load a model with ordinary users of Locust: HttpUser and FastHttpUser, or a locustfile of your own."""

import sys
from pathlib import Path

import click

from lab.base.errors import LabError
from lab.cli.commands.load import open_ui, workers_option
from lab.cli.commands.load_gallery import show
from lab.cli.context import DID_NOT_HOLD, HELD, Lab
from lab.cli.params import DURATION, MODEL
from lab.load.locustfiles import HTTP_FILE, choose_host, choose_tags, name_files, place, run_headless
from lab.load.web_ui import check_settings


@click.command("load-file")
@click.argument("model", type=MODEL)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Your locustfile.  [default: loadtests/httpfile.py]",
)
@click.option("--user", "classes", multiple=True, metavar="CLASS", help="Class of users; repeatable.  [default: all]")
@click.option("--users", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Users, of all classes.")
@click.option("--duration", type=DURATION, default="10s", show_default=True, help="Length of a headless run.")
@workers_option
@click.option("--headless", is_flag=True, help="Print a table instead of opening the web UI.")
@click.option("--json", "as_json", is_flag=True, help="Run headless, and print the requests as JSON.")
@click.pass_obj
def load_file(
    lab: Lab,
    model: str,
    file: Path | None,
    classes: tuple[str, ...],
    users: int,
    duration: float,
    workers: int,
    headless: bool,
    as_json: bool,
) -> None:
    """Load a running MODEL or peer with a locustfile, over HTTP.

    Locust's --host is the model's address, so a locustfile with HttpUser or FastHttpUser needs no change. Without
    --file, the two classes RequestsUser and GeventUser ask all routes, and talk over a WebSocket, and check each
    reply.

    Without --headless, Locust's web UI opens on 127.0.0.1:8089 (LAB_UI_PORT).

    The figures are Locust's own. To measure a server, use `lab load --preset closed_http_ping`.

    Exit code 1: a request failed.
    """
    (found,) = lab.catalogue.select([model])
    environ: dict[str, str] = {}
    if file:
        path, environ = place(lab.backend, file)
        locustfiles = name_files(path)
    else:
        locustfiles = [*name_files(HTTP_FILE), *choose_tags(found)]
    chosen = ["--host", choose_host(lab.backend, found), *classes]
    if headless or as_json:
        rows = run_headless(lab.backend.helpers, locustfiles, chosen, users, duration, workers=workers, environ=environ)
        show(rows, as_json=as_json)
        if not rows:
            raise LabError(
                f"no request was sent in {duration:g} s: the locustfile's users may wait for longer than that"
            )
        sys.exit(DID_NOT_HOLD if any(row.failures for row in rows) else HELD)
    check_settings()
    chosen += [] if classes else ["--class-picker"]
    chosen += ["--users", str(users), "--spawn-rate", str(users)]
    open_ui(
        lab.backend,
        [found],
        [*locustfiles, *chosen],
        workers=workers,
        worker_arguments=locustfiles,
        environ=environ,
    )
