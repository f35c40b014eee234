"""What `lab check` asks the conformance suite for, and its exit code. No test of the suite runs."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lab.base.errors import LabError
from lab.cli.commands.check import check
from lab.experiments.conformance import suite
from lab.experiments.conformance.suite import Finding, SuiteReport
from lab.servers.catalogue import Catalogue
from tests.support.fakes import UnusedBackend

CATALOGUE = Catalogue.load()
PASSED = Finding("test_x[prefork-echo-tcp]", "prefork", "tcp", "passed", "")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the suite was asked for; its findings come first."""
    asked: list[Any] = [[PASSED]]

    def check_models(backend: object, models: list[str], *, progress: bool) -> SuiteReport:
        asked.append((models, progress))
        return SuiteReport(tuple(asked[0]))

    def check_external(targets: tuple[str, ...], *, rfc_only: bool, progress: bool) -> SuiteReport:
        asked.append((targets, rfc_only, progress))
        return SuiteReport(tuple(asked[0]))

    monkeypatch.setattr(suite, "check_models", check_models)
    monkeypatch.setattr(suite, "check_external", check_external)
    return asked


def invoke(*words: str) -> Any:
    return CliRunner().invoke(check, words, obj=SimpleNamespace(backend=UnusedBackend(), catalogue=CATALOGUE))


def test_models_or_targets_are_checked_as_asked(asked: list[Any]) -> None:
    assert invoke("prefork", "plain_socket").exit_code == 0
    assert invoke().exit_code == 0
    for more in ([], ["--rfc"]):
        assert invoke("--target", "echo=tcp://h:1", "--target", "greet=tcp://h:2", *more).exit_code == 0
    targets = ("echo=tcp://h:1", "greet=tcp://h:2")
    every = [model.name for model in CATALOGUE.select()]
    named = ["plain_socket", "prefork"]
    assert asked[1:] == [(named, False), (every, False), (targets, False, False), (targets, True, False)]
    for words in (["prefork", "--target", "echo=tcp://h:1"], ["prefork", "--rfc"]):
        assert isinstance(invoke(*words).exception, LabError)


@pytest.mark.parametrize(
    ("outcome", "code"), [("passed", 0), ("xfailed", 0), ("skipped", 0), ("failed", 1), ("error", 1)]
)
@pytest.mark.parametrize("words", [["prefork"], ["--target", "echo=tcp://h:1"]])
def test_failed_test_does_not_hold(asked: list[Any], outcome: str, code: int, words: list[str]) -> None:
    asked[0].append(Finding("test_y[prefork-echo-tcp]", "prefork", "tcp", outcome, "its traceback"))
    done = invoke(*words)
    assert done.exit_code == code
    assert ("FAILED test_y[prefork-echo-tcp]\nits traceback\n" in done.stdout) == bool(code)
    done = invoke(*words, "--json")
    assert done.exit_code == code
    assert outcome in json.dumps(json.loads(done.stdout))
