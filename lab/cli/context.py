"""The lab that the options before a command select, and the exit codes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lab.servers.backend import Backend
    from lab.servers.catalogue import Catalogue

HELD, DID_NOT_HOLD, COULD_NOT_RUN, INTERRUPTED = 0, 1, 2, 130


def say(line: str) -> None:
    """Print a line on stderr: stdout is for results."""
    click.echo(line, err=True)


@dataclass
class Lab:
    """The selected lab. Its parts are opened when a command first needs them."""

    project: str | None
    backend_name: str | None
    file: Path | None

    @cached_property
    def catalogue(self) -> "Catalogue":
        from lab.servers.catalogue import Catalogue

        return Catalogue.load(self.file)

    @cached_property
    def backend(self) -> "Backend":
        from lab.servers.open import open_backend

        return open_backend(self.backend_name, self.project, catalogue=self.catalogue)
