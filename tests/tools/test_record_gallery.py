"""The recording of the gallery: results of new servers are stored, and nothing is stored if an exhibit fails."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from lab.base.errors import LabError
from lab.servers.backend import Backend
from lab.tour.registry import Exhibit, find
from lab.tour.runner import ExhibitRun
from tests.support.fakes import UnusedBackend
from tools.docs import gallery_page, record_gallery

EXHIBITS = find(["socket", "ftplib", "gopherlib"])
BACKEND = UnusedBackend()


@dataclass
class Session:
    """A session whose runs and obstacles are given; it records how it was opened."""

    errors: dict[str, str] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)
    tracebacks: dict[str, str] = field(default_factory=dict)
    opened: list[tuple[list[str], bool]] = field(default_factory=list)

    @contextmanager
    def open(self, backend: Backend, exhibits: Iterable[Exhibit], *, fresh: bool = False) -> Iterator["Session"]:
        self.opened.append(([exhibit.module for exhibit in exhibits], fresh))
        yield self

    def find_obstacle(self, exhibit: Exhibit) -> str | None:
        return self.obstacles.get(exhibit.module)

    def run(self, exhibit: Exhibit) -> ExhibitRun:
        if exhibit.module in self.errors:
            raise LabError(self.errors[exhibit.module])
        return ExhibitRun(exhibit.module, "3.13.5", "", self.tracebacks.get(exhibit.module), (), ())


def record(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[ExhibitRun]:
    monkeypatch.setattr(record_gallery, "open_gallery", session.open)
    return record_gallery.record(BACKEND, EXHIBITS)


def test_each_exhibit_runs_against_new_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    assert [run.module for run in record(session, monkeypatch)] == ["socket", "ftplib", "gopherlib"]
    assert session.opened == [(["socket", "ftplib", "gopherlib"], True)]


def test_failures_are_named_together_and_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session({"socket": "timed out"}, {"ftplib": "no server"}, {"gopherlib": "Traceback ..."})
    with pytest.raises(LabError) as caught:
        record(session, monkeypatch)
    assert str(caught.value).splitlines() == [
        "nothing was recorded:",
        "  socket: timed out",
        "  ftplib: no server",
        "  gopherlib failed: see `lab tour gopherlib`",
    ]


@pytest.mark.parametrize(("has_changed", "said"), [(True, "written"), (False, "unchanged")])
def test_command_stores_the_runs_and_writes_the_pages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_changed: bool, said: str
) -> None:
    session, stored = Session(), list[ExhibitRun]()
    monkeypatch.setattr(record_gallery, "open_gallery", session.open)
    monkeypatch.setattr(record_gallery, "open_backend", {"docker": BACKEND}.__getitem__)
    monkeypatch.setattr(record_gallery, "load", lambda: EXHIBITS)
    monkeypatch.setattr(gallery_page, "record", stored.extend)
    monkeypatch.setattr(gallery_page, "write", lambda: has_changed)
    assert record_gallery.main() == 0
    assert [run.module for run in stored] == ["socket", "ftplib", "gopherlib"]
    assert capsys.readouterr().out == f"docs/gallery/: {said}\n"


def test_failed_command_exits_with_code_2_and_stores_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, stored = Session({"socket": "timed out"}), list[ExhibitRun]()
    monkeypatch.setattr(record_gallery, "open_gallery", session.open)
    monkeypatch.setattr(record_gallery, "open_backend", lambda name: BACKEND)
    monkeypatch.setattr(record_gallery, "load", lambda: EXHIBITS)
    monkeypatch.setattr(gallery_page, "record", stored.extend)
    assert record_gallery.main() == 2
    assert stored == []
    assert capsys.readouterr().err == "record_gallery: nothing was recorded:\n  socket: timed out\n"
