"""The figures of a stored run, compared with numbers computed by hand. Every model and round has its own values."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lab.cli.commands.compare import compare
from lab.cli.params import Share
from lab.experiments.bench.comparison import find_differences, find_other_conditions
from lab.experiments.bench.findings import CrossCheck, Findings, RowKey, read_findings
from lab.experiments.bench.plan import Plan
from lab.experiments.store import Run
from lab.load.measurement import Measurement
from lab.load.presets import Preset
from lab.metrics.verdict import Limit, Verdict
from lab.servers.backend import Backend
from tests.support.made_up import MEASUREMENT, vary

ROUNDS = 3
GENERATOR = Verdict(Limit.GENERATOR, "the generator used 99% of its core")

Store = Callable[..., Findings]


def make(rate: float, cpu: float | None = None, p99: float | None = None, **changes: Any) -> Measurement:
    """Return a measurement of one second with a rate, CPU per request and p99 in microseconds."""
    times = {} if p99 is None else {"histogram": ((p99 / 2, 98), (p99, 2))}
    return vary(MEASUREMENT, answered=round(rate), seconds=1.0, server_cpu_us=cpu, **times | changes)


def rounds(*values: tuple[float, float, float]) -> list[Measurement]:
    return [make(*value) for value in values]


@pytest.fixture
def store(tmp_path: Path, make_plan: Callable[..., Plan]) -> Store:
    """Store measurements as the rounds of a run, and read it."""

    def keep(
        rows: Mapping[str, Sequence[Measurement | None]],
        *,
        mode: str = "closed",
        sweep: Mapping[tuple[str, int], Measurement] | None = None,
        unsound: Sequence[str] = (),
        environment: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Findings:
        names = tuple(name for name in rows if not name.startswith("control-"))
        plan = make_plan(**{"models": names, "modes": (mode,), "control": None} | changes)
        run = Run.create("bench", {"plan": plan.as_json(), "environment": environment or {}}, root=tmp_path)
        for name in unsound:
            run.keep(f"conformance/{name}", {"passed": 5, "failed": 2, "xfailed": 0})
        for model, found in rows.items():
            for number, item in enumerate(found, 1):
                record = {"failure": f"{model} failed in round {number}"}
                if item is not None:
                    record = {"measurement": json.loads(json.dumps(vary(item, model=model).as_json()))}
                run.keep(f"round-{number}/session/{model}/{mode}", record)
        for (model, users), item in (sweep or {}).items():
            run.keep(f"sweep/session/{model}/{users}", {"measurement": json.loads(json.dumps(item.as_json()))})
        return read_findings(Run.open(run.folder))

    return keep


def row_of(found: Findings, model: str) -> Any:
    return found.rows[RowKey("session", model, "closed")]


# Three models with different figures in each round. Best rate: c; least CPU: b; best p99: a.
A = rounds((1000, 30, 100), (1100, 33, 110), (1050, 31, 105))
B = rounds((2000, 10, 900), (2200, 11, 910), (2100, 12, 920))
C = rounds((3000, 20, 500), (3300, 22, 550), (3150, 21, 520))
# The control of a: 20 requests/s slower in the first round, equal in the second, 70 faster in the third.
AGAIN_A = rounds((980, 33, 100), (1100, 33, 121), (1120, 35, 105))
ALL = {"a": A, "b": B, "c": C}


@pytest.mark.parametrize(
    ("figure", "middle", "low", "high"), [("rate", 1050, 1000, 1100), ("cpu_us", 31, 30, 33), ("p99_us", 105, 100, 110)]
)
def test_estimate_of_three_rounds_is_median_and_range(
    store: Store, figure: str, middle: float, low: float, high: float
) -> None:
    found = row_of(store(ALL), "a").read(figure)
    assert (found.middle, found.low, found.high, found.repeats) == (middle, low, high, 3)


def test_p50_of_a_row_is_the_median_of_the_rounds(store: Store) -> None:
    # The p50 of each round is half of its p99: 50, 55, 52.5 µs.
    row = row_of(store(ALL), "a")
    assert row.read("p50_us").middle == 52.5
    assert row.percentile(0.5) == pytest.approx(52.5e-6)
    assert row.percentile(0.99) == pytest.approx(105e-6)


def test_times_of_a_row_count_from_when_a_request_was_due(store: Store) -> None:
    # Each round: 10 exchanges were due 1 ms before they were sent, and answered 0.1 ms after that.
    late = make(1000, histogram=((1100.0, 10),), service=((100.0, 10),))
    found = store({"a": [late, late]}, mode="open-70").rows[RowKey("session", "a", "open-70")]
    assert found.times.pairs() == [(1100.0, 20)]
    assert row_of(store({"a": [make(1000, p99=100.0)]}), "a").times.pairs() == [(50.0, 98), (100.0, 2)]


@pytest.mark.parametrize(
    ("figure", "order"), [("rate", ["c", "b", "a"]), ("cpu_us", ["b", "c", "a"]), ("p99_us", ["a", "c", "b"])]
)
def test_higher_is_better_for_rates_and_worse_for_cpu_and_times(store: Store, figure: str, order: list[str]) -> None:
    found = store(ALL)
    places = found.rank(found.list_rows("session", "closed"), figure)
    assert list(places) == order
    assert list(places.values()) == [(1, 1), (2, 2), (3, 3)]


def test_noise_is_the_median_difference_of_control_and_model(store: Store) -> None:
    found = store(ALL | {"control-a": AGAIN_A}, control="a")
    # |1000 - 980| / 990 = 0.020202; 0 / 1100 = 0; |1050 - 1120| / 1085 = 0.064516. The one in the middle is the first.
    assert found.noise("rate") == pytest.approx(20 / 990)
    # |30 - 33| / 31.5 = 0.0952; 0; |31 - 35| / 33 = 0.1212.
    assert found.noise("cpu_us") == pytest.approx(3 / 31.5)
    # 0; |110 - 121| / 115.5 = 0.0952; 0.
    assert found.noise("p99_us") == 0.0
    assert store(ALL).noise("rate") is None


def test_noise_turns_two_ranks_into_a_tie(store: Store) -> None:
    # 1000 to 1020 and 1040 to 1060 lie apart. Widened by 3 % of their medians (1010, 1050) they do not:
    # 1010 + 10 + 30.3 = 1050.3 > 1050 - 10 - 31.5 = 1008.5.
    rows = {"a": [make(1000), make(1010), make(1020)], "b": [make(1040), make(1050), make(1060)]}
    found = store(rows)
    assert found.rank(found.list_rows("session", "closed"), "rate") == {"b": (1, 1), "a": (2, 2)}
    again = [make(item.rate * 1.03) for item in rows["a"]]
    found = store(rows | {"control-a": again}, control="a")
    assert found.noise("rate") == pytest.approx(0.0296, abs=0.0005)
    assert found.rank(found.list_rows("session", "closed"), "rate") == {"b": (1, 2), "a": (1, 2)}


def test_drift_is_the_median_change_from_the_first_round_to_the_last(store: Store) -> None:
    # a: 1050 / 1000 - 1 = 0.05; b: 2100 / 2000 - 1 = 0.05; c: 3150 / 3000 - 1 = 0.05. CPU: 1/30, 2/10, 1/20.
    found = store(ALL)
    assert found.drift("rate") == pytest.approx(0.05)
    assert found.drift("cpu_us") == pytest.approx(0.05)
    two = store({"a": A[:2], "b": B[:2]}, rounds=2)
    # 1100 / 1000 and 2200 / 2000.
    assert two.drift("rate") == pytest.approx(0.1)
    assert store({"a": A[:1]}, rounds=1).drift("rate") is None


def test_one_lower_bound_makes_the_rate_a_lower_bound_but_not_the_cpu(store: Store) -> None:
    row = row_of(store({"a": [make(1000, 30), make(900, 31, verdict=GENERATOR), make(1100, 32)]}), "a")
    assert row.is_lower_bound
    assert (row.read("rate").low, row.read("rate").is_lower_bound) == (900, True)
    assert not row.read("cpu_us").is_lower_bound
    assert not row_of(store(ALL), "a").is_lower_bound


def test_memory_of_a_row_is_the_maximum_of_its_rounds(store: Store) -> None:
    row = row_of(store({"a": [make(1, memory_bytes=5), make(1, memory_bytes=None), make(1, memory_bytes=3)]}), "a")
    assert row.memory_bytes == 5
    assert row_of(store({"a": [make(1, memory_bytes=None)] * 3}), "a").memory_bytes is None


def test_failed_ratio_covers_all_rounds(store: Store) -> None:
    found = store({"a": [make(70, failures={"reset": 10}), make(100, failures={"reset": 5, "timeout": 15}), make(100)]})
    row = row_of(found, "a")
    assert row.failed == {"reset": 15, "timeout": 15}
    # 30 of 30 + 270.
    assert row.failed_ratio == pytest.approx(0.1)
    assert row_of(store(ALL), "a").failed_ratio == 0.0


def test_reason_of_a_row_is_that_of_its_most_frequent_verdict(store: Store) -> None:
    one, other = Verdict(Limit.SERVER, "server once"), Verdict(Limit.WAITING, "waiting twice")
    found = store({"a": [make(1, verdict=one), make(1, verdict=other), make(1, verdict=other)]})
    assert row_of(found, "a").reason == "waiting twice"
    assert row_of(found, "a").verdicts == {"server-bound": 1, "waiting": 2}
    assert row_of(store({"a": [None, None, None]}), "a").reason == "a failed in round 1"


def test_level_of_the_sweep_without_an_answer_has_a_rate_of_0(store: Store) -> None:
    found = store(ALL, sweep={("a", 1): make(1000), ("a", 64): make(0)})
    assert found.read_sweep("session", "rate") == {"a": [(1, 1000.0), (64, 0.0)]}


def test_sweep_is_of_one_workload_and_has_no_control(store: Store) -> None:
    found = store(ALL, sweep={("a", 1): make(1000)})
    level = {1: make(7)}
    sweeps = {**found.sweeps, ("session", "control-a"): level, ("sleep_20ms", "a"): level, ("sleep_20ms", "b"): level}
    assert replace(found, sweeps=sweeps).read_sweep("session", "rate") == {"a": [(1, 1000.0)]}


def test_memory_of_a_connection_is_the_slope_between_the_ends_of_the_sweep(store: Store) -> None:
    def swept(*known: tuple[int, int | None]) -> float | None:
        levels = {("a", users): make(1, memory_bytes=memory) for users, memory in known}
        return store(ALL, sweep=levels).connection_bytes("session", "a")

    # (5000 - 1000) bytes for 64 - 4 connections; levels in between do not count.
    assert swept((4, 1000), (16, 9000), (64, 5000)) == pytest.approx(4000 / 60)
    assert swept((4, 1000), (64, 900)) == 0.0
    assert swept((4, 1000), (64, None)) is None
    assert swept((4, 1000), (16, 1600), (64, None)) == pytest.approx(50.0)
    assert swept() is None


def test_overlapping_rates_of_the_cross_check_do_not_differ(store: Store) -> None:
    ours = row_of(store({"a": [make(90), make(100), make(110)]}), "a").read("rate")
    theirs = replace(ours, middle=120, low=110, high=130)
    assert CrossCheck("ping", "a", "wrk", ours, theirs, None, None, None).differs(0.0) is None
    assert CrossCheck("ping", "a", "wrk", ours, replace(theirs, low=110.1), None, None, None).differs(0.0) == "more"
    assert CrossCheck("ping", "a", "wrk", theirs, ours, None, None, None).differs(0.0) is None
    assert CrossCheck("ping", "a", "wrk", replace(theirs, low=110.1), ours, None, None, None).differs(0.0) == "less"


def test_noise_widens_the_rates_of_both_clients(store: Store) -> None:
    ours = row_of(store({"a": [make(90), make(100), make(110)]}), "a").read("rate")
    theirs = replace(ours, middle=120, low=114, high=130)
    # 3 % of the medians: 110 + 3 is more than 114 - 3.6, but less than 114; and 114 - 3.6 is more than 110.
    for one, other, differs in ((ours, theirs, "more"), (theirs, ours, "less")):
        check = CrossCheck("ping", "a", "wrk", one, other, None, None, None)
        assert (check.differs(0.0), check.differs(0.03)) == (differs, None)
    assert CrossCheck("ping", "a", "wrk", None, theirs, None, None, None).differs(0.0) is None


def test_client_without_a_result_says_why(store: Store) -> None:
    found = store(ALL)
    keep = found.run.keep
    keep("cross-check/ping/a/ours-1", {"measurement": make(100).as_json()})
    keep("cross-check/http_ping/a/ours-1", {"measurement": make(100).as_json()})
    keep("cross-check/http_ping/a/wrk-1", {"rate": 90.0})
    keep("cross-check/http_ping/a/wrk-2", {"failure": "wrk gave no result"})
    keep("cross-check/http_ping/a/hey-1", {"rate": 80.0})
    checks = read_findings(Run.open(found.run.folder)).cross_checks
    assert {(check.workload, check.client): check.missing for check in checks} == {
        ("ping", "redis-benchmark"): "redis-benchmark was not run",
        ("http_ping", "wrk"): "wrk gave no result",
        ("http_ping", "h2load"): "h2load was not run",
        ("http_ping", "hey"): None,
    }


def test_reason_of_a_model_that_failed_the_suite_names_the_backend_of_the_run(store: Store) -> None:
    found = store(ALL, unsound=["b"], environment={"backend": "docker"})
    assert list(found.unsound) == ["b"]
    assert found.unsound["b"].endswith("`lab --backend docker check b` shows why")


def test_steps_of_redis_benchmark_and_of_the_generators_limit_are_read(store: Store) -> None:
    found = store(ALL, generator_limit="peer_redis")
    for number, (rate, cores, verdict, theirs) in enumerate(
        [(100, 0.5, GENERATOR, 210.0), (300, 0.7, MEASUREMENT.verdict, 190.0), (200, 0.9, GENERATOR, 205.0)], 1
    ):
        ours = make(rate, 7.0 + number, generator_cores=cores, verdict=verdict)
        found.run.keep(f"cross-check/ping/peer_redis/ours-{number}", {"measurement": ours.as_json()})
        record = {"rate": theirs, "server_cpu_us": 20.0 + number}
        found.run.keep(f"cross-check/ping/peer_redis/redis-benchmark-{number}", record)
    found = read_findings(Run.open(found.run.folder))
    (check,) = found.cross_checks
    assert check.ours is not None
    assert check.theirs is not None
    assert check.our_cost is not None
    assert check.their_cost is not None
    assert found.generator_limit is not None
    assert (check.ours.middle, check.ours.low, check.ours.is_lower_bound) == (200, 100, True)
    assert (check.theirs.middle, check.theirs.low, check.theirs.high) == (205, 190, 210)
    assert (check.our_cost.middle, check.their_cost.middle, check.missing) == (9.0, 22.0, None)
    assert (found.generator_limit.model, found.generator_limit.rate.middle, found.generator_limit.generator_cores) == (
        "peer_redis",
        200,
        0.7,
    )
    assert found.generator_limit.verdicts == {"generator-bound": 2, "server-bound": 1}


# The project of each step.


def test_control_is_measured_on_the_second_server(
    bench: Any, make_plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    plain = bench._measure

    def measure(backend: Backend, model: Any, load: Preset, **given: Any) -> Measurement:
        asked.append((backend.project, model.name))
        # The control answers 100 requests/s less.
        found: Measurement = plain(backend, model, load, **given)
        return vary(found, answered=found.answered - (100 if backend.project == "t-control" else 0))

    monkeypatch.setattr("lab.experiments.bench.runner.measure", measure)
    plan = make_plan(models=("asyncio_streams", "twisted_reactor"), levels=(16,), modes=("closed",))
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = read_findings(run)
    assert sorted(set(asked)) == [("t", "asyncio_streams"), ("t", "twisted_reactor"), ("t-control", "asyncio_streams")]
    assert asked.count(("t-control", "asyncio_streams")) == plan.rounds
    assert row_of(found, "asyncio_streams").read("rate").middle == 10_000
    assert row_of(found, "control-asyncio_streams").read("rate").middle == 9_900
    # 100 of a mean of 9,950.
    assert found.noise("rate") == pytest.approx(100 / 9950)


# Comparing two runs.

BASE = {"a": rounds((1000, 100, 500), (1010, 101, 510), (990, 99, 490))}


def change(rows: Mapping[str, Sequence[Measurement]], *, rate: float = 1, cpu: float = 1, p99: float = 1) -> Any:
    return {
        name: [
            make(item.rate * rate, item.server.cpu_us * cpu, item.percentile(0.99) * p99)  # type: ignore[operator]
            for item in found
        ]
        for name, found in rows.items()
    }


def differences(before: Findings, after: Findings, threshold: float = 0.1) -> list[tuple[str, bool]]:
    return [(item.figure, item.is_regression) for item in find_differences(before, after, threshold)]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"cpu": 1.5}, [("cpu_us", True)]),
        ({"cpu": 0.5}, [("cpu_us", False)]),
        ({"p99": 1.5}, [("p99_us", True)]),
        ({"p99": 0.5}, [("p99_us", False)]),
        ({"rate": 1.5}, [("rate", False)]),
        ({"rate": 0.5}, [("rate", True)]),
        # Beyond the spread of 1 %, but by less than the threshold of 10 %.
        ({"cpu": 1.09, "p99": 1.09, "rate": 0.91}, [("rate", False), ("cpu_us", False), ("p99_us", False)]),
        # 9.5 % less, though the one is 10.5 % more than the other.
        ({"rate": 0.905}, [("rate", False)]),
        # Within the spread.
        ({"cpu": 1.015, "p99": 1.015, "rate": 0.985}, []),
    ],
)
def test_more_cpu_and_longer_times_are_regressions_but_a_higher_rate_is_not(
    store: Store, changed: dict[str, float], expected: list[tuple[str, bool]]
) -> None:
    assert differences(store(BASE), store(change(BASE, **changed))) == expected


def test_change_of_exactly_the_threshold_is_no_regression(store: Store) -> None:
    before, after = store({"a": [make(1000, 100)] * 3}), store({"a": [make(1000, 150)] * 3})
    assert differences(before, after, 0.5) == [("cpu_us", False)]
    assert differences(before, after, 0.49) == [("cpu_us", True)]


@pytest.mark.parametrize("noisy", ["before", "after"])
def test_change_within_the_noise_of_either_run_is_ignored(store: Store, noisy: str) -> None:
    # Two servers of one model differ by 40 of 120 µs: 33 %. A change from 100 to 150 µs is within it:
    # 100 + 33 + 1 > 150 - 50 - 1.5.
    again = {"control-a": [make(item.rate, 140) for item in BASE["a"]]}
    plain = {"before": store(BASE), "after": store(change(BASE, cpu=1.5))}
    assert differences(plain["before"], plain["after"]) == [("cpu_us", True)]
    rows = BASE if noisy == "before" else change(BASE, cpu=1.5)
    if noisy == "after":
        again = {"control-a": [make(item.rate, 210) for item in BASE["a"]]}
    plain[noisy] = store(rows | again, control="a")
    assert plain[noisy].noise("cpu_us") == pytest.approx(1 / 3, abs=0.01)
    assert differences(plain["before"], plain["after"]) == []


def test_every_figure_of_every_case_is_compared(store: Store) -> None:
    before = store(BASE | {"b": BASE["a"]})
    after = store(BASE | change({"b": BASE["a"]}, p99=2.0))
    assert [(item.key.model, item.figure) for item in find_differences(before, after, 0.1)] == [("b", "p99_us")]


def test_case_that_is_no_longer_measured_is_a_regression(store: Store) -> None:
    before = store(BASE | {"b": BASE["a"], "c": BASE["a"]})
    # b has no measurement, c has failed the suite.
    after = store(BASE | {"b": [None] * 3}, models=("a", "b", "c"), unsound=["c"])
    found = list(find_differences(before, after, 0.1))
    assert [(item.key.model, item.figure, item.is_regression) for item in found] == [
        ("b", "rate", True),
        ("c", "rate", True),
    ]
    assert "b, session, closed: no longer measured: b failed in round 1" in found[0].text
    assert "2 of 7 conformance tests fail" in found[1].text
    # What was not measured before either is no difference.
    assert list(find_differences(after, after, 0.1)) == []
    interrupted = list(find_differences(before, store(BASE, models=("a", "b")), 0.1))
    assert [item.text for item in interrupted] == [
        "b, session, closed: no longer measured: the run was interrupted before it"
    ]


@pytest.mark.parametrize("asked", [{"models": ("a",)}, {"workloads": ("ping",)}, {"modes": ("fixed",)}])
def test_case_outside_the_second_plan_is_ignored(store: Store, asked: dict[str, Any]) -> None:
    before = store(BASE | {"b": BASE["a"]})
    after = store(BASE, **{"models": ("a", "b"), **asked})
    assert differences(before, after) == []


@pytest.mark.parametrize(("quick", "found"), [((), [("rate", True)]), (("session",), [])])
def test_mode_in_which_a_quick_workload_is_not_measured_is_not_missed(
    store: Store, quick: tuple[str, ...], found: list[tuple[str, bool]]
) -> None:
    """The second run measures other workloads at the fixed rate, and a quick one at full speed alone."""
    after = store(BASE, modes=("closed", "fixed"), workloads=("session", "ping"), quick_workloads=quick)
    assert differences(store(BASE, mode="fixed"), after) == found


def test_control_is_not_compared(store: Store) -> None:
    control = {"control-a": BASE["a"]}
    before = store(control | BASE, control="a")
    after = store(change(control, rate=0.2, p99=2.0) | change(BASE, p99=2.0), control="a")
    # The control has lost 80 % of its rate: that is noise, not a change. Its p99 has doubled, like that of a.
    assert [(item.key.model, item.figure) for item in find_differences(before, after, 0.1)] == [("a", "p99_us")]


def test_earlier_failures_are_no_regression(store: Store) -> None:
    failing = {"a": [vary(item, failures={"reset": 1}) for item in BASE["a"]]}
    assert differences(store(failing), store(failing)) == []
    assert differences(store(failing), store(BASE)) == []
    more = {"a": [vary(item, failures={"reset": 2, "timeout": 1}) for item in BASE["a"]]}
    assert differences(store(failing), store(more)) == []
    found = list(find_differences(store(BASE), store(failing), 0.1))
    assert [(item.figure, item.is_regression) for item in found] == [("failures", True)]
    assert "3 failures, none before: reset" in found[0].text
    # Its figures are compared all the same, and every kind is named.
    dearer = {"a": [vary(item, failures={"reset": 1, "timeout": 2}) for item in change(BASE, cpu=1.5)["a"]]}
    found = list(find_differences(store(BASE), store(dearer), 0.1))
    assert [item.figure for item in found] == ["failures", "cpu_us"]
    assert found[0].text == "a, session, closed: 9 failures, none before: reset, timeout"


def test_different_conditions_are_named() -> None:
    before = {"cores": 2, "engine": "20.10", "commit": "a", "backend": "docker"}
    after = {"cores": 4, "engine": None, "commit": "b", "backend": "docker"}
    assert list(find_other_conditions(before, after)) == ["engine: 20.10 -> not known", "cores: 2 -> 4"]
    assert list(find_other_conditions(after, before)) == ["engine: not known -> 20.10", "cores: 4 -> 2"]
    facts = ("processor", "system", "backend", "engine", "servers", "cores", "governor", "libc", "allocator")
    for name in facts:
        assert list(
            find_other_conditions({**dict.fromkeys(facts, 1), "date": 1}, dict.fromkeys(facts, 1) | {name: 2})
        ) == [f"{name}: 1 -> 2"]


def test_versions_of_the_load_generator_are_those_that_were_stored_else_of_a_measurement(store: Store) -> None:
    rows = {"a": [vary(BASE["a"][0], versions={"Locust": "2.1", "Python": "3.13"})]}
    stored = {"cores": 2, "load generator": "Locust 2.0"}
    assert store(rows, environment=stored).environment == stored
    assert store(rows, environment={"cores": 2}).environment == {
        "cores": 2,
        "load generator": "Locust 2.1, Python 3.13",
    }
    assert store({"a": [None]}).environment == {"load generator": None}


def run_compare(tmp_path: Path, before: Findings, after: Findings, *more: str) -> tuple[int, str]:
    arguments = [str(before.run.folder), str(after.run.folder), "--out", str(tmp_path), *more]
    done = CliRunner().invoke(compare, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"cpu": 1.5}, 1), ({"cpu": 0.5}, 0), ({"p99": 1.5}, 1), ({"rate": 1.5}, 0), ({"cpu": 1.05}, 0)],
)
def test_compare_exits_with_1_on_a_regression(
    store: Store, tmp_path: Path, changed: dict[str, float], code: int
) -> None:
    assert run_compare(tmp_path, store(BASE), store(change(BASE, **changed)))[0] == code


def test_compare_of_runs_with_nothing_in_common_exits_with_1(store: Store, tmp_path: Path) -> None:
    code, text = run_compare(tmp_path, store(BASE), store({"b": BASE["a"]}))
    assert code == 1
    assert "0 cases in both runs, 0 figures changed beyond noise, 0 worse" in text


def test_compare_of_a_case_that_is_no_longer_measured_exits_with_1(store: Store, tmp_path: Path) -> None:
    code, text = run_compare(tmp_path, store(BASE | {"b": A}), store(BASE | {"b": [None] * 3}))
    assert code == 1
    assert "b, session, closed: no longer measured: b failed in round 1" in text


def test_compare_counts_cases_without_the_control(store: Store, tmp_path: Path) -> None:
    rows = BASE | {"b": BASE["a"], "control-a": BASE["a"]}
    code, text = run_compare(tmp_path, store(rows, control="a"), store(rows, control="a"))
    assert (code, text.splitlines()[-1]) == (
        0,
        "2 cases in both runs, 0 figures changed beyond noise, 0 worse by more than 10%",
    )


def test_compare_names_conditions_and_has_a_threshold(store: Store, tmp_path: Path) -> None:
    before = store(BASE, environment={"cores": 2})
    after = store(change(BASE, cpu=1.3), environment={"cores": 4})
    code, text = run_compare(tmp_path, before, after, "--threshold", "40%")
    assert code == 0
    assert text.startswith("not the same conditions: cores: 2 -> 4\n")
    line = "a, session, closed: CPU µs/request 100 [99.0 101] -> 130 [129 131] (+30%)"
    assert f"\n{line}\n" in text
    assert "1 figures changed beyond noise, 0 worse by more than 40%" in text
    code, text = run_compare(tmp_path, before, after, "--threshold", "0.2")
    assert code == 1
    assert f"\n{line}, a regression\n" in text
    assert run_compare(tmp_path, before, after, "--threshold", "0.4")[0] == 0
    # None is allowed, which is another thing than no threshold.
    assert run_compare(tmp_path, store(BASE), store(change(BASE, cpu=1.05)), "--threshold", "0")[0] == 1


def test_page_of_a_comparison_is_in_the_folder_of_the_later_run(store: Store, tmp_path: Path) -> None:
    before = store(BASE, environment={"lab": "Python of the earlier"})
    after = store(change(BASE, cpu=1.5), environment={"lab": "Python of the later"})
    words = [str(before.run.folder), str(after.run.folder), "--out", str(tmp_path)]
    done = CliRunner().invoke(compare, words)
    page = after.run.folder / f"compare-{before.run.started}.html"
    assert done.stderr == f"the page: {page}\n"
    # What is printed is in it too, and where it was measured.
    text = html.unescape(page.read_text())
    assert all(line in text for line in done.stdout.splitlines())
    assert f"What changed from {before.run.started} to {after.run.started}?" in text
    # The chart is that of a half more, and not of a third less.
    assert ("<svg" in text, "+50%" in text, "-33%" in text) == (True, True, False)
    assert ("Python of the later" in text, "Python of the earlier" in text) == (True, False)
    assert [*before.run.folder.glob("compare-*")] == []


def test_full_disk_changes_no_result(store: Store, tmp_path: Path) -> None:
    before, after = store(BASE), store(change(BASE, cpu=1.5))
    words = [str(before.run.folder), str(after.run.folder), "--out", str(tmp_path)]
    (after.run.folder / f"compare-{before.run.started}.html").mkdir()  # it cannot be replaced by a file
    done = CliRunner().invoke(compare, words)
    assert done.exit_code == 1
    assert done.stdout.endswith("1 worse by more than 10%\n")
    assert done.stderr.startswith(f"lab: not stored: {after.run.folder}: cannot be written")


def test_compare_finds_runs_by_their_time_in_the_results_folder(store: Store, tmp_path: Path) -> None:
    before, after = store(BASE), store(change(BASE, cpu=1.5))
    done = CliRunner().invoke(compare, [before.run.folder.name, after.run.folder.name, "--out", str(tmp_path)])
    assert done.exit_code == 1, done.output
    assert "cpu" in done.output.lower()


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.25", 0.25), ("150%", 1.5), (" 2.5% ", 0.025)])
def test_share_is_read_as_percent_or_fraction(text: str, share: float) -> None:
    assert Share().convert(text, None, None) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "ten", "-10%", "10%%", "1e3"])
def test_invalid_share_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a share such as 10%"):
        Share().convert(text, None, None)
