"""The figures of a run for the pages of the models: the exit code, and what is said."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.experiments.published import Measured
from lab.servers.catalogue import Catalogue
from tests.support.made_up_runs import PLAN, make_bench_run
from tools.docs import measured

RATES = {"asyncio_streams": 9_000, "plain_socket": 5_000}


def test_run_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Measured, "save", lambda _: pytest.fail("there is nothing to save"))
    assert measured.main(str(tmp_path / "none")) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"tools.docs.measured: no run '{tmp_path}/none' in ")
    assert said.out == ""


def test_figures_of_a_run_are_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved: list[list[str]] = []
    monkeypatch.setattr(Measured, "save", lambda found: saved.append(list(found.models)))
    run = make_bench_run(tmp_path, RATES, replace(PLAN, models=tuple(RATES)))
    assert measured.main(str(run.folder)) == 0
    assert [sorted(each) for each in saved] == [list(RATES)]
    assert capsys.readouterr().out.startswith(f"2 models of {run.started}, written to ")


def test_models_to_measure_are_those_without_a_profile_and_the_two_that_others_are_compared_with() -> None:
    models = [model.name for model in Catalogue.load().models if not model.profile]
    assert measured.list_models() == [*models, "peer_redis", "peer_uvicorn"]


def test_models_without_a_figure_are_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Measured, "save", lambda _: None)
    monkeypatch.setattr(Measured, "of", lambda _: Measured(missing={"prefork": "it fell over"}))
    assert measured.main(str(make_bench_run(tmp_path, RATES, replace(PLAN, models=tuple(RATES))).folder)) == 0
    assert capsys.readouterr().err == "not measured: prefork: it fell over\n"
