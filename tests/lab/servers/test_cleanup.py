"""`lab down` and `lab clean`: what they remove, what they leave, and their messages without an engine."""

import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from uuid import uuid4

import docker
import pytest

from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.cli.commands.bench import _CONTROL
from lab.servers import cleanup
from lab.servers.catalogue import Catalogue
from lab.servers.cleanup import SATELLITES, Everything, find_everything, remove, take_down
from lab.servers.docker.cleanup import find_projects, purge
from lab.servers.docker.cleanup import remove as remove_of_engine
from lab.servers.docker.containers import Containers
from lab.servers.processes import Processes
from lab.servers.runtime import find_mark, find_stamps, runtime_directory
from lab.tour.session import SUFFIX
from tests.support.docker_client import put_docker

DOCKER = [pytest.mark.docker, pytest.mark.xdist_group("docker")]
AWAY = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}

Lab = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A separate runtime directory, so that all labs of processes belong to this test."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.delenv("LAB_BACKEND", raising=False)
        yield Path(folder)


def start(lab: Lab, project: str) -> None:
    assert lab("--backend", "process", "--project", project, "up", "plain_socket").returncode == 0


def test_clean_removes_its_own_project_and_no_other(lab: Lab, home: Path) -> None:
    for project in ("mine", "mine-control", "theirs", "min"):
        start(lab, project)
    try:
        done = lab("--backend", "process", "--project", "mine", "clean")
        assert (done.returncode, done.stdout) == (0, "removed mine (process)\nremoved mine-control (process)\n")
        assert find_everything().processes == ("min", "theirs")
        assert lab("--backend", "process", "--project", "mine", "clean").stdout == ""
    finally:
        for project in ("mine", "mine-control", "theirs", "min"):
            assert lab("--backend", "process", "--project", project, "down").returncode == 0
    assert find_everything().processes == ()


def test_clean_all_asks_for_yes_where_there_is_no_terminal(lab: Lab, home: Path) -> None:
    start(lab, "mine")
    try:
        done = lab("clean", "--all", environ=AWAY)
        assert done.returncode == 2
        assert done.stdout == "every lab of this machine, of all users:\n  mine (process)\n"
        assert "nothing was removed" in done.stderr
        assert "`lab clean --all --yes`" in done.stderr
        assert find_everything().processes == ("mine",)
        both = lab("--project", "mine", "clean", "--all", "--yes", environ=AWAY)
        assert (both.returncode, both.stdout) == (2, "")
        assert "use only one of the two" in both.stderr
        assert find_everything().processes == ("mine",)
    finally:
        # No engine can be asked, which is said; the processes are gone.
        done = lab("clean", "--all", "--yes", environ=AWAY)
    assert done.stdout.endswith("  mine (process)\nremoved\n")
    assert (done.returncode, "any containers and images remain" in done.stderr) == (2, True)
    assert find_everything().processes == ()
    assert lab("--project", "mine", "ls", "--json", environ=AWAY).returncode == 0


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", ("mine",)), (b"y\n", ())], ids=["no", "yes"])
def test_clean_all_asks_on_a_terminal(lab: Lab, home: Path, answer: bytes, left: tuple[str, ...]) -> None:
    start(lab, "mine")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        command = [sys.executable, "-m", "lab", "clean", "--all"]
        done = subprocess.run(
            command, cwd=ROOT, stdin=theirs, capture_output=True, text=True, env={**os.environ, **AWAY}, check=False
        )
        assert "  mine (process)\nRemove all of it? [y/N]" in done.stdout
        assert done.returncode == 2
        assert ("nothing was removed" in done.stderr) == bool(left)
        assert find_everything().processes == left
    finally:
        os.close(ours)
        os.close(theirs)
        assert lab("--backend", "process", "--project", "mine", "down").returncode == 0


def test_clean_removes_only_what_was_listed(lab: Lab, home: Path) -> None:
    start(lab, "mine")
    listed = find_everything()
    start(lab, "later")
    try:
        remove(Everything(listed.processes, (), (), engine_is_away=False), Catalogue.load())
        assert find_everything().processes == ("later",)
    finally:
        assert lab("--backend", "process", "--project", "later", "down").returncode == 0


@pytest.mark.parametrize(
    ("everything", "lines"),
    [
        (Everything((), (), (), engine_is_away=True), []),
        (
            Everything(("a",), ("a", "b"), ("1",), engine_is_away=False),
            ["a (process)", "a (docker)", "b (docker)", "1 image"],
        ),
        (Everything((), (), ("1", "2"), engine_is_away=False), ["2 images"]),
    ],
)
def test_clean_lists_everything(everything: Everything, lines: list[str]) -> None:
    assert list(everything.describe()) == lines
    assert everything.is_nothing == (not lines)


def test_satellites_are_the_labs_that_commands_start() -> None:
    assert set(SATELLITES) == {SUFFIX, f"-{_CONTROL}"}


@pytest.mark.docker
@pytest.mark.usefixtures("engine")
class TestEngineAway:
    """Each command reports a missing engine and what to do; none takes it for an empty list."""

    COMMANDS = (["down"], ["ls"], ["up", "plain_socket"], ["logs"], ["logs", "plain_socket"], ["clean"])

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_backend_docker(self, lab_here: Lab, home: Path, command: list[str]) -> None:
        done = lab_here("--backend", "docker", "--project", "mine", *command, environ=AWAY)
        assert (done.returncode, done.stdout) == (2, "")
        assert "start the engine at DOCKER_HOST=unix:///nonexistent/docker.sock, or unset DOCKER_HOST" in done.stderr
        assert done.stderr.count("\n") == 1
        assert ("remain" in done.stderr) == (command[0] in ("down", "clean"))

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_lab_of_containers_needs_an_engine(self, lab_here: Lab, home: Path, command: list[str]) -> None:
        mark = find_mark("mine")
        mark.parent.mkdir(mode=0o700)
        mark.touch()
        done = lab_here("--project", "mine", *command, environ=AWAY)
        assert (done.returncode, done.stdout) == (2, "")
        ends = command[0] in ("down", "clean")
        assert ("lab: the containers of project mine remain, as " if ends else "lab: project mine was started in") in (
            done.stderr
        )
        assert "start the engine" in done.stderr
        assert mark.exists()

    @pytest.mark.parametrize("command", ["down", "clean"])
    def test_nothing_is_known(self, lab_here: Lab, home: Path, command: str) -> None:
        done = lab_here("--project", "mine", command, environ=AWAY)
        assert done.returncode == 2
        assert done.stderr.startswith("lab: containers, if there are any, of project mine remain, as ")

    @pytest.mark.parametrize("command", ["down", "clean"])
    def test_lab_of_processes_needs_no_engine(self, lab: Lab, lab_here: Lab, home: Path, command: str) -> None:
        start(lab, "mine")
        done = lab_here("--project", "mine", command, environ=AWAY)
        assert (done.returncode, done.stderr) == (0, "")
        assert not runtime_directory("mine").exists()
        assert lab_here("--backend", "process", "--project", "mine", command, environ=AWAY).returncode == 0

    def test_processes_are_taken_down_without_an_engine(self, lab: Lab, lab_here: Lab, home: Path) -> None:
        start(lab, "mine")
        find_mark("mine").touch()
        done = lab_here("--project", "mine", "down", environ=AWAY)
        assert (done.returncode, "the containers of project mine remain" in done.stderr) == (2, True)
        assert not runtime_directory("mine").exists()

    def test_missing_client_means_no_containers(self, lab_here: Lab, home: Path) -> None:
        done = lab_here("--project", "mine", "down", environ={"PATH": "/nonexistent"})
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def volumes(engine: docker.DockerClient) -> Iterator[Callable[..., str]]:
    """Make a volume of a Compose project, which is the cheapest part of one."""
    made = []

    def make(project: str, **labels: str) -> str:
        labels = {name.replace("_", "."): value for name, value in labels.items()}
        made.append(engine.volumes.create(uuid4().hex, labels={"com.docker.compose.project": project, **labels}))
        return str(made[-1].name)

    yield make
    left = {volume.name for volume in engine.volumes.list()}
    for volume in made:
        if volume.name in left:
            volume.remove()


class TestContainers:
    pytestmark = DOCKER

    def test_clean_leaves_other_projects(
        self, lab_here: Lab, volumes: Callable[..., str], find_of_project: Callable[[str], list[str]]
    ) -> None:
        own, other = f"t{uuid4().hex[:8]}", f"t{uuid4().hex[:8]}"
        for project in (own, f"{own}-tour", other):
            volumes(project, lab_part="sockets")
        assert {own, f"{own}-tour", other} <= set(find_projects())
        done = lab_here("--project", own, "clean")
        assert (done.returncode, done.stdout) == (0, f"removed {own} (docker)\nremoved {own}-tour (docker)\n")
        assert not find_of_project(own)
        assert len(find_of_project(other)) == 1
        remove(Everything((), (other,), (), engine_is_away=False), Catalogue.load())
        assert not find_of_project(other)

    def test_clean_all_lists_the_labs_of_the_engine(self, lab_here: Lab, volumes: Callable[..., str]) -> None:
        project = f"t{uuid4().hex[:8]}"
        volumes(project, lab_part="sockets")
        done = lab_here("clean", "--all")
        assert done.returncode == 2
        assert f"\n  {project} (docker)\n" in done.stdout
        assert project in find_projects()

    @pytest.mark.parametrize("command", ["down", "clean"])
    def test_project_of_another_program_is_left_alone(
        self, lab_here: Lab, volumes: Callable[..., str], find_of_project: Callable[[str], list[str]], command: str
    ) -> None:
        """A project of another program is not removed if it is named by mistake."""
        project = f"t{uuid4().hex[:8]}"
        name = volumes(project, lab_other="x")
        done = lab_here("--project", project, command)
        assert (done.returncode, f"volume {name} has no label of the lab's" in done.stderr) == (2, True)
        assert find_of_project(project) == [name]

    def test_mark_stays_as_long_as_the_containers(self, docker_project: str, home: Path) -> None:
        backend = Containers(docker_project, Catalogue.load())
        with backend._started(["shell"]):
            assert find_mark(docker_project).exists()
            find_stamps(docker_project).touch()
        assert purge(docker_project)
        assert not list(home.iterdir())
        assert not purge(docker_project)

    def test_lab_on_both_backends_is_taken_down_on_both(
        self,
        lab: Lab,
        lab_here: Lab,
        home: Path,
        volumes: Callable[..., str],
        find_of_project: Callable[[str], list[str]],
    ) -> None:
        project = f"t{uuid4().hex[:8]}"
        volumes(project, lab_part="sockets")
        start(lab, project)
        done = lab_here("--project", project, "down")
        assert (done.returncode, done.stdout) == (0, "")
        assert not find_of_project(project)
        assert not runtime_directory(project).exists()


@pytest.mark.parametrize(
    ("name", "satellites", "on"),
    [
        ("docker", False, ["docker"]),
        ("process", True, ["process"]),
        (None, True, ["process", "docker"]),
        (None, False, ["process", "docker"]),
    ],
)
def test_project_is_taken_down_on_the_named_backend_with_its_satellites_if_asked(
    monkeypatch: pytest.MonkeyPatch, home: Path, name: str | None, satellites: bool, on: list[str]
) -> None:
    done: list[tuple[str, str]] = []
    monkeypatch.setattr(Processes, "down", lambda self: done.append(("process", self.project)))

    def purge(project: str) -> bool:
        done.append(("docker", project))
        return True

    monkeypatch.setattr("lab.servers.docker.cleanup.purge", purge)
    projects = ["mine", "mine-tour", "mine-control"] if satellites else ["mine"]
    find_mark("mine").parent.mkdir(mode=0o700)
    find_mark("mine").touch()
    for project in projects:
        runtime_directory(project).mkdir()
    removed = take_down(name, "mine", Catalogue.load(), satellites=satellites)
    assert done == [(backend, project) for backend in on for project in projects]
    assert removed == [f"{project} ({backend})" for backend in on for project in projects]


@pytest.mark.parametrize(
    ("engine", "client", "found"),
    [
        (True, "/bin/docker", Everything(("a",), ("b",), ("1",), engine_is_away=False)),
        (False, "/bin/docker", Everything(("a",), (), (), engine_is_away=True)),
        (False, None, Everything(("a",), (), (), engine_is_away=False)),
    ],
)
def test_what_an_engine_holds_is_unknown_if_only_its_client_is_there(
    monkeypatch: pytest.MonkeyPatch, home: Path, engine: bool, client: str | None, found: Everything
) -> None:
    runtime_directory("a").mkdir(parents=True)
    monkeypatch.setattr(cleanup, "has_engine", lambda: engine)
    monkeypatch.setattr("lab.servers.docker.cleanup.find_projects", lambda: ["b"])
    monkeypatch.setattr("lab.servers.docker.images.find_images", lambda: ["1"])
    monkeypatch.setattr(shutil, "which", lambda _: client)
    assert find_everything() == found


@pytest.mark.parametrize(
    ("is_marked", "client", "is_process_lab", "engine", "asked"),
    [
        (True, None, False, False, True),
        (False, None, False, False, False),
        (False, "/bin/docker", False, False, True),  # to say that it is not known
        (False, "/bin/docker", True, False, False),
        (False, "/bin/docker", True, True, True),
    ],
)
def test_engine_is_asked_unless_nothing_can_be_there(
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    is_marked: bool,
    client: str | None,
    is_process_lab: bool,
    engine: bool,
    asked: bool,
) -> None:
    monkeypatch.setattr(cleanup, "has_engine", lambda: engine)
    monkeypatch.setattr(shutil, "which", lambda _: client)
    if is_marked:
        find_mark("mine-tour").parent.mkdir(mode=0o700)
        find_mark("mine-tour").touch()
    assert cleanup._may_have_containers(["mine", "mine-tour"], is_process_lab=is_process_lab) is asked


def test_each_part_of_a_lab_leads_to_its_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container that has ended, and a network or a volume whose containers are gone."""
    label = "com.docker.compose.project="
    found = {
        "container ls --all --filter label=lab.model": f"lab.model=prefork,{label}one\n{label}two,lab.model=prefork\n",
        "network ls --filter label=lab.part": f"lab.part=network,{label}three\n",
        "volume ls --filter label=lab.part": f"{label}four,lab.part=sockets\n",
    }
    put_docker(monkeypatch, tmp_path, found)
    assert find_projects() == ["four", "one", "three", "two"]


def test_what_was_noted_of_a_lab_ends_with_its_containers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    find_stamps("mine").parent.mkdir(mode=0o700)
    find_stamps("mine").touch()
    find_mark("mine").touch()
    put_docker(monkeypatch, tmp_path, {})
    assert not purge("mine")
    assert not list(home.iterdir())


def test_everything_that_was_found_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> None:
    asked = put_docker(monkeypatch, tmp_path, {})
    remove(Everything((), ("one", "two"), ("1", "2"), engine_is_away=False), Catalogue.load())
    purged = [line for line in asked() if line.startswith("container ls --quiet")]
    assert [line.rpartition("=")[2] for line in purged] == ["one", "two"]
    assert asked()[-1] == "image rm --force 1 2"


def test_unknown_error_of_the_engine_is_not_its_absence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the known messages count as a missing engine."""
    put_docker(monkeypatch, tmp_path, {"": 1})
    with pytest.raises(LabError, match=r"^docker container: it failed$"):
        find_projects()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        # With those volumes that have no name: an image of a server of one's own may declare some.
        ("container", ["container", "rm", "--force", "--volumes", "a", "b"]),
        ("network", ["network", "rm", "a", "b"]),
        ("volume", ["volume", "rm", "--force", "a", "b"]),
    ],
)
def test_each_kind_is_removed_with_all_that_belongs_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, words: list[str]
) -> None:
    asked = put_docker(monkeypatch, tmp_path, {kind: 1})
    assert remove_of_engine(kind, ["a", "b"]) == "it failed"
    assert [line.split() for line in asked()] == [words]
    assert remove_of_engine(kind, []) == ""  # the client needs at least one
    assert [line.split() for line in asked()] == [words]
