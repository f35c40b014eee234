"""Choose the backend of a project: containers, or child processes on loopback."""

import os
import re
import sys

from lab.base.environ import ENV_BACKEND, ENV_PROJECT
from lab.base.errors import EngineAwayError, LabError
from lab.engine import client, daemon, is_running
from lab.servers.backend import Backend
from lab.servers.catalogue import Catalogue
from lab.servers.runtime import find_mark, runtime_directory

PROJECT = "socketlab"
BACKENDS = ("docker", "process")


def open_backend(name: str | None = None, project: str | None = None, *, catalogue: Catalogue | None = None) -> Backend:
    """Open the backend of a project.

    Args:
        name: docker or process. Default: LAB_BACKEND; else the backend on which this project runs; else docker if an
            engine answers; else process, with a line on stderr.
        project: the name that separates labs; several can run at the same time. Default: LAB_PROJECT; if that variable
            is not set, socketlab. An empty name is an error: nothing says which lab was meant.
        catalogue: default: that of this project's compose.yaml.

    Raises:
        LabError: an invalid name, or a compose file that cannot be used.
    """
    name = name or os.environ.get(ENV_BACKEND)
    project = check_project(project)
    catalogue = catalogue or Catalogue.load()
    # Each backend is imported only where it is used: psutil alone costs a tenth of the start of a command.
    match name or _find(project):
        case "docker":
            from lab.servers.docker.containers import Containers

            return Containers(project, catalogue)
        case "process":
            from lab.servers.processes import Processes

            return Processes(project, catalogue)
    raise LabError(f"unknown backend {name!r}; known: {', '.join(BACKENDS)}")


def check_project(project: str | None) -> str:
    """Return the name of a project, as `open_backend` chooses it.

    Raises:
        LabError: an invalid name.
    """
    if project is None:
        project = os.environ.get(ENV_PROJECT, PROJECT)
    # Compose's rule for project names; the length leaves room for the path of a Unix socket, at most 107 bytes.
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", project):
        raise LabError(
            f"{project!r} is not a valid project name: use at most 40 of small letters, digits, _ and -, "
            "beginning with a letter or digit"
        )
    return project


def _find(project: str) -> str:
    if runtime_directory(project).exists():
        return "process"
    if has_engine():
        return "docker"
    if find_mark(project).exists():
        raise EngineAwayError(
            f"project {project} was started in containers, and no Docker engine answers: start the engine "
            "(`lab doctor` says how), or use --backend process"
        )
    print("lab: no Docker engine answers, so models run as processes on loopback", file=sys.stderr)
    return "process"


def has_engine() -> bool:
    """Return whether a Docker engine answers. The socket is tried first, which is faster than the Docker client."""
    return (client.is_own_engine(os.environ) and daemon.is_answering()) or is_running()
