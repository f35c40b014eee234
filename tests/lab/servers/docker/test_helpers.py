"""What the exit code of `docker exec` says: of the command, or that there is no container for it."""

from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.servers.catalogue import Catalogue
from lab.servers.docker.compose import Compose
from lab.servers.docker.helpers import ContainerHelpers

# A client whose `exec` ends with a code, and whose `inspect` says whether the container of the shell runs.
CLIENT = """#!/bin/sh
echo "$1" >> {asked}
case "$1" in
exec) exit {code} ;;
inspect) echo {running} ;;
esac
"""


@pytest.fixture
def helpers() -> ContainerHelpers:
    return ContainerHelpers(Compose("mine", Catalogue.load()))


def put_client(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int, running: str) -> Path:
    """Put the client in the place of Docker's; return the file with the commands that it is asked for."""
    client, asked = folder / "docker", folder / "asked"
    client.write_text(CLIENT.format(asked=asked, code=code, running=running))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return asked


@pytest.mark.parametrize("code", [1, 125, 126, 127])
@pytest.mark.parametrize("running", ["false", ""])
def test_command_without_a_container_says_that_the_lab_is_not_up(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, running: str
) -> None:
    """Without a container, `docker inspect` prints nothing."""
    put_client(monkeypatch, tmp_path, code, running)
    with pytest.raises(LabError, match=r"^the lab mine is not up: `lab up` starts it$"):
        helpers.run(["true"])


@pytest.mark.parametrize(
    ("code", "asked"), [(0, "exec"), (1, "exec inspect"), (2, "exec"), (126, "exec inspect"), (127, "exec inspect")]
)
def test_exit_code_of_a_command_in_a_container_is_its_own(
    helpers: ContainerHelpers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, asked: str
) -> None:
    """A look at the container costs a process, so there is none where it cannot be the reason."""
    commands = put_client(monkeypatch, tmp_path, code, "true")
    assert helpers.run(["false"]).returncode == code
    assert commands.read_text().split() == asked.split()
