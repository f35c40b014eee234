"""What `lab tour` prints of each exhibit, and its exit code. No exhibit runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from lab.base.errors import LabError
from lab.cli.commands import tour as command
from lab.tour import registry
from lab.tour.registry import Exhibit
from lab.tour.runner import ExhibitRun, Failure


@dataclass
class FakeSession:
    """A session of the gallery in which an exhibit holds unless it is said otherwise."""

    unavailable: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)  # of exhibits that cannot run
    failing: Sequence[str] = ()
    deaf: Sequence[str] = ()  # exhibits whose module has reported no failure where there was one
    asked: list[str] = field(default_factory=list)

    def find_obstacle(self, exhibit: Exhibit) -> str | None:
        return self.unavailable.get(exhibit.module)

    def run(self, exhibit: Exhibit) -> ExhibitRun:
        self.asked.append(exhibit.module)
        if exhibit.module in self.errors:
            raise LabError(self.errors[exhibit.module])
        error = "Traceback" if exhibit.module in self.failing else None
        raised = None if exhibit.module in self.deaf else "OSError"
        return ExhibitRun(exhibit.module, "3.13", "its output", error, (), (Failure("refused", raised, "no"),))


@pytest.mark.parametrize(
    ("session", "code", "said", "asked"),
    [
        (FakeSession(), 0, "", ["ftplib", "poplib"]),
        (FakeSession(failing=["poplib"]), 1, "failed: poplib\n", ["ftplib", "poplib"]),
        (FakeSession(deaf=["ftplib"]), 1, "failed: ftplib\n", ["ftplib", "poplib"]),
        (FakeSession({"ftplib": "no server"}), 1, "not shown: ftplib: no server\n", ["poplib"]),
        (FakeSession(errors={"poplib": "timed out"}), 1, "not shown: poplib: timed out\n", ["ftplib", "poplib"]),
    ],
)
def test_module_that_failed_or_could_not_be_shown_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, session: FakeSession, code: int, said: str, asked: list[str]
) -> None:
    @contextmanager
    def open_gallery(backend: object, exhibits: Sequence[Exhibit]) -> Iterator[FakeSession]:
        assert backend == "the lab"
        assert {exhibit.module for exhibit in exhibits} == {"ftplib", "poplib"}
        yield session

    monkeypatch.setattr(command, "open_gallery", open_gallery)
    lab = SimpleNamespace(backend="the lab")
    for more in ([], ["--json"]):
        session.asked.clear()
        done = CliRunner().invoke(command.tour, ["ftplib", "poplib", *more], obj=lab)
        assert (done.exit_code, done.stderr, session.asked) == (code, said, asked)
    shown = json.loads(done.stdout)
    assert {each["module"] for each in shown["tour"]} | set(shown["missing"]) == {"ftplib", "poplib"}


def test_every_module_is_shown_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name they are listed; a name chooses among them, also with --all."""
    session = FakeSession()

    @contextmanager
    def open_gallery(backend: object, exhibits: Sequence[Exhibit]) -> Iterator[FakeSession]:
        yield session

    monkeypatch.setattr(command, "open_gallery", open_gallery)
    every = [exhibit.module for exhibit in registry.load()]
    lab = SimpleNamespace(backend="the lab")
    for words, asked in (([], []), (["--all"], every), (["ftplib"], ["ftplib"]), (["ftplib", "--all"], ["ftplib"])):
        session.asked.clear()
        done = CliRunner().invoke(command.tour, [*words, "--json"], obj=lab)
        assert (done.exit_code, session.asked) == (0, asked)
    listed = CliRunner().invoke(command.tour, [], obj=lab).stdout.splitlines()
    assert len(listed) == len(every) + 1  # with the columns' names
