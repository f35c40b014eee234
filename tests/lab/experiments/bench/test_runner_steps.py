"""The steps of the runner: their arguments, what is stored and what is printed. `measure` is a fake."""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from lab.base.errors import LabError
from lab.experiments.bench import runner, warm_up
from lab.experiments.bench.independent_clients import CLIENTS
from lab.experiments.bench.plan import PRESETS, WORKLOADS, BenchWorkload, Phase, Plan, Step, list_cases
from lab.experiments.bench.runner import Progress, Runner, show_time
from lab.experiments.bench.sweep import Knee, Level, find_knee, is_over, make_level
from lab.experiments.conformance.results import ModelResult
from lab.experiments.store import Run
from lab.load.cores import Pinning
from lab.load.measure import MeteredServer
from lab.load.measurement import Measurement
from lab.load.presets import Preset, find_preset
from lab.metrics.sample import Meter, NoMeter, Sample
from lab.metrics.verdict import Limit, Verdict
from lab.servers.backend import Backend, Completed, Loadable, Servers
from lab.servers.catalogue import Catalogue, Listener, Model
from lab.servers.docker.containers import Containers
from lab.servers.processes import Processes
from loadtests.contract import LoadSpec
from loadtests.sockets.errors import ClientError
from services.protocol import Transport
from tests.support.fakes import UnusedBackend
from tests.support.made_up import MEASUREMENT, vary

CATALOGUE = Catalogue.load()
MODELS = ("asyncio_streams", "twisted_reactor", "plain_socket")
SOUND = ModelResult(5, 0)
MOMENT = r"\d{4}-\d\d-\d\dT\d{6}\.\d{6}Z"


class RecordingBackend(UnusedBackend):
    """Models that count as up; records the calls, and returns given values."""

    def __init__(self, project: str = "t") -> None:
        self.project = project
        self.asked: list[tuple[list[str], dict[str, Any]]] = []
        self.restarted: list[str] = []
        self.answers: dict[str, Completed] = {}
        self.states: list[Any] = []
        self.fails_to_restart = False

    def targets(self) -> list[Listener]:
        found = []
        # The control is at addresses of its own.
        for port, name in enumerate((*MODELS, "peer_redis"), 7000 if self.project == "t" else 7500):
            found += [
                Listener(name, "echo", "tcp", f"tcp://127.0.0.1:{port}"),
                Listener(name, "command", "tls", f"tls://127.0.0.2:{port}"),
                Listener(name, "command", "tcp", f"tcp://127.0.0.1:{port + 1000}"),
            ]
        return found

    def state(self) -> list[Any]:
        return self.states

    def meter(self, model: str) -> Meter:
        return NoMeter(f"{model} is not there")

    def restart(self, model: str, **_: Any) -> None:
        self.restarted.append(model)
        if self.fails_to_restart:
            raise LabError("it stays down")

    def run(self, arguments: Sequence[str], **given: Any) -> Completed:
        self.asked.append((list(arguments), given))
        usual = '"test","rps"\n"PING_MBULK","20000.0"\n' if "redis-benchmark" in arguments else '{"url": 200}'
        key = next(
            (key for key, name in (("redis", "redis-benchmark"), ("wrk", "wrk")) if name in arguments), "warm-up"
        )
        return self.answers.get(key, Completed(tuple(arguments), 0, usual, ""))


class Lab:
    """A runner with fake backends that record the calls."""

    def __init__(self, root: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, *, pinning: Pinning | None) -> None:
        self.plan = plan
        self.backend = RecordingBackend()
        self.control = RecordingBackend("t-control")
        self.lines: list[str] = []
        self.measured: list[tuple[Any, Any, Preset, dict[str, Any]]] = []
        self.pinned: list[tuple[str, tuple[str, ...]]] = []
        self.answer: Callable[..., Measurement] = lambda model, users: vary(MEASUREMENT, users=users)
        self.run = Run.create("bench", {"plan": plan.as_json(), "environment": {}}, root=root)
        names = (*plan.models, *filter(None, [plan.generator_limit]))
        self.runner = Runner(
            self.run,
            plan,
            self.backend,
            self.control if plan.control else None,
            {name: CATALOGUE[name] for name in names},
            pinning,
            Progress(self.lines.append),
        )
        monkeypatch.setattr(runner, "measure", self._measure)
        monkeypatch.setattr(runner, "pin_servers", self._pin)

    def _measure(self, backend: Loadable, model: Model, load: Preset, **given: Any) -> Measurement:
        self.measured.append((backend, model, load, given))
        return vary(self.answer(model.name, load.spec.users), model=model.name)

    def _pin(self, backend: Servers, names: Sequence[str], pinning: Pinning) -> None:
        assert pinning == self.runner.pinning
        self.pinned.append((backend.project, tuple(names)))

    def measure_all(self, checks: dict[str, ModelResult] | None = None) -> None:
        def check(backend: Backend, names: Sequence[str]) -> dict[str, ModelResult]:
            assert backend is self.backend
            return {name: (checks or {}).get(name, SOUND) for name in names}

        self.runner.measure_all(check)


Open = Callable[..., Lab]


@pytest.fixture
def lab(tmp_path: Path, make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> Open:
    def open_lab(*, pinning: Pinning | None = None, **changes: Any) -> Lab:
        plan = make_plan(
            **{"models": MODELS, "rounds": 1, "modes": ("closed",), "levels": (16,), "control": None} | changes
        )
        return Lab(tmp_path, plan, monkeypatch, pinning=pinning)

    return open_lab


# A step.


def test_step_is_measured_as_planned(lab: Open) -> None:
    cores = Pinning((1,), (0,))
    found = lab(models=("asyncio_streams",), workloads=("tls",), seconds=0.7, warm_up=0.3, pinning=cores)
    found.measure_all()
    ((backend, model, load, given),) = found.measured
    assert (backend, model.name, load.name) == (found.backend, "asyncio_streams", "closed_ping")
    assert given.pop("generator") is found.runner._generators["t"]
    assert given.pop("servers") is found.runner._servers["t"]
    assert given == {"pinning": cores}
    spec = LoadSpec(users=16, workload="ping", transport=Transport.TLS, window=0.7, shape_time=0.7, warm_up=0.3)
    assert load.spec == spec


def test_stored_step_has_request_and_result(lab: Open) -> None:
    found = lab(models=("asyncio_streams",))
    found.measure_all()
    record = found.run.read("round-1/session/asyncio_streams/closed")
    assert (record["preset"], record["users"]) == ("closed_session", 16)
    assert 0 <= record["took"] < 60
    assert record["measurement"]["rate"] == 10_000
    assert re.fullmatch(MOMENT, record["at"])
    assert re.fullmatch(MOMENT, found.run.end["at"])
    assert "round-1, session, asyncio_streams, closed: server-bound" in found.lines[-1]


def test_stored_step_has_the_connections_that_were_asked_for(lab: Open) -> None:
    found = lab(models=("asyncio_streams",), modes=("fixed",))
    found.measure_all()
    record = found.run.read("round-1/session/asyncio_streams/fixed")
    # Not the 16 of the knee.
    assert (record["preset"], record["users"]) == ("open_session", 64)


def test_stored_result_of_another_client_is_not_measured_again(lab: Open) -> None:
    found = lab(models=("asyncio_streams",), control="asyncio_streams")
    found.measure_all()
    key = "cross-check/ping/asyncio_streams/redis-benchmark-1"
    before, asked = found.run.read(key), len(found.backend.asked)
    assert before["rate"] == 20_000
    assert re.fullmatch(MOMENT, before["at"])
    found.runner._cross_check(1, ["asyncio_streams"])
    assert (found.run.read(key), len(found.backend.asked)) == (before, asked)


def test_control_server_keeps_its_name(lab: Open) -> None:
    found = lab(models=("asyncio_streams",), control="asyncio_streams", workloads=("echo_1k",))
    found.measure_all()
    kept = found.run.read("round-1/echo_1k/control-asyncio_streams/closed")
    assert kept["measurement"]["model"] == "control-asyncio_streams"
    assert [backend.project for backend, *_ in found.measured if backend is found.control] == ["t-control"]
    for backend, _, _, given in found.measured:
        generator, servers = given["generator"], given["servers"]
        assert generator is found.runner._generators[backend.project]
        assert servers is found.runner._servers[backend.project]
        assert (generator.helpers, servers.servers) == (backend.helpers, backend)


@pytest.mark.parametrize(
    ("workload", "mode", "knee", "asked"),
    [
        ("session", "closed", Knee(16, 900.0, 64), ("closed_session", 16, None)),
        ("session", "fixed", Knee(16, 900.0, 32), ("open_session", 64, 12_000)),
        # A held connection serves one request at a time: no more connections than were served in the sweep.
        ("ping", "fixed", Knee(16, 900.0, 32), ("open_steady", 32, 8000)),
        ("ping", "fixed", Knee(16, 900.0, 256), ("open_steady", 64, 8000)),
        ("ping", "open-50", Knee(16, 900.0, 32), ("open_steady", 32, 450)),
        ("ping", "open-70", Knee(16, 900.0, 32), ("open_steady", 32, 630)),
        ("ping", "open-90", Knee(16, 900.0, 32), ("open_steady", 32, 810)),
        ("ping", "open-50", Knee(16, 1.0, 32), ("open_steady", 32, 1.0)),
    ],
)
def test_preset_connections_and_rate_of_a_step(
    lab: Open, workload: str, mode: str, knee: Knee, asked: tuple[str, int, float | None]
) -> None:
    step = Step(Phase.ROUND, 1, workload, "asyncio_streams", mode)
    load = lab().runner._choose_load(step, WORKLOADS[workload], knee)
    assert (load.name, load.spec.users) == asked[:2]
    assert load.spec.is_open is (asked[2] is not None)
    assert asked[2] is None or load.spec.rate == pytest.approx(asked[2])


def test_model_without_answers_is_restarted_and_pinned(lab: Open) -> None:
    found = lab(models=("asyncio_streams", "twisted_reactor"), pinning=Pinning((1,), (0,)))
    failed = Verdict(Limit.FAILED, "not one correct reply")
    found.answer = lambda model, users: (
        vary(MEASUREMENT, users=users, answered=0, verdict=failed) if model == "twisted_reactor" else MEASUREMENT
    )
    found.measure_all()
    assert found.backend.restarted == ["twisted_reactor"]
    assert found.pinned == [("t", ("asyncio_streams", "twisted_reactor")), ("t", ("twisted_reactor",))]


@pytest.mark.parametrize("has_ended", [True, False])
def test_control_server_that_fails_is_restarted_and_not_its_model(lab: Open, has_ended: bool) -> None:
    found = lab(
        models=("asyncio_streams",), control="asyncio_streams", workloads=("echo_1k",), pinning=Pinning((1,), (0,))
    )
    found.control.states = [
        SimpleNamespace(model="asyncio_streams", state="exited", exit_code=137, last_lines=("killed",))
    ]

    def answer(model: str, users: int) -> Measurement:
        if found.measured[-1][0] is found.backend:
            return vary(MEASUREMENT, users=users)
        if has_ended:
            raise LabError("no result")
        return vary(MEASUREMENT, users=users, answered=0, verdict=Verdict(Limit.FAILED, "not one correct reply"))

    found.answer = answer
    found.measure_all()
    assert (found.backend.restarted, found.control.restarted) == ([], ["asyncio_streams"])
    assert [project for project, _ in found.pinned] == ["t", "t-control", "t-control"]
    failure = found.run.read("round-1/echo_1k/control-asyncio_streams/closed").get("failure")
    ended = "no result; the server exited with code 137, its last lines: killed"
    assert failure == (ended if has_ended else None)


def test_model_with_some_answers_is_not_restarted(lab: Open) -> None:
    found = lab(models=("asyncio_streams",))
    failed = Verdict(Limit.FAILED, "2% of all exchanges failed")
    found.answer = lambda model, users: vary(MEASUREMENT, users=users, verdict=failed)
    found.measure_all()
    assert found.backend.restarted == []


def test_disturbed_step_is_stored_as_a_failure(lab: Open) -> None:
    found = lab(models=("asyncio_streams",))
    disturbed = Verdict(Limit.DISTURBED, "a generator was lost")
    found.answer = lambda model, users: vary(MEASUREMENT, users=users, verdict=disturbed)
    found.measure_all()
    assert found.run.read("round-1/session/asyncio_streams/closed")["failure"] == "disturbed: a generator was lost"
    assert found.backend.restarted == []


def test_servers_of_both_projects_are_pinned_and_warmed_up(lab: Open) -> None:
    found = lab(models=("asyncio_streams", "plain_socket"), control="asyncio_streams", pinning=Pinning((1,), (0,)))
    found.measure_all()
    assert found.pinned[:2] == [("t", ("asyncio_streams", "plain_socket")), ("t-control", ("asyncio_streams",))]
    arguments, given = found.backend.asked[0]
    visits = ["python", "-m", "lab.experiments.bench.warm_up", "200"]
    assert arguments == [*visits, "command=tcp://127.0.0.1:8000", "command=tcp://127.0.0.1:8002"]
    assert given == {"capture": True, "timeout": 120.0}
    assert found.control.asked[0][0] == [*visits, "command=tcp://127.0.0.1:8500"]
    keys = [key for key in found.run.list_keys() if key.startswith("warm-up/")]
    assert [key.partition("Z-")[2] for key in keys] == ["t", "t-control"]
    assert [found.run.read(key) for key in keys] == [{"visits": {"url": 200}}] * 2


def test_control_of_a_failed_model_gets_no_warm_up(lab: Open) -> None:
    found = lab(models=("asyncio_streams", "plain_socket"), control="asyncio_streams")
    found.measure_all({"asyncio_streams": ModelResult(5, 1)})
    assert found.control.asked == []


def test_failed_warm_up_ends_the_run_with_its_output(lab: Open) -> None:
    found = lab()
    found.backend.answers["warm-up"] = Completed((), 1, "", "x" * 600 + "refused")
    with pytest.raises(LabError, match=r"^the warm-up failed: x{493}refused$"):
        found.measure_all()


# Conformance.


def test_model_without_a_test_result_is_not_measured(lab: Open) -> None:
    found = lab(models=("asyncio_streams", "twisted_reactor", "plain_socket"))
    found.runner.measure_all(lambda _, names: {"asyncio_streams": SOUND, "plain_socket": ModelResult(9, 0, 2)})
    assert {item[1].name for item in found.measured} == {"asyncio_streams", "plain_socket"}
    assert found.run.read("conformance/twisted_reactor") == {"passed": 0, "failed": 0, "xfailed": 0, "failures": []}
    assert found.run.read("conformance/plain_socket") == {"passed": 9, "failed": 0, "xfailed": 2, "failures": []}
    assert "conformance suite: 3 models" in found.lines


# The sweep.


def test_failed_level_ends_the_sweep_of_its_model_only(lab: Open) -> None:
    found = lab(models=("asyncio_streams", "twisted_reactor"), levels=(4, 16, 64))

    def answer(model: str, users: int) -> Measurement:
        if model == "twisted_reactor" and users == 16:
            raise LabError("no result")
        return vary(MEASUREMENT, users=users, answered=1000 * users)

    found.answer = answer
    found.measure_all()
    asked = {
        name: [load.spec.users for _, model, load, _ in found.measured if model.name == name]
        for name in ("asyncio_streams", "twisted_reactor")
    }
    # Each level doubles the rate: the knee of the first is at 64, that of the second at 4.
    assert asked == {"asyncio_streams": [4, 16, 64, 64], "twisted_reactor": [4, 16, 4]}


def test_level_skipped_for_one_model_is_measured_for_others(lab: Open) -> None:
    found = lab(models=MODELS[:2], levels=(4, 16, 64))
    found.answer = lambda model, users: vary(
        MEASUREMENT, users=users, answered=1000 if model == "asyncio_streams" else 1000 * users
    )
    found.measure_all()
    # The order within a level is shuffled. In either order, the sweep of the other model continues.
    assert sorted((model.name, load.spec.users) for _, model, load, _ in found.measured) == [
        ("asyncio_streams", 4),
        ("asyncio_streams", 4),
        ("asyncio_streams", 16),
        ("twisted_reactor", 4),
        ("twisted_reactor", 16),
        ("twisted_reactor", 64),
        ("twisted_reactor", 64),
    ]


def test_inconsistent_level_is_left_out_for_its_model_only(lab: Open) -> None:
    found = lab(models=MODELS[:2], levels=(4, 16))
    odd = Verdict(Limit.INCONSISTENT, "counts")
    found.answer = lambda model, users: vary(
        MEASUREMENT,
        users=users,
        **({"verdict": odd} if users == 4 else {}),
    )
    found.measure_all()
    assert sorted(load.spec.users for _, _, load, _ in found.measured) == [4, 4, 16, 16, 16, 16]


def level(rate: float, *, served: bool = True) -> Level:
    return Level(1, rate, served)


@pytest.mark.parametrize(
    ("levels", "over"),
    [
        # 5 % more than 100 is 105.
        ([level(100), level(104.9)], True),
        ([level(100), level(105.0)], False),
        ([level(0.5)], False),
        # The first served level has no level before it.
        ([level(100, served=False), level(0.5)], False),
    ],
)
def test_sweep_ends_at_a_gain_below_5_percent(levels: list[Level], over: bool) -> None:
    assert is_over(levels) is over


def test_knee_is_the_first_level_with_95_percent_of_the_best_rate() -> None:
    assert find_knee([Level(4, 95.0, True), Level(16, 100.0, True)]) == Knee(4, 95.0, 16)
    assert find_knee([Level(4, 94.9, True), Level(16, 100.0, True)]) == Knee(16, 100.0, 16)


def test_level_with_one_failure_in_a_thousand_is_served() -> None:
    assert make_level(4, vary(MEASUREMENT, answered=999, failures={"reset": 1})).is_served
    assert not make_level(4, vary(MEASUREMENT, answered=998, failures={"reset": 1})).is_served


# The cross-check with independent clients.

REDIS, WRK, *_ = CLIENTS


def make_server(samples: Sequence[float | None]) -> Any:
    found = iter(samples)
    meter = SimpleNamespace(read=lambda: Sample(cpu_seconds=next(found)))
    listeners = [("command", "tls", 8001), ("command", "tcp", 8000), ("http", "tcp", 8080)]
    return MeteredServer(
        tuple(
            Listener("asyncio_streams", service, over, f"tcp://127.0.0.1:{port}") for service, over, port in listeners
        ),
        meter,
    )


@pytest.mark.parametrize(
    ("samples", "cpu"),
    # 0.5 s for 10,000 requests.
    [([1.5, 2.0], 50.0), ([None, 2.0], None), ([1.5, None], None)],
)
def test_redis_benchmark_uses_the_same_server_and_connections(
    lab: Open, samples: Sequence[float | None], cpu: float | None
) -> None:
    found = lab(pinning=Pinning((1,), (0,)))
    server = make_server(samples)
    found.runner._servers["t"] = SimpleNamespace(open=lambda names: dict.fromkeys(names, server))  # type: ignore[assignment]
    record = found.runner._run_independent(REDIS, "asyncio_streams", requests=10_000)
    command = ["taskset", "--cpu-list", "0", "redis-benchmark", "-h", "127.0.0.1", "-p", "8000", "-t", "ping_mbulk"]
    assert found.backend.asked == [([*command, "--csv", "-c", "16", "-n", "10000"], {"capture": True, "timeout": 60})]
    assert record["rate"] == 20_000.0
    assert record["server_cpu_us"] == (None if cpu is None else pytest.approx(cpu))


@pytest.mark.parametrize(
    "done",
    [
        Completed((), 1, '"test","rps"\n"PING_MBULK","1.0"\n', "refused"),
        Completed((), 0, '"test","rps"\n"GET","1.0"\n', "refused"),
        Completed((), 0, "refused", ""),
    ],
)
def test_redis_benchmark_without_a_result_is_an_error_with_its_output(lab: Open, done: Completed) -> None:
    found = lab()
    found.backend.answers["redis"] = done
    server = make_server([1.0, 2.0])
    found.runner._servers["t"] = SimpleNamespace(open=lambda names: dict.fromkeys(names, server))  # type: ignore[assignment]
    with pytest.raises(LabError, match=r"redis-benchmark gave no result: .*refused"):
        found.runner._run_independent(REDIS, "asyncio_streams", requests=10)


def test_client_that_got_no_reply_at_all_has_no_result(lab: Open) -> None:
    """wrk finds no time-out in a window that is shorter than its own."""
    found = lab(seconds=1.0)
    found.backend.answers["wrk"] = Completed((), 0, "  0 requests in 1.00s, 0.00B read\nRequests/sec:      0.00\n", "")
    server = make_server([1.5, 2.0])
    found.runner._servers["t"] = SimpleNamespace(open=lambda names: dict.fromkeys(names, server))  # type: ignore[assignment]
    with pytest.raises(LabError, match="wrk gave no result: 0 requests in"):
        found.runner._run_independent(WRK, "asyncio_streams", requests=10_000)


def test_cpu_is_divided_by_the_requests_that_the_client_counted(lab: Open) -> None:
    found = lab(seconds=2.0)
    found.backend.answers["wrk"] = Completed((), 0, "  5000 requests in 2.00s, 1MB read\nRequests/sec:  2500.0\n", "")
    server = make_server([1.5, 2.0])
    found.runner._servers["t"] = SimpleNamespace(open=lambda names: dict.fromkeys(names, server))  # type: ignore[assignment]
    record = found.runner._run_independent(WRK, "asyncio_streams", requests=10_000)
    # 0.5 s for the 5000 of wrk, and not for the 10,000 that were asked for.
    assert (record["rate"], record["server_cpu_us"]) == (2500.0, pytest.approx(100.0))
    assert record["command"][-3:] == ["--duration", "2s", "http://127.0.0.1:8080/ping"]


@pytest.mark.parametrize(
    ("workloads", "checked"),
    [
        (("echo_1k",), [("ping", ["redis-benchmark"])]),
        (("http_sleep", "ping"), [("ping", ["redis-benchmark"]), ("http_ping", ["wrk", "h2load", "hey"])]),
    ],
)
def test_http_is_checked_in_runs_with_http(lab: Open, workloads: tuple[str, ...], checked: list[Any]) -> None:
    found = lab(models=("asyncio_streams",), control="asyncio_streams", workloads=workloads)
    listed = found.runner._list_cross_checked(["asyncio_streams"])
    assert [(workload, [client.name for client in clients]) for workload, _, clients in listed] == checked
    assert found.runner._count([]) == sum(1 + len(clients) for _, clients in checked)


@pytest.mark.parametrize(("rate", "requests"), [(40_000, 20_000), (10, 1000)])
def test_redis_benchmark_sends_as_many_requests_and_at_least_1000(lab: Open, rate: int, requests: int) -> None:
    found = lab(models=("asyncio_streams",), control="asyncio_streams", seconds=0.5, workloads=("echo_1k",))
    found.answer = lambda model, users: vary(MEASUREMENT, users=users, answered=rate)
    found.measure_all()
    assert [load.spec.users for _, _, load, _ in found.measured if load.name == "closed_ping"] == [16]
    theirs = [arguments for arguments, _ in found.backend.asked if "redis-benchmark" in arguments]
    assert [arguments[-1] for arguments in theirs] == [str(requests)]


def test_cross_check_continues_after_a_failed_server(lab: Open) -> None:
    found = lab(
        models=("asyncio_streams",), control="asyncio_streams", generator_limit="peer_redis", workloads=("echo_1k",)
    )

    def answer(model: str, users: int) -> Measurement:
        if model == "asyncio_streams" and not found.backend.restarted:
            raise LabError("no result")
        return vary(MEASUREMENT, users=users)

    found.answer = answer
    found.measure_all()
    keys = [key for key in found.run.list_keys() if key.startswith("cross-check/")]
    assert sorted(keys) == [
        "cross-check/ping/asyncio_streams/ours-1",
        "cross-check/ping/peer_redis/ours-1",
        "cross-check/ping/peer_redis/redis-benchmark-1",
    ]


def test_client_without_a_result_is_stored_with_its_reason_and_the_run_continues(lab: Open) -> None:
    found = lab(models=("asyncio_streams",), control="asyncio_streams", workloads=("echo_1k",))
    found.backend.answers["redis"] = Completed((), 1, "", "refused")
    found.measure_all()
    record = found.run.read("cross-check/ping/asyncio_streams/redis-benchmark-1")
    assert record["failure"] == "redis-benchmark gave no result: refused"
    assert re.fullmatch(MOMENT, record["at"])
    assert found.run.has("round-1/echo_1k/asyncio_streams/closed")
    assert found.run.is_finished


def test_additional_rounds_of_the_fixed_rate_have_no_cross_check(lab: Open) -> None:
    plan = {"modes": ("closed", "fixed"), "rounds": 2, "fixed_rounds": 4, "workloads": ("echo_1k",)}
    found = lab(models=("asyncio_streams",), control="asyncio_streams", **plan)
    found.measure_all()
    keys = [key for key in found.run.list_keys() if key.startswith("cross-check/")]
    assert sorted(keys) == [
        f"cross-check/ping/asyncio_streams/{client}-{number}"
        for client in ("ours", "redis-benchmark")
        for number in (1, 2)
    ]


def test_server_of_the_generators_limit_is_prepared_as_the_models_are(lab: Open) -> None:
    found = lab(
        models=("asyncio_streams",), generator_limit="peer_redis", workloads=("echo_1k",), pinning=Pinning((1,), (0,))
    )
    found.measure_all()
    assert found.pinned == [("t", ("asyncio_streams", "peer_redis"))]
    assert found.backend.asked[0][0][-2:] == ["command=tcp://127.0.0.1:8000", "command=tcp://127.0.0.1:8003"]


def test_server_without_http_is_not_cross_checked_by_http(lab: Open) -> None:
    names = ("asyncio_streams",)
    found = lab(models=names, control="asyncio_streams", generator_limit="peer_redis", workloads=("http_ping",))
    listed = [(workload, name) for workload, name, _ in found.runner._list_cross_checked(names)]
    assert listed == [("ping", "asyncio_streams"), ("ping", "peer_redis"), ("http_ping", "asyncio_streams")]
    # A control that failed the suite is not checked; the other is none of the models.
    listed = [(workload, name) for workload, name, _ in found.runner._list_cross_checked(())]
    assert listed == [("ping", "peer_redis")]


# Progress.


def test_progress_estimates_the_rest_from_the_mean_step() -> None:
    lines: list[str] = []
    progress = Progress(lines.append, total=10)
    progress.step("one", 2.0)
    progress.skip()
    progress.skip(3)
    progress.step("two", 4.0)
    # 10 steps, 4 skipped, 2 done: 4 left of 3 s each.
    assert lines == ["1 of 10, 18 s left  one", "2 of 6, 12 s left  two"]
    progress.skip(6)
    progress.step("three", 6.0)
    assert lines[-1] == "3 of 0, 0 s left  three"


@pytest.mark.parametrize(("seconds", "text"), [(48.2, "48 s"), (99.9, "100 s"), (100, "2 min"), (540, "9 min")])
def test_time_left_is_shown_in_minutes_from_100_seconds(seconds: float, text: str) -> None:
    assert show_time(seconds) == text


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        # 2 models x 1 mode; without a control there is no cross-check.
        ({}, 2),
        # 3 cases (with the control) x 2 rounds, and 2 x 1 server x 2 rounds for the cross-check.
        ({"control": "asyncio_streams", "rounds": 2}, 6 + 4),
        # 2 models x 3 levels, then 2 x 2 modes.
        ({"levels": (4, 16, 64), "modes": ("closed", "fixed")}, 6 + 4),
        # The fixed rate has 4 rounds, the other mode 1.
        ({"modes": ("closed", "fixed"), "fixed_rounds": 4}, 2 + 8),
        # A quick workload has no sweep.
        (
            {"levels": (4, 16, 64), "workloads": ("session", "sleep_20ms"), "quick_workloads": ("sleep_20ms",)},
            6 + 2 + 2,
        ),
        ({"generator_limit": "peer_redis"}, 2 + 2),
    ],
)
def test_steps_of_a_plan_are_counted(lab: Open, changes: dict[str, Any], steps: int) -> None:
    found = lab(**{"models": MODELS[:2]} | changes)
    cases = list_cases(found.plan, found.runner.models)
    assert found.runner._count(cases) == steps
    if len(found.plan.levels) == 1:
        found.measure_all()
        assert found.lines[-1].startswith(f"{steps} of {steps}, 0 s left  ")


def test_skipped_steps_do_not_count_as_left(lab: Open) -> None:
    found = lab(models=MODELS[:2], levels=(4, 16, 64))
    # The second level is no better than the first: the third is skipped. 2 levels and a round for each.
    found.measure_all()
    assert found.lines[-1].startswith("6 of 6, 0 s left")


def test_failed_step_is_stored_once_and_reported(lab: Open) -> None:
    found = lab(models=("asyncio_streams",))

    def answer(model: str, users: int) -> Measurement:
        raise LabError("no result")

    found.answer = answer
    found.backend.states = [
        SimpleNamespace(model="plain_socket", state="exited", exit_code=9, last_lines=("another",)),
        SimpleNamespace(model="asyncio_streams", state="exited", exit_code=3, last_lines=("a", "b", "c", "d")),
    ]
    found.measure_all()
    key = "round-1/session/asyncio_streams/closed"
    reason = "no result; the server exited with code 3, its last lines: b / c / d"
    assert found.run.read(key)["failure"] == reason
    assert re.fullmatch(MOMENT, found.run.read(key)["at"])
    assert f"{key}: {reason}" in found.lines
    assert found.runner.progress.total == 0
    found.runner._keep_failure(Step(Phase.ROUND, 1, "session", "asyncio_streams"), "again")
    assert found.run.read(key)["failure"] == reason
    assert found.runner.progress.total == -1


def test_failed_step_of_a_running_server_has_no_exit_code(lab: Open) -> None:
    found = lab()
    found.backend.states = [SimpleNamespace(model="plain_socket", state="running", exit_code=None, last_lines=())]
    assert found.runner._describe_end(found.backend, "plain_socket") == ""
    assert found.runner._describe_end(found.backend, "asyncio_streams") == ""
    found.backend.states[0].state = "exited"
    assert found.runner._describe_end(found.backend, "plain_socket").endswith("its last lines: nothing")


def test_failures_of_the_control_server_count_for_its_model(lab: Open) -> None:
    found = lab(models=("asyncio_streams",), control="asyncio_streams", rounds=3, workloads=("echo_1k",))

    def answer(model: str, users: int) -> Measurement:
        raise LabError("no result")

    found.answer = answer
    found.measure_all()
    assert len(found.measured) == 2
    reasons = [found.run.read(key)["failure"] for key in found.run.list_keys() if "control-" in key]
    assert reasons[-1] == "not tried again after 2 failures"


def test_model_that_cannot_be_restarted_is_given_up(lab: Open) -> None:
    found = lab(models=("asyncio_streams",), rounds=2)
    found.backend.fails_to_restart = True

    def answer(model: str, users: int) -> Measurement:
        raise LabError("no result")

    found.answer = answer
    found.measure_all()
    assert len(found.measured) == 1
    assert "asyncio_streams cannot be restarted: it stays down" in found.lines
    assert found.run.read("round-2/session/asyncio_streams/closed")["failure"] == "not tried again after 2 failures"


def test_own_cpu_is_the_share_of_a_core_used_by_measuring(lab: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lab(models=("asyncio_streams",))
    cpu, clock = iter([1.0, 1.5]), iter([10.0, 20.0])
    monkeypatch.setattr(runner, "_own_cpu_seconds", lambda backend: next(cpu))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock, 20.0))
    found.measure_all()
    # 0.5 s in 10 s.
    assert json.loads((found.run.folder / "end.json").read_text())["own_cores"] == pytest.approx(0.05)


def test_own_cpu_includes_docker_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    def child(pid: int, user: float, system: float) -> Any:
        return SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=user, system=system))

    def gone() -> Any:
        raise psutil.NoSuchProcess(1)

    children = [child(1, 10.0, 20.0), SimpleNamespace(cpu_times=gone), child(2, 100.0, 200.0)]
    asked: list[bool] = []

    def list_children(*, recursive: bool = False) -> list[Any]:
        asked.append(recursive)
        return children

    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(children=list_children))
    monkeypatch.setattr(time, "process_time", lambda: 1.0)
    monkeypatch.setattr(os, "times", lambda: SimpleNamespace(children_user=2.0, children_system=4.0))
    # 1 of its own, 2 + 4 of ended children, 10 + 20 and 100 + 200 of running ones.
    assert runner._own_cpu_seconds(Containers("t", CATALOGUE)) == 337.0
    assert asked == [True]
    # As processes, its children are the servers and the generator.
    assert runner._own_cpu_seconds(Processes("t", CATALOGUE)) == 1.0


# The plan.


def test_fixed_rates_match_stored_runs() -> None:
    # If a rate changes, earlier runs and the committed baseline are no longer comparable: make a new baseline.
    assert {name: workload.fixed_rate for name, workload in WORKLOADS.items()} == {
        "session": 12_000,
        "ping": 8000,
        "pipeline_16": 16_000,
        "echo_1k": 4000,
        "echo_64k": 400,
        "churn": 200,
        "sleep_20ms": 200,
        "burn": 200,
        "mixed": 400,
        "download": 50,
        "idle_connections": 4000,
        "datagrams": 4000,
        "http_ping": 4000,
        "http_echo_1k": 2000,
        "http_sleep": 200,
        "http_churn": 200,
        "http_mixed": 400,
        "ws_echo": 4000,
        "tls": 4000,
    }


@pytest.mark.parametrize(
    ("preset", "levels", "windows", "seconds"),
    [
        # 17 cases (16 models and the control) x 3 rounds, 0.6 + 0.2 s each.
        ("quick", (16,), 51, 40.8),
        # Sessions: 16 x 3 levels, 17 x 4 modes x 3 rounds, 17 x 12 at the fixed rate. 3 quick: 17 x 3. 0.85 s each.
        ("default", (4, 16, 64), 48 + 204 + 204 + 153, 517.65),
        # 19 workloads: 16 x 5 levels, 17 x 5 modes x 5 rounds. 3.5 s each.
        ("full", (1, 4, 16, 64, 256), 19 * (80 + 425), 33_582.5),
    ],
)
def test_presets_take_the_documented_time(preset: str, levels: tuple[int, ...], windows: int, seconds: float) -> None:
    plan = Plan(models=tuple("abcdefghijklmnop"), seed=1, control="a", generator_limit=None, **PRESETS[preset])
    assert plan.levels == levels
    rounds = sum(17 * plan.rounds_of(mode) for workload in plan.workloads for mode in plan.modes_of(workload))
    swept = sum(16 * len(plan.levels_of(workload)) for workload in plan.workloads if plan.sweeps(workload))
    assert rounds + swept == windows
    assert windows * (plan.seconds + plan.warm_up) == pytest.approx(seconds)


def test_plan_is_swept_if_one_workload_is(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan(workloads=("session", "sleep_20ms"), quick_workloads=("sleep_20ms",), levels=(4, 16))
    assert plan.is_swept
    assert (plan.sweeps("session"), plan.sweeps("sleep_20ms")) == (True, False)
    assert not make_plan(levels=(4,)).is_swept
    # The middle of the levels: the second of two, the third of five.
    assert plan.levels_of("sleep_20ms") == (16,)
    assert replace(plan, levels=(1, 4, 16, 64, 256)).levels_of("sleep_20ms") == (16,)


def test_fixed_rounds_default_to_rounds(make_plan: Callable[..., Plan]) -> None:
    data = make_plan().as_json()
    del data["fixed_rounds"]
    assert Plan.from_json(data).fixed_rounds == 0


def test_datagram_workload_has_all_its_users() -> None:
    over = BenchWorkload("x", "datagrams that are held", "closed_datagrams", "open_datagrams", 1.0, Transport.UDP)
    assert find_preset("closed_datagrams").spec.transport is Transport.UDP
    assert over.most_users(CATALOGUE["plain_socket"], 64) == 64


def test_workload_is_for_models_that_offer_its_service_over_its_transport() -> None:
    # Both have echo, and socat not over UDP.
    assert WORKLOADS["datagrams"].is_for(CATALOGUE["asyncio_protocol"])
    assert not WORKLOADS["datagrams"].is_for(CATALOGUE["peer_socat"])
    assert WORKLOADS["echo_1k"].is_for(CATALOGUE["peer_socat"])
    # It speaks HTTP, and declares that it serves files alone.
    assert WORKLOADS["http_ping"].is_for(CATALOGUE["peer_nginx"])
    assert not WORKLOADS["http_sleep"].is_for(CATALOGUE["peer_nginx"])


# The warm-up.


def test_server_without_command_is_warmed_up_through_another_service(lab: Open) -> None:
    found = lab(models=("peer_socat", "peer_nginx"))
    found.backend.targets = lambda: [  # type: ignore[method-assign]
        Listener("peer_socat", "echo", "tcp", "tcp://127.0.0.1:1"),
        Listener("peer_nginx", "http", "tls", "https://127.0.0.1:2"),
        Listener("peer_nginx", "http", "tcp", "http://127.0.0.1:3"),
    ]
    found.runner._warm_up_servers(("peer_socat", "peer_nginx"))
    ((arguments, _),) = found.backend.asked
    assert arguments[-2:] == ["echo=tcp://127.0.0.1:1", "http=http://127.0.0.1:3"]


def test_warm_up_stops_at_the_first_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def call(service: str, url: str, arguments: list[str], *, timeout: float) -> None:
        asked.append((service, url, arguments, timeout))
        if url == "tcp://b:2" and len(asked) > 4:
            raise ClientError("reset")

    monkeypatch.setattr(warm_up, "call", call)
    warm_up.main(["3", "command=tcp://a:1", "echo=tcp://b:2"])
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"tcp://a:1": 3, "tcp://b:2": 1}
    assert shown.err == "tcp://b:2: reset\n"
    assert asked[0] == ("command", "tcp://a:1", ["PING"], 5.0)
    assert asked[3] == ("echo", "tcp://b:2", ["warm-up"], 5.0)
    warm_up.main(["1", "http=http://c:3"])
    assert asked[-1] == ("http", "http://c:3", ["/ping"], 5.0)
