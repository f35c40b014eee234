"""The servers of a session with the gallery: which are used, which are started, and what becomes of those that fail."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError, NotReadyError
from lab.servers.backend import ModelState
from lab.tour import session
from lab.tour.registry import Exhibit
from lab.tour.runner import ExhibitRun
from lab.tour.session import GallerySession, open_gallery
from tests.support.fakes import CATALOGUE, UnusedBackend


class Gallery(UnusedBackend):
    """A lab that notes what is done.

    Args:
        running: models and servers of the gallery that run.
        broken: those that do not start.
    """

    name = "docker"

    def __init__(self, running: Sequence[str] = (), broken: Sequence[str] = ()) -> None:
        self.running, self.broken = running, broken
        self.done: list[tuple[Any, ...]] = []

    def _list(self, names: Sequence[str]) -> list[ModelState]:
        return [ModelState(name, "thread", "docker", "running" if name in self.running else "exited") for name in names]

    def state(self) -> list[ModelState]:
        return self._list(["plain_socket", "thread_pool"])

    def gallery(self) -> list[ModelState]:
        return self._list(["gallery_ftp", "gallery_web"])

    def _start(self, what: str, names: list[str], seconds: object) -> None:
        self.done.append((what, names, seconds))
        if failed := [name for name in names if name in self.broken]:
            raise NotReadyError(f"not ready: {', '.join(failed)}")

    def up(self, models: Sequence[str], *, timeout: object = None) -> None:
        self._start("up", list(models), timeout)

    def up_gallery(self, servers: Sequence[Any], *, timeout: object = None) -> None:
        self._start("up_gallery", [server.name for server in servers], timeout)

    def down(self) -> None:
        self.done.append(("down",))


def make_exhibit(*servers: str) -> Exhibit:
    return cast(Exhibit, SimpleNamespace(module="it", servers=servers))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """The separate lab."""
    own = Gallery()

    def open_backend(name: str, project: str, *, catalogue: object = None) -> Gallery:
        assert (name, project, catalogue) == ("docker", "fakes-tour", CATALOGUE)
        return own

    monkeypatch.setattr(session, "open_backend", open_backend)
    return own


WANTED = ("gallery_ftp", "plain_socket")
ALL = [("up_gallery", ["gallery_ftp"], 30.0), ("up", ["plain_socket"], 30.0)]


@pytest.mark.parametrize(
    ("running", "fresh", "is_used"),
    [
        (WANTED, False, True),
        ((*WANTED, "gallery_web"), False, True),
        (WANTED, True, False),
        (("gallery_ftp",), False, False),
        ((), False, False),
    ],
)
def test_running_servers_are_used_if_all_run(own: Gallery, running: Sequence[str], fresh: bool, is_used: bool) -> None:
    backend = Gallery(running)
    exhibits = [make_exhibit("gallery_ftp"), make_exhibit("plain_socket", "gallery_ftp")]
    with open_gallery(cast(Any, backend), exhibits, **({"fresh": True} if fresh else {})) as found:
        assert found.unavailable == {}
        assert found.backend is cast(Any, backend if is_used else own)
    # The shell, in which exhibits run, is started in any case.
    assert backend.done == ([("up_gallery", [], None)] if is_used else [])
    # First the leftovers of a session that was killed.
    assert own.done == ([] if is_used else [("down",), *ALL, ("down",)])


def test_servers_of_one_kind_alone_are_started(own: Gallery) -> None:
    with open_gallery(cast(Any, Gallery()), [make_exhibit("plain_socket")]):
        pass
    assert own.done == [("down",), ALL[1], ("down",)]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_wait_for_servers_is_announced_to_a_person(
    own: Gallery, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    with open_gallery(cast(Any, Gallery()), [make_exhibit(*WANTED)]):
        pass
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "lab: starting gallery_ftp, plain_socket ...\n" * is_terminal)


def test_server_that_does_not_start_leaves_the_others(own: Gallery) -> None:
    own.broken = ["gallery_ftp"]
    with open_gallery(cast(Any, Gallery()), [make_exhibit("gallery_web", *WANTED)]) as found:
        assert found.unavailable == {"gallery_ftp": "not ready: gallery_ftp"}
        assert found.find_obstacle(make_exhibit("gallery_web", *WANTED)) == "not ready: gallery_ftp"
        assert found.find_obstacle(make_exhibit("gallery_web")) is None
    # All together, and then each alone, which takes no longer than it must.
    assert own.done[1:-1] == [
        ("up_gallery", ["gallery_ftp", "gallery_web"], 30.0),
        ("up_gallery", ["gallery_web"], 5.0),
        ("up_gallery", ["gallery_ftp"], 5.0),
        ALL[1],
    ]


def test_lab_without_containers_has_no_gallery() -> None:
    with pytest.raises(LabError, match="only in containers"), open_gallery(cast(Any, UnusedBackend()), []):
        pass


def run_exhibit(run: Callable[..., CompletedProcess[str]]) -> ExhibitRun:
    backend: Any = Gallery()
    backend.run = run
    return GallerySession(backend).run(make_exhibit())


def test_exhibit_runs_in_the_shell() -> None:
    result = ExhibitRun("it", "3.13.5", "said\n", None, (), ())

    def run(command: list[str], **options: object) -> CompletedProcess[str]:
        assert command == ["python", "-m", "lab.tour.runner", "it"]
        assert options == {"capture": True, "timeout": 120}
        return CompletedProcess(command, 0, json.dumps(asdict(result)), "a warning")

    assert run_exhibit(run) == result


@pytest.mark.parametrize(("stdout", "stderr"), [("no JSON\nbut this", ""), ("cut {", "no JSON\nbut this\n")])
def test_exhibit_that_cannot_run_is_an_error_with_the_last_lines(stdout: str, stderr: str) -> None:
    with pytest.raises(LabError) as caught:
        run_exhibit(lambda command, **_: CompletedProcess(command, 3, stdout, stderr))
    assert str(caught.value).splitlines() == ["it could not run (exit code 3):", "  no JSON", "  but this"]
