"""Fixtures of the lab's tests: unique project names, and checks for leftovers."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import docker
import psutil
import pytest

from lab.base.environ import ENV_BACKEND, ENV_PROJECT
from lab.base.paths import ROOT
from lab.cli import main
from lab.engine import status
from lab.servers.catalogue import Catalogue
from lab.servers.docker.cleanup import purge
from lab.servers.processes import Processes
from lab.servers.runtime import runtime_directory

MODELS = ("plain_socket", "asyncio_streams")
PROJECT_LABEL = "com.docker.compose.project"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker engine with Compose and buildx")


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the clock of the wall be 14 hours ahead of UTC."""
    monkeypatch.setenv("TZ", "XXX-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine of this machine. If one is required and none answers, the test fails and is not skipped."""
    now = status()
    if not now.is_complete:
        reason = f"{now.problems[0].what}: {now.problems[0].fix}"
        if os.environ.get("CI") == "true" or os.environ.get("LAB_REQUIRE_DOCKER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    client = docker.from_env()
    yield client
    client.close()


Find = Callable[[str], list[str]]


@pytest.fixture(scope="session")
def find_of_project(engine: docker.DockerClient) -> Find:
    """Return the names of all parts of a project in the engine."""

    def find(project: str) -> list[str]:
        label = {"label": f"{PROJECT_LABEL}={project}"}
        found = [*engine.api.containers(all=True, filters=label), *engine.api.networks(filters=label)]
        volumes = engine.api.volumes(filters=label)["Volumes"] or []
        return [item.get("Name") or item["Names"][0] for item in [*found, *volumes]]

    return find


def find_processes(project: str) -> list[psutil.Process]:
    """Return all processes of a project."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("LAB_RUNTIME") == str(runtime_directory(project)):
                found.append(process)
    return found


@pytest.fixture
def process_project() -> Iterator[str]:
    """A name for a lab of processes; fails the test if a process, a socket or a file of it is left."""
    project = f"t{uuid4().hex[:8]}"
    yield project
    left = find_processes(project)
    for process in left:
        process.kill()
    assert not left
    assert not runtime_directory(project).exists()


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    """A project whose MODELS run as processes, for tests that do not change them."""
    backend = Processes(f"t{uuid4().hex[:8]}", Catalogue.load())
    try:
        backend.up(MODELS)
        yield backend.project
    finally:
        backend.down()


@pytest.fixture
def docker_project(find_of_project: Find) -> Iterator[str]:
    """A name for a lab of containers; fails the test if a container, a network or a volume of it is left."""
    project = f"t{uuid4().hex[:8]}"
    yield project
    left = find_of_project(project)
    if left:
        purge(project)
    assert not left


Lab = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lab() -> Lab:
    """Run the command `lab` as a user does."""

    def run(*arguments: str, environ: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "lab", *arguments],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command `lab` in this process, which is faster; return its exit code."""

    def run(*arguments: str) -> int:
        for name in (ENV_PROJECT, ENV_BACKEND):  # the command sets them for the processes that it starts
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setattr(sys, "argv", ["lab", *arguments])
        return main._run()

    return run


@pytest.fixture
def lab_here(run_here: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Lab:
    """Run the command as `lab` does, in this process, which saves half a second of CPU each time.

    Not for an `up` of processes: they would be children of this process.
    """

    def run(*arguments: str, environ: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (environ or {}).items():
                patch.setenv(name, value)
            code = run_here(*arguments)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


def copy_catalogue(folder: Path, override: str) -> Path:
    """Copy the project's compose file, and put an override beside it."""
    path = folder / "compose.yaml"
    path.write_text((ROOT / "compose.yaml").read_text().replace("context: .", f"context: {ROOT}"))
    path.with_name("compose.override.yaml").write_text(override)
    return path


def run_once(image: str, *command: str, options: Sequence[str] = ()) -> str:
    """What a command in a container of its own prints. By the client, which is attached before the container starts:
    who asks for the log afterwards may find that of a short one empty.
    """
    call = ["docker", "run", "--rm", *options, image, *command]
    return subprocess.run(call, capture_output=True, text=True, check=True, timeout=120).stdout
