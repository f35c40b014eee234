"""The recording of the scenes for the models' pages: what is kept, and what the exit code says."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.base.environ import ENV_XRAY
from lab.base.errors import LabError
from lab.base.paths import ROOT
from lab.experiments.xray.recording import Recording, read_recordings, write_recordings
from lab.experiments.xray.scenes import SCENES
from lab.servers.catalogue import Catalogue
from lab.servers.runtime import runtime_directory
from tests.support.made_up_xray import LOOP, LOOP_CLIENTS, make_process, make_recording
from tools.docs import record_xray, scenes

ONE, OTHER = "plain_socket", "prefork"


def make(model: str, scene: str, machine: str = "new") -> Recording:
    recording = make_recording([make_process(1, [LOOP])], LOOP_CLIENTS)
    return replace(recording, model=model, scene=scene, machine={"date": machine})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, list[tuple[str, str, Any]]]]:
    """Run the command in front of a file; return its exit code, and what is in the file then."""
    file = tmp_path / "xray.json"
    monkeypatch.setattr(record_xray, "FILE", file)

    def start(
        *models: str, before: tuple[Recording, ...] = (), fails: str = ""
    ) -> tuple[int, list[tuple[str, str, Any]]]:
        write_recordings(file, [*before])

        def record_model(name: str, backend: str) -> list[Recording]:
            if name == fails:
                raise LabError("this machine was too busy")
            return [make(name, scene, backend) for scene in record_xray.CHOSEN]

        monkeypatch.setattr(record_xray, "record_model", record_model)
        monkeypatch.setattr(sys, "argv", ["record_xray", *models])
        code = record_xray.main()
        return code, [(each.model, each.scene, each.machine["date"]) for each in read_recordings(file)]

    return start


def test_recordings_of_models_that_are_not_named_stay_in_the_order_of_the_catalogue(run) -> None:
    before = (make(OTHER, "sleep", "old"), make(ONE, "sleep", "old"), make("gone", "sleep", "old"))
    code, found = run(ONE, before=before)
    assert code == 0
    assert found == [(ONE, "sleep", "process"), (ONE, "slow", "process"), (OTHER, "sleep", "old")]


def test_all_models_that_have_a_file_are_recorded_where_they_can_run(run, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = Catalogue.load()
    code, found = run()
    assert code == 0
    names = [name for name in catalogue.names if (ROOT / f"services/models/{name}.py").exists()]
    assert [name for name, scene, _ in found if scene == "sleep"] == names
    containers = {name for name, _, backend in found if backend == "docker"}
    assert containers == {name for name in names if catalogue[name].only_in_container} != set()
    assert capsys.readouterr().out.splitlines() == [f"recorded {name}" for name in names]


def test_model_that_cannot_be_recorded_keeps_its_recordings_and_gives_exit_code_1(
    run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = run(ONE, OTHER, before=(make(ONE, "sleep", "old"),), fails=ONE)
    assert code == 1
    assert found == [(ONE, "sleep", "old"), (OTHER, "sleep", "process"), (OTHER, "slow", "process")]
    assert capsys.readouterr().err == f"record_xray: {ONE}: this machine was too busy\n"


class Lab:
    """A backend that notes what is asked of it, with the recorder's folder in its environment."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []

    def describe(self) -> dict[str, str | None]:
        return {"backend": "process"}

    def up(self, names: list[str]) -> None:
        self.done.append(("up", *names, os.environ[ENV_XRAY]))

    def down(self) -> None:
        self.done.append(("down",))


@pytest.mark.parametrize("is_orderly", [True, False])
def test_each_scene_is_recorded_in_seven_rounds_and_the_model_is_stopped(
    monkeypatch: pytest.MonkeyPatch, is_orderly: bool
) -> None:
    lab = Lab()

    def record(backend: Lab, name: str, scene: Any, folder: str, *, rounds: int, machine: dict[str, Any]) -> Recording:
        lab.done.append((name, scene, folder, rounds))
        assert [*machine] == ["date", "commit", "processor", "system"]
        assert all(machine.values())
        return make(name, scene.name)

    facts = dict.fromkeys(("date", "commit", "processor", "system", "lab"), "known")
    monkeypatch.setenv(ENV_XRAY, "")
    monkeypatch.setattr(record_xray, "describe_environment", lambda place: facts)
    opened: list[tuple[object, ...]] = []

    def open_backend(*place: str) -> Lab:
        opened.append(place)
        return lab

    def choose_folder(*place: object) -> str:
        opened.append(place)
        return "/folder"

    monkeypatch.setattr(record_xray, "open_backend", open_backend)
    monkeypatch.setattr(record_xray, "choose_folder", choose_folder)
    monkeypatch.setattr(record_xray, "record", record)
    monkeypatch.setattr(record_xray, "is_orderly", lambda recording: is_orderly or recording.scene == "sleep")
    if is_orderly:
        assert [each.scene for each in record_xray.record_model(ONE, "process")] == ["sleep", "slow"]
    else:
        with pytest.raises(LabError, match="slow: this machine was too busy"):
            record_xray.record_model(ONE, "process")
    # A project of its own: its models are stopped.
    assert opened == [("process", "socketlab-xray-docs"), (lab, runtime_directory("socketlab-xray-docs"))]
    assert lab.done == [
        ("up", ONE, "/folder"),
        *((ONE, SCENES[scene], "/folder", 7) for scene in ("sleep", "slow")),
        ("down",),
    ]


def test_scenes_that_are_recorded_are_those_of_the_pages() -> None:
    assert record_xray.CHOSEN == (scenes.SLEEP, scenes.SLOW)
    assert record_xray.FILE == scenes.DATA
