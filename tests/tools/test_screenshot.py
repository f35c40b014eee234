"""`make screenshot`: which pictures are written, that the lab is taken down, and the exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.base.errors import LabError
from tests.support.fakes import CATALOGUE
from tools import screenshot
from tools.browser import Visit


class Lab:
    """Containers that note what is asked of them."""

    helpers = None
    catalogue = CATALOGUE

    def __init__(self, *_: object) -> None:
        self.done: list[object] = []

    def up(self, models: list[Any], *, timeout: float) -> None:
        self.done.append(("up", [model.name for model in models]))

    def down(self) -> None:
        self.done.append("down")

    def targets(self) -> list[Any]:
        return []

    def describe(self) -> dict[str, str | None]:
        return {"engine": "Docker 1"}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    lab = Lab()
    chosen = [CATALOGUE["prefork"], CATALOGUE["plain_socket"]]

    @contextmanager
    def open_generator(helpers: object, arguments: list[str], **options: Any) -> Iterator[Any]:
        assert options["workers"] == 0
        yield SimpleNamespace(main=SimpleNamespace(host="locust"))

    @contextmanager
    def send_telemetry(backend: Lab, names: list[str], main: object) -> Iterator[None]:
        assert names == ["prefork", "plain_socket"]
        yield

    def visit(helpers: object, url: str, *, choices: dict[str, list[str]]) -> Visit:
        lab.done.append((url, choices))
        pictures = {name: name.encode() for name in ("light", "dark", "narrow", "live 1280 light", "live 1280 dark")}
        return Visit({}, {}, "stopped", {}, {}, pictures, [])

    monkeypatch.setattr(screenshot, "Containers", lambda *_: lab)
    monkeypatch.setattr(screenshot, "choose_models", lambda _: chosen)
    monkeypatch.setattr(screenshot, "open_generator", open_generator)
    monkeypatch.setattr(screenshot, "send_telemetry", send_telemetry)
    monkeypatch.setattr(screenshot, "visit", visit)
    facts = {"date": "today", "commit": "0123", "processor": "a CPU", "engine": "Docker 1"}
    monkeypatch.setattr(screenshot, "describe_environment", lambda _: facts)
    monkeypatch.setattr(screenshot, "ROOT", tmp_path)
    monkeypatch.setattr(screenshot, "PICTURE", tmp_path / "load.png")
    monkeypatch.setattr(screenshot, "LIVE", tmp_path / "live.png")
    return lab


def test_light_pictures_are_written_and_the_lab_is_taken_down(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert screenshot.main() == 0
    assert (tmp_path / "load.png").read_bytes() == b"light"
    assert (tmp_path / "live.png").read_bytes() == b"live 1280 light"
    models = ["prefork", "plain_socket"]
    choices = {"userCount": ["8"], "spawnRate": ["8"], "models": models, "workload": ["session"]}
    assert lab.done == [("up", models), ("http://locust:8089", choices), "down"]
    assert capsys.readouterr().out == "load.png: today, commit 0123: a CPU, Docker 1\n"


def test_visit_that_fails_leaves_the_pictures_and_no_lab(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> Visit:
        raise LabError("nothing to see")

    monkeypatch.setattr(screenshot, "visit", fail)
    assert screenshot.main() == 2
    assert lab.done[-1] == "down"
    assert list(tmp_path.iterdir()) == []
    assert "screenshot: nothing to see\n" in capsys.readouterr().err
