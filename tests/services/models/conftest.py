"""Every model as a process, started for one test."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.servers.catalogue import Catalogue
from tests.support.kernel import Kernel
from tests.support.servers import Server

CATALOGUE = Catalogue.load()


@pytest.fixture(params=[model.name for model in CATALOGUE.select()])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(model: str, tmp_path: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(kernel: Kernel | None = None, **environ: str) -> Server:
        directory = tmp_path / f"s{len(servers)}"
        directory.mkdir()
        servers.append(Server(model, directory, environ, kernel))
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


@pytest.fixture
def is_sequential(model: str) -> bool:
    return "overlap" in CATALOGUE[model].limits
