"""Each fault has its effect, is healed on every way out, and its control run breaks nothing."""

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
from tests.support.processes import find_descendants
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("faults-lab")

MODEL, WITH_WORKERS, ONE_AT_A_TIME = "asyncio_streams", "prefork", "plain_socket"
# Faults that need no container.
LOCAL = ("nothing", "drain", "kill", "pause", "starve", "memory", "descriptors")


@pytest.fixture(scope="module")
def lab() -> Iterator[Processes]:
    backend = Processes(f"faults-{os.getpid()}", CATALOGUE)
    backend.up([MODEL, WITH_WORKERS, ONE_AT_A_TIME])
    yield backend
    backend.down()
    assert not find_stamps(backend.project).exists()


def find_processes(lab: Processes, model: str = MODEL) -> list[psutil.Process]:
    main = psutil.Process(lab.pid(model))
    return [main, *main.children(recursive=True)]


def limit(lab: Processes, name: str) -> list[list[int]]:
    """Return pid, soft and hard limit of each process."""
    found: list[list[int]] = json.loads(lab.faults.run_beside(MODEL, LIMIT, [name, "-1"]))
    return found


def ask(lab: Processes, timeout: float = 5.0) -> object:
    return call("command", find_address(lab, MODEL), ["PING"], timeout=timeout).value


def test_model_without_a_probe_is_judged_by_silence(lab: Processes) -> None:
    score = apply(lab, ONE_AT_A_TIME, "pause", seed=2)
    assert score is not None
    assert score.account is not None
    assert score.account.silence > 0
    assert f"those of the request log waited {show(score.account.silence)} at most" in score.reason


def is_stopped(lab: Processes) -> bool:
    return all(process.status() == psutil.STATUS_STOPPED for process in find_processes(lab))


def is_mostly_stopped(lab: Processes) -> bool:
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
    "starve": is_mostly_stopped,
    "memory": has_low("RLIMIT_AS"),
    "descriptors": lambda lab: limit(lab, "RLIMIT_NOFILE")[0][1] <= psutil.Process(lab.pid(MODEL)).num_fds() + 1,
}


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("fault", [*LOCAL, "worker"])
def test_fault_is_injected_healed_and_judged(
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
    before = [process.pid for process in find_processes(lab, model)]
    deaths = lab.logs(model).count("by signal 9")
    score = apply(lab, model, fault, seed=2, control=control)
    assert proved == ([] if control else [fault])
    assert score is not None
    # Not always `held`: the time to recover depends on the load of this machine.
    assert score.verdict in (Verdict.HELD, Verdict.DEGRADED), score
    assert score.exit_code == (0 if fault == "drain" and not control else None)
    assert score.account is not None
    assert (score.account.served, score.account.wrong) == (8, {})
    assert score.account.answered > 8
    assert (score.account.lost == 0) or not chosen.keeps_connections
    assert score.interval is not None
    assert score.interval.end_seconds is not None
    assert score.interval.begin_seconds < score.interval.end_seconds
    assert score.interval.ended is None
    if fault == "worker":
        assert (before[1] in [process.pid for process in find_processes(lab, model)]) == control
        assert lab.logs(model).count("by signal 9") == deaths + (not control)
    else:
        # A control run restarts nothing, not even to heal.
        assert ([process.pid for process in find_processes(lab, model)] != before) == (
            fault in ("drain", "kill") and not control
        )


@pytest.mark.parametrize("model", [MODEL, ONE_AT_A_TIME])
def test_model_that_dies_at_the_moment_of_the_pause_has_failed(
    lab: Processes, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pid is known, but psutil no longer finds a process."""
    found: list[int] = []

    def too_late(pid: int, number: int) -> None:
        if not found:
            found.append(pid)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not psutil.pid_exists(pid))
        signal_all(pid, number)

    monkeypatch.setattr("lab.servers.process_faults.signal_all", too_late)
    score = apply(lab, model, "pause", seed=2)
    assert score is not None
    assert score.verdict is Verdict.FAILED
    assert score.reason.startswith(f"{model} had ended with exit code 137 before pause: {model} has just ended")
    assert lab.pid(model) != found[0]
    assert call("command", find_address(lab, model), ["PING"]).value == b"PONG"


@pytest.mark.parametrize("fault", ["pause", "starve", "memory", "descriptors", "nothing"])
def test_model_that_dies_under_a_fault_has_failed_and_is_restarted(
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
    assert score.reason == "it ended with exit code 137, which this fault does not cause, and was restarted"
    assert ask(lab) == b"PONG"
    assert not is_stopped(lab)


@pytest.mark.parametrize("fault", PROOFS)
def test_fault_has_its_effect_and_its_control_run_has_not(lab: Processes, fault: str) -> None:
    limits = [limit(lab, name)[0][1:] for name in ("RLIMIT_AS", "RLIMIT_NOFILE")]
    with injected(FAULTS[fault], lab, MODEL, control=True) as interval:
        assert not PROOFS[fault](lab)
        assert ask(lab) == b"PONG"
        assert not interval.end
    with injected(FAULTS[fault], lab, MODEL):
        wait_until(lambda: PROOFS[fault](lab))
    assert ask(lab) == b"PONG"
    assert [limit(lab, name)[0][1:] for name in ("RLIMIT_AS", "RLIMIT_NOFILE")] == limits


def test_new_client_waits_while_descriptors_are_exhausted(lab: Processes) -> None:
    where = find_address(lab, MODEL)
    with injected(FAULTS["descriptors"], lab, MODEL), ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(BlockingConnection(Address.parse(where)))
        with pytest.raises(NoAnswerError):
            ask(lab, timeout=0.5)
    assert ask(lab) == b"PONG"


def find_throttle(lab: Processes) -> psutil.Process:
    (throttle,) = find_descendants(psutil.Process(), "lab.servers.throttle")
    return throttle


def test_throttle_has_the_share_and_ends_with_sigterm_only(lab: Processes) -> None:
    with injected(FAULTS["starve"], lab, MODEL):
        throttle = find_throttle(lab)
        assert throttle.cmdline()[-2:] == [str(lab.pid(MODEL)), "0.05"]
        status = Path(f"/proc/{throttle.pid}/status").read_text()
        (blocked,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk:"))
        # SIGTERM ends it, at the end of the fault or of the lab. Ctrl-C, which the whole terminal gets, must not.
        assert [bool(blocked >> (number - 1) & 1) for number in (signal.SIGTERM, signal.SIGINT)] == [False, True]
    assert not throttle.is_running()


def test_throttled_model_continues_when_the_throttle_is_killed(lab: Processes) -> None:
    fault = FAULTS["starve"]
    with injected(fault, lab, MODEL):
        find_throttle(lab).send_signal(signal.SIGKILL)
    assert ask(lab) == b"PONG"
    assert not is_stopped(lab)


def test_throttle_ends_with_a_killed_lab(lab: Processes) -> None:
    """The throttle is started while signals are deferred, and must not inherit that."""
    program = (
        "import os, signal; from lab.servers.processes import Processes; from tests.faults.conftest import CATALOGUE;"
        "from lab.experiments.faults.fault import injected; from lab.experiments.faults.registry import FAULTS;"
        f"lab = Processes({lab.project!r}, CATALOGUE);"
        f"block = injected(FAULTS['starve'], lab, {MODEL!r}); block.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    starved = ["lab.servers.throttle", str(lab.pid(MODEL))]
    wait_until(
        lambda: not [each for each in psutil.process_iter(["cmdline"]) if starved == read_throttle_arguments(each)]
    )
    assert ask(lab) == b"PONG"
    assert not is_stopped(lab)


def read_throttle_arguments(process: psutil.Process) -> list[str] | None:
    """Return the module and the pid from a throttle's command line."""
    return (process.info["cmdline"] or [])[-3:-1]


@pytest.mark.parametrize("fault", sorted({*FAULTS} - {*LOCAL, "worker", "slow-clients"}))
def test_container_fault_is_unknown_for_processes(lab: Processes, fault: str) -> None:
    score = apply(lab, MODEL, fault, seed=1)
    assert score is not None
    assert (score.verdict, score.reason[:16]) == (Verdict.UNKNOWN, "only a container")


def test_model_without_workers_has_no_score_for_worker(lab: Processes) -> None:
    assert apply(lab, MODEL, "worker", seed=1) is None


@pytest.mark.parametrize("fault", PROOFS)
def test_interrupted_fault_is_healed(lab: Processes, fault: str) -> None:
    with pytest.raises(KeyboardInterrupt), injected(FAULTS[fault], lab, MODEL):
        raise KeyboardInterrupt
    assert ask(lab) == b"PONG"
    assert not PROOFS[fault](lab)


def make_fault(inject: Callable[[], None], heal: Callable[[], None]) -> Fault:
    return Fault("made", "for a test", lambda backend, model: Injection(inject, heal, "turn it on", "it is off"))


def fail() -> None:
    raise LabError("it will not")


def test_failed_injection_is_healed(lab: Processes) -> None:
    healed: list[bool] = []
    with (
        pytest.raises(LabError, match="it will not"),
        injected(make_fault(fail, lambda: healed.append(True)), lab, MODEL),
    ):
        pytest.fail("it was not applied")
    assert healed == [True]


def test_failed_healing_names_what_is_broken_and_what_to_do(lab: Processes) -> None:
    expected = "it will not\nstill broken: it is off; by hand: turn it on"
    with pytest.raises(NotHealedError, match=expected), injected(make_fault(lambda: None, fail), lab, MODEL):
        pass


def test_signal_is_deferred_until_healed(lab: Processes) -> None:
    steps: list[str] = []

    def heal() -> None:
        # To this thread: the kernel may deliver a process's signal to another thread, even after the test.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        steps.append("healed")

    with pytest.raises(KeyboardInterrupt), injected(make_fault(lambda: None, heal), lab, MODEL):
        steps.append("injected")
    assert steps == ["injected", "healed"]


@pytest.mark.parametrize(("number", "seed"), [(signal.SIGINT, 0), (signal.SIGTERM, 1)])
def test_lab_faults_heals_after_a_signal_at_any_time(
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


def test_repeated_fault_is_injected_once(lab: Processes, tmp_path: Path) -> None:
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


def test_slow_clients_connect_and_disconnect(lab: Processes) -> None:
    with injected(FAULTS["slow-clients"], lab, MODEL):
        wait_until(lambda: psutil.Process(lab.pid(MODEL)).num_fds() > 1000)
        assert ask(lab) == b"PONG"
    wait_until(lambda: psutil.Process(lab.pid(MODEL)).num_fds() < 100)
