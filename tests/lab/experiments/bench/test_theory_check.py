"""Theory for made-up rows: its input, and when a rate is a deviation."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from lab.experiments.bench.findings import Findings, Row, RowKey
from lab.experiments.bench.theory_check import Expectation, _middle, _read_hold, expect, read_wait
from lab.experiments.theory import Server, UpperBound
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, Verdict
from tests.support.approx import about
from tests.support.made_up import MEASUREMENT, vary

LOOP = Server("loop", None, 12_000, False)
ONE = Server("one", 1, 12_000, False)


def make_row(*found: Measurement, workload: str = "session", model: str = "m") -> Row:
    return Row(workload, model, "closed", (), dict(enumerate(found, 1)), ())


def make_findings(
    make_plan: Callable[..., Any],
    server: Server,
    sweep: Mapping[int, Measurement],
    rows: Mapping[RowKey, Row] | None = None,
    workload: str = "session",
) -> Findings:
    run: Any = SimpleNamespace(facts={"models": {"m": asdict(server)}})
    return Findings(run, make_plan(), rows or {}, {(workload, "m"): sweep}, {}, (), None)


def measured(rate: int, cpu: float | None = 100.0, *, users: int = 64, **changes: Any) -> Measurement:
    return vary(MEASUREMENT, answered=rate, server_cpu_us=cpu, users=users, **changes)


@pytest.mark.parametrize(
    ("workload", "milliseconds"),
    # One request in twenty of the mix sleeps 5 ms; a workload without exchanges sleeps never.
    [("sleep_20ms", 20.0), ("session", 0.0), ("burn", 0.0), ("mixed", 0.25), ("pipeline_16", 0.0), ("download", 0.0)],
)
def test_wait_of_a_request_is_the_mean_of_the_workload(workload: str, milliseconds: float) -> None:
    assert read_wait(workload) == pytest.approx(milliseconds / 1000)


def test_cpu_is_from_the_lowest_level_and_the_response_from_littles_law(make_plan: Any) -> None:
    row = make_row(measured(9_000, 150.0))
    levels = {4: measured(1, 80.0, users=4), 64: measured(1, 500.0)}
    found = expect(make_findings(make_plan, LOOP, levels), row)
    assert found is not None
    # 1 / 80 µs; 64 connections at 12,500/s.
    assert found.upper_bound.rate == pytest.approx(12_500)
    assert found.response == pytest.approx(64 / 12_500)
    assert found.key == "sweep/session/m/4"
    assert found.reason.endswith("so at most 12.5k/s, 5.12 ms each")


def test_row_with_fewer_connections_than_the_sweep_uses_its_own_cpu(make_plan: Any) -> None:
    findings = make_findings(make_plan, LOOP, {16: measured(1, 80.0)})
    fewer = expect(findings, make_row(measured(9_000, 150.0, users=8)))
    as_many = expect(findings, make_row(measured(9_000, 150.0, users=16)))
    assert fewer is not None
    assert as_many is not None
    assert (fewer.key, fewer.upper_bound.rate) == (None, about(1e6 / 150))
    assert (as_many.key, as_many.upper_bound.rate) == ("sweep/session/m/16", about(12_500))


def test_cpu_is_not_from_a_level_with_inconsistent_counts(make_plan: Any) -> None:
    odd = measured(1, 80.0, verdict=Verdict(Limit.INCONSISTENT, "20.0 in flight of 4 users"))
    found = expect(make_findings(make_plan, LOOP, {4: odd, 16: measured(1, 100.0)}), make_row(measured(9_000)))
    assert found is not None
    assert (found.key, found.upper_bound.rate) == ("sweep/session/m/16", about(10_000))


def test_cpu_without_a_sweep_is_the_median() -> None:
    assert _middle([50.0, None, 10.0, 30.0]) == 30.0
    assert _middle([50.0, 10.0, 20.0, 30.0, 40.0]) == 30.0
    assert _middle([None]) is None


@pytest.mark.parametrize(
    ("workload", "seconds"),
    [
        # Many equal requests per connection: the median, 100 µs.
        ("session", 100e-6),
        # Different requests on one connection: the median of five means, 200 µs.
        ("mixed", 200e-6),
        # One request per connection: the median contains queueing.
        ("churn", None),
        # Not an exchange of one request and one reply.
        ("download", None),
    ],
)
def test_hold_time_of_a_sequential_server(workload: str, seconds: float | None) -> None:
    rounds = [measured(1, mean_us=mean) for mean in (900.0, 200.0, 100.0, 50.0, 300.0)]
    row = make_row(*rounds, measured(1, histogram=()), workload=workload)
    assert _read_hold(row) == (None if seconds is None else pytest.approx(seconds))


def test_hold_time_is_the_median_of_the_rounds() -> None:
    """Their medians are 50, 100 and 300 µs, so the mean is none of them."""
    rounds = [measured(1, histogram=((time, 10),)) for time in (300.0, 50.0, 100.0)]
    assert _read_hold(make_row(*rounds)) == about(100e-6)


def test_hold_time_of_different_requests_needs_a_mean() -> None:
    assert _read_hold(make_row(measured(1, histogram=()), workload="mixed")) is None


@pytest.mark.parametrize(
    ("rate", "cpu", "says"),
    [
        # At most 10,000/s; 10 % above it is within the tolerance.
        (11_000, 100.0, ""),
        (11_010, 100.0, "10% above theory: more of it ran in parallel than it declares"),
        (20_000, 89.0, "100% above theory: a request took less CPU here: 89.0 µs, not 100 µs"),
        # 109 of 100 µs is within the tolerance.
        (4_000, 109.0, "40% of what theory allows: waited"),
        (4_000, 111.0, "40% of what theory allows: a request took more CPU here: 111 µs, not 100 µs"),
        (5_000, 111.0, ""),
        (4_999, None, "50% of what theory allows: waited"),
    ],
)
def test_deviation_begins_above_the_tolerance(make_plan: Any, rate: int, cpu: float | None, says: str) -> None:
    verdict = Verdict(Limit.WAITING, "waited")
    row = make_row(measured(rate, cpu, verdict=verdict))
    found = expect(make_findings(make_plan, LOOP, {4: measured(1, 100.0)}), row)
    assert found is not None
    assert found.deviation == says


def test_upper_bound_is_of_the_cores_and_the_sleep_of_the_row(make_plan: Any) -> None:
    processes = Server("process each", None, 12_000, True)
    row = make_row(measured(9_000, 150.0, users=4, allotted=2), workload="sleep_20ms")
    findings = make_findings(make_plan, processes, {}, workload="sleep_20ms")
    found = expect(findings, row)
    assert found is not None
    # Four requests at a time take 20.15 ms each; on two cores, 150 µs of CPU would allow 13,333/s.
    assert found.upper_bound.rate == pytest.approx(4 / 0.02015)
    found = expect(make_findings(make_plan, processes, {}), make_row(measured(9_000, 150.0, allotted=2)))
    assert found is not None
    assert found.upper_bound.rate == pytest.approx(2e6 / 150)


def test_interval_of_a_row_decides_whether_it_deviates(make_plan: Any) -> None:
    """Three rounds: of a row, the low end is above theory, or the high one far below, or neither."""
    findings = make_findings(make_plan, LOOP, {4: measured(1, 100.0)})

    def explain(*rates: int) -> str:
        found = expect(
            findings, make_row(*(measured(rate, verdict=Verdict(Limit.WAITING, "waited")) for rate in rates))
        )
        assert found is not None
        return found.deviation

    assert explain(11_000, 12_000, 13_000) == ""
    assert explain(11_010, 12_000, 13_000).startswith("20% above theory: ")
    assert explain(3_000, 4_000, 5_000) == ""
    assert explain(3_000, 4_000, 4_990) == "40% of what theory allows: waited"


def test_cost_of_a_deviation_is_the_median_of_the_rounds(make_plan: Any) -> None:
    waited = Verdict(Limit.WAITING, "waited")
    findings = make_findings(make_plan, LOOP, {4: measured(1, 100.0)})

    def explain(*costs: float) -> str:
        found = expect(findings, make_row(*(measured(4_000, cost, verdict=waited) for cost in costs)))
        assert found is not None
        return found.deviation

    assert explain(90.0, 150.0, 200.0) == "40% of what theory allows: a request took more CPU here: 150 µs, not 100 µs"
    assert explain(50.0, 105.0, 200.0) == "40% of what theory allows: waited"


def test_noise_of_the_run_widens_the_tolerance(make_plan: Any) -> None:
    # Control and model differ by 4,000 of 10,000: 40 %. A rate of 13,000 is within that, 15,000 is not.
    pair = {
        RowKey("session", "m", "closed"): make_row(measured(8_000)),
        RowKey("session", "control-m", "closed"): make_row(measured(12_000), model="control-m"),
    }
    findings = make_findings(make_plan, LOOP, {4: measured(1, 100.0)}, pair)
    assert [bool(expect(findings, make_row(measured(rate))).deviation) for rate in (13_000, 15_000)] == [False, True]  # type: ignore[union-attr]


def test_undeclared_or_unmeasured_model_has_no_theory(make_plan: Any) -> None:
    findings = make_findings(make_plan, LOOP, {4: measured(1)})
    assert expect(findings, make_row(model="m")) is None
    assert expect(findings, make_row(measured(1), model="other")) is None


def test_hold_time_is_the_time_between_two_answers(make_plan: Any) -> None:
    found = expect(make_findings(make_plan, ONE, {4: measured(2_000, 100.0)}), make_row(measured(1_900)))
    assert found is not None
    assert found.upper_bound.rate == pytest.approx(2_000)
    # A level without an answer does not tell it: that of the row, 100 µs, does.
    found = expect(make_findings(make_plan, ONE, {4: measured(0, None)}), make_row(measured(1_900)))
    assert found is not None
    assert found.upper_bound.rate == pytest.approx(10_000)


def test_reason_of_an_expectation_has_rate_and_time() -> None:
    assert Expectation(UpperBound(500.0, "why"), 0.002, "", None).reason == "why, so at most 500/s, 2.00 ms each"
