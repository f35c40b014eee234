"""A whole run: order, knee, stored steps, failing models, and resuming."""

import json
import random
from dataclasses import replace

import pytest

from lab.base.errors import LabError
from lab.experiments.bench.findings import RowKey, read_findings
from lab.experiments.bench.plan import (
    OURS,
    PRESETS,
    WORKLOADS,
    Phase,
    Plan,
    Step,
    list_cases,
    list_steps,
    name_control,
    shuffle,
)
from lab.experiments.bench.sweep import Knee, Level, find_knee, is_over, make_level
from lab.experiments.store import Run
from lab.load.presets import PRESETS as LOAD_PRESETS
from lab.load.presets import find_preset
from lab.metrics.verdict import Limit, Verdict
from lab.report.bench_text import render_markdown
from lab.servers.catalogue import Catalogue


def test_knee_is_the_fewest_connections_near_the_best_rate() -> None:
    levels = [Level(1, 500, True), Level(4, 960, True), Level(16, 1000, True)]
    assert find_knee(levels) == Knee(4, 960, 16)
    assert find_knee([*levels, Level(64, 5000, False)]) == Knee(4, 960, 16)
    assert find_knee([Level(1, 0, False)]) is None
    assert find_knee([]) is None


@pytest.mark.parametrize(
    ("rates", "over"),
    [
        ([], False),
        ([100], False),
        ([100, 104], True),
        ([100, 106], False),
        ([100, 200, 90], True),
        ([100, 90, 104], True),
    ],
)
def test_sweep_ends_when_the_rate_no_longer_rises(rates: list[float], over: bool) -> None:
    assert is_over([Level(users, rate, True) for users, rate in enumerate(rates, 1)]) is over


def test_sweep_ends_at_an_unserved_level(make_measurement) -> None:
    starved = make_measurement(verdict=Verdict(Limit.STARVED, "3 of 16 users"))
    assert is_over([Level(1, 10, True), make_level(16, starved)])
    assert make_level(4, make_measurement()).is_served
    assert not make_level(4, make_measurement(failures={"timeout": 100})).is_served
    assert not make_level(4, make_measurement(verdict=Verdict(Limit.WRONG, "3 wrong replies"))).is_served


def test_presets_name_known_workloads_and_modes() -> None:
    for name, preset in PRESETS.items():
        plan = Plan(models=("a",), seed=1, control=None, generator_limit=None, **preset)
        assert set(plan.workloads) <= WORKLOADS.keys(), name
        assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan
        # A share of the knee's rate needs a knee.
        for workload in plan.workloads:
            assert plan.sweeps(workload) or not any(mode.startswith("open-") for mode in plan.modes_of(workload))
    assert all(workload.closed in LOAD_PRESETS and workload.open in LOAD_PRESETS for workload in WORKLOADS.values())
    assert all(
        find_preset(workload.closed).workload == find_preset(workload.open).workload for workload in WORKLOADS.values()
    )


def test_damaged_plan_is_an_error() -> None:
    with pytest.raises(LabError, match="no models, workloads"):
        Plan.from_json({})


def test_order_of_each_round_depends_on_the_seed(make_plan) -> None:
    models = {name: Catalogue.load()[name] for name in make_plan().models}
    cases = list_cases(make_plan(), models)
    assert ("session", "control-asyncio_streams") in cases

    def order(seed: int, number: int) -> list[tuple[str, str, str]]:
        plan = make_plan(seed=seed)
        steps = list_steps(plan, number, cases)
        return [(step.workload, step.model, step.mode) for step in shuffle(plan, steps)]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert sorted(order(1, 1)) == sorted(order(1, 2))
    # A resumed run continues in the order in which an earlier version began.
    steps = [Step(Phase.ROUND, 3, "session", model) for model in "abcde"]
    levels = [Step(Phase.SWEEP, 16, "session", model) for model in "abcde"]
    for group, found in ("round-3", steps), ("sweep/16", levels):
        mixed = list("abcde")
        random.Random(f"1/{group}").shuffle(mixed)
        assert [step.model for step in shuffle(make_plan(seed=1), found)] == mixed
    assert list(shuffle(make_plan(), [])) == []


@pytest.mark.parametrize(
    ("step", "key"),
    [
        (Step(Phase.SWEEP, 64, "session", "prefork"), "sweep/session/prefork/64"),
        (Step(Phase.ROUND, 12, "ping", "control-prefork", "open-70"), "round-12/ping/control-prefork/open-70"),
        (
            Step(Phase.CROSS_CHECK, 3, "ping", "prefork", "redis-benchmark"),
            "cross-check/ping/prefork/redis-benchmark-3",
        ),
        (Step(Phase.CROSS_CHECK, 1, "ping", "prefork", OURS), "cross-check/ping/prefork/ours-1"),
    ],
)
def test_step_has_a_key_that_is_read_back(step: Step, key: str) -> None:
    assert step.key == key
    assert Step.parse(key) == step
    assert str(step) == key.replace("/", ", ")


@pytest.mark.parametrize("key", ["conformance/prefork", "warm-up/now-socketlab-bench", "another/file/in/steps", ""])
def test_key_of_another_record_is_no_step(key: str) -> None:
    assert Step.parse(key) is None


def test_control_server_is_named_after_its_model() -> None:
    step = Step(Phase.ROUND, 1, "session", name_control("prefork"))
    assert (step.is_control, step.server) == (True, "prefork")
    step = Step(Phase.ROUND, 1, "session", "prefork")
    assert (step.is_control, step.server) == (False, "prefork")


def test_fixed_rate_has_additional_rounds_between_the_others(bench, make_plan) -> None:
    plan = make_plan(models=("asyncio_streams",), control=None, rounds=3, fixed_rounds=8)
    assert list(plan.order_rounds()) == [1, 4, 7, 2, 5, 8, 3, 6]
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = read_findings(run)
    assert {mode: sorted(row.found) for (_, _, mode), row in found.rows.items()} == {
        "closed": [1, 2, 3],
        "fixed": [1, 2, 3, 4, 5, 6, 7, 8],
        "open-70": [1, 2, 3],
    }
    assert found.missing_steps == 0
    assert "fixed in 8" in render_markdown(found)
    fewer = replace(plan, fixed_rounds=2)
    assert (list(fewer.order_rounds()), fewer.rounds_of("fixed")) == ([1, 2, 3], 3)


def test_inconsistent_level_does_not_end_a_sweep(bench, make_plan, make_measurement) -> None:
    def answer(model: str, scenario: str, users: int, rate: float | None):
        bound = Limit.INCONSISTENT if users == 4 and rate is None else Limit.SERVER
        return make_measurement(users=users, verdict=Verdict(bound, "counted"))

    bench.answer = answer
    plan = make_plan(models=("asyncio_streams",), control=None)
    run = bench.begin(plan)
    bench.measure(run, plan)
    assert {users for _, scenario, users, _ in bench.asked if scenario == "closed_session"} == {4, 16, 64}
    found = read_findings(run)
    row = found.rows[RowKey("session", "asyncio_streams", "closed")]
    assert [item.users for item in row.found.values()] == [16] * 3
    # The knee of the report is the one that was measured at.
    assert found.find_knee("session", "asyncio_streams") == Knee(16, 10_000, 64)


def test_quick_workload_has_no_sweep_and_one_mode(bench, make_plan) -> None:
    plan = make_plan(workloads=("session", "sleep_20ms"), quick_workloads=("sleep_20ms",))
    run = bench.begin(plan)
    bench.measure(run, plan)
    steps = [step for key in run.list_keys() if (step := Step.parse(key)) and step.workload == "sleep_20ms"]
    assert {(step.phase, step.mode) for step in steps} == {(Phase.ROUND, "closed")}
    assert {users for _, scenario, users, _ in bench.asked if scenario == "closed_sleep_20ms"} == {1, 16}
    assert read_findings(run).missing_steps == 0


def test_model_without_the_service_has_no_case(make_plan) -> None:
    models = {name: Catalogue.load()[name] for name in ("peer_inetd", "peer_redis")}
    plan = make_plan(models=tuple(models), workloads=("ping", "echo_1k"), control=None)
    assert list_cases(plan, models) == [("ping", "peer_redis"), ("echo_1k", "peer_inetd")]
    # The control server has the cases of its model.
    controlled = replace(plan, control="peer_redis")
    again = ("ping", "control-peer_redis")
    assert list_cases(controlled, models) == [("ping", "peer_redis"), again, ("echo_1k", "peer_inetd")]


def test_whole_run_has_sweep_and_rounds(bench, make_plan, make_measurement) -> None:
    rates = {4: 9_700, 16: 10_000, 64: 10_100}
    bench.answer = lambda model, scenario, users, rate: make_measurement(users=users, answered=rates.get(users, 1))
    plan = make_plan()
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = read_findings(run)
    assert run.is_finished
    # 4 connections reach more than 95 % of the best rate and 16 are no better: 64 are not measured.
    assert not any(users == 64 for _, scenario, users, _ in bench.asked if scenario == "closed_session")
    assert {users for _, scenario, users, rate in bench.asked if scenario == "open_session"} == {64}
    closed = [item for item in bench.asked if item[1:3] == ("closed_session", 4)]
    assert len(closed) == 3 + 4 * 3  # the sweep, and three rounds with the control
    assert {rate for _, scenario, _, rate in bench.asked if scenario == "open_session"} == {12_000, 9_700 * 0.7}
    assert len(found.rows) == 4 * 3
    assert all(len(row.found) == 3 for row in found.rows.values())
    assert found.missing_steps == 0
    assert found.noise("rate") == 0.0
    assert [item.model for item in found.cross_checks] == ["asyncio_streams"]
    theirs = found.cross_checks[0].theirs
    assert theirs is not None
    assert theirs.middle == 10_000.0


def test_model_that_fails_the_suite_is_not_measured(bench, make_plan) -> None:
    plan = make_plan()
    run = bench.begin(plan)
    bench.failing = {"twisted_reactor"}
    bench.measure(run, plan)
    assert not any(model == "twisted_reactor" for model, *_ in bench.asked)
    # The message names the tests and the command, as that of `lab demo` does.
    reason = "1 of 6 conformance tests fail: test_x[twisted_reactor]; `lab check twisted_reactor` shows why"
    assert read_findings(run).unsound == {"twisted_reactor": reason}
    assert f"Not measured: twisted_reactor: {reason}." in render_markdown(read_findings(run))


def test_model_that_dies_has_a_reason_and_the_others_are_measured(bench, make_plan, make_measurement) -> None:
    def answer(model: str, scenario: str, users: int, rate: float | None):
        if model == "twisted_reactor" and rate:
            raise LabError("the load generator gave no result")
        return make_measurement(users=users)

    bench.answer = answer
    plan = make_plan()
    run = bench.begin(plan)
    backend = bench.measure(run, plan)
    found = read_findings(run)
    tries = [item for item in bench.asked if item[0] == "twisted_reactor" and item[3]]
    assert len(tries) == 2
    assert backend.restarted == ["twisted_reactor"] * 2
    reasons = " ".join(found.rows[RowKey("session", "twisted_reactor", "fixed")].failures)
    assert "not tried again after 2 failures" in reasons
    every = [reason for row in found.rows.values() for reason in row.failures]
    assert any("no result; the server exited with code 3, its last lines: oh no" in reason for reason in every)
    assert len(found.rows[RowKey("session", "asyncio_streams", "fixed")].found) == 3
    assert run.is_finished
    assert found.missing_steps == 0  # those that failed are stored


def test_disturbed_measurement_counts_as_failed(bench, make_plan, make_measurement) -> None:
    disturbed = make_measurement(verdict=Verdict(Limit.DISTURBED, "a load generator did not run"))
    bench.answer = lambda model, scenario, users, rate: (
        disturbed if model == "plain_socket" and rate else make_measurement(users=users)
    )
    plan = make_plan()
    run = bench.begin(plan)
    backend = bench.measure(run, plan)
    row = read_findings(run).rows[RowKey("session", "plain_socket", "fixed")]
    assert not row.found
    assert set(row.failures) == {"disturbed: a load generator did not run"}
    # The server did not fail.
    assert backend.restarted == []


@pytest.mark.parametrize(
    ("bound", "in_rounds", "at", "failing"),
    [
        # A wrong reply at any level; other failures only in the rounds, or if there are no rounds.
        (Limit.WRONG, True, 16, "why"),
        (Limit.WRONG, False, 64, "why"),
        (Limit.FAILED, True, 16, "why"),
        (Limit.FAILED, False, 64, ""),
        (Limit.FAILED, False, 1, "why"),
        (Limit.STARVED, True, 1, ""),
    ],
)
def test_failing_model_has_a_reason(bench, make_plan, make_measurement, bound, in_rounds, at, failing) -> None:
    bad = make_measurement(verdict=Verdict(bound, "why"))
    bench.answer = lambda model, scenario, users, rate: (
        bad
        if model == "plain_socket" and ((rate is not None) if in_rounds else rate is None and users >= at)
        else make_measurement(users=users, answered=10_000 * users)
    )
    plan = make_plan()
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = read_findings(run)
    assert found.failing("session", "plain_socket") == failing
    assert found.failing("session", "asyncio_streams") == ""


def test_model_that_serves_no_client_has_no_knee(bench, make_plan, make_measurement) -> None:
    failed = make_measurement(answered=0, verdict=Verdict(Limit.FAILED, "not one correct reply"))
    bench.answer = lambda model, scenario, users, rate: failed if model == "plain_socket" else make_measurement()
    plan = make_plan(modes=("closed",))
    run = bench.begin(plan)
    bench.measure(run, plan)
    row = read_findings(run).rows[RowKey("session", "plain_socket", "closed")]
    assert not row.found
    assert "there is no knee" in row.reason


def test_interrupted_run_resumes_without_repeating_steps(bench, make_plan, make_measurement) -> None:
    plan = make_plan()
    whole = bench.begin(plan)
    bench.measure(whole, plan)
    expected, bench.asked[:] = list(bench.asked), []

    def interrupt(model: str, scenario: str, users: int, rate: float | None):
        if len(bench.asked) > 20:
            raise KeyboardInterrupt
        return make_measurement(users=users)

    plain, bench.answer = bench.answer, interrupt
    run = bench.begin(plan)
    with pytest.raises(KeyboardInterrupt):
        bench.measure(run, plan)
    assert not run.is_finished
    assert read_findings(run).missing_steps > 0
    first, bench.asked[:] = bench.asked[:-1], []
    bench.answer = plain
    bench.measure(Run.open(run.folder), plan)
    assert first + bench.asked == expected
    assert read_findings(run).missing_steps == 0


def test_sequential_model_gets_one_held_connection() -> None:
    catalogue = Catalogue.load()
    assert WORKLOADS["ping"].most_users(catalogue["plain_socket"], 64) == 1
    assert WORKLOADS["session"].most_users(catalogue["plain_socket"], 64) == 64
    assert WORKLOADS["ping"].most_users(catalogue["asyncio_streams"], 64) == 64
