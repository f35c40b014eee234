"""Each fault does what its name says, is mended on every way out, and its twin breaks nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lab.base.errors import LabError
from lab.clients.call import call
from lab.experiments.faults.fault import Fault, Injection, NotHealedError, find_address, injected
from lab.experiments.faults.judge import Verdict
from lab.experiments.faults.probe_reader import show
from lab.experiments.faults.process_scripts import LIMIT
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.scorecard import apply
from lab.servers.backend import Backend
from lab.servers.processes import Processes
from lab.servers.runtime import find_stamps
from lab.servers.throttle import signal_all
from loadtests.sockets.connection import BlockingConnection
from loadtests.sockets.errors import NoAnswerError
from services.protocol import Address
from tests.faults.conftest import CATALOGUE
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("faults-lab")

MODEL, WITH_WORKERS, ONE_AT_A_TIME = "asyncio_streams", "prefork", "plain_socket"
# Those that need no container.
LOCAL = ("nothing", "drain", "kill", "pause", "starve", "memory", "descriptors")


@pytest.fixture(scope="module")
def lab() -> Iterator[Processes]:
    backend = Processes(f"faults-{os.getpid()}", CATALOGUE)
    backend.up([MODEL, WITH_WORKERS, ONE_AT_A_TIME])
    yield backend
    backend.down()
    assert not find_stamps(backend.project).exists()


def family(lab: Processes, model: str = MODEL) -> list[psutil.Process]:
    main = psutil.Process(lab.pid(model))
    return [main, *main.children(recursive=True)]


def limit(lab: Processes, name: str) -> list[list[int]]:
    """Pid, soft and hard limit of each process."""
    found: list[list[int]] = json.loads(lab.run_beside(MODEL, LIMIT, [name, "-1"]))
    return found


def ask(lab: Processes, timeout: float = 5.0) -> object:
    return call("command", find_address(lab, MODEL), ["PING"], timeout=timeout).value


def test_of_a_model_without_a_witness_the_account_tells_how_long(lab: Processes) -> None:
    score = apply(lab, ONE_AT_A_TIME, "pause", seed=2)
    assert score is not None
    assert score.account is not None
    assert score.account.silence > 0
    assert f"whose own clients waited {show(score.account.silence)} at most" in score.reason


def is_stopped(lab: Processes) -> bool:
    return all(process.status() == psutil.STATUS_STOPPED for process in family(lab))


def stands_mostly_still(lab: Processes) -> bool:
    seen = []
    for _ in range(40):
        seen.append(is_stopped(lab))
        time.sleep(0.013)
    return sum(seen) > len(seen) / 2 and not all(seen)


def has_low(name: str) -> Callable[[Processes], bool]:
    return lambda lab: all(0 < soft < 2**40 for _, soft, _ in limit(lab, name))


def exited_with(code: int) -> Callable[[Processes], bool]:
    def has_exited(lab: Processes) -> bool:
        state = next(state for state in lab.state() if state.model == MODEL)
        return (state.state, state.exit_code) == ("exited", code)

    return has_exited


PROOFS: dict[str, Callable[[Processes], bool]] = {
    "drain": exited_with(0),
    "kill": exited_with(128 + signal.SIGKILL),
    "pause": is_stopped,
    "starve": stands_mostly_still,
    "memory": has_low("RLIMIT_AS"),
    "descriptors": lambda lab: limit(lab, "RLIMIT_NOFILE")[0][1] <= psutil.Process(lab.pid(MODEL)).num_fds() + 1,
}


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("fault", [*LOCAL, "worker"])
def test_a_fault_is_applied_mended_and_judged(
    lab: Processes, fault: str, control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = WITH_WORKERS if fault == "worker" else MODEL
    proved: list[str] = []
    chosen = FAULTS[fault]

    def prepare(backend: Backend, model: str) -> Injection:
        injection = chosen.prepare(backend, model)

        def inject() -> int | None:
            code = injection.inject()
            if fault in PROOFS:
                wait_until(lambda: PROOFS[fault](lab))
            proved.append(fault)
            return code

        return replace(injection, inject=inject)

    monkeypatch.setitem(FAULTS, fault, replace(chosen, prepare=prepare))
    before = [process.pid for process in family(lab, model)]
    deaths = lab.logs(model).count("by signal 9")
    score = apply(lab, model, fault, seed=2, control=control)
    assert proved == ([] if control else [fault])
    assert score is not None
    # Not `held`: how soon others are served is a matter of how busy this machine is.
    assert score.verdict in (Verdict.HELD, Verdict.DEGRADED), score
    assert score.exit_code == (0 if fault == "drain" and not control else None)
    assert score.account is not None
    assert (score.account.served, score.account.wrong) == (8, {})
    assert score.account.answered > 8
    assert (score.account.lost == 0) or not chosen.keeps
    assert score.interval is not None
    assert score.interval.end_seconds is not None
    assert score.interval.begin_seconds < score.interval.end_seconds
    assert score.interval.ended is None
    if fault == "worker":
        assert (before[1] in [process.pid for process in family(lab, model)]) == control
        assert lab.logs(model).count("by signal 9") == deaths + (not control)
    else:
        # The twin of what ends a model ends nothing, not even to mend it.
        assert ([process.pid for process in family(lab, model)] != before) == (
            fault in ("drain", "kill") and not control
        )


@pytest.mark.parametrize("model", [MODEL, ONE_AT_A_TIME])
def test_a_model_that_dies_in_the_instant_in_which_it_is_paused_has_failed(
    lab: Processes, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pid is known, and nothing has it any more: psutil finds no process."""
    found: list[int] = []

    def too_late(pid: int, number: int) -> None:
        if not found:
            found.append(pid)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not psutil.pid_exists(pid))
        signal_all(pid, number)

    monkeypatch.setattr("lab.servers.processes.signal_all", too_late)
    score = apply(lab, model, "pause", seed=2)
    assert score is not None
    assert score.verdict is Verdict.FAILED
    assert score.reason.startswith(f"{model} had ended with exit code 137 before pause: {model} has just ended")
    assert lab.pid(model) != found[0]
    assert call("command", find_address(lab, model), ["PING"]).value == b"PONG"


@pytest.mark.parametrize("fault", ["pause", "starve", "memory", "descriptors", "nothing"])
def test_a_model_that_dies_under_a_fault_has_failed_and_runs_again(
    lab: Processes, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = FAULTS[fault]

    def prepare(backend: Backend, model: str) -> Injection:
        injection = chosen.prepare(backend, model)

        def inject() -> None:
            injection.inject()
            os.kill(lab.pid(MODEL), signal.SIGKILL)
            wait_until(lambda: exited_with(137)(lab))

        return replace(injection, inject=inject)

    monkeypatch.setitem(FAULTS, fault, replace(chosen, prepare=prepare))
    score = apply(lab, MODEL, fault, seed=2)
    assert score is not None
    assert (score.verdict, score.exit_code) == (Verdict.FAILED, 137)
    assert score.reason == "it ended with exit code 137, which this fault does not ask for, and was started again"
    assert ask(lab) == b"PONG"
    assert not is_stopped(lab)


@pytest.mark.parametrize("fault", PROOFS)
def test_a_fault_does_what_its_name_says_and_its_twin_does_not(lab: Processes, fault: str) -> None:
    limits = [limit(lab, name)[0][1:] for name in ("RLIMIT_AS", "RLIMIT_NOFILE")]
    with injected(FAULTS[fault], lab, MODEL, control=True) as interval:
        assert not PROOFS[fault](lab)
        assert ask(lab) == b"PONG"
        assert not interval.end
    with injected(FAULTS[fault], lab, MODEL):
        wait_until(lambda: PROOFS[fault](lab))
    assert ask(lab) == b"PONG"
    assert [limit(lab, name)[0][1:] for name in ("RLIMIT_AS", "RLIMIT_NOFILE")] == limits


def test_without_descriptors_who_comes_waits_and_is_served_later(lab: Processes) -> None:
    where = find_address(lab, MODEL)
    with injected(FAULTS["descriptors"], lab, MODEL), ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(BlockingConnection(Address.parse(where)))
        with pytest.raises(NoAnswerError):
            ask(lab, timeout=0.5)
    assert ask(lab) == b"PONG"


def find_throttle(lab: Processes) -> psutil.Process:
    (throttle,) = (child for child in psutil.Process().children() if "lab.servers.throttle" in child.cmdline())
    return throttle


def test_what_holds_a_model_back_has_its_share_and_can_be_ended(lab: Processes) -> None:
    with injected(FAULTS["starve"], lab, MODEL):
        throttle = find_throttle(lab)
        assert throttle.cmdline()[-2:] == [str(lab.pid(MODEL)), "0.05"]
        status = Path(f"/proc/{throttle.pid}/status").read_text()
        (blocked,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk:"))
        # SIGTERM ends it, at the end of the fault or of the lab. A Ctrl-C, which goes to all of a terminal, does not.
        assert [bool(blocked >> (number - 1) & 1) for number in (signal.SIGTERM, signal.SIGINT)] == [False, True]
    assert not throttle.is_running()


def test_who_is_held_back_goes_on_when_what_holds_it_back_is_killed(lab: Processes) -> None:
    fault = FAULTS["starve"]
    with injected(fault, lab, MODEL):
        find_throttle(lab).send_signal(signal.SIGKILL)
    assert ask(lab) == b"PONG"
    assert not is_stopped(lab)


def test_nobody_is_held_back_by_a_lab_that_was_killed(lab: Processes) -> None:
    """As `lab faults` starves it: while signals are held, which what it starts must not inherit."""
    program = (
        "import os, signal; from lab.servers.processes import Processes; from tests.faults.conftest import CATALOGUE;"
        "from lab.experiments.faults.fault import injected; from lab.experiments.faults.registry import FAULTS;"
        f"lab = Processes({lab.project!r}, CATALOGUE);"
        f"block = injected(FAULTS['starve'], lab, {MODEL!r}); block.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    starved = ["lab.servers.throttle", str(lab.pid(MODEL))]
    wait_until(lambda: not [each for each in psutil.process_iter(["cmdline"]) if starved == find_throttled(each)])
    assert ask(lab) == b"PONG"
    assert not is_stopped(lab)


def find_throttled(process: psutil.Process) -> list[str] | None:
    """Of a process that holds another back: its module, and whom."""
    return (process.info["cmdline"] or [])[-3:-1]


@pytest.mark.parametrize("fault", sorted({*FAULTS} - {*LOCAL, "worker", "crowd"}))
def test_what_needs_a_container_is_unknown_without_one(lab: Processes, fault: str) -> None:
    score = apply(lab, MODEL, fault, seed=1)
    assert score is not None
    assert (score.verdict, score.reason[:16]) == (Verdict.UNKNOWN, "only a container")


def test_a_model_without_workers_has_no_cell_for_them(lab: Processes) -> None:
    assert apply(lab, MODEL, "worker", seed=1) is None


@pytest.mark.parametrize("fault", PROOFS)
def test_an_interrupted_fault_is_mended(lab: Processes, fault: str) -> None:
    with pytest.raises(KeyboardInterrupt), injected(FAULTS[fault], lab, MODEL):
        raise KeyboardInterrupt
    assert ask(lab) == b"PONG"
    assert not PROOFS[fault](lab)


def broken_by(inject: Callable[[], None], heal: Callable[[], None]) -> Fault:
    return Fault("made", "for a test", lambda backend, model: Injection(inject, heal, "turn it on", "it is off"))


def fail() -> None:
    raise LabError("it will not")


def test_what_cannot_be_applied_is_mended_all_the_same(lab: Processes) -> None:
    mended: list[bool] = []
    with (
        pytest.raises(LabError, match="it will not"),
        injected(broken_by(fail, lambda: mended.append(True)), lab, MODEL),
    ):
        pytest.fail("it was not applied")
    assert mended == [True]


def test_what_cannot_be_mended_is_named_with_what_to_do(lab: Processes) -> None:
    expected = "it will not\nstill broken: it is off; by hand: turn it on"
    with pytest.raises(NotHealedError, match=expected), injected(broken_by(lambda: None, fail), lab, MODEL):
        pass


def test_a_signal_waits_until_all_is_mended(lab: Processes) -> None:
    steps: list[str] = []

    def heal() -> None:
        # To this thread: the kernel may give it to another one, whenever that runs, and be it after the test.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        steps.append("healed")

    with pytest.raises(KeyboardInterrupt), injected(broken_by(lambda: None, heal), lab, MODEL):
        steps.append("injected")
    assert steps == ["injected", "healed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seed", range(2))
def test_lab_faults_mends_whenever_it_is_ended(
    lab: Processes, number: signal.Signals, seed: int, tmp_path: Path
) -> None:
    before = [limit(lab, name)[0][1:] for name in ("RLIMIT_AS", "RLIMIT_NOFILE")]
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", lab.project, "faults", MODEL]
    process = subprocess.Popen(
        [*command, f"--out={tmp_path}", *(f"--fault={name}" for name in PROOFS)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(random.Random(seed).uniform(0.3, 4.0))
    process.send_signal(number)
    process.wait(60)
    assert ask(lab) == b"PONG"
    assert not any(proof(lab) for proof in PROOFS.values())
    assert [limit(lab, name)[0][1:] for name in ("RLIMIT_AS", "RLIMIT_NOFILE")] == before


def test_a_fault_that_is_named_twice_is_applied_once(lab: Processes, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "--backend", "process", "--project", lab.project, "faults", MODEL, "--json"]
    done = subprocess.run(
        [*command, f"--out={tmp_path}", "--fault=pause", "--fault=pause"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [item["fault"] for item in json.loads(done.stdout)] == ["pause"]
    (kept,) = tmp_path.glob(f"faults/2*/steps/{MODEL}/*.json")
    assert json.loads(kept.read_text()) == json.loads(done.stdout)[0]
    assert (kept.parents[2] / "index.html").exists()


def test_a_crowd_of_a_thousand_is_there_and_gone(lab: Processes) -> None:
    with injected(FAULTS["crowd"], lab, MODEL):
        wait_until(lambda: psutil.Process(lab.pid(MODEL)).num_fds() > 1000)
        assert ask(lab) == b"PONG"
    wait_until(lambda: psutil.Process(lab.pid(MODEL)).num_fds() < 100)
