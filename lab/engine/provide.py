"""Install the missing parts of Docker, and start the engine."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from shutil import which

from lab.engine import apt, daemon
from lab.engine.client import OWN_HOSTS
from lab.engine.command import PATH, say
from lab.engine.errors import EngineError
from lab.engine.probe import EngineStatus, status

LOCK = Path("/run/lab-engine.lock")
BY_HAND = "provide Docker Engine 20.10 or later with Compose v2 and buildx yourself"


def install() -> EngineStatus:
    """Provide a Docker engine with Compose v2 and buildx; do nothing if they answer.

    Returns:
        The status afterwards.
    Raises:
        EngineError: this user or this machine cannot, or a step has failed.
    """
    now = status()
    if now.is_complete:
        return now
    missing = {problem.part: problem.what for problem in now.problems if problem.part != "base_image"}
    check_able(os.geteuid(), apt.read_release(), os.environ.get("DOCKER_HOST", ""), next(iter(missing.values())))
    with one_at_a_time():
        now = status()  # another process may have done it while this one waited
        parts = {problem.part for problem in now.problems}
        engine = "engine" in parts and which("dockerd", path=PATH) is None
        if engine or parts & {"client", "compose", "buildx"}:
            apt.install_docker(
                client="client" in parts, engine=engine, compose="compose" in parts, buildx="buildx" in parts
            )
        daemon.start()
        now = status()
    if not now.is_complete:
        problem = now.problems[0]
        raise EngineError(f"after the installation {problem.what}", "see `python3 -m lab.engine status`")
    say(f"engine: {now.server_version} answers, compose {now.compose_version}, buildx {now.buildx_version}")
    return now


def check_able(euid: int, release: apt.Release, docker_host: str, missing: str) -> None:
    """Refuse what cannot work here, before anything is changed.

    Raises:
        EngineError: not root, not Debian or Ubuntu, or the client asks another machine's engine.
    """
    if docker_host and docker_host not in OWN_HOSTS:
        raise EngineError(
            f"DOCKER_HOST is {docker_host} ({missing})",
            "an engine cannot be installed there: correct or unset DOCKER_HOST",
        )
    if not release.uses_apt:
        raise EngineError(f"{missing}, and this is neither Debian nor Ubuntu", BY_HAND)
    if euid != 0:
        raise EngineError(f"{missing}, and installing it needs root", f"run `sudo make engine`, or {BY_HAND}")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Make concurrent processes (`make -j`, two sessions) wait for each other."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
