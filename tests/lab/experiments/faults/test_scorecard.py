"""One cell of the scorecard: the order of its steps, its times, and how the verdict is made."""

import json
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lab.base.errors import LabError, NotReadyError
from lab.clients.request_log import Account, Begun
from lab.experiments.faults import fault as faults
from lab.experiments.faults import scorecard
from lab.experiments.faults.fault import (
    CannotApplyError,
    EndedError,
    Evidence,
    Fault,
    FaultInterval,
    Injection,
    NotApplicableError,
    NotHealedError,
    RecoveryStart,
    find_exit_code,
    injected,
)
from lab.experiments.faults.judge import Score, Verdict, judge, judge_times
from lab.experiments.faults.ping_cost import judge_cost, measure_ping
from lab.experiments.faults.probe_reader import ProbeReport
from lab.experiments.faults.registry import FAULTS
from lab.experiments.faults.scorecard import apply, apply_all
from lab.servers.docker.model_container import ModelContainers
from lab.servers.process_faults import ProcessFaults
from tests.support.fakes import CATALOGUE, Clock, FakeBackend, FakeProcess, set_clock

MODEL, ONE_AT_A_TIME = "asyncio_streams", "plain_socket"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    """Replace the clock of the measuring modules, and the directory of intervals."""
    return set_clock(monkeypatch, tmp_path, faults, scorecard)


@pytest.fixture
def backend(clock: Clock) -> FakeBackend:
    return FakeBackend(clock)


class FakeProbeReader:
    """Returns a given report, and records the calls."""

    def __init__(self, backend: FakeBackend, probe_report: ProbeReport) -> None:
        self._done, self._around = backend.done, probe_report

    def wait_quiet(self) -> None:
        self._done.append(("quiet",))

    def mark(self, word: str) -> None:
        self._done.append(("probe", word))

    def wait_recovered(self, seconds: float) -> ProbeReport:
        self._done.append(("recovered", seconds))
        return self._around


SEEN = ProbeReport(0.001, 0.1, 0.25, 0.4, 3, 0.5, ())


def score_of(backend: FakeBackend, fault: str, model: str = MODEL, **options: Any) -> Score:
    found = apply(backend, model, fault, 1, **options)
    assert found is not None
    return found


def test_drain_recovery_counts_from_the_restart(backend: FakeBackend) -> None:
    backend.seconds = {"stop": 0.25, "restart": 0.5}
    found = score_of(backend, "drain")
    assert (found.verdict, found.exit_code, found.recovery) == (Verdict.HELD, 0, 0.5)
    assert backend.names() == ["start", "request log", "stop", "restart", "request log", "close"]
    assert [words for name, *words in backend.done if name == "request log"] == [["Mark"], ["End"]]


def test_kill_recovery_counts_from_the_kill(backend: FakeBackend) -> None:
    backend.seconds = {"kill": 0.25, "restart": 0.5}
    backend.account = Account(8, 8, 1000, 990, lost=10)
    found = score_of(backend, "kill")
    assert (found.verdict, found.exit_code, found.recovery) == (Verdict.HELD, None, 0.75)
    assert ("kill", MODEL, signal.SIGKILL) in backend.done
    assert "wait_ready" not in backend.names()


@pytest.mark.parametrize(
    ("controls", "seconds", "verdict"),
    [
        (ProcessFaults, 1.0, Verdict.HELD),
        (ProcessFaults, 1.25, Verdict.DEGRADED),
        (ModelContainers, 2.0, Verdict.HELD),
        (ModelContainers, 2.25, Verdict.DEGRADED),
    ],
)
def test_slow_restart_is_degraded(
    backend: FakeBackend, controls: type[ProcessFaults | ModelContainers], seconds: float, verdict: Verdict
) -> None:
    backend.recovery_seconds, backend.seconds = controls.recovery_seconds, {"restart": seconds}
    found = score_of(backend, "drain")
    assert (found.verdict, found.recovery) == (verdict, seconds)
    late = f"the next answer came after {seconds:.1f} s, allowed are {backend.recovery_seconds:g} s"
    assert (late in found.reason) == (verdict is Verdict.DEGRADED)


def test_pause_interval_has_injection_hold_and_healing(backend: FakeBackend, clock: Clock) -> None:
    backend.seconds = {"pause": 0.125, "unpause": 0.25}
    found = score_of(backend, "pause")
    assert (found.verdict, found.exit_code, found.recovery) == (Verdict.HELD, None, None)
    assert found.interval is not None
    assert found.interval.end_seconds is not None
    # 0.125 s to inject, half a second to hold, 0.25 s to heal: the interval begins before the first step.
    assert found.interval.end_seconds - found.interval.begin_seconds == pytest.approx(0.875)
    assert clock.slept == [found.moment, 0.5, 0.2]
    assert backend.names() == ["start", "request log", "pause", "unpause", "request log", "wait_ready", "close"]


@pytest.mark.parametrize(("silence", "verdict"), [(1.8, Verdict.HELD), (1.9, Verdict.DEGRADED)])
def test_silence_of_the_request_log_decides_without_a_probe(
    backend: FakeBackend, silence: float, verdict: Verdict
) -> None:
    """Allowed are the duration of the fault, 0.875 s, and one second."""
    backend.seconds = {"pause": 0.125, "unpause": 0.25}
    backend.account = Account(8, 8, 1000, 1000, silence=silence)
    assert score_of(backend, "pause").verdict is verdict
    # It does not count for a fault that ends connections.
    assert score_of(backend, "drain").verdict is Verdict.HELD


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        ("pause", ["quiet", "start", "Mark", "pause", "injected", "unpause", "healed", "recovered"]),
        ("drain", ["quiet", "start", "Mark", "injected", "stop", "restart", "healed", "recovered"]),
    ],
)
def test_probe_marks_surround_the_fault(backend: FakeBackend, fault: str, done: list[str]) -> None:
    probe = FakeProbeReader(backend, SEEN)
    found = score_of(backend, fault, probe=probe)
    assert found.probe_report is SEEN
    assert found.verdict is Verdict.HELD
    assert "late after 100 ms" in found.reason
    words = [str(item[-1]) if item[0] in ("probe", "request log") else item[0] for item in backend.done]
    order = [word for word in words if word in done]
    assert order == ["start", "quiet", *done[2:]]
    assert ("recovered", 4.0) in backend.done


def test_late_recovery_of_the_probe_is_degraded(backend: FakeBackend) -> None:
    found = score_of(backend, "pause", probe=FakeProbeReader(backend, replace(SEEN, recover=1.5)))
    assert found.verdict is Verdict.DEGRADED
    # A failed account stays failed, whatever the probe measured.
    backend.account = Account(8, 8, 1000, 999, lost=1)
    assert (
        score_of(backend, "pause", probe=FakeProbeReader(backend, replace(SEEN, recover=1.5))).verdict is Verdict.FAILED
    )


@pytest.mark.parametrize("fault", ["drain", "kill", "pause", "starve"])
def test_control_run_injects_nothing_and_is_judged_as_no_fault(backend: FakeBackend, fault: str) -> None:
    backend.account = Account(8, 8, 1000, 999, lost=1)
    found = score_of(backend, fault, control=True)
    # `kill` may lose a request; a control run may not.
    assert (found.verdict, found.is_control, found.recovery, found.exit_code) == (Verdict.FAILED, True, None, None)
    breaks = {"stop", "kill", "pause", "restart"}
    assert not breaks & set(backend.names())
    assert ("limit_cpu", MODEL, 0.05) not in backend.done


def test_fault_nothing_has_no_recovery(backend: FakeBackend) -> None:
    found = score_of(backend, "nothing")
    assert (found.verdict, found.recovery, found.exit_code) == (Verdict.HELD, None, None)


def test_missing_account_is_unknown(backend: FakeBackend) -> None:
    backend.account = None
    found = score_of(backend, "pause")
    assert (found.verdict, found.reason, found.account) == (
        Verdict.UNKNOWN,
        "the request log returned no account",
        None,
    )


def test_request_log_has_eight_connections_for_a_minute(backend: FakeBackend) -> None:
    score_of(backend, "nothing")
    assert list(backend.helpers_started[0][1]) == [
        *("python", "-m", "lab.clients.request_log", f"tcp://{MODEL}:6379"),
        *("--connections", "8", "--seed", "1", "--seconds", "60.0"),
    ]


def test_moment_depends_on_the_seed_and_is_within_its_range(backend: FakeBackend) -> None:
    moments = {
        (seed, fault): apply(backend, MODEL, fault, seed).moment  # type: ignore[union-attr]
        for seed in (1, 2, 3)
        for fault in ("nothing", "pause", "kill")
    }
    assert len(set(moments.values())) == 9
    other = apply(backend, "selector_loop", "pause", 1)
    assert other is not None
    assert other.moment not in moments.values()  # nor do all models get the fault at the same moment
    assert all(0.1 <= moment <= 0.6 for moment in moments.values())
    assert score_of(backend, "pause").moment == moments[1, "pause"]


PINGS = [subprocess.CompletedProcess([], 0, json.dumps({"p50": 1, "p99": p99, "max": 9}), "") for p99 in (0.002, 0.004)]


@pytest.fixture
def slow_backend(backend: FakeBackend) -> FakeBackend:
    """Return a backend whose PINGs take twice as long during slow clients."""
    backend.pings = [*PINGS]
    return backend


def test_declared_limit_is_the_expected_failure(slow_backend: FakeBackend) -> None:
    reason = CATALOGUE[ONE_AT_A_TIME].limits["overlap"]
    assert reason.startswith("serves one connection")
    assert score_of(slow_backend, "slow-clients", ONE_AT_A_TIME).expected == reason
    # For each model that declares a limit in what this fault needs, and for no other.
    declared = {
        model.name: next((model.limits[name] for name in FAULTS["slow-clients"].needs if name in model.limits), "")
        for model in CATALOGUE.select()
    }
    assert {name for name, why in declared.items() if why} == {
        "plain_socket",
        "socketserver_sequential",
        "socketserver_forking",
        "thread_pool",
        "prefork",
    }
    for name, why in declared.items():
        slow_backend.pings = [*PINGS]
        assert score_of(slow_backend, "slow-clients", name).expected == why


def test_control_run_expects_no_failure(slow_backend: FakeBackend) -> None:
    found = score_of(slow_backend, "slow-clients", ONE_AT_A_TIME, control=True)
    assert (found.expected, found.is_control) == ("", True)
    assert "start" not in slow_backend.names()


def test_fault_without_needs_expects_no_failure(backend: FakeBackend) -> None:
    assert {name: fault.needs for name, fault in FAULTS.items() if fault.needs} == {
        "slow-clients": ("overlap", "slow-clients", "thousand")
    }
    assert score_of(backend, "pause", ONE_AT_A_TIME).expected == ""


def test_slow_clients_are_judged_by_pings_before_and_during(slow_backend: FakeBackend) -> None:
    found = score_of(slow_backend, "slow-clients")
    # 4 ms against 2 ms.
    assert found.verdict is Verdict.HELD
    assert found.reason == "p99 of PING 2.00 ms alone, 4.00 ms during slow clients: 2.0 times"
    assert found.interval is not None
    assert slow_backend.names() == ["run", "start", "run", "close"]
    assert slow_backend.done[0] == (
        "run",
        "python",
        "-m",
        "lab.clients.slow_clients",
        f"tcp://{MODEL}:6379",
        "--ping",
        "1000",
        True,
        60.0,
    )


def test_unanswered_ping_differs_from_failed_command(backend: FakeBackend) -> None:
    backend.pings = [
        subprocess.CompletedProcess([], 1, "waited 5 s\n", ""),
        subprocess.CompletedProcess([], 2, "out", "no such module\n"),
        subprocess.CompletedProcess([], 2, "out\n", ""),
    ]
    assert measure_ping(backend, "a") == "waited 5 s"
    for said in ("no such module", "out"):
        with pytest.raises(LabError, match=f"PING could not be measured: {said}$"):
            measure_ping(backend, "a")


@pytest.mark.parametrize(
    ("quiet", "loaded", "verdict", "said"),
    [
        (0.002, 0.01, "held", "p99 of PING 2.00 ms alone, 10.00 ms during slow clients: 5.0 times"),
        (0.002, 0.0102, "degraded", "p99 of PING 2.00 ms alone, 10.20 ms during slow clients: 5.1 times"),
        (0.002, "waited 5 s", "failed", "PING during slow clients: waited 5 s"),
        ("refused", 0.002, "unknown", "no PING was answered before the slow clients connected: refused"),
        ("refused", "refused too", "unknown", "no PING was answered before the slow clients connected: refused"),
    ],
)
def test_slow_clients_are_degraded_above_five_times_the_quiet_p99(
    quiet: float | str, loaded: float | str, verdict: str, said: str
) -> None:
    assert judge_cost(quiet, loaded) == (verdict, said)


def test_missing_slow_clients_are_an_error_with_their_output(slow_backend: FakeBackend) -> None:
    slow_backend.first_lines = ["no descriptors"]
    with pytest.raises(
        LabError, match="slow clients sent no Connected within 20 s; its output ends with:\n  no descriptors"
    ):
        score_of(slow_backend, "slow-clients")
    assert 20.0 <= sum(slow_backend.clock.slept) <= 20.1
    assert slow_backend.names()[-1] == "close"


FINE = Account(4, 4, 100, 100)


def test_faults_say_themselves_what_is_special_about_them() -> None:
    assert {name for name, fault in FAULTS.items() if not fault.keeps_connections} == {"kill", "worker", "disconnect"}
    assert [name for name, fault in FAULTS.items() if fault.must_exit_cleanly] == ["drain"]
    assert [name for name, fault in FAULTS.items() if fault.measured_by is Evidence.PING] == ["slow-clients"]
    ending = {name: fault.recovery_counts_from for name, fault in FAULTS.items() if fault.recovery_counts_from}
    assert ending == {"drain": RecoveryStart.HEALING, "kill": RecoveryStart.INJECTION}


@pytest.mark.parametrize("name", ["drain", "kill"])
def test_control_run_excuses_nothing(name: str) -> None:
    rules = FAULTS[name].for_control()
    assert (rules.name, rules.hold) == (name, FAULTS[name].hold)
    assert (rules.keeps_connections, rules.must_exit_cleanly, rules.recovery_counts_from) == (True, False, None)


@pytest.mark.parametrize(
    ("fault", "account", "exit_code", "ended", "verdict", "said"),
    [
        ("drain", FINE, 0, None, Verdict.HELD, "100 answered once and in order, no accepted request lost"),
        ("drain", FINE, 1, None, Verdict.FAILED, "it ended with exit code 1: a client was cut off"),
        ("drain", FINE, None, None, Verdict.FAILED, "it ended with exit code None: a client was cut off"),
        ("drain", Account(4, 4, 100, 98, lost=2), 0, None, Verdict.FAILED, "2 accepted requests were never"),
        (
            "pause",
            Account(4, 4, 100, 98, lost=2),
            None,
            None,
            Verdict.FAILED,
            "2 accepted requests were never",
        ),
        (
            "kill",
            Account(4, 4, 100, 90, 10),
            None,
            None,
            Verdict.HELD,
            "90 answered once and in order, 10 known to be una",
        ),
        (
            "worker",
            Account(4, 4, 100, 93, 7),
            None,
            None,
            Verdict.HELD,
            "93 answered once and in order, 7 known to be una",
        ),
        (
            "disconnect",
            Account(4, 4, 9, 3, 6),
            None,
            None,
            Verdict.HELD,
            "3 answered once and in order, 6 known to be una",
        ),
        (
            "kill",
            Account(4, 4, 100, 90, wrong={"out of order": 2, "one too many": 1}),
            None,
            None,
            Verdict.FAILED,
            "wrong replies: 1 one too many, 2 out of order",
        ),
        ("nothing", Account(4, 0, 32, 5), None, None, Verdict.UNKNOWN, "no client was served before the fault"),
        ("nothing", Account(4, 4, 32, 0), None, None, Verdict.UNKNOWN, "no client was served before the fault"),
        ("kill", Account(4, 0, 32, 0), None, None, Verdict.UNKNOWN, "no client was served before the fault"),
        ("kill", None, None, None, Verdict.UNKNOWN, "the request log returned no account"),
        ("pause", FINE, None, 0, Verdict.FAILED, "it ended with exit code 0, which this fault does not cause"),
        ("worker", FINE, None, 137, Verdict.FAILED, "it ended with exit code 137, which this fault does not cause"),
        ("pause", None, None, 137, Verdict.FAILED, "it ended with exit code 137, which this fault does not cause"),
    ],
)
def test_account_decides_verdict_and_reason(
    fault: str, account: Account | None, exit_code: int | None, ended: int | None, verdict: Verdict, said: str
) -> None:
    found, reason = judge(FAULTS[fault], account, exit_code, ended)
    assert found is verdict
    assert reason.startswith(said)


@pytest.mark.parametrize(
    ("recover", "verdict"),
    [(None, Verdict.DEGRADED), (0.0, Verdict.HELD), (1.0, Verdict.HELD), (1.001, Verdict.DEGRADED)],
)
def test_recovery_after_the_allowed_time_is_degraded(recover: float | None, verdict: Verdict) -> None:
    assert judge_times(replace(SEEN, recover=recover), 1.0, lasted=0.5, silence=9.0)[0] is verdict
    # It may be late at once.
    assert judge_times(replace(SEEN, recover=recover, detect=0.0), 1.0, lasted=0.5, silence=9.0)[0] is verdict
    # A model that was never late has nothing to recover from.
    assert judge_times(replace(SEEN, recover=recover, detect=None), 1.0, lasted=0.5, silence=9.0)[0] is Verdict.HELD


@pytest.mark.parametrize(
    ("lasted", "silence", "verdict"),
    [(0.5, 1.5, Verdict.HELD), (0.5, 1.75, Verdict.DEGRADED), (0.0, 1.75, Verdict.HELD)],
)
def test_silence_beyond_fault_and_allowance_is_degraded(lasted: float, silence: float, verdict: Verdict) -> None:
    assert judge_times(None, 1.0, lasted=lasted, silence=silence)[0] is verdict


@pytest.mark.parametrize(
    ("verdict", "expected", "is_fine"),
    [
        (Verdict.HELD, "", True),
        (Verdict.DEGRADED, "", True),
        (Verdict.FAILED, "", False),
        (Verdict.UNKNOWN, "", False),
        (Verdict.HELD, "declared", False),
        (Verdict.DEGRADED, "declared", False),
        (Verdict.FAILED, "declared", True),
        (Verdict.UNKNOWN, "declared", False),
    ],
)
def test_score_is_fine_if_it_held_or_failed_as_declared(verdict: Verdict, expected: str, is_fine: bool) -> None:
    assert Score(MODEL, "slow-clients", verdict, "", 1, 0.0, expected=expected).is_fine is is_fine


def test_all_faults_of_a_model_share_one_probe_and_skip_what_does_not_apply(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Opened:
        def __init__(self, backend: object, model: str) -> None:
            opened.append(model)

        def __enter__(self) -> FakeProbeReader:
            return FakeProbeReader(backend, SEEN)

        def __exit__(self, *exception: object) -> None:
            opened.append("closed")

    monkeypatch.setattr(scorecard, "open_probe", Opened)
    backend.printed = {"run_beside": "0\n"}
    found = list(apply_all(backend, [MODEL, ONE_AT_A_TIME], ["nothing", "worker", "pause"], 5, control=False))
    assert [(score.model, score.fault, score.seed) for score in found] == [
        (MODEL, "nothing", 5),
        (MODEL, "pause", 5),
        (ONE_AT_A_TIME, "nothing", 5),
        (ONE_AT_A_TIME, "pause", 5),
    ]
    # A model that serves one client at a time has no probe.
    assert opened == [MODEL, "closed"]
    assert [score.probe_report for score in found] == [SEEN, SEEN, None, None]
    assert all(score.is_control for score in apply_all(backend, [ONE_AT_A_TIME], ["pause"], 5, control=True))


def raise_(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def test_unsupported_fault_is_unknown(backend: FakeBackend) -> None:
    found = score_of(backend, "blackhole")
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "only a container has its own network namespace")


# A model that ends by itself, at each step of a fault. The step then finds no process.
GONE = LabError(f"{MODEL} has just ended: `lab up {MODEL}`")


def end(backend: FakeBackend, code: int | None, error: LabError | None = GONE) -> Callable[[], None]:
    def end_once() -> None:
        backend.fails.clear()
        backend.exited[MODEL] = code
        if error:
            raise error

    return end_once


@pytest.mark.parametrize(("fault", "step"), [("pause", "pause"), ("starve", "limit_cpu"), ("kill", "kill")])
@pytest.mark.parametrize(("code", "said"), [(3, 3), (0, 0), (None, 137)])
def test_model_that_ends_before_the_injection_has_failed_and_is_restarted(
    backend: FakeBackend, fault: str, step: str, code: int | None, said: int
) -> None:
    backend.fails = {step: end(backend, code)}
    found = score_of(backend, fault)
    assert found.verdict is Verdict.FAILED
    assert found.reason.startswith(f"{MODEL} had ended with exit code {said} before {fault}: {MODEL} has just ended")
    assert found.reason.endswith("; it was restarted")
    assert backend.names().count("restart") >= 1
    assert backend.exited == {}
    assert not found.is_fine


def test_model_that_ends_during_preparation_is_restarted(backend: FakeBackend) -> None:
    backend.fails = {"run_beside": end(backend, 3)}
    found = score_of(backend, "memory")
    assert (found.verdict, found.reason[:50]) == (
        Verdict.FAILED,
        f"{MODEL} had ended with exit code 3 before memory:"[:50],
    )
    assert backend.names().count("restart") == 1


@pytest.mark.parametrize("code", [139, 0])
def test_model_that_ends_under_a_fault_has_failed_and_is_restarted(backend: FakeBackend, code: int) -> None:
    """Healing fails at first, since the paused process is gone. It succeeds after the restart."""
    backend.fails = {"unpause": end(backend, code)}
    found = score_of(backend, "pause")
    assert (found.verdict, found.exit_code) == (Verdict.FAILED, code)
    assert found.reason == f"it ended with exit code {code}, which this fault does not cause, and was restarted"
    assert [name for name in backend.names() if name in ("pause", "unpause", "restart")] == [
        *("pause", "unpause", "restart", "unpause")
    ]
    assert found.interval is not None
    assert (found.interval.ended, found.interval.end_seconds is not None) == (code, True)


@pytest.mark.parametrize("code", [137, 0])
def test_model_that_ends_under_a_fault_is_noticed_when_healing_succeeds(backend: FakeBackend, code: int) -> None:
    """Removing a container's limit succeeds then: only the state of the model shows that it has ended."""
    backend.fails = {"limit_cpu": lambda: backend.exited.update({MODEL: code})}
    backend.seconds = {"restart": 5.0}
    found = score_of(backend, "starve")
    assert (found.verdict, found.exit_code) == (Verdict.FAILED, code)
    assert "restart" in backend.names()
    assert MODEL not in backend.exited


@pytest.mark.parametrize("code", [1, 0])
def test_model_that_ends_under_slow_clients_has_failed_despite_a_declared_limit(
    slow_backend: FakeBackend, code: int
) -> None:
    slow_backend.fails = {"close": lambda: slow_backend.exited.update({ONE_AT_A_TIME: code})}
    found = score_of(slow_backend, "slow-clients", ONE_AT_A_TIME)
    assert (found.verdict, found.exit_code, found.expected, found.is_fine) == (Verdict.FAILED, code, "", False)
    assert found.reason == f"it ended with exit code {code}, which this fault does not cause, and was restarted"


@pytest.mark.parametrize(
    ("code", "error"), [(None, NotReadyError), (1, NotReadyError), (0, NotReadyError), (1, LabError), (0, LabError)]
)
def test_model_that_hangs_or_ended_has_failed_and_is_restarted(
    backend: FakeBackend, code: int | None, error: type[LabError]
) -> None:
    def hang() -> None:
        if code is not None:
            backend.exited[MODEL] = code
        raise error("it runs, but gave no answer")

    backend.fails = {"wait_ready": hang}
    found = score_of(backend, "pause")
    assert found.verdict is Verdict.FAILED
    what = "it hung" if code is None else f"it ended with exit code {code}"
    assert found.reason == f"{what}, and was restarted: it runs, but gave no answer"
    assert backend.names()[-1] == "restart"


@pytest.mark.parametrize("control", [False, True])
def test_model_that_has_ended_in_order_is_the_cause_of_an_error(backend: FakeBackend, control: bool) -> None:
    backend.fails = {"wait_ready": end(backend, 0)}
    found = score_of(backend, "pause", control=control)
    assert (found.verdict, found.reason) == (
        Verdict.FAILED,
        f"it ended with exit code 0, and was restarted: {GONE}",
    )
    assert found.is_control is control
    assert backend.names()[-1] == "restart"


def test_failed_restart_is_not_healed(backend: FakeBackend) -> None:
    backend.fails = {name: raise_(NotReadyError("no answer")) for name in ("wait_ready", "restart")}
    with pytest.raises(NotHealedError, match=f"no answer\nstill broken: {MODEL} is down; by hand: `lab up {MODEL}`"):
        score_of(backend, "pause")
    backend.fails = {"restart": raise_(NotReadyError("no answer"))}
    with pytest.raises(
        NotHealedError, match=f"no answer\nstill broken: {MODEL} is down; by hand: `lab up {MODEL}`, or"
    ):
        score_of(backend, "kill")


def test_error_of_the_backend_is_no_verdict(backend: FakeBackend) -> None:
    backend.fails = {"pause": raise_(LabError("no engine"))}
    with pytest.raises(LabError, match=r"^no engine$"):
        score_of(backend, "pause")
    # It was healed nevertheless.
    assert "unpause" in backend.names()


def test_exit_code_is_none_for_a_running_model(backend: FakeBackend) -> None:
    backend.exited = {ONE_AT_A_TIME: 2, "prefork": None}
    found = [find_exit_code(backend, name) for name in (MODEL, ONE_AT_A_TIME, "prefork")]
    assert found == [None, 2, 128 + 9]


def test_interval_has_begin_and_end(backend: FakeBackend, clock: Clock) -> None:
    made = Fault("made", "for a test", lambda backend, model: Injection(lambda: 7, lambda: None, "", ""))
    with injected(made, backend, MODEL) as interval:
        assert (interval.fault, interval.model, interval.is_control, interval.exit_code) == ("made", MODEL, False, 7)
        assert (interval.begin_seconds, interval.end_seconds, interval.end) == (100.0, None, "")
        clock.now = 103.0
    assert (interval.begin_seconds, interval.end_seconds, interval.ended) == (100.0, 103.0, None)
    assert interval.begin <= interval.end
    assert interval.begin.endswith("+00:00")
    assert FaultInterval("a", "b", is_control=True).end_seconds is None


def test_fault_that_does_not_apply_is_healed(backend: FakeBackend) -> None:
    def lack() -> None:
        raise NotApplicableError("no worker")

    undone: list[bool] = []
    made = Fault("made", "", lambda backend, model: Injection(lack, lambda: undone.append(True), "", ""))
    with pytest.raises(CannotApplyError, match="no worker"), injected(made, backend, MODEL):
        pytest.fail("it was applied")
    assert undone == [True]
    assert not isinstance(NotApplicableError(""), EndedError)


@pytest.mark.parametrize("kind", ["Begun", "Marked"])
@pytest.mark.parametrize("has_ended", [True, False])
def test_silent_request_log_is_an_error_with_its_output(
    backend: FakeBackend, clock: Clock, kind: str, has_ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.first_lines, backend.marked = ([Begun()] if kind == "Marked" else []), ["no more"]
    if has_ended:
        monkeypatch.setattr(FakeProcess, "poll", lambda process: 2)
    how = "ended with exit code 2" if has_ended else f"sent no {kind} within 60 s"
    said = "its output ends with:\n  no more" if kind == "Marked" else "it said nothing"
    with pytest.raises(LabError, match=f"^the request log {how}; {said}$"):
        score_of(backend, "pause")
    waited = sum(clock.slept) - (0.0 if kind == "Begun" else clock.slept[0])
    assert waited == pytest.approx(0.0 if has_ended else 60.0, abs=0.05)
    assert "pause" not in backend.names()


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(
    ("fault", "error", "verdict"),
    [
        ("pause", None, Verdict.HELD),
        ("slow-clients", None, Verdict.HELD),
        ("pause", CannotApplyError("no"), Verdict.UNKNOWN),
        ("pause", NotReadyError("no answer"), Verdict.FAILED),
    ],
)
def test_score_says_what_was_done_to_which_model(
    slow_backend: FakeBackend, fault: str, error: LabError | None, verdict: Verdict, control: bool
) -> None:
    if error:
        slow_backend.fails = {"wait_ready": raise_(error)}
    found = score_of(slow_backend, fault, control=control)
    # The seed is that of `score_of`.
    moment = random.Random(f"1-{MODEL}-{fault}").uniform(0.1, 0.6)
    assert (found.model, found.fault, found.verdict) == (MODEL, fault, verdict)
    assert (found.seed, found.moment, found.is_control) == (1, moment, control)


def test_score_defaults() -> None:
    found = Score(MODEL, "pause", Verdict.HELD, "", 1, 0.0)
    assert (found.is_control, found.exit_code, found.recovery, found.expected) == (False, None, None, "")


def test_drain_has_no_duration(backend: FakeBackend) -> None:
    """It ends connections, so the silence of the request log does not count."""
    backend.account = Account(8, 8, 1000, 1000, silence=50.0)
    assert score_of(backend, "drain").verdict is Verdict.HELD
    # A pause of half a second may cause half a second of silence and one second to recover.
    backend.account = Account(8, 8, 1000, 1000, silence=1.75)
    assert score_of(backend, "pause").verdict is Verdict.DEGRADED


def test_apply_all_injects_by_default(backend: FakeBackend) -> None:
    (found,) = apply_all(backend, [ONE_AT_A_TIME], ["pause"], 5)
    assert (found.is_control, found.seed) == (False, 5)
    assert "pause" in backend.names()
    # Each model in its turn under each fault; a model that has nothing to break has no score.
    backend.printed = {"run_beside": "0\n"}
    names = (ONE_AT_A_TIME, "socketserver_sequential")
    scores = list(apply_all(backend, names, ["worker", "nothing", "pause"], 7, control=False))
    assert [(item.model, item.fault) for item in scores] == [
        (name, fault) for name in names for fault in ("nothing", "pause")
    ]
    backend.done.clear()
    (found,) = apply_all(backend, names[:1], ["pause"], 5, control=True)
    assert found.is_control
    assert "pause" not in backend.names()
    assert scorecard._MOMENT == (0.1, 0.6)
