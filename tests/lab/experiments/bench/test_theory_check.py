"""Theory beside rows that are made up: which figures it takes, and when it calls a rate a deviation."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lab.experiments.bench.findings import Findings, Row
from lab.experiments.bench.theory_check import Expectation, _middle, _read_hold, expect, read_wait
from lab.experiments.theory import Ceiling, Server
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, Verdict
from tests.support.made_up import MEASUREMENT

LOOP = Server("loop", None, 12_000, False)
ONE = Server("one", 1, 12_000, False)


def make_row(*found: Measurement, workload: str = "session", model: str = "m") -> Row:
    return Row(workload, model, "closed", (), dict(enumerate(found, 1)), ())


def make_findings(
    make_plan: Callable[..., Any],
    server: Server,
    sweep: Mapping[int, Measurement],
    rows: Mapping[tuple[str, str, str], Row] | None = None,
    workload: str = "session",
) -> Findings:
    run: Any = SimpleNamespace(facts={"models": {"m": server.as_json()}})
    return Findings(run, make_plan(), rows or {}, {(workload, "m"): sweep}, {}, (), None)


def measured(rate: int, cpu: float | None = 100.0, *, users: int = 64, **changes: Any) -> Measurement:
    return replace(MEASUREMENT, answered=rate, server_cpu_us=cpu, users=users, **changes)


@pytest.mark.parametrize(
    ("workload", "milliseconds"),
    # One request in twenty of the mix sleeps 5 ms; what is no exchange waits for nothing.
    [("sleep_20ms", 20.0), ("session", 0.0), ("burn", 0.0), ("mixed", 0.25), ("pipeline_16", 0.0), ("download", 0.0)],
)
def test_wait_of_a_request_is_the_mean_over_its_kind_of_work(workload: str, milliseconds: float) -> None:
    assert read_wait(workload) == pytest.approx(milliseconds / 1000)


def test_cpu_is_that_of_the_fewest_connections_and_the_response_follows_from_littles_law(make_plan: Any) -> None:
    row = make_row(measured(9_000, 150.0))
    found = expect(make_findings(make_plan, LOOP, {4: measured(1, 80.0), 64: measured(1, 500.0)}), row)
    assert found is not None
    # 1 / 80 µs; 64 connections at 12,500/s.
    assert found.ceiling.rate == pytest.approx(12_500)
    assert found.response == pytest.approx(64 / 12_500)
    assert found.key == "sweep/session/m/4"
    assert found.reason.endswith("so at most 12.5k/s, 5.12 ms each")


def test_row_with_fewer_connections_than_the_sweep_explains_itself(make_plan: Any) -> None:
    findings = make_findings(make_plan, LOOP, {16: measured(1, 80.0)})
    fewer = expect(findings, make_row(measured(9_000, 150.0, users=8)))
    as_many = expect(findings, make_row(measured(9_000, 150.0, users=16)))
    assert fewer is not None
    assert as_many is not None
    assert (fewer.key, fewer.ceiling.rate) == (None, pytest.approx(1e6 / 150))
    assert (as_many.key, as_many.ceiling.rate) == ("sweep/session/m/16", pytest.approx(12_500))


def test_cpu_without_a_sweep_is_the_one_in_the_middle_of_those_that_are_known() -> None:
    assert _middle([measured(1, cpu) for cpu in (50.0, None, 10.0, 30.0)]) == 30.0
    assert _middle([measured(1, cpu) for cpu in (50.0, 10.0, 20.0, 30.0, 40.0)]) == 30.0
    assert _middle([measured(1, None)]) is None


@pytest.mark.parametrize(
    ("workload", "seconds"),
    [
        # Many requests to a connection, all alike: the median, 100 µs.
        ("session", 100e-6),
        # Unlike requests on one connection: the mean in the middle of five, 200 µs.
        ("mixed", 200e-6),
        # A connection for each request: the median has the wait for a turn in it.
        ("churn", None),
        # No exchange of one request and one reply.
        ("download", None),
    ],
)
def test_hold_of_a_server_for_one_client_at_a_time(workload: str, seconds: float | None) -> None:
    row = make_row(*(measured(1, mean_us=mean) for mean in (900.0, None, 200.0, 100.0, 50.0, 300.0)), workload=workload)
    assert _read_hold(row) == (None if seconds is None else pytest.approx(seconds))


def test_hold_of_unlike_requests_without_a_mean_is_not_known() -> None:
    assert _read_hold(make_row(measured(1, mean_us=None), workload="mixed")) is None


@pytest.mark.parametrize(
    ("rate", "cpu", "says"),
    [
        # At most 10,000/s; 10 % above it contradicts nothing.
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
def test_surprise_begins_beyond_the_tolerance(make_plan: Any, rate: int, cpu: float | None, says: str) -> None:
    verdict = Verdict(Limit.WAITING, "waited")
    row = make_row(measured(rate, cpu, verdict=verdict))
    found = expect(make_findings(make_plan, LOOP, {4: measured(1, 100.0)}), row)
    assert found is not None
    assert found.deviation == says


def test_noise_of_the_run_widens_the_tolerance(make_plan: Any) -> None:
    # The two servers are 4,000 of 10,000 apart: 40 %. A rate of 13,000 is within it, one of 15,000 is not.
    pair = {
        ("session", "m", "closed"): make_row(measured(8_000)),
        ("session", "control-m", "closed"): make_row(measured(12_000), model="control-m"),
    }
    findings = make_findings(make_plan, LOOP, {4: measured(1, 100.0)}, pair)
    assert [bool(expect(findings, make_row(measured(rate))).deviation) for rate in (13_000, 15_000)] == [False, True]  # type: ignore[union-attr]


def test_row_of_a_model_that_declares_nothing_or_was_not_measured_has_no_theory(make_plan: Any) -> None:
    findings = make_findings(make_plan, LOOP, {4: measured(1)})
    assert expect(findings, make_row(model="m")) is None
    assert expect(findings, make_row(measured(1), model="other")) is None


def test_server_for_one_client_is_held_for_the_time_between_two_answers(make_plan: Any) -> None:
    found = expect(make_findings(make_plan, ONE, {4: measured(2_000, 100.0)}), make_row(measured(1_900)))
    assert found is not None
    assert found.ceiling.rate == pytest.approx(2_000)


def test_reason_of_an_expectation_says_its_rate_and_its_time() -> None:
    assert Expectation(Ceiling(500.0, "why"), 0.002, "", None).reason == "why, so at most 500/s, 2.00 ms each"
