"""What `lab check` asks the conformance suite for, and its exit code. No test of the suite runs."""

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from lab.base.errors import LabError
from lab.cli.commands import check as command
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
    return CliRunner().invoke(command.check, words, obj=SimpleNamespace(backend=UnusedBackend(), catalogue=CATALOGUE))


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
    ("outcome", "code", "cell", "counts"),
    [
        ("passed", 0, "2 pass", "2 passed"),
        ("xfailed", 0, "1 pass, 1 limit", "1 passed, 1 declared limits held"),
        ("skipped", 0, "1 pass, 1 skip", "1 passed, 1 skipped"),
        ("failed", 1, "1 pass, 1 FAIL", "1 passed, 1 failed"),
        ("error", 1, "1 pass, 1 FAIL", "1 passed, 1 error"),
    ],
)
@pytest.mark.parametrize("words", [["prefork"], ["--target", "echo=tcp://h:1"]])
def test_failed_test_does_not_hold(
    asked: list[Any], outcome: str, code: int, cell: str, counts: str, words: list[str]
) -> None:
    asked[0].append(Finding("test_y[prefork-echo-tcp]", "prefork", "tcp", outcome, "its traceback"))
    done = invoke(*words)
    assert done.exit_code == code
    assert ("FAILED test_y[prefork-echo-tcp]\nits traceback\n" in done.stdout) == bool(code)
    assert done.stdout.splitlines()[-2:] == [f"prefork\t{cell}", counts]
    done = invoke(*words, "--json")
    assert done.exit_code == code
    assert outcome in json.dumps(json.loads(done.stdout))


@pytest.mark.parametrize("words", [["prefork"], ["--target", "echo=tcp://h:1"]])
def test_progress_is_shown_on_a_terminal_but_not_beside_json(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(command, "sys", SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True), exit=sys.exit))
    for more in ([], ["--json"]):
        assert invoke(*words, *more).exit_code == 0
    assert [progress for *_, progress in asked[1:]] == [True, False]
