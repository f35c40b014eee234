"""`make screenshot`: make docs/load.png again, a load of every model in Locust's web UI.

It starts a separate lab, loads it from the page with a browser, and takes it down.
"""

import sys
from pathlib import Path

import click
from rich.console import Console

from lab.base.environ import ENV_TELEMETRY
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.environment import describe_environment
from lab.load.generator import open_generator
from lab.load.measurement import encode_targets
from lab.load.telemetry import send_telemetry
from lab.servers.backend import choose_models
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from tools.browser import visit

PROJECT = "socketlab-picture"
PICTURE = ROOT / "docs" / "load.png"
LIVE = ROOT / "docs" / "live.png"
_USERS_EACH = 4


def take(console: Console, path: Path) -> str:
    """Take the picture.

    Returns:
        What it was taken of, and where, for the caption.

    Raises:
        LabError: it could not be taken.
    """
    backend = Containers(PROJECT, Catalogue.load())
    try:
        chosen = choose_models(backend)
        console.print(f"starting {len(chosen)} models", style="dim")
        backend.up(chosen, timeout=60)
        names = [model.name for model in chosen]
        environ = {"LAB_TARGETS": encode_targets(backend.targets())}
        own = {ENV_TELEMETRY: "stdin"}
        arguments = ["--web-port", "8089", "--loglevel", "WARNING"]
        with (
            open_generator(backend.helpers, arguments, workers=0, environ=environ, own=own) as generator,
            send_telemetry(backend, names, generator.main),
        ):
            console.print("visiting Locust's web UI; the first time, the browser's image is built", style="dim")
            users = [str(_USERS_EACH * len(names))]
            # A connection for 50 requests each: on a held one, a model that serves one at a time would starve the
            # others, and their rows would be empty.
            choices = {"userCount": users, "spawnRate": users, "models": names, "workload": ["session"]}
            seen = visit(backend.helpers, f"http://{generator.main.host}:8089", choices=choices)
    finally:
        backend.down()
    path.write_bytes(seen.pictures["light"])
    LIVE.write_bytes(seen.pictures["live 1280 light"])
    facts = describe_environment(backend.describe())
    return f"{facts['date']}, commit {facts['commit']}: {facts['processor']}, {facts['engine']}"


def main() -> int:
    """Take it, and print the caption."""
    try:
        caption = take(Console(stderr=True, highlight=False), PICTURE)
    except LabError as error:
        click.echo(f"screenshot: {error}", err=True)
        return 2
    click.echo(f"{PICTURE.relative_to(ROOT)}: {caption}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
