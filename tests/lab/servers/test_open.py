"""On which backend a project runs."""

from pathlib import Path

import pytest

from lab.base.errors import EngineAwayError, LabError
from lab.engine import client, daemon
from lab.servers import open as opening
from lab.servers.catalogue import Catalogue
from lab.servers.open import check_project, has_engine, open_backend
from lab.servers.runtime import find_mark, runtime_directory

CATALOGUE = Catalogue.load()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("LAB_BACKEND", raising=False)


@pytest.mark.parametrize(
    ("name", "variable", "runs", "engine", "opened"),
    [
        # What is said comes first: the option, then the variable.
        ("process", "docker", None, True, "process"),
        ("docker", "process", "process", False, "docker"),
        (None, "docker", "process", False, "docker"),
        (None, "process", "docker", True, "process"),
        # Then where it runs already, and then the engine.
        (None, "", "process", True, "process"),
        (None, None, None, True, "docker"),
        (None, None, "docker", True, "docker"),
        (None, None, None, False, "process"),
    ],
)
def test_backend_is_the_named_one_or_that_of_the_lab_or_docker(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str | None,
    variable: str | None,
    runs: str | None,
    engine: bool,
    opened: str,
) -> None:
    if variable is not None:
        monkeypatch.setenv("LAB_BACKEND", variable)
    monkeypatch.setattr(opening, "has_engine", lambda: engine)
    if runs == "process":
        runtime_directory("mine").mkdir(parents=True)
    if runs == "docker":
        find_mark("mine").parent.mkdir(parents=True)
        find_mark("mine").touch()
    backend = open_backend(name, "mine", catalogue=CATALOGUE)
    assert (backend.name, backend.project) == (opened, "mine")
    assert backend.catalogue is CATALOGUE
    # Only where the user has not said it; and never on stdout, which may be JSON.
    unasked = not (name or variable or runs or engine)
    said = "lab: no Docker engine answers, so models run as processes on loopback\n" if unasked else ""
    assert capsys.readouterr() == ("", said)


def test_models_are_those_of_this_project_unless_said_otherwise() -> None:
    assert open_backend("process", "mine").catalogue.names == CATALOGUE.names


def test_lab_of_containers_is_not_taken_for_one_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "has_engine", lambda: False)
    find_mark("mine").parent.mkdir(parents=True)
    find_mark("mine").touch()
    with pytest.raises(EngineAwayError, match=r"^project mine was started in containers, and no Docker engine answers"):
        open_backend(None, "mine", catalogue=CATALOGUE)


def test_unknown_backend_is_named_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_BACKEND", "podman")
    with pytest.raises(LabError, match=r"^unknown backend 'podman'; known: docker, process$"):
        open_backend(None, "mine", catalogue=CATALOGUE)


@pytest.mark.parametrize(
    ("is_own", "answers", "runs", "found"),
    [
        (True, True, False, True),  # the client is not even asked
        (True, False, True, True),
        (True, False, False, False),
        # One elsewhere is known by the client alone.
        (False, True, False, False),
        (False, True, True, True),
    ],
)
def test_engine_is_that_of_the_socket_or_that_of_the_client(
    monkeypatch: pytest.MonkeyPatch, is_own: bool, answers: bool, runs: bool, found: bool
) -> None:
    monkeypatch.setattr(client, "is_own_engine", lambda environ: is_own)
    monkeypatch.setattr(daemon, "is_answering", lambda: answers)
    monkeypatch.setattr(opening, "is_running", lambda: runs)
    assert has_engine() is found


@pytest.mark.parametrize("name", ["a", "7", "a-b_c", "a" * 40])
def test_name_of_a_project_is_one_of_compose(name: str) -> None:
    assert check_project(name) == name


def test_project_without_a_name_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_PROJECT", "mine")
    assert check_project(None) == "mine"
    monkeypatch.delenv("LAB_PROJECT")
    assert check_project(None) == "socketlab"


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a.b", "a" * 41, "a\n"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(LabError, match=r"is not a valid project name: use at most 40 of small letters"):
        check_project(name)
