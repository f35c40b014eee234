"""Ask the Docker client and its engine for their versions and settings."""

import json
import os
from dataclasses import dataclass, replace
from subprocess import CompletedProcess
from typing import Any

from lab.engine.client import is_own_engine
from lab.engine.command import run
from lab.engine.daemon import read_nofile_limit

BASE_IMAGE = "debian:trixie-slim"
ASK_SECONDS = 20.0  # a remote engine over ssh takes seconds; one that takes longer is too slow for a lab


@dataclass(frozen=True, slots=True)
class Problem:
    """A part that is missing or does not answer, and how to fix it."""

    part: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The state of Docker on this machine. None means unknown; `problems` says why.

    The parts in `problems` are: client, engine, compose, buildx, base_image.
    """

    reachable: bool
    client_version: str | None
    server_version: str | None
    compose_version: str | None
    buildx_version: str | None
    base_image: str | None
    storage_driver: str | None
    cgroup_version: str | None
    cgroup_driver: str | None
    nofile_limit: int | None  # the highest limit of open files for a container; None: no limit, or unknown
    problems: tuple[Problem, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the engine answers, and the client has Compose v2 and buildx."""
        return not {"client", "engine", "compose", "buildx"} & {problem.part for problem in self.problems}


def status() -> EngineStatus:
    """Ask the Docker client, which asks its engine and its plugins. It takes about 0.2 s."""
    info = _info()
    # Only if the engine has answered: over a network a question can take the whole of ASK_SECONDS.
    inspect = ["docker", "image", "inspect", "--format", "{{.Id}}", BASE_IMAGE]
    image = run(inspect, timeout=ASK_SECONDS).stdout if info.returncode == 0 else ""
    known = read_status(info.returncode, info.stdout, info.stderr, image)
    # The limit is that of this machine's engine. It does not hold for a remote one, or one that does not answer.
    is_here = known.reachable and is_own_engine(os.environ)
    return replace(known, nofile_limit=read_nofile_limit()) if is_here else known


def is_complete() -> bool:
    """Return whether the engine, Compose v2 and buildx all answer; faster than `status`."""
    info = _info()
    return read_status(info.returncode, info.stdout, info.stderr, image="").is_complete


def is_running() -> bool:
    """Return whether a Docker engine answers the Docker client (its context or DOCKER_HOST included)."""
    return run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=ASK_SECONDS).returncode == 0


def _info() -> CompletedProcess[str]:
    return run(["docker", "info", "--format", "{{json .}}"], timeout=ASK_SECONDS)


def read_status(code: int, info: str, stderr: str, image: str) -> EngineStatus:
    """Read the status from the client's output.

    Args:
        info: its stdout, a JSON object. If no engine answers, it has `ServerErrors`.
        stderr: its stderr.
        image: the id of the base image; empty if the engine has none.
    """
    try:
        fields: dict[str, Any] = json.loads(info)
    except ValueError:
        fields = {}
    client: dict[str, Any] = fields.get("ClientInfo") or {}
    plugins = {plugin["Name"]: plugin.get("Version") for plugin in client.get("Plugins") or []}
    server = fields.get("ServerVersion") or None
    compose = _at_least_2(plugins.get("compose"))
    problems: list[Problem] = []
    if code == 127:
        problems.append(Problem("client", "there is no `docker` on PATH", "run `make engine` as root"))
    if server is None:
        problems.append(explain_away("; ".join(fields.get("ServerErrors") or []) or stderr.strip()))
    if compose is None:
        problems.append(Problem("compose", "the client has no plugin Compose v2", "run `make engine` as root"))
    if plugins.get("buildx") is None:
        problems.append(Problem("buildx", "the client has no plugin buildx", "run `make engine` as root"))
    if not image.strip():
        what = f"the engine has no image {BASE_IMAGE}" if server else f"no engine to ask for {BASE_IMAGE}"
        problems.append(Problem("base_image", what, "run `python3 -m lab.engine base`"))
    return EngineStatus(
        reachable=server is not None,
        client_version=client.get("Version"),
        server_version=server,
        compose_version=compose,
        buildx_version=plugins.get("buildx"),
        base_image=image.strip() or None,
        storage_driver=(fields.get("Driver") or None) if server else None,
        cgroup_version=(fields.get("CgroupVersion") or None) if server else None,
        cgroup_driver=(fields.get("CgroupDriver") or None) if server else None,
        nofile_limit=None,
        problems=tuple(problems),
    )


def _at_least_2(version: str | None) -> str | None:
    return None if version is None or version.lstrip("v").startswith(("0.", "1.")) else version


def explain_away(said: str) -> Problem:
    """Return what to do when no engine answers; `said` is the client's error message."""
    host = os.environ.get("DOCKER_HOST")
    if "permission denied" in said.lower():
        fix = "run it as root, or add this user to the group `docker` and log in again"
    elif host:
        fix = f"start the engine at DOCKER_HOST={host}, or unset DOCKER_HOST"
    else:
        fix = "run `make engine` as root, or start a Docker engine of your own"
    what = said.splitlines()[0].removesuffix(" Is the docker daemon running?").rstrip(".") if said else ""
    return Problem("engine", what or "no Docker engine answers", fix)
