"""The processes of a load, and its end: of the generator, of its workers before it, or by a timeout."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.load import generator
from lab.load.generator import Generator, open_generator
from lab.load.messages import Joined
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


class Starting:
    """Helpers that start nothing: a worker says at once that it has joined."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str, str, Mapping[str, str], bool]] = []

    def choose_bind(self, port: int) -> tuple[str, int]:
        return "*", port + 1

    @contextmanager
    def start_service(
        self, name: str, service: str, arguments: Sequence[str], *, environ: Mapping[str, str], publish: bool = False
    ) -> Iterator[FakeHelper]:
        self.started.append((name, service, " ".join(arguments), environ, publish))
        helper = FakeHelper(name)
        helper.say(Joined())
        yield helper


def test_generator_alone_is_one_process_with_its_own_variables() -> None:
    helpers = Starting()
    with open_generator(
        cast(Any, helpers), ["--users", "3"], workers=0, environ={"A": "1"}, own={"B": "2"}, publish=True
    ) as found:
        assert (found.main.name, found.workers) == ("the load generator", ())
    environ = {"A": "1", "B": "2", "LAB_LIFELINE": "stdin"}
    assert helpers.started == [("the load generator", "locust", "--users 3", environ, True)]


def test_master_waits_for_its_workers_whose_failed_exchanges_are_no_error() -> None:
    helpers = Starting()
    with open_generator(
        cast(Any, helpers),
        ["--users", "3"],
        workers=2,
        environ={"A": "1"},
        own={"B": "2"},
        publish=True,
        worker_arguments=["-f", "a.py"],
    ) as found:
        assert [worker.name for worker in found.workers] == ["worker 1 of 2", "worker 2 of 2"]
    master, *workers = helpers.started
    assert master == (
        "the load generator's master",
        "locust",
        "--users 3 --master --master-bind-host=* --master-bind-port 5558 --expect-workers 2",
        {"A": "1", "B": "2", "LAB_LIFELINE": "stdin"},
        True,
    )
    # Neither the port nor what is the master's own is for them. Without the last option, one that had failed exchanges
    # would be reported as ended.
    joining = "-f a.py --worker --master-host 127.0.0.1 --master-port 5558 --exit-code-on-error 0"
    environ = {"A": "1", "LAB_LIFELINE": "stdin"}
    assert workers == [(f"worker {number} of 2", "locust_worker", joining, environ, False) for number in (1, 2)]
