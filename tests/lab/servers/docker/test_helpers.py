"""Programs in containers: what an exit code of `docker exec` says, and what is left of a run that is broken off."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from lab.base.errors import LabError
from lab.servers.catalogue import Catalogue
from lab.servers.docker import helpers as helpers_module
from lab.servers.docker.compose import Compose
from lab.servers.docker.helpers import ContainerHelpers
from tests.support.docker_client import put_docker


@pytest.fixture
def helpers() -> ContainerHelpers:
    return ContainerHelpers(Compose("mine", Catalogue.load()))


@pytest.mark.parametrize("code", [1, 125, 126, 127])
@pytest.mark.parametrize("running", ["false", ""])
def test_command_without_a_container_says_that_the_lab_is_not_up(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, running: str
) -> None:
    """Without a container, `docker inspect` prints nothing."""
    put_docker(monkeypatch, tmp_path, {"exec": code, "inspect": running})
    with pytest.raises(LabError, match=r"^the lab mine is not up: `lab up` starts it$"):
        helpers.run(["true"])


@pytest.mark.parametrize(
    ("code", "asked"), [(1, ["exec", "inspect"]), (2, ["exec"]), (126, ["exec", "inspect"]), (127, ["exec", "inspect"])]
)
def test_exit_code_of_a_command_in_a_container_is_its_own(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, asked: list[str]
) -> None:
    """A look at the container costs a process, so there is none where it cannot be the reason."""
    commands = put_docker(monkeypatch, tmp_path, {"exec": code, "inspect": "true"})
    assert helpers.run(["false"]).returncode == code
    assert [line.split()[0] for line in commands()] == asked


@pytest.mark.parametrize("reason", [KeyboardInterrupt, LabError])
def test_container_of_a_run_that_is_broken_off_is_removed(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reason: type[BaseException]
) -> None:
    """By Ctrl-C, or since it took too long: the client has ended then, and the container has not."""
    started: list[str] = []

    def break_off(command: Sequence[str], **_: object) -> NoReturn:
        started.extend(command)
        raise reason

    monkeypatch.setattr(helpers_module, "build_images", lambda *_: None)
    monkeypatch.setattr(helpers_module, "call", break_off)
    monkeypatch.setattr("lab.servers.docker.compose.ensure_certificates", lambda _: tmp_path)
    asked = put_docker(monkeypatch, tmp_path, {})
    with pytest.raises(reason):
        helpers.run_service("tests", ["-q"])
    name = started[started.index("--name") + 1]
    assert name.startswith("mine-tests-run-")
    assert asked() == [f"container rm --force --volumes {name}"]
