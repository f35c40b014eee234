"""What `make engine` installs."""

import fcntl
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.engine import EngineError, apt, daemon, provide


def test_what_another_process_has_installed_meanwhile_is_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_status(*missing: str) -> Any:
        problems = [SimpleNamespace(part=part, what=f"no {part}") for part in missing]
        versions = dict.fromkeys(("server_version", "compose_version", "buildx_version"), "1")
        return SimpleNamespace(problems=problems, is_complete=not problems, **versions)

    for found, installed in (
        # Before the lock, behind it, and after the start.
        ((make_status("client", "compose", "buildx", "engine"), make_status("compose"), make_status()), ["compose"]),
        ((make_status("client", "engine"), make_status(), make_status()), []),
        ((make_status("engine"), make_status("engine"), make_status()), ["engine"]),
        ((make_status(),), []),
    ):
        left = list(found)
        asked: list[dict[str, bool]] = []
        starts: list[int] = []
        monkeypatch.setattr(provide, "status", lambda left=left: left.pop(0))
        monkeypatch.setattr(provide, "check_able", lambda *_: None)
        monkeypatch.setattr(provide, "one_at_a_time", nullcontext)
        monkeypatch.setattr(provide, "which", lambda *_, **__: None)
        monkeypatch.setattr(apt, "read_release", lambda: None)
        monkeypatch.setattr(apt, "install_docker", lambda asked=asked, **parts: asked.append(parts))
        monkeypatch.setattr(daemon, "start", lambda starts=starts: starts.append(1))
        assert provide.install() is found[-1]
        assert [part for parts in asked for part, is_missing in parts.items() if is_missing] == installed
        assert len(starts) == (len(found) > 1)
        assert left == []


def test_engine_that_is_installed_is_only_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two at the same time wait for each other."""
    states: Iterator[Any] = (
        SimpleNamespace(
            problems=[SimpleNamespace(part=part, what=f"no {part}") for part in parts],
            is_complete=not parts,
            server_version="1",
            compose_version="1",
            buildx_version="1",
        )
        for parts in (["engine", "base_image"], [])
    )
    away, complete = states
    steps: list[str] = []
    found = [away, away, complete]
    monkeypatch.setattr(provide, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(provide, "status", lambda: found.pop(0))
    monkeypatch.setattr(provide, "check_able", lambda *given: steps.append(str(given[-1])))
    monkeypatch.setattr(provide, "which", lambda name, *, path: f"/sbin/{name}")
    monkeypatch.setattr(apt, "install_docker", lambda **_: steps.append("installed"))

    def start() -> None:
        steps.append("started")
        with (tmp_path / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(daemon, "start", start)
    assert provide.install() is complete
    assert steps == ["no engine", "started"]
    assert "".join(capsys.readouterr()) == "engine: 1 answers, compose 1, buildx 1\n"


@pytest.mark.parametrize("missing", ["client", "engine", "compose", "buildx"])
def test_only_the_missing_part_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    versions = dict.fromkeys(("server_version", "compose_version", "buildx_version"), "1")
    problems = [SimpleNamespace(part=part, what="-") for part in (missing, "base_image")]
    states: Any = [SimpleNamespace(problems=problems, is_complete=False)] * 2
    states.append(SimpleNamespace(problems=[], is_complete=True, **versions))
    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(provide, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(provide, "status", lambda: states.pop(0))
    monkeypatch.setattr(provide, "check_able", lambda *_: None)
    monkeypatch.setattr(provide, "which", lambda *_, **__: None)
    monkeypatch.setattr(apt, "install_docker", lambda **parts: asked.append(parts))
    monkeypatch.setattr(daemon, "start", lambda: None)
    provide.install()
    assert asked == [{part: part == missing for part in ("client", "engine", "compose", "buildx")}]


def test_engine_that_is_still_incomplete_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    problem = SimpleNamespace(part="engine", what="no Docker engine answers")
    monkeypatch.setattr(provide, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(provide, "status", lambda: SimpleNamespace(problems=[problem], is_complete=False))
    monkeypatch.setattr(provide, "check_able", lambda *_: None)
    monkeypatch.setattr(apt, "install_docker", lambda **_: None)
    monkeypatch.setattr(daemon, "start", lambda: None)
    with pytest.raises(EngineError, match=r"^after the installation no Docker engine answers: see `python3 -m"):
        provide.install()
