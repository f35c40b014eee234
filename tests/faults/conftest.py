"""Every model as a process of its own, shared by the tests that are rude to it: each must leave it as it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.live import ENVIRON
from lab.servers.catalogue import Catalogue
from tests.support.servers import Server

CATALOGUE = Catalogue.load()
PATIENCE = 10.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "capability(name): what a model must be capable of, unless it says it is not")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `roomy` or `tight` is run for each model; a declared limit is a strict expected failure."""
    for fixture in {"roomy", "tight"} & set(metafunc.fixturenames):
        capabilities = [marker.args[0] for marker in metafunc.definition.iter_markers("capability")]
        parameters = []
        for model in CATALOGUE.select():
            reasons = [model.limits[name] for name in capabilities if name in model.limits]
            marks = [pytest.mark.xfail(reason=reason, strict=True) for reason in reasons]
            marks.append(pytest.mark.xdist_group(f"faults-{model.name}"))  # or each worker would start all of them
            parameters.append(pytest.param(model.name, id=model.name, marks=marks))
        metafunc.parametrize(fixture, parameters, indirect=True, scope="module")


@pytest.fixture(scope="module")
def roomy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with room for everybody here, all the time in the world, and no request that keeps it busy for long."""
    with serve(request.param, tmp_path_factory.mktemp("roomy"), LAB_MAX_CONNECTIONS="300", **ENVIRON) as server:
        yield server


@pytest.fixture(scope="module")
def tight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with eight places and little patience."""
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
        assert is_clean, f"ended with exit code {code} after this:\n{log}"


@pytest.fixture
def patience(request: pytest.FixtureRequest, unit: float) -> float:
    """How many seconds a client waits that should not have to: half of one where it is known to be in vain."""
    return 5 * unit if request.node.get_closest_marker("xfail") else PATIENCE
