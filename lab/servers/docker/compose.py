"""Command lines and the environment for Docker Compose, and what `docker compose up` changes."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from lab.base.errors import LabError
from lab.engine.client import is_own_engine
from lab.engine.daemon import read_nofile_limit
from lab.servers.backend import read_limits
from lab.servers.catalogue import Catalogue
from lab.servers.certificates import ensure_certificates
from lab.servers.docker.command import check_engine, end, last_words, make_environ, open_process, read_lines

SHELL = "shell"
# The most that Compose may take to start containers from existing images.
START_SECONDS = 120.0
# The limit of open files that compose.yaml asks for by default.
NOFILE = 16384


class Compose:
    """Compose with the files of a catalogue and the name of a project."""

    def __init__(self, project: str, catalogue: Catalogue) -> None:
        self.project = project
        self.catalogue = catalogue

    def command(self, *more_files: str) -> list[str]:
        """Return `docker compose` with the lab's files, and more files if any (`-` is stdin)."""
        # No .env file: neither the catalogue nor the process backend reads it.
        command = ["docker", "compose", "--ansi", "never", "--env-file", os.devnull, "--project-name", self.project]
        for file in (*map(str, self.catalogue.files), *more_files):
            command += ["--file", file]
        return command

    @property
    def network(self) -> str:
        return f"{self.project}_lab"

    def name_container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def name_model(self, model: str) -> str:
        """Return the name of a model's container, which need not exist.

        Raises:
            CatalogueError: there is no such model.
        """
        return self.name_container(self.catalogue[model].name)

    def name_run(self, service: str) -> str:
        """Make a name for a container of `docker compose run`."""
        return f"{self.project}-{service}-run-{uuid4().hex[:8]}"

    def run_command(
        self, name: str, service: str, arguments: Sequence[str], environ: Iterable[str], *, publish: bool, remove: bool
    ) -> list[str]:
        """Return `docker compose run`. It takes the variables' values from its own environment, which no user sees."""
        # --no-TTY: a program or a log reads its output as often as a terminal does.
        command = [*self.command(), "run", "--no-deps", "--no-TTY", "--name", name]
        if remove:
            command += ["--rm"]
        if publish:
            command += ["--service-ports"]
        for key in environ:
            command += ["--env", key]
        return [*command, service, *arguments]

    def environ(self, *, mutual_tls: bool = False, for_build: bool = False) -> dict[str, str]:
        """Make Compose's environment, with the variables that compose.yaml leaves to the machine.

        These are the folder of the certificates, the CA of a TLS-inspecting proxy (for pip in a build), and the limit
        of open files if the engine's own is lower than the one in compose.yaml.
        """
        environ = make_environ(for_build=for_build)
        environ["LAB_TLS_DIR"] = str(ensure_certificates(self.catalogue.hosts))
        environ["LAB_TLS_CLIENT_CA"] = "/run/secrets/tls_ca" if mutual_tls else ""
        proxy_ca = environ.get("SSL_CERT_FILE", "")
        if Path(proxy_ca).is_file():
            environ.setdefault("LAB_CA_FILE", proxy_ca)
        is_here = is_own_engine(os.environ)
        if is_here and (limit := read_nofile_limit()) is not None and limit < NOFILE:
            environ.setdefault("LAB_NOFILE", str(limit))
        return environ

    def up(self, services: Sequence[str], *, mutual_tls: bool) -> Iterator[str]:
        """Start services, whose images exist; give Compose's messages as they come.

        Raises:
            LabError: it failed; with the line that says why.
        """
        command = [*self.command("-"), "up", "--detach", "--no-build", "--quiet-pull", *services]
        messages = []
        chosen = json.dumps({"services": self._choose_limits(services)})
        process = open_process(command, environ=self.environ(mutual_tls=mutual_tls), stdin=chosen)
        try:
            for line in read_lines(process, time.monotonic() + START_SECONDS):
                if line is not None:
                    messages.append(line)
                    yield line
        finally:
            end(process)
        if process.returncode:
            output = "\n".join(messages)
            check_engine(output)
            raise LabError(last_words(output) or f"`docker compose up` failed: {process.returncode}")

    def _choose_limits(self, services: Sequence[str]) -> Mapping[str, Any]:
        """Return an override for these services: limits in this environment override those in compose.yaml."""
        # Compose reads a dollar sign in a file as the start of a variable.
        limits = {name: value.replace("$", "$$") for name, value in read_limits().items()}
        models = {model.name for model in self.catalogue.models if not model.rfc_only}
        return {name: {"environment": limits} if name in models else {} for name in services}


class Changes:
    """The containers that a `docker compose up` has created, from its messages: ` Container NAME  Creating`."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.is_new = False  # the project had no network, so none of it existed before

    def note(self, line: str) -> None:
        match line.split():
            # "Creating" and not "Created": an interrupted Compose never says the latter.
            case ["Container", name, "Creating"]:
                self.created.append(name)
            case ["Network", _, "Creating"]:
                self.is_new = True
