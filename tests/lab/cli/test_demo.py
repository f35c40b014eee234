"""What `lab demo` starts, measures and takes down. Nothing is started."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.base.errors import LabError
from lab.cli.commands import demo as command
from lab.experiments.demo import Demo
from lab.servers.catalogue import Catalogue, Model
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT

CATALOGUE = Catalogue.load()


class FakeLab(UnusedBackend):
    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Any] = []

    def down(self) -> None:
        self.events.append("down")


Invoke = Callable[..., Result]


@pytest.fixture(params=["process", "docker"])
def lab(request: pytest.FixtureRequest) -> FakeLab:
    return FakeLab(request.param)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lab: FakeLab) -> Invoke:
    """Run the command with a demo that notes its models and its time, and finds one measurement or an error."""

    def open_backend(name: str | None, project: str, *, catalogue: Catalogue) -> FakeLab:
        lab.events.append((name, project))
        return lab

    def invoke(*words: str, project: str | None = None, error: Exception | None = None) -> Result:
        def run(backend: object, models: Sequence[Model], found: Demo, step: object, *, seconds: float) -> None:
            lab.events.append(([model.name for model in models], seconds))
            if error:
                raise error
            found.measurements.append(MEASUREMENT)

        monkeypatch.setattr(command, "run", run)
        obj = SimpleNamespace(backend_name=lab.name, project=project, catalogue=CATALOGUE)
        return CliRunner().invoke(command.demo, [*words, "--out", str(tmp_path)], obj=obj)

    monkeypatch.setattr(command, "open_backend", open_backend)
    monkeypatch.setattr(command, "describe", lambda *_: {"date": "today"})
    return invoke


def test_demo_has_a_lab_of_its_own_and_takes_it_down(lab: FakeLab, invoke: Invoke) -> None:
    assert invoke("prefork", "plain_socket", "--duration", "3500ms").exit_code == 0
    assert lab.events == [(lab.name, "socketlab-demo"), (["plain_socket", "prefork"], 3.5), "down"]
    lab.events.clear()
    assert invoke("prefork", project="mine").exit_code == 0
    assert lab.events == [(lab.name, "mine"), (["prefork"], 2.0), "down"]


@pytest.mark.parametrize("error", [LabError("no engine"), KeyboardInterrupt()])
def test_demo_that_is_broken_off_is_taken_down(lab: FakeLab, invoke: Invoke, error: Exception) -> None:
    assert invoke("prefork", error=error).exit_code == 1  # as click has it; tests/lab/cli/test_exit_codes.py
    assert lab.events[-1] == "down"


def test_default_is_all_models_and_in_containers_the_peers(lab: FakeLab, invoke: Invoke) -> None:
    assert invoke().exit_code == 0
    _, (models, _), _ = lab.events
    assert {"plain_socket", "prefork"} <= set(models)
    assert ("peer_redis" in models) == (lab.name == "docker")
