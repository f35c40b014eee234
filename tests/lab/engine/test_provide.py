"""What `make engine` installs."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from lab.engine import apt, daemon, provide


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
