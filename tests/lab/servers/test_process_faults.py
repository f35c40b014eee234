"""What a fault does to a model that runs as processes. The signals and the programs are the test's."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from lab.base.errors import LabError
from lab.servers import process_faults
from lab.servers.backend import Completed
from lab.servers.process_faults import ProcessFaults
from lab.servers.throttle import Throttling
from tests.support.fakes import Clock, FakeHelper, UnusedBackend

MODEL = "plain_socket"


class FakeProcesses(UnusedBackend):
    """A model with the pid 7, and its helpers."""

    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps
        self.answer = Completed([], 0, "its output\n", "")
        self.complaint = ""  # of a program that does not start
        self.looks: list[bool] = []  # whether it still runs, each time that it is asked; then it does not

    def pid(self, model: str) -> int:
        assert model == MODEL
        return 7

    def is_running(self, model: str) -> bool:
        return bool(self.looks) and self.looks.pop(0)

    def run(self, arguments: Sequence[str], **options: Any) -> Completed:
        self.steps.append((list(arguments), options))
        return self.answer

    @contextmanager
    def start(self, name: str, arguments: Sequence[str]) -> Iterator[FakeHelper]:
        self.steps.append(("start", *arguments[-2:]))
        helper = FakeHelper(name)
        if self.complaint:
            helper.say(self.complaint)
            helper.program.code = 1
        else:
            helper.say(Throttling())
        try:
            yield helper
        finally:
            self.steps.append("ended")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    steps: list[Any] = []
    # Of all processes of a model: a worker that goes on would serve its clients.
    monkeypatch.setattr(process_faults, "signal_all", lambda pid, number: steps.append(("all", pid, number)))
    monkeypatch.setattr(os, "kill", lambda pid, number: steps.append(("one", pid, number)))
    return steps


@pytest.fixture
def processes(steps: list[Any]) -> FakeProcesses:
    return FakeProcesses(steps)


@pytest.fixture
def faults(processes: FakeProcesses) -> ProcessFaults:
    return ProcessFaults(processes, processes)


def test_model_is_paused_with_all_its_processes_and_killed_by_its_main_one(
    faults: ProcessFaults, steps: list[Any]
) -> None:
    faults.pause(MODEL)
    faults.unpause(MODEL)
    faults.kill(MODEL, signal.SIGTERM)
    assert steps == [("all", 7, signal.SIGSTOP), ("all", 7, signal.SIGCONT), ("one", 7, signal.SIGTERM)]


def test_script_gets_the_pid_of_the_model_and_its_own_arguments(faults: ProcessFaults, steps: list[Any]) -> None:
    assert faults.run_beside(MODEL, "print(1)", ["a", "b"]) == "its output\n"
    assert steps == [(["python", "-c", "print(1)", "7", "a", "b"], {"capture": True})]


@pytest.mark.parametrize(
    ("stdout", "stderr", "said"),
    [("ignored\n", "Traceback\n  x\nOSError: no\n", "OSError: no"), ("a\nit failed\n", " \n", "it failed")],
)
def test_script_that_fails_is_an_error_with_its_last_line(
    faults: ProcessFaults, processes: FakeProcesses, stdout: str, stderr: str, said: str
) -> None:
    processes.answer = Completed([], 1, stdout, stderr)
    with pytest.raises(LabError, match=f"^{MODEL}: {said}$"):
        faults.run_beside(MODEL, "print(1)")


def test_throttle_is_replaced_by_the_next_and_ended_by_none(faults: ProcessFaults, steps: list[Any]) -> None:
    faults.limit_cpu(MODEL, 0.25)
    assert steps == [("start", "7", "0.25")]
    faults.limit_cpu(MODEL, 0.5)
    # The one before ends first. It may have been killed while the model was stopped.
    ended = ["ended", ("all", 7, signal.SIGCONT)]
    assert steps == [("start", "7", "0.25"), *ended, ("start", "7", "0.5")]
    steps.clear()
    faults.limit_cpu(MODEL, None)
    assert steps == ended
    faults.limit_cpu(MODEL, None)
    assert steps == ended


def test_model_is_not_throttled_before_the_program_says_so(
    faults: ProcessFaults, processes: FakeProcesses, steps: list[Any]
) -> None:
    processes.complaint = "MemoryError"
    with pytest.raises(LabError, match=r"^the process that throttles plain_socket ended with exit code 1.*\n  Memory"):
        faults.limit_cpu(MODEL, 0.25)
    assert steps == [("start", "7", "0.25"), "ended"]
    faults.limit_cpu(MODEL, None)  # there is nothing to end
    assert len(steps) == 2


@pytest.mark.parametrize("error", [ProcessLookupError(), psutil.NoSuchProcess(7)])
def test_fault_of_a_model_that_has_just_ended_is_an_error_once_its_code_is_written(
    faults: ProcessFaults, processes: FakeProcesses, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(pid: int, number: int) -> None:
        raise error

    clock = Clock()
    monkeypatch.setattr(process_faults, "time", clock)
    monkeypatch.setattr(os, "kill", fail)
    processes.looks = [True, True, True]
    with pytest.raises(LabError, match=rf"^{MODEL} has just ended: `lab up {MODEL}`$"):
        faults.kill(MODEL, signal.SIGKILL)
    assert len(clock.slept) == 3
    # It is not waited for without end.
    processes.looks = [True] * 10_000
    with pytest.raises(LabError, match="has just ended"):
        faults.kill(MODEL, signal.SIGKILL)
    assert processes.looks
