"""Facts about the engine and the software of running containers. A fact that is not known is None."""

import contextlib
import json
from collections.abc import Iterable

from lab.base.errors import LabError
from lab.servers.docker.command import run_docker


def read_engine() -> str | None:
    """Return the versions of the Docker engine and, if it is installed as a plugin, of Compose."""
    engine = _ask("version", "--format", "{{.Server.Version}}")
    compose = _ask("compose", "version", "--short")
    if engine is None:
        return None
    return f"Docker Engine {engine}" + (f", Compose {compose}" if compose else "")


def read_versions(logs: Iterable[str]) -> str | None:
    """Return the versions of Python and of the libraries of servers, from the first lines of their logs."""
    found: dict[str, str] = {}
    for line in (line for log in logs for line in log.splitlines() if line.startswith('{"model"')):
        with contextlib.suppress(ValueError, KeyError):
            header = json.loads(line)
            python = "Python" if header.get("gil", True) else "Python without the GIL"
            found |= {python: header["python"]} | header["libraries"]
    return ", ".join(f"{name} {text}" for name, text in found.items()) or None


def _ask(*arguments: str) -> str | None:
    try:
        return run_docker(*arguments, timeout=10).stdout.strip() or None
    except LabError:
        return None
