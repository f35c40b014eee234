"""`lab check`: how it runs the suite, and how it reads the results."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from lab.base.errors import LabError
from lab.base.messages import build
from lab.base.paths import ROOT
from lab.experiments.conformance import suite
from lab.experiments.conformance.plugin import Printer, pytest_configure
from lab.experiments.conformance.results import MARK, ModelResult
from lab.experiments.conformance.suite import (
    Finding,
    SuiteReport,
    check_external,
    check_in_subprocess,
    check_models,
    read_report,
)
from lab.servers.backend import ModelState
from lab.servers.catalogue import Catalogue, Model
from tests.support.fakes import UnusedBackend
from tests.support.waiting import wait_until


def finding(name: str, outcome: str, detail: str = "") -> str:
    return MARK + json.dumps({"name": name, "outcome": outcome, "detail": detail})


def test_report_counts_by_model_and_transport() -> None:
    lines = [
        "..",
        finding("t.py::a[mine-echo-tcp]", "passed"),
        finding("t.py::b[mine-echo-tcp]", "failed", "why"),
        finding("t.py::c[mine-echo-unix]", "xfailed", "a limit"),
        finding("t.py::c[other-echo-unix]", "passed"),
        finding("t.py", "error", "cannot be imported"),
    ]
    report = read_report(CompletedProcess([], 1, "\n".join(lines), ""), ["mine", "other"])
    assert report.table() == (
        ["model", "tcp", "unix"],
        [["mine", "1 pass, 1 FAIL", "1 limit"], ["other", "-", "1 pass"]],
    )
    assert report.summary() == "2 passed, 1 failed, 1 error, 1 declared limits held"
    assert (report.holds, len(report.failures)) == (False, 2)


def test_run_without_tests_does_not_hold() -> None:
    assert not read_report(CompletedProcess([], 0, "", ""), []).holds
    with pytest.raises(LabError, match=r"could not run \(pytest's exit code 4\):\n  ERROR: no such file"):
        read_report(CompletedProcess([], 4, "", "ERROR: no such file"), [])


@pytest.mark.parametrize(
    ("outcomes", "holds", "summary", "cell"),
    [
        ([], False, "nothing was tested", "-"),
        (["passed"], True, "1 passed", "1 pass"),
        (["xfailed"], False, "1 declared limits held", "1 limit"),
        (["skipped", "skipped"], False, "2 skipped", "2 skip"),
        (["passed", "failed"], False, "1 passed, 1 failed", "1 pass, 1 FAIL"),
        (["passed", "error"], False, "1 passed, 1 error", "1 pass, 1 FAIL"),
        (
            ["passed"] * 4 + ["failed"] * 3 + ["error"] * 2 + ["xfailed"] + ["skipped"],
            False,
            "4 passed, 3 failed, 2 error, 1 declared limits held, 1 skipped",
            "4 pass, 5 FAIL, 1 limit, 1 skip",
        ),
    ],
)
def test_report_holds_if_something_was_tested_and_nothing_failed(
    outcomes: list[str], holds: bool, summary: str, cell: str
) -> None:
    report = SuiteReport(tuple(Finding(f"t{number}", "a", "tcp", item, "") for number, item in enumerate(outcomes)))
    assert report.holds is holds
    assert report.summary() == summary
    assert report.as_json()["holds"] is holds
    assert [item.outcome for item in report.failures] == [item for item in outcomes if item in ("failed", "error")]
    if outcomes:
        assert report.table() == (["model", "tcp"], [["a", cell]])


def test_findings_are_in_model_order_with_model_and_transport() -> None:
    lines = [
        finding("t.py", "error", "no model"),
        finding("t.py::x[b-echo-udp]@b", "passed"),
        finding("t.py::x[a-command-tls-PING]@a", "failed", "why"),
        finding("t.py::x[1.2-a-echo-unixgram]", "passed"),
    ]
    report = read_report(CompletedProcess([], 1, "\n".join(lines), ""), iter(["a", "b"]))
    assert report.findings == (
        Finding("t.py::x[a-command-tls-PING]@a", "a", "tls", "failed", "why"),
        Finding("t.py::x[1.2-a-echo-unixgram]", "a", "unixgram", "passed", ""),
        Finding("t.py::x[b-echo-udp]@b", "b", "udp", "passed", ""),
        Finding("t.py", "", "", "error", "no model"),
    )
    assert build(SuiteReport, json.loads(json.dumps(report.as_json()))) == report
    assert report.as_json()["findings"][0] == {  # type: ignore[index]
        "name": "t.py::x[a-command-tls-PING]@a",
        "model": "a",
        "transport": "tls",
        "outcome": "failed",
        "detail": "why",
    }


@pytest.mark.parametrize("code", [2, 3, 4, 5, -9])
def test_suite_that_could_not_run_is_an_error_with_the_end_of_its_output(code: int) -> None:
    """The error has the last 15 lines of both streams, without those of the plugin."""
    out = "\n".join([*(f"out {number}" for number in range(20)), "", finding("t.py::x[a]", "passed")])
    with pytest.raises(LabError) as caught:
        read_report(CompletedProcess([], code, out, "err 1\n\nerr 2\n"), ["a"])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"the suite could not run (pytest's exit code {code}):"
    assert lines[1:] == [*(f"  out {number}" for number in range(7, 20)), "  err 1", "  err 2"]


class Fake(UnusedBackend):
    """A backend with given running models; records the calls."""

    project = "fake"

    def __init__(self, *running: str, name: str = "process", fails: bool = False) -> None:
        self.name = name
        self._running = list(running)
        self._fails = fails
        self.asked: list[Any] = []

    def state(self) -> list[ModelState]:
        return [
            ModelState(model.name, model.family, self.name, "running" if model.name in self._running else "missing")
            for model in self.catalogue.models
        ]

    def up(self, models: Iterable[str | Model] = (), **_: Any) -> None:
        names = [str(model) for model in models]
        self.asked.append(("up", names))
        self._running += names

    def down(self) -> None:
        self.asked.append("down")

    def run_service(
        self,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str] | None = None,
        capture: bool = False,
        **_: Any,
    ) -> "CompletedProcess[str]":
        assert (service, capture) == ("tests", True)
        assert environ is not None
        rows = json.loads(environ["LAB_TARGETS"])
        self.asked.append((arguments, {row["model"]: (row["limits"], row["rfc_only"]) for row in rows}))
        if self._fails:
            return CompletedProcess([], 3, "", "broken")
        lines = [finding(f"t.py::x[{row['model']}-echo-tcp]", "passed") for row in rows]
        return CompletedProcess([], 0, "\n".join(lines), "")


# Two plugins only; one process for one model.
ALONE = [
    *("tests/conformance", "--disable-plugin-autoload", "-p", "xdist", "-p", "timeout"),
    *("-p", "lab.experiments.conformance.plugin", "--quiet", "--no-header"),
]
ARGUMENTS = [*ALONE, "--numprocesses", "4", "--dist", "loadgroup"]
OVERLAP = {"overlap": Catalogue.load()["plain_socket"].limits["overlap"]}


def test_running_models_are_checked_without_a_restart(capsys: pytest.CaptureFixture[str]) -> None:
    backend = Fake("plain_socket", "asyncio_streams", "thread_pool")
    report = check_models(backend, ["plain_socket", "asyncio_streams"], progress=True)
    assert report.table()[1] == [["plain_socket", "1 pass"], ["asyncio_streams", "1 pass"]]
    assert backend.asked == [(ARGUMENTS, {"plain_socket": (OVERLAP, False), "asyncio_streams": ({}, False)})]
    assert capsys.readouterr().err == "lab: checking plain_socket, asyncio_streams ...\n"


def test_models_in_containers_are_checked_from_inside_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    backend = Fake("peer_redis", name="docker")
    check_models(backend, ["peer_redis"], progress=False)
    [(arguments, targets)] = backend.asked
    assert arguments == [*ALONE, "--network"]
    assert targets["peer_redis"][1] is True
    assert capsys.readouterr().err == ""
    # What runs only in a container is not therefore held to less.
    backend = Fake("threads_nogil", name="docker")
    check_models(backend, ["threads_nogil"], progress=False)
    assert backend.asked[0][1]["threads_nogil"][1] is False


@pytest.mark.parametrize("fails", [False, True])
def test_stopped_models_are_started_and_taken_down(fails: bool) -> None:
    backend = Fake(fails=fails)
    if fails:
        with pytest.raises(LabError, match="broken"):
            check_models(backend, ["plain_socket"], progress=False)
    else:
        assert check_models(backend, ["plain_socket"], progress=False).holds
    assert [backend.asked[0], backend.asked[-1]] == [("up", ["plain_socket"]), "down"]
    assert len(backend.asked) == 3


def test_partly_running_models_are_refused() -> None:
    backend = Fake("thread_pool")
    with pytest.raises(LabError, match=r"^plain_socket not running: `lab up plain_socket` starts them$"):
        check_models(backend, ["thread_pool", "plain_socket"], progress=False)
    assert backend.asked == []


@pytest.mark.parametrize("rfc", [False, True])
def test_external_server_is_probed_and_then_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rfc: bool
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(suite, "check_reachable", lambda service, address: asked.append((service, str(address))))

    def run(command: list[str], **options: Any) -> "CompletedProcess[str]":
        asked.append(command)
        assert options == {
            "cwd": ROOT,
            "capture_output": True,
            "text": True,
            "errors": "replace",  # without UTF-8 no output may be lost
            "check": False,
        }
        return CompletedProcess([], 1, finding("t.py::x[target-echo-tcp]", "failed", "why"), "")

    monkeypatch.setattr(subprocess, "run", run)
    report = check_external(["echo=tcp://h:9000", "discard=udp://h"], rfc_only=rfc, progress=rfc)
    assert report.table()[1] == [["target", "1 FAIL"]]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *ALONE]
    targets = ["--target", "echo=tcp://h:9000", "--target", "discard=udp://h:9"]
    assert asked == [
        ("echo", "tcp://h:9000"),
        ("discard", "udp://h:9"),
        [*command, *(["--rfc"] if rfc else []), *targets],
    ]
    assert capsys.readouterr().err == ("lab: checking ...\n" if rfc else "")


class Here(UnusedBackend):
    project = "another-lab"


@pytest.fixture
def run_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Run a shell script instead of `lab check`, which writes its arguments to a file."""

    def replace(script: str) -> Path:
        stub = tmp_path / "python"
        stub.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\n{script}\n')
        stub.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(stub))
        return tmp_path

    return replace


def test_running_models_are_checked_by_the_command_of_this_lab(run_stub: Callable[[str], Path]) -> None:
    one = {"name": "t.py::x[prefork-echo-tcp]", "model": "prefork", "transport": "tcp", "detail": "why"}
    outcomes = ("passed", "failed", "error", "skipped", "xfailed", "xfailed", "passed", "passed", "xfailed", "xfailed")
    report = {"holds": False, "findings": [one | {"outcome": outcome} for outcome in outcomes]}
    folder = run_stub(f"echo '{json.dumps(report)}'; exit 1")
    assert check_in_subprocess(Here(), ["prefork", "thread_pool"]) == {
        "prefork": ModelResult(passed=3, failed=2, xfailed=4, failures=("t.py::x[prefork-echo-tcp]",) * 2),
        "thread_pool": ModelResult(0, 0),
    }
    # Without its project, it would check, and start, the models of another lab.
    assert (folder / "arguments").read_text().split() == [
        *("-m", "lab", "--backend", "process", "--project", "another-lab", "check", "--json", "prefork", "thread_pool")
    ]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'lab: no engine\n  start it' >&2; exit 2", "no engine\n  start it"),
        ("exit 3", "lab check returned no result (exit code 3)"),
    ],
)
def test_check_without_a_result_is_an_error_with_its_reason(
    run_stub: Callable[[str], Path], script: str, said: str
) -> None:
    run_stub(script)
    with pytest.raises(LabError) as found:
        check_in_subprocess(Here(), ["prefork"])
    assert str(found.value) == said


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (
            subprocess.TimeoutExpired("lab", 240),
            LabError,
            "the conformance suite took longer than 240 s and was stopped",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_check_that_is_stopped_can_end_its_own_processes(
    run_stub: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
    said: str,
) -> None:
    """It gets SIGTERM, and time to end."""
    folder = run_stub("")
    run_stub(
        f"cd {folder}; trap 'echo ended >ended; exit' TERM; mkfifo never; echo >ready; read x <never",
    )
    asked: list[float | None] = []
    communicate = subprocess.Popen.communicate

    def stop(process: "subprocess.Popen[str]", timeout: float | None = None) -> tuple[str, str]:
        asked.append(timeout)
        if len(asked) > 1:
            return communicate(process, timeout=60)
        wait_until((folder / "ready").exists)
        raise error

    monkeypatch.setattr(subprocess.Popen, "communicate", stop)
    with pytest.raises(raised) as found:
        check_in_subprocess(Here(), ["prefork"])
    assert str(found.value) == said
    assert (folder / "ended").read_text() == "ended\n"
    assert asked == [240, 10]


def test_check_that_does_not_end_by_sigterm_is_killed(
    run_stub: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_stub("")
    run_stub(f"cd {folder}; trap '' TERM; echo >ready; exec sleep 20")
    stopped: list[subprocess.Popen[str]] = []

    def stop(process: "subprocess.Popen[str]", timeout: float) -> NoReturn:
        stopped.append(process)
        wait_until((folder / "ready").exists)
        raise subprocess.TimeoutExpired("lab", timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", stop)
    with pytest.raises(LabError, match="took longer than 240 s and was stopped"):
        check_in_subprocess(Here(), ["prefork"])
    assert [process.returncode for process in stopped] == [-signal.SIGKILL] * 2


def test_target_without_tests_is_refused() -> None:
    for target in ("tcp://h:1", "gopher=tcp://h:1"):
        with pytest.raises(LabError, match="is not SERVICE=URL with one of greet, echo, discard, chargen, command"):
            check_external([target], rfc_only=False, progress=False)
    with pytest.raises(LabError, match="there are no tests of chargen over udp"):
        check_external(["chargen=udp://127.0.0.1:19"], rfc_only=False, progress=False)


def make_report(outcome: Any, when: Any, *, longrepr: Any = None, xfail: str | None = None) -> pytest.TestReport:
    report = pytest.TestReport("t.py::x[a]", ("t.py", 1, "x"), {}, outcome, longrepr, when)
    if xfail is not None:
        report.wasxfail = xfail
    return report


SKIP = ("t.py", 3, "Skipped: no engine")


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (make_report("passed", "setup"), None),
        (make_report("passed", "call"), ("passed", "")),
        (make_report("passed", "teardown"), None),
        (make_report("failed", "call", longrepr="why"), ("failed", "why")),
        (make_report("failed", "setup", longrepr="why"), ("error", "why")),
        (make_report("failed", "teardown", longrepr="why"), ("error", "why")),
        (make_report("skipped", "call", longrepr=SKIP), ("skipped", "Skipped: no engine")),
        (make_report("skipped", "setup", longrepr="why"), ("skipped", "why")),
        (make_report("skipped", "call", xfail="a limit"), ("xfailed", "a limit")),
    ],
)
def test_plugin_prints_a_line_for_each_test(
    report: pytest.TestReport, expected: tuple[str, str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    Printer().pytest_runtest_logreport(report)
    lines = capsys.readouterr().out.splitlines()
    if expected is None:
        assert lines == []
    else:
        outcome, detail = expected
        assert lines == ["", finding("t.py::x[a]", outcome, detail)]


def test_plugin_prints_files_that_cannot_be_imported(capsys: pytest.CaptureFixture[str]) -> None:
    Printer().pytest_collectreport(pytest.CollectReport("t.py", "failed", "SyntaxError", []))
    Printer().pytest_collectreport(pytest.CollectReport("u.py", "passed", None, []))
    assert capsys.readouterr().out == "\n" + finding("t.py", "error", "SyntaxError") + "\n"


@pytest.mark.parametrize(("is_worker", "count"), [(False, 1), (True, 0)])
def test_plugin_prints_in_one_process_only(is_worker: bool, count: int) -> None:
    """A worker of pytest-xdist reports to the main process, which would print each test twice."""
    registered: list[object] = []
    config = SimpleNamespace(pluginmanager=SimpleNamespace(register=registered.append))
    if is_worker:
        config.workerinput = {}
    pytest_configure(config)  # type: ignore[arg-type]
    assert [type(item) for item in registered] == [Printer] * count
