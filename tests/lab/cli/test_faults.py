"""`lab faults`: its exit codes, what it prints and keeps, and that no Ctrl-C leaves anything behind."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NoReturn, cast
from uuid import uuid4

import click
import pytest

from lab.base.errors import LabError
from lab.cli.commands import faults as command
from lab.cli.commands.faults import exit_code, exit_code_under_load
from lab.cli.context import COULD_NOT_RUN, DID_NOT_HOLD, HELD, Lab
from lab.clients.request_log import Account
from lab.experiments.faults.fault import CannotApplyError, EndedError, FaultInterval, NotHealedError
from lab.experiments.faults.judge import Score, Verdict
from lab.experiments.faults.probe_reader import ProbeReport
from lab.experiments.faults.under_load import UnderLoad
from lab.experiments.store import Run, StoreError
from lab.servers.backend import Backend, choose_speakers
from lab.servers.catalogue import Model
from lab.servers.processes import Processes
from lab.servers.runtime import runtime_directory
from tests.faults.conftest import CATALOGUE, TIMEOUT
from tests.lab.conftest import find_processes
from tests.support.fakes import FakeBackend
from tests.support.made_up import MEASUREMENT

MODEL = "asyncio_streams"


def score(verdict: Verdict, expected: str = "", fault: str = "slow-clients", model: str = MODEL) -> Score:
    return Score(model, fault, verdict, "so it was", 1, 0.0, expected=expected)


FINE, BAD, UNKNOWN = score(Verdict.HELD), score(Verdict.FAILED), score(Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("scores", "untried", "code"),
    [
        ([], [], COULD_NOT_RUN),
        ([FINE], [], HELD),
        ([score(Verdict.DEGRADED)], [], HELD),
        ([BAD], [], DID_NOT_HOLD),
        ([UNKNOWN], [], COULD_NOT_RUN),
        ([FINE, UNKNOWN, FINE], [], COULD_NOT_RUN),
        ([UNKNOWN, BAD, FINE], [], DID_NOT_HOLD),
        ([FINE], ["plain_socket"], COULD_NOT_RUN),
        ([FINE, BAD], ["plain_socket"], DID_NOT_HOLD),
        ([score(Verdict.FAILED, "one at a time")], [], HELD),
        ([score(Verdict.HELD, "one at a time")], [], DID_NOT_HOLD),
        ([score(Verdict.DEGRADED, "one at a time")], [], DID_NOT_HOLD),
        ([score(Verdict.UNKNOWN, "one at a time")], [], COULD_NOT_RUN),
    ],
)
def test_exit_code_is_that_of_the_worst_score(scores: list[Score], untried: list[str], code: int) -> None:
    assert (HELD, DID_NOT_HOLD, COULD_NOT_RUN) == (0, 1, 2)
    assert exit_code(iter(scores), untried) == code


SEEN = ProbeReport(0.001, 0.01, 0.2, 0.4, 3, 0.5, ((0, 0.1, 0.2, 3),))


def make_seen(recover: float | None = 0.2, ended: int | None = None, fault: str = "pause") -> UnderLoad:
    interval = FaultInterval(fault, MODEL, is_control=False)
    interval.close()
    interval.ended = ended
    return UnderLoad(interval, replace(SEEN, recover=recover), MEASUREMENT)


@pytest.mark.parametrize(
    ("seen", "wanted", "code"),
    [
        ([make_seen()], 1, HELD),
        ([make_seen(0.0)], 1, HELD),
        ([make_seen()], 2, COULD_NOT_RUN),
        ([], 0, COULD_NOT_RUN),
        ([], 1, COULD_NOT_RUN),
        ([make_seen(None)], 1, DID_NOT_HOLD),
        ([make_seen(), make_seen(None)], 3, DID_NOT_HOLD),
        ([make_seen(ended=0)], 1, DID_NOT_HOLD),
    ],
)
def test_exit_code_under_load_depends_on_recovery(seen: list[UnderLoad], wanted: int, code: int) -> None:
    assert exit_code_under_load(seen, wanted) == code


def fail() -> None:
    raise LabError("no engine")


class UpAndDown(FakeBackend):
    """A fake that knows whether it is up."""

    is_up = False

    def up(self, models: Iterable[str | Model] = (), **_: Any) -> None:
        self.done.append(("up", *models))

    def down(self) -> None:
        self.done.append(("down",))

    def state(self) -> list[Any]:
        return [
            state if self.is_up and state.model in (MODEL, "plain_socket") else replace(state, state="missing")
            for state in super().state()
        ]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UpAndDown:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return UpAndDown()


@pytest.fixture
def run(backend: UpAndDown, tmp_path: Path) -> Callable[..., int]:
    """Run the command in this process; return its exit code."""

    class OfBackend(Lab):
        @property
        def backend(self) -> Backend:
            return backend

    numbers = count()

    def run(*words: str) -> int:
        results = tmp_path / f"results-{next(numbers)}"
        try:
            command.faults.main([*words, f"--out={results}"], standalone_mode=False, obj=OfBackend(None, None, None))
        except SystemExit as error:
            return cast(int, error.code)
        return 0

    return run


def give(monkeypatch: pytest.MonkeyPatch, *scores: Score) -> list[tuple[Any, ...]]:
    """Replace the scores of the scorecard; return the recorded calls."""
    asked: list[tuple[Any, ...]] = []

    def apply_all(
        backend: Backend, models: list[str], faults: list[str], seed: int, *, control: bool
    ) -> Iterator[Score]:
        asked.append((models, faults, seed, control))
        yield from scores

    monkeypatch.setattr(command, "apply_all", apply_all)
    return asked


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.HELD, 0), (Verdict.FAILED, 1), (Verdict.UNKNOWN, 2)])
def test_command_exits_with_the_code_of_its_scores(
    run: Callable[..., int], backend: UpAndDown, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: int
) -> None:
    asked = give(monkeypatch, score(verdict, fault="pause"))
    assert run(MODEL, "--fault=pause", "--fault=pause", "--fault=kill", "--seed=7") == code
    assert asked == [([MODEL], ["pause", "kill"], 7, False)]
    # The command takes down only what it has started.
    assert backend.done == [("up", MODEL), ("down",)]
    backend.is_up = True
    backend.done.clear()
    assert run(MODEL, "--fault=pause", "--control") == code
    assert asked[1] == ([MODEL], ["pause"], 1, True)
    assert backend.done == [("up", MODEL)]


def test_default_is_all_models_and_faults(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = give(monkeypatch, score(Verdict.HELD, fault="worker", model="prefork"))
    # A model without workers has no score, which matters only if it is named.
    assert run("--fault=worker") == 0
    assert asked[0][0] == [model.name for model in CATALOGUE.select()]
    assert "nothing was tried" not in capsys.readouterr().err
    assert run() == 0
    assert len(asked[1][1]) == 16


def test_untried_model_could_not_run(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch)
    assert run("plain_socket", "--fault=worker") == COULD_NOT_RUN
    said = "plain_socket: nothing was tried: worker does not apply to it\n"
    assert said in capsys.readouterr().err
    give(monkeypatch, score(Verdict.HELD, fault="worker", model="prefork"))
    assert run("plain_socket", "prefork", "--fault=worker") == COULD_NOT_RUN
    assert said in capsys.readouterr().err
    assert run("prefork", "--fault=worker") == HELD


def test_scorecard_is_printed_and_stored(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    account = Account(8, 8, 100, 99, 1)
    bad = replace(score(Verdict.FAILED, fault="pause"), account=account, recovery=0.25)
    give(monkeypatch, bad, score(Verdict.FAILED, "a reason"))
    out = tmp_path / "all.json"
    assert run(f"--output={out}") == DID_NOT_HOLD
    printed, err = capsys.readouterr()
    assert printed.splitlines() == [
        f"{MODEL}\t▲\u00a0failed !\t▲\u00a0failed (declared)",
        f"{MODEL}\tpause\t▲\u00a0failed !\t250 ms\tso it was",
        f"{MODEL}\tslow-clients\t▲\u00a0failed (declared)\t–\tso it was (declared: a reason)",  # noqa: RUF001
    ]
    assert f"{MODEL}: pause: failed\n" in err
    kept = json.loads(out.read_text())
    assert [item["fault"] for item in kept] == ["pause", "slow-clients"]
    assert kept[0]["account"]["lost"] == 1
    (folder,) = (tmp_path / "results-0" / "faults").glob("2*")
    assert f"{folder / 'index.html'}\n" in err
    assert {path.name for path in folder.iterdir()} >= {"index.html", "report.md", "run.json", "steps"}
    assert json.loads((folder / "steps" / MODEL / "pause.json").read_text()) == kept[0]
    assert (folder / "end.json").exists()
    facts = json.loads((folder / "run.json").read_text())
    plan = facts["plan"]
    assert facts["environment"]["backend"] == "process"
    assert plan["models"] == [model.name for model in CATALOGUE.select()]
    assert (plan["seed"], plan["control"], plan["scenario"], len(plan["faults"])) == (1, False, None, 16)


@pytest.mark.parametrize("words", [[], ["--preset=closed_session", "--fault=pause"]], ids=["scorecard", "under-load"])
def test_full_disk_changes_no_result(
    words: list[str],
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """What has been measured is printed, and each file that is missing is named."""
    give(monkeypatch, score(Verdict.FAILED, fault="pause"))
    monkeypatch.setattr(command, "apply_under_load", lambda *_, **__: make_seen(None))

    def refuses(name: str) -> Callable[..., NoReturn]:
        def refuse(*_: object) -> NoReturn:
            raise StoreError(f"{name}: the disk is full")

        return refuse

    for name in ("keep", "finish", "write_page"):
        monkeypatch.setattr(Run, name, refuses(name))
    monkeypatch.setattr(command, "write_new", refuses("write_new"))
    assert run(MODEL, *words, f"--output={tmp_path / 'all.json'}") == DID_NOT_HOLD
    printed, err = capsys.readouterr()
    assert ("PING late after" if words else "▲\u00a0failed !") in printed
    assert [line for line in err.splitlines() if "not stored" in line] == [
        f"lab: not stored: {name}: the disk is full" for name in ("keep", "finish", "write_new", "write_page")
    ]


def test_json_is_the_only_output(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    give(monkeypatch, FINE)
    assert run("--json") == HELD
    (item,) = json.loads(capsys.readouterr().out)
    assert (item["model"], item["verdict"]) == (MODEL, "held")


def test_output_folder_is_checked_before_any_injection(
    run: Callable[..., int], backend: UpAndDown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give(monkeypatch, FINE)
    assert run(f"--output={tmp_path / 'new' / 'file'}") == HELD
    assert json.loads((tmp_path / "new" / "file").read_text())[0]["verdict"] == "held"
    (tmp_path / "no folder").touch()
    backend.done.clear()
    with pytest.raises(LabError, match=r"--output: .* exists, and no result is overwritten"):
        run(f"--output={tmp_path / 'new' / 'file'}")
    with pytest.raises(LabError, match="no folder: cannot be written"):
        run(f"--output={tmp_path / 'no folder' / 'file'}")
    assert backend.done == []


@pytest.mark.parametrize("error", [NotHealedError("still broken"), KeyboardInterrupt("still broken")])
def test_interrupted_scorecard_is_reported_and_the_lab_taken_down(
    run: Callable[..., int],
    backend: UpAndDown,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    def apply_all(*_: object, **__: object) -> Iterator[Score]:
        yield FINE
        raise error

    monkeypatch.setattr(command, "apply_all", apply_all)
    # click turns a KeyboardInterrupt into an Abort.
    with pytest.raises((NotHealedError, click.Abort)):
        run(MODEL)
    assert backend.done == [("up", MODEL), ("down",)]
    assert f"{MODEL}\t●\u00a0held\n" in capsys.readouterr().out


def test_preset_gets_each_fault_and_unsupported_ones_are_reported(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[tuple[Any, ...]] = []
    outcomes: list[UnderLoad | LabError] = []

    def apply_under_load(
        backend: Backend, model: str, fault: Any, scenario: str, *, seconds: float, control: bool
    ) -> Any:
        asked.append((model, fault.name, scenario, seconds, control))
        outcome = outcomes.pop(0)
        if isinstance(outcome, LabError):
            raise outcome
        return outcome

    monkeypatch.setattr(command, "apply_under_load", apply_under_load)
    words = (MODEL, "--preset=closed_session", "--fault=pause", "--fault=kill", "--duration=2s")
    outcomes += [make_seen(), make_seen(fault="kill")]
    assert run(*words) == HELD
    assert asked == [(MODEL, fault, "closed_session", 2.0, False) for fault in ("pause", "kill")]
    out = capsys.readouterr().out
    assert f"{MODEL}, pause: PING late after 10 ms, slowest 400 ms, 3 failed" in out
    assert f"{MODEL}, pause\t0\t100 ms\t200 ms\t3\n" in out
    assert {path.stem for path in tmp_path.glob(f"results-0/faults/2*/steps/{MODEL}/*")} == {"pause", "kill"}
    facts = json.loads(next(tmp_path.glob("results-0/faults/2*/run.json")).read_text())
    assert (facts["plan"]["scenario"], facts["plan"]["seconds"]) == ("closed_session", 2.0)
    outcomes += [make_seen(), make_seen(fault="kill")]
    assert run(*words, "--control") == HELD
    assert [control for *_, control in asked] == [False] * 2 + [True] * 2
    outcomes += [make_seen(), CannotApplyError("no netem")]
    assert run(*words) == COULD_NOT_RUN
    assert f"{MODEL}: kill: unknown: no netem\n" in capsys.readouterr().err
    outcomes += [EndedError("it had ended"), make_seen(fault="kill")]
    assert run(*words) == DID_NOT_HOLD
    assert f"{MODEL}: pause: failed: it had ended\n" in capsys.readouterr().err
    outcomes += [make_seen(None), make_seen(fault="kill")]
    assert run(*words) == DID_NOT_HOLD
    with pytest.raises(LabError, match="--preset needs at least one --fault"):
        run(MODEL, "--preset=closed_session")


def test_now_fails_if_a_model_ended_under_a_fault_that_leaves_it_running(
    run: Callable[..., int], backend: UpAndDown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lab.experiments.faults.remote_requests.time", backend.clock)
    backend.is_up = True
    assert run(MODEL, "--now=pause", "--duration=3s") == HELD
    assert backend.clock.slept == [3.0]
    assert backend.done == [("pause", MODEL), ("unpause", MODEL)]
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["fault"], json.loads(line)["ended"]) == ("pause", None)
    backend.fails = {"pause": lambda: backend.exited.update({MODEL: 137})}
    assert run(MODEL, "--now=pause", "--duration=3s") == DID_NOT_HOLD
    assert f"{MODEL}: ended with exit code 137 and was restarted" in capsys.readouterr().err
    backend.fails = {"pause": lambda: backend.exited.update({MODEL: 0})}
    assert run(MODEL, "--now=pause", "--duration=3s") == DID_NOT_HOLD
    assert f"{MODEL}: ended with exit code 0 and was restarted" in capsys.readouterr().err
    # One of two is enough.
    backend.fails = {"pause": lambda: backend.exited.update({MODEL: 137})}
    assert run("plain_socket", MODEL, "--now=pause", "--duration=3s") == DID_NOT_HOLD
    backend.fails = {"pause": fail}
    with pytest.raises(LabError, match="no engine"):
        run(MODEL, "--now=pause")
    # A fault that ends the model has no duration.
    backend.clock.slept.clear()
    backend.fails = {}
    assert run(MODEL, "--now=kill", "--duration=3s") == HELD
    assert backend.clock.slept == []
    with pytest.raises(LabError, match="name them"):
        run("--now=pause")


def test_server_that_lacks_command_is_refused() -> None:
    backend = cast(Backend, FakeBackend(name="docker"))
    assert choose_speakers(backend, [], "command") == [model.name for model in CATALOGUE.select()]
    assert choose_speakers(backend, [MODEL], "command") == [MODEL]
    with pytest.raises(LabError, match=r"^peer_redis: does not speak all of this lab's `command`"):
        choose_speakers(backend, [MODEL, "peer_redis"], "command")
    with pytest.raises(LabError, match="does not speak all of this lab's `telnet`"):
        choose_speakers(backend, [], "telnet")


# Signals, and leftover processes.


@contextmanager
def project() -> Iterator[str]:
    name = f"t{uuid4().hex[:8]}"
    try:
        yield name
    finally:
        Processes(name, CATALOGUE).down()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["faults", MODEL, "--fault=nothing"], f"{MODEL}: nothing: "),
        (["soak", MODEL, "--duration=600ms", "--every=300ms"], "rest 2 of 2"),
    ],
)
def test_ctrl_c_during_the_take_down_leaves_no_process(words: list[str], line: str, tmp_path: Path) -> None:
    """SIGINT is sent every half millisecond, from the last line before the end of the run on."""
    where = f"--out={tmp_path}"
    with project() as name:
        arguments = [sys.executable, "-m", "lab", "--backend", "process", "--project", name, *words, where]
        log = tmp_path / "log"
        with log.open("w") as output:
            process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 6 * TIMEOUT
        while line not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)
        while process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            process.send_signal(signal.SIGINT)
            time.sleep(0.0005)
        # Before the fixture takes it down.
        assert find_processes(name) == []
        assert not runtime_directory(name).exists()
        assert process.returncode != 0


def test_fault_that_does_not_apply_exits_with_2(tmp_path: Path) -> None:
    with project() as name:
        arguments = [sys.executable, "-m", "lab", "--backend", "process", "--project", name, "faults", "plain_socket"]
        done = subprocess.run(
            [*arguments, "--fault=worker", f"--out={tmp_path}"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == COULD_NOT_RUN
        assert "plain_socket: nothing was tried: worker does not apply to it" in done.stderr
        assert find_processes(name) == []


def test_stored_scorecard_is_printed_again(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    give(monkeypatch, score(Verdict.FAILED, "a reason"))
    first, again = tmp_path / "first.json", tmp_path / "again.json"
    run(f"--output={first}")
    printed = capsys.readouterr().out
    give(monkeypatch)
    folder = next((tmp_path / "results-0" / "faults").glob("2*"))
    assert run("--show", str(folder), f"--output={again}") == HELD
    assert capsys.readouterr().out == printed
    assert again.read_text() == first.read_text()
