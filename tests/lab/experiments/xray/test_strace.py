"""strace is attached for the length of a block, or the error says why not."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from lab.base.errors import LabError
from lab.experiments.xray import strace
from lab.experiments.xray.strace import list_pids, parse_log, traced, traced_process
from tests.support.fakes import Clock, UnusedBackend


@pytest.fixture
def cat() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that returns what it reads."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process


def exchange(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(data)
    process.stdin.flush()
    assert process.stdout.read(len(data)) == data


def test_calls_between_the_begin_and_the_end_of_the_block_are_logged(cat: "subprocess.Popen[bytes]") -> None:
    # On a busy machine, strace may be told to end before it has logged the second call: not three times.
    for _ in range(3):
        exchange(cat, b"before it")
        with traced_process(cat.pid) as log:
            exchange(cat, b"four")
            assert log.lines == []
        exchange(cat, b"after it, and longer")
        calls = list(parse_log(log.lines))
        if len(calls) > 1:
            break
    first, second = calls[:2]
    assert (first.thread, first.name, first.result) == (cat.pid, "read", 4)
    # Whether it had returned when strace was told to end is open.
    assert (second.thread, second.name) == (cat.pid, "write")
    assert sum(call.result for call in calls) <= 8
    # What is read and written is the client's business.
    assert not any("four" in line for line in log.lines)


def test_process_that_cannot_be_traced_is_an_error_with_the_reason_of_strace() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        with pytest.raises(LabError, match=r"No such process$"), traced_process(process.pid):
            pass


def test_missing_strace_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.experiments.xray.strace.shutil.which", lambda name: None)
    with pytest.raises(LabError, match=r"^strace is not installed: apt-get install strace$"), traced_process(1):
        pass


def wait(monkeypatch: pytest.MonkeyPatch, said: Path, *, count: int, code: int | None = None) -> Clock:
    """Wait until a strace that has written something is attached; the clock goes on at each look."""
    clock = Clock()
    monkeypatch.setattr(strace, "time", clock)
    strace._wait_attached(cast(Any, SimpleNamespace(poll=lambda: code)), said, count)
    return clock


def test_strace_is_attached_when_it_says_so_of_each_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_bytes(b"strace: Process 1 attached\nstrace: Process 2 attached with 2 threads\n\xff")
    assert wait(monkeypatch, said, count=2, code=1).slept == []
    # One more, at the second look.
    monkeypatch.setattr(Clock, "sleep", lambda clock, seconds: said.write_text("attached attached attached attached"))
    wait(monkeypatch, said, count=3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("attach: ptrace(PTRACE_SEIZE, 7)\nOperation not permitted\n", "Operation not permitted"), ("", "strace ended")],
)
def test_strace_that_ends_is_an_error_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "said").write_text(text)
    with pytest.raises(LabError, match=f"^{reason}$"):
        wait(monkeypatch, tmp_path / "said", count=1, code=1)


def test_strace_that_is_not_attached_in_20_seconds_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "said").touch()
    looks: list[float] = []

    def sleep(clock: Clock, seconds: float) -> None:
        looks.append(clock.now)
        clock.now += 10.0

    monkeypatch.setattr(Clock, "sleep", sleep)
    with pytest.raises(LabError, match=r"^strace was not attached within 20 s$"):
        wait(monkeypatch, tmp_path / "said", count=1)
    # It is not yet late at the 20th.
    assert looks == [100.0, 110.0, 120.0]


class Beside(UnusedBackend):
    """Runs scripts as a process above the model's."""

    def __init__(self, pid: int, name: str = "process") -> None:
        self.pid, self.name = pid, name

    def run_beside(self, model: str, script: str, arguments: Sequence[str] = ()) -> str:
        assert model == "m"
        command = [sys.executable, "-c", script, str(self.pid), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def tracing_command(self, model: str) -> list[str]:
        return ["docker", "run", "--pid", model]


def test_processes_of_a_model_are_those_below_its_first(cat: "subprocess.Popen[bytes]") -> None:
    assert list_pids(Beside(cat.pid), "m") == [cat.pid]


@pytest.mark.parametrize(
    ("place", "command"),
    [("docker", ["docker", "run", "--pid", "m", "strace", "-f", "-c"]), ("process", ["/bin/strace", "-f", "-c"])],
)
def test_strace_runs_where_the_processes_are(
    monkeypatch: pytest.MonkeyPatch, cat: "subprocess.Popen[bytes]", place: str, command: list[str]
) -> None:
    attached: list[tuple[Sequence[str], Sequence[int]]] = []

    @contextmanager
    def attach(command: Sequence[str], pids: Sequence[int]) -> Iterator[strace.Log]:
        attached.append((command, pids))
        yield strace.Log(["a line"])

    monkeypatch.setattr(strace, "_attached", attach)
    monkeypatch.setattr("lab.experiments.xray.strace.shutil.which", lambda name: f"/bin/{name}")
    with traced(Beside(cat.pid, place), "m", ["-f", "-c"]) as log:
        assert log.lines == ["a line"]
    assert attached == [(command, [cat.pid])]


def test_strace_that_could_not_be_attached_is_ended(
    monkeypatch: pytest.MonkeyPatch, cat: "subprocess.Popen[bytes]"
) -> None:
    attached: list[subprocess.Popen[bytes]] = []

    def fail(process: "subprocess.Popen[bytes]", said: Path, count: int) -> NoReturn:
        attached.append(process)
        raise LabError("it took too long")

    monkeypatch.setattr(strace, "_wait_attached", fail)
    with pytest.raises(LabError, match="it took too long"), traced_process(cat.pid):
        pass
    (process,) = attached
    assert process.returncode is not None
