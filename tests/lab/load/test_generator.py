"""The processes of a load, and its end: of the generator, of its workers before it, or by a timeout."""

import json
import subprocess
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.base.errors import LabError
from lab.base.messages import Message
from lab.load import generator
from lab.load.generator import Generator, PersistentGenerator, open_generator, run_generator
from lab.load.messages import Joined, LoadEnded
from lab.servers.backend import Completed
from tests.support.approx import about
from tests.support.fakes import Clock, FakeHelper, set_clock


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
        clock.now += 5.0

    # At exactly 10 s the load may still end in time.
    with pytest.raises(LabError, match="the load generator took longer than 10 s and was ended"):
        Generator(cast(Any, make_main())).wait(10.0, meanwhile=pass_time)
    assert looked == [100.0, 105.0, 110.0]


class Starting:
    """Helpers that start nothing: a worker says at once that it has joined, unless it is one that `is_silent`."""

    def __init__(self, *, is_silent: Container[str] = ()) -> None:
        self.started: list[tuple[str, str, str, Mapping[str, str], bool]] = []
        self.helpers: dict[str, FakeHelper] = {}
        self.closed: list[str] = []
        self.is_silent = is_silent

    def choose_bind(self, port: int) -> tuple[str, int]:
        return "*", port + 1

    @contextmanager
    def start_service(
        self, name: str, service: str, arguments: Sequence[str], *, environ: Mapping[str, str], publish: bool = False
    ) -> Iterator[FakeHelper]:
        self.started.append((name, service, " ".join(arguments), environ, publish))
        helper = self.helpers[name] = FakeHelper(name)
        if name not in self.is_silent:
            helper.say(Joined())
        yield helper
        self.closed.append(name)


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


class Slow(Clock):
    """A clock: after each look that found nothing comes the next of some events. More looks than these are an error."""

    def __init__(self, *events: Callable[[Clock], object]) -> None:
        super().__init__()
        self.events = list(events)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.events.pop(0)(self)


SILENT = ("worker 1 of 2", "worker 2 of 2")


def start_slowly(monkeypatch: pytest.MonkeyPatch, helpers: Starting, *events: Callable[[Clock], object]) -> Slow:
    """Start a master with two workers; return the clock of it."""
    clock = Slow(*events)
    monkeypatch.setattr(generator, "time", clock)
    with open_generator(cast(Any, helpers), [], workers=2, environ={}):
        return clock


def test_block_begins_when_the_last_worker_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = Starting(is_silent=SILENT)

    def join(name: str) -> Callable[[Clock], None]:
        return lambda clock: helpers.helpers[name].say(Joined())

    clock = start_slowly(monkeypatch, helpers, lambda clock: None, join(SILENT[1]), join(SILENT[0]))
    assert clock.events == []
    assert not any(publish for *_, publish in helpers.started)
    # In the reverse order of their start.
    assert helpers.closed == [*reversed(SILENT), "the load generator's master"]


def test_worker_that_joins_and_ends_at_once_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Generator.wait` reports its end."""
    helpers = Starting(is_silent=SILENT)

    def join_and_end(clock: Clock) -> None:
        for name in SILENT:
            helpers.helpers[name].say(Joined())
            helpers.helpers[name].program.code = 3

    start_slowly(monkeypatch, helpers, join_and_end)


def test_worker_that_ends_before_it_has_joined_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = Starting(is_silent=SILENT[1:])

    def end(clock: Clock) -> None:
        helpers.helpers[SILENT[1]].say("no such file")
        helpers.helpers[SILENT[1]].program.code = 2

    with pytest.raises(
        LabError, match=r"^worker 2 of 2 did not join its master: exit code 2; its output ends with:\n  no such file$"
    ):
        start_slowly(monkeypatch, helpers, end)


def test_master_that_ends_before_its_workers_have_joined_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = Starting(is_silent=SILENT)

    def end(clock: Clock) -> None:
        helpers.helpers["the load generator's master"].program.code = 1

    with pytest.raises(
        LabError,
        match=r"^the load generator's master ended before its workers had joined: exit code 1; it said nothing$",
    ):
        start_slowly(monkeypatch, helpers, end)


def test_worker_that_does_not_join_in_a_minute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has joined. After exactly one minute it may still join."""
    helpers = Starting(is_silent=SILENT[1:])
    looked = []

    def reach(now: float) -> Callable[[Clock], None]:
        def go_on(clock: Clock) -> None:
            looked.append(now)
            clock.now = now

        return go_on

    with pytest.raises(LabError, match=r"^worker 2 of 2 did not join its master within 60 s; it said nothing$"):
        start_slowly(monkeypatch, helpers, reach(160.0), reach(160.5))
    assert looked == [160.0, 160.5]


# The persistent generator, and a load to its end.


class Persistent(Starting):
    """Starts persistent generators, which answer a load with what they are given."""

    def __init__(self, *answers: Sequence[Message | str]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[Any] = []

    def _answer(self, line: str) -> Iterable[Message | str]:
        self.asked.append(json.loads(line))
        return self.answers.pop(0)

    @contextmanager
    def start_service(
        self,
        name: str,
        service: str,
        arguments: Sequence[str] = (),
        *,
        environ: Mapping[str, str],
        publish: bool = False,
    ) -> Iterator[FakeHelper]:
        self.started.append((name, service, " ".join(arguments), environ, publish))
        yield FakeHelper(name, self._answer)
        self.closed.append(name)


def test_loads_share_a_persistent_generator_and_have_their_own_output() -> None:
    helpers = Persistent(["a line", LoadEnded(3)], ["another", LoadEnded(0)])
    with PersistentGenerator(cast(Any, helpers)) as found:
        assert found.host is None
        first = found.run(["--users", "3"], environ={"A": "1"}, timeout=9.0)
        assert found.host == "127.0.0.1"
        second = found.run([], environ={}, timeout=9.0)
        assert helpers.closed == []
    assert [(done.args, done.returncode, done.stdout) for done in (first, second)] == [
        (["locust", "--users", "3"], 3, "a line"),
        (["locust"], 0, "another"),
    ]
    lifeline = {"LAB_LIFELINE": "stdin"}
    assert helpers.started == [("the load generator", "locust_persistent", "", lifeline, False)]
    assert [(each["arguments"], each["environ"]) for each in helpers.asked] == [
        (["--users", "3"], {"A": "1", **lifeline}),
        ([], lifeline),
    ]
    assert helpers.closed == ["the load generator"]
    assert found.host is None


def test_load_that_times_out_ends_its_generator_and_the_next_one_starts_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = set_clock(monkeypatch, tmp_path)
    helpers = Persistent(["half a load"], [LoadEnded(0)])
    with PersistentGenerator(cast(Any, helpers)) as found:
        with pytest.raises(LabError, match=r"^the load generator sent no LoadEnded within 4 s"):
            found.run([], environ={}, timeout=4.0, expected=3.0)
        # Until the load can have ended its output is read seldom.
        assert (clock.slept[0] > clock.slept[-1], clock.now) == (True, about(104.0, abs=0.1))
        assert (found.host, helpers.closed) == (None, ["the load generator"])
        assert found.run([], environ={}, timeout=4.0).returncode == 0
        assert len(helpers.started) == 2
        assert len(helpers.closed) == 1
    assert len(helpers.closed) == 2


def test_output_of_a_load_of_unknown_length_is_read_often(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = set_clock(monkeypatch, tmp_path)
    with (
        PersistentGenerator(cast(Any, Persistent([]))) as found,
        pytest.raises(LabError, match="sent no LoadEnded"),
    ):
        found.run([], environ={}, timeout=4.0)
    assert len(set(clock.slept)) == 1


class Running(Starting):
    """Runs a generator without workers at once."""

    def run_service(self, *arguments: object, **options: object) -> Completed:
        self.ran = arguments, options
        return Completed(["locust"], 7, "all output", "")


def test_load_without_workers_is_one_command_with_its_output() -> None:
    helpers = Running()
    done = run_generator(cast(Any, helpers), ["--users", "3"], workers=0, environ={"A": "1"}, timeout=9.0)
    assert (done.returncode, done.stdout) == (7, "all output")
    options = {"environ": {"A": "1", "LAB_LIFELINE": "stdin"}, "capture": True, "timeout": 9.0}
    assert helpers.ran == (("locust", ["--users", "3"]), options)


def test_load_with_workers_has_the_output_and_the_exit_code_of_its_master(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = Running()
    waited: list[float | None] = []

    def wait(running: Generator, timeout: float | None = None) -> int:
        waited.append(timeout)
        running.main.say("the report")  # type: ignore[attr-defined]  # a FakeHelper
        return 4

    monkeypatch.setattr(Generator, "wait", wait)
    done = run_generator(
        cast(Any, helpers),
        ["--users", "3"],
        workers=2,
        environ={"A": "1"},
        timeout=9.0,
        worker_arguments=["-f", "a.py"],
    )
    assert (done.args, done.returncode, done.stdout.splitlines()[-1]) == (["locust", "--users", "3"], 4, "the report")
    assert waited == [9.0]
    master, *workers = helpers.started
    environ = {"A": "1", "LAB_LIFELINE": "stdin"}
    assert (master[0], master[3]) == ("the load generator's master", environ)
    assert [(worker[2][:7], worker[3]) for worker in workers] == [("-f a.py", environ)] * 2
