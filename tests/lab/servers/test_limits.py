"""The variables of the servers' limits, set for `lab up`: each reaches the server on both backends."""

import json
import signal
from collections.abc import Callable
from dataclasses import fields
from subprocess import CompletedProcess

import pytest

from lab.experiments.theory import Server
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from lab.servers.docker.model_container import open_client
from lab.servers.open import open_backend
from lab.servers.processes import Processes
from services.protocol.limits import Limits

Lab = Callable[..., "CompletedProcess[str]"]
Run = Callable[..., int]

DOCKER = pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.xdist_group("labs")])
# None is a default, and none is what compose.yaml gives a model.
CHOSEN = {
    "LAB_MAX_LINE": 1001,
    "LAB_MAX_BULK": 1002,
    "LAB_MAX_ARRAY": 103,
    "LAB_MAX_REQUEST": 100_004,
    "LAB_MAX_TRANSACTION": 100_005,
    "LAB_MAX_PIPELINE": 105,
    "LAB_MAX_SLEEP_MS": 1006,
    "LAB_MAX_BURN": 1007,
    "LAB_MAX_BLOB": 1008,
    "LAB_HTTP_MAX_LINE": 1009,
    "LAB_HTTP_MAX_HEADERS": 31,
    "LAB_HTTP_MAX_HEADER_BYTES": 1010,
    "LAB_HTTP_MAX_BODY": 1011,
    "LAB_HTTP_HEAD_SECONDS": 3.5,
    "LAB_HTTP_BODY_RATE": 112,
    "LAB_HTTP_MAX_REQUESTS": 1013,
    "LAB_WS_MAX_FRAME": 1014,
    "LAB_WS_MAX_MESSAGE": 1015,
    "LAB_WS_MAX_INFLATED": 1016,
    "LAB_IDLE_SECONDS": 7.5,
    "LAB_MAX_CONNECTIONS": 110,
    "LAB_BACKLOG": 111,
    "LAB_WORKERS": 3,
    "LAB_REUSEPORT": 1,
    "LAB_LINGER_SECONDS": 1.25,
    "LAB_GRACE_SECONDS": 1.5,
}
NAMES = {item.metadata["variable"]: item.name for item in fields(Limits)}


def read_limits(run: Run, options: list[str], model: str, capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the INFO of a server."""
    capfd.readouterr()
    assert run(*options, "call", model, "command", "INFO") == 0
    said = capfd.readouterr().out
    return dict(line.strip().split(":", 1) for line in said.splitlines() if ":" in line)


def identify(backend: str, project: str, model: str) -> str:
    """Return an id that changes with each start of the server."""
    lab = open_backend(backend, project)
    if isinstance(lab, Processes):
        return str(lab.pid(model))
    assert isinstance(lab, Containers)
    with open_client() as client:
        return str(client.containers.get(lab.container_name(model)).id)


def test_every_variable_is_tested() -> None:
    assert set(CHOSEN) == set(NAMES)


@pytest.mark.parametrize("backend", ["process", DOCKER])
def test_server_obeys_every_variable(
    lab: Lab,
    run_here: Run,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
    backend: str,
) -> None:
    """Also the one that compose.yaml sets for a model: 1100 connections for socketserver_threading."""
    project = request.getfixturevalue(f"{backend}_project")
    options = ["--backend", backend, "--project", project]
    models = ["thread_pool", "socketserver_threading"]
    environ = {name: str(value) for name, value in CHOSEN.items()}
    opened = open_backend(backend, project)
    try:
        assert lab(*options, "up", *models, environ=environ).returncode == 0
        for model in models:
            found = read_limits(run_here, options, model, capfd)
            assert {name: float(found[NAMES[name]]) for name in CHOSEN} == CHOSEN
        # As they were, after a restart by a lab that has no such variables.
        opened.restart("thread_pool")
        assert float(read_limits(run_here, options, "thread_pool", capfd)["idle"]) == 7.5
        # Other variables: started again with those. The same ones: left alone.
        started = identify(backend, project, "socketserver_threading")
        assert lab(*options, "up", "socketserver_threading", environ=environ).returncode == 0
        assert identify(backend, project, "socketserver_threading") == started
        assert lab(*options, "up", *models, environ={"LAB_IDLE_SECONDS": "8"}).returncode == 0
        assert identify(backend, project, "socketserver_threading") != started
        found = read_limits(run_here, options, "socketserver_threading", capfd)
        assert (float(found["idle"]), found["connections"]) == (8, "1100")
    finally:
        opened.down()


@pytest.mark.parametrize("backend", ["process", DOCKER])
def test_invalid_limit_is_named(
    run_here: Run,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    backend: str,
) -> None:
    """A dollar sign reaches the server unchanged."""
    project = request.getfixturevalue(f"{backend}_project")
    options = ["--backend", backend, "--project", project]
    monkeypatch.setenv("LAB_BACKLOG", "$HOME$$")
    assert run_here(*options, "up", "plain_socket") == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert "LAB_BACKLOG='$HOME$$' is not a whole number of at least 1" in said.err


def test_mutual_tls_is_kept_by_a_restart(process_project: str) -> None:
    backend = Processes(process_project, Catalogue.load())
    try:
        backend.up(["plain_socket"], mutual_tls=True)
        first = json.loads((backend._directory / "plain_socket.json").read_text())
        backend.faults.kill("plain_socket", signal.SIGKILL)
        backend.restart("plain_socket")
        again = json.loads((backend._directory / "plain_socket.json").read_text())
        assert first["settings"]["LAB_TLS_CLIENT_CA"]
        assert again["settings"] == first["settings"]
        assert again["pid"] != first["pid"]
        backend.up(["plain_socket"])
        last = json.loads((backend._directory / "plain_socket.json").read_text())
        assert last["settings"]["LAB_TLS_CLIENT_CA"] == ""
    finally:
        backend.down()


def test_theory_uses_the_chosen_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue.load()
    usual = Server.of(catalogue, catalogue["thread_pool"])
    monkeypatch.setenv("LAB_WORKERS", "3")
    monkeypatch.setenv("LAB_MAX_CONNECTIONS", "9")
    chosen = Server.of(catalogue, catalogue["thread_pool"])
    assert usual is not None
    assert chosen is not None
    assert (usual.workers, chosen.workers, chosen.connections) == (64, 3, 9)
