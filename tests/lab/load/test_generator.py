"""The end of a load: of the load generator, of its workers before it, or by a timeout. Nothing is started."""

import subprocess
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.load import generator
from lab.load.generator import Generator
from tests.support.fakes import Clock, FakeHelper


def make_main(*waits: int | None) -> Any:
    """Return a main process: for each time that it is waited for its exit code, or None if it still runs."""
    left = list(waits)

    def wait(seconds: float) -> int:
        code = left.pop(0) if left else None
        if code is None:
            raise subprocess.TimeoutExpired("locust", seconds)
        return code

    return SimpleNamespace(process=SimpleNamespace(wait=wait))


def make_worker(number: int, code: int | None) -> FakeHelper:
    worker = FakeHelper(f"worker {number} of 3")
    worker.program.code = code
    worker.say("its last line")
    return worker


def test_worker_that_ends_early_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    # The first runs, the second one has failed, and the third was told to end.
    workers = [make_worker(1, None), make_worker(2, 3), make_worker(3, 0)]
    asked: list[int] = []
    assert Generator(make_main(None, None, None, 1), workers).wait(meanwhile=lambda: asked.append(1)) == 1
    assert capsys.readouterr().err.splitlines() == [
        "lab: worker 2 of 3 ended during the run: exit code 3; its output ends with:",
        "  its last line",
    ]
    assert len(asked) == 3


def test_load_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(generator, "time", clock)
    looked: list[float] = []

    def pass_time() -> None:
        looked.append(clock.now)
        clock.now += 4.0

    with pytest.raises(LabError, match="the load generator took longer than 10 s and was ended"):
        Generator(cast(Any, make_main())).wait(10.0, meanwhile=pass_time)
    assert looked == [100.0, 104.0, 108.0]
