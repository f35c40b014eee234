"""Start each model as a process, which all hostile tests share. Each test must leave it unchanged."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.live import ENVIRON
from lab.servers.catalogue import Catalogue
from tests.support.servers import Server

CATALOGUE = Catalogue.load()
TIMEOUT = 10.0

# So small that little must be sent to reach it.
HTTP_BODY = 10_000


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "capability(name): what a model must be able to do, unless it declares a limit")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with `roomy` or `tight` for each model; a declared limit is a strict expected failure."""
    for fixture in {"roomy", "tight"} & set(metafunc.fixturenames):
        capabilities = [marker.args[0] for marker in metafunc.definition.iter_markers("capability")]
        parameters = []
        for model in CATALOGUE.select():
            reasons = [model.limits[name] for name in capabilities if name in model.limits]
            marks = [pytest.mark.xfail(reason=reason, strict=True) for reason in reasons]
            marks.append(
                pytest.mark.xdist_group(f"faults-{model.name}")
            )  # otherwise each worker of xdist starts every model
            parameters.append(pytest.param(model.name, id=model.name, marks=marks))
        metafunc.parametrize(fixture, parameters, indirect=True, scope="session")


@pytest.fixture(scope="session")
def roomy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with 300 connections, long timeouts, and short requests; a head of HTTP has little time."""
    environ = {
        "LAB_MAX_CONNECTIONS": "300",
        "LAB_HTTP_HEAD_SECONDS": str(3 * float(os.environ.get("LAB_TIME_UNIT", "0.1"))),
        "LAB_HTTP_MAX_BODY": str(HTTP_BODY),
    }
    with serve(request.param, tmp_path_factory.mktemp("roomy"), **environ, **ENVIRON) as server:
        yield server


@pytest.fixture(scope="session")
def tight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with eight connections and short timeouts."""
    unit = float(os.environ.get("LAB_TIME_UNIT", "0.1"))
    environ = {
        "LAB_MAX_CONNECTIONS": "8",
        "LAB_IDLE_SECONDS": str(5 * unit),
        "LAB_LINGER_SECONDS": str(3 * unit),
    }
    with serve(request.param, tmp_path_factory.mktemp("tight"), **environ) as server:
        yield server


@contextmanager
def serve(model: str, directory: Path, **environ: str) -> Iterator[Server]:
    with Server(model, directory, environ) as server:
        yield server
        server.terminate()
        code, log = server.wait_end(), server.log.read_text()
        is_clean = code == 0 and "Traceback" not in log
        assert is_clean, f"ended with exit code {code}; its log:\n{log}"


@pytest.fixture
def client_timeout(request: pytest.FixtureRequest, unit: float) -> float:
    """Return the timeout of a client that should not have to wait: short for an expected failure."""
    return 5 * unit if request.node.get_closest_marker("xfail") else TIMEOUT
