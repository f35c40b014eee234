"""What both backends say of themselves, and where their helpers listen."""

import platform
import socket
from importlib.metadata import version
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.servers import process_helpers
from lab.servers.backend import Backend
from lab.servers.catalogue import Catalogue
from lab.servers.docker import containers
from lab.servers.docker.containers import Containers
from lab.servers.processes import Processes

CATALOGUE = Catalogue.load()
MODELS = [CATALOGUE["plain_socket"], CATALOGUE["twisted_reactor"]]


@pytest.fixture
def process() -> Backend:
    return Processes("t-facts", CATALOGUE)


@pytest.fixture
def container() -> Backend:
    return Containers("t-facts", CATALOGUE)


def test_helper_of_a_process_listens_on_loopback(process: Backend) -> None:
    assert process.helpers.choose_bind(8089, local=7) == ("127.0.0.1", 7)
    host, port = process.helpers.choose_bind(5557)
    with socket.create_server((host, port)) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("10005\t65535\n", range(10_000, 10_005)),
        ("1024\t65529\n", range(65_530, 65_536)),
        ("1024\t65535\n", range(1024, 65_536)),  # all may be given to others
    ],
    ids=["below", "above", "everywhere"],
)
def test_port_is_outside_of_those_that_the_kernel_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, found: range
) -> None:
    monkeypatch.setattr(process_helpers, "_GIVEN_PORTS", tmp_path / "range")
    (tmp_path / "range").write_text(given)
    assert {process_helpers.find_port() for _ in range(20)} <= {*found}


def test_port_in_use_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(process_helpers, "_FIRST_PORT", taken)
        monkeypatch.setattr(process_helpers, "_GIVEN_PORTS", tmp_path / "range")
        (tmp_path / "range").write_text(f"{taken + 1}\t65535\n")  # so that there is no other one
        assert process_helpers.find_port() != taken


def test_helper_in_a_container_listens_on_all_its_addresses(container: Backend) -> None:
    assert container.helpers.choose_bind(8089, local=7) == ("*", 8089)
    assert container.helpers.choose_bind(5557) == ("*", 5557)


def test_shell_is_the_users_or_that_of_the_container(
    process: Backend, container: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/odd")
    assert process.helpers.find_shell() == "/bin/odd"
    monkeypatch.delenv("SHELL")
    assert process.helpers.find_shell() == "sh"
    assert container.helpers.find_shell() == "bash"


def test_process_is_described_by_this_machine(process: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.describe() == {"backend": "process"}
    versions = f"Python {platform.python_version()}, twisted {version('twisted')}"
    assert process.describe_models(MODELS) == {"servers": versions}
    monkeypatch.setenv("PYTHONMALLOC", "odd")
    assert process.environ("plain_socket")["PYTHONMALLOC"] == "odd"


def test_container_is_described_by_its_log_and_its_image(container: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = {
        "plain_socket": '{"model": "plain_socket", "python": "3.13.1", "libraries": {}}\n{"model": broken\nTraceback\n',
        "twisted_reactor": '{"model": "twisted_reactor", "python": "3.13.1", "libraries": {"twisted": "24"}}\n',
        "threads_nogil": '{"model": "threads_nogil", "python": "3.13.2", "gil": false, "libraries": {}}\n',
    }

    def read_log(model: str) -> str:
        if model not in logs:
            raise LabError("not started")
        return logs[model]

    monkeypatch.setattr(container, "logs", read_log)
    monkeypatch.setattr("lab.servers.docker.model_container.read_images", " ".join)
    monkeypatch.setattr(containers, "read_engine", lambda: "Docker Engine 20")
    assert container.describe() == {"backend": "docker", "engine": "Docker Engine 20"}
    models = [*MODELS, CATALOGUE["threads_nogil"], CATALOGUE["prefork"]]
    assert container.describe_models(models) == {
        "servers": "Python 3.13.1, twisted 24, Python without the GIL 3.13.2",
        "images": "plain_socket twisted_reactor threads_nogil prefork",
    }
    assert container.environ("thread_pool") == CATALOGUE.environ("thread_pool")


def test_only_containers_have_controls_of_containers(process: Backend, container: Backend) -> None:
    assert process.faults.container is None
    assert container.faults.container is not None
    assert (process.in_containers, container.in_containers) == (False, True)


def test_container_has_more_time_to_recover_than_a_process(process: Backend, container: Backend) -> None:
    """In seconds: a fault counts as not healed after them."""
    assert (process.faults.recovery_seconds, container.faults.recovery_seconds) == (1.0, 2.0)
