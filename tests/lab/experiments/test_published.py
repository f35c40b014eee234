"""docs/data/measured.json: medians over rounds, and two scripts that write one file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.base.errors import LabError
from lab.experiments.bench.findings import read_findings
from lab.experiments.published import Idle, Measured, summarize
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, Verdict
from tests.support.made_up import MEASUREMENT, vary
from tests.support.made_up_runs import PLAN, make_bench_run


def make(
    answered: int, cpu_us: float | None = 40.0, bound: Limit = Limit.WAITING, p99_us: float = 300.0
) -> Measurement:
    return vary(
        MEASUREMENT,
        depth=2,
        seconds=2.0,
        answered=answered,
        failures={"timeout": 1},
        histogram=((100.0, 90), (p99_us, 10)),
        server_cpu_us=cpu_us,
        memory_bytes=None,
        threads=None,
        verdict=Verdict(bound, "a reason"),
    )


def test_summary_has_medians_and_spread() -> None:
    rounds = [make(1_000, p99_us=200.0), make(3_000, None), make(2_000), make(5_000, 60.0), make(4_000, 50.0)]
    found = summarize(rounds)
    assert (found.rounds, found.users, found.rate) == (5, 16, 3_000.0)
    # Quartiles of 1000 to 5000: 1500 and 4500.
    assert found.rate_spread == pytest.approx(0.5)
    assert (found.p50_us, found.p99_us) == (100.0, 300.0)
    assert found.cpu_us == 45.0  # of the four that are known
    assert found.memory_bytes is None
    assert found.failures == 5
    memory = [vary(make(1), memory_bytes=size, peak_bytes=9 * size) for size in (100, 300, 200)]
    assert summarize(memory).memory_bytes == 200


def test_one_lower_bound_makes_the_median_a_lower_bound() -> None:
    assert not summarize([make(1), make(2)]).is_lower_bound
    found = summarize([make(3, bound=Limit.GENERATOR), make(1), make(2)])
    assert found.is_lower_bound
    assert list(found.verdicts.items()) == [("waiting", 2), ("generator-bound", 1)]


def test_three_rounds_have_a_spread() -> None:
    # Quartiles of three: the smallest and the largest. (4000 - 1000) / 2 / 2000.
    assert summarize([make(1_000), make(4_000), make(2_000)]).rate_spread == pytest.approx(0.75)


def test_two_rounds_have_no_spread() -> None:
    assert summarize([make(1), make(2)]).rate_spread is None
    assert summarize([make(0), make(0), make(0)]).rate_spread is None


def test_figures_are_those_of_a_stored_run(bench, make_plan, make_measurement) -> None:
    plan = make_plan(
        models=("asyncio_streams", "plain_socket", "twisted_reactor"), workloads=("session", "pipeline_16")
    )
    bench.failing = {"plain_socket"}
    rates = iter(range(1000, 10_000))
    bench.answer = lambda model, scenario, users, rate: make_measurement(
        workload=scenario,
        users=users,
        answered=next(rates) if model == "asyncio_streams" else 0,
        versions={"locust": "2"},
    )
    run = bench.begin(plan)
    bench.measure(run, plan)
    findings = read_findings(run)
    measured = Measured.of(findings)
    assert (measured.environment, measured.seconds) == ({"commit": "abc", "load generator": "locust 2"}, plan.seconds)
    assert {model: list(found) for model, found in measured.models.items()} == {
        "asyncio_streams": ["closed_session", "closed_pipeline_16"],
        "twisted_reactor": ["closed_session", "closed_pipeline_16"],
    }
    (row,) = (row for row in findings.list_rows("session", "closed") if row.model == "asyncio_streams")
    assert measured.models["asyncio_streams"]["closed_session"] == summarize(list(row.found.values()))
    assert measured.models["asyncio_streams"]["closed_session"].rounds == plan.rounds
    assert list(measured.missing) == ["plain_socket"]
    assert measured.missing["plain_socket"].startswith("1 of 6 conformance tests fail")


def test_model_without_a_step_says_why(bench, make_plan) -> None:
    plan = make_plan(models=("peer_inetd",), workloads=("pipeline_16",), control=None)
    run = bench.begin(plan)
    bench.measure(run, plan)
    assert Measured.of(read_findings(run)).missing == {"peer_inetd": "it speaks none of the services of the workloads"}


def test_missing_model_has_its_own_reason(tmp_path: Path) -> None:
    rates = {"asyncio_streams": 9_000, "prefork": None}
    run = make_bench_run(tmp_path, rates, replace(PLAN, models=tuple(rates)))
    assert Measured.of(read_findings(run)).missing == {"prefork": "it <u>has ended</u>"}


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"[]", "not a file of measurements: no object$"), (b"{", "cannot be read: "), (b"\xff", "cannot be read: ")],
)
def test_damaged_file_is_not_overwritten(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "measured.json"
    path.write_bytes(data)
    with pytest.raises(LabError, match=rf"measured\.json: {said}"):
        Measured().save(path)
    assert path.read_bytes() == data


def test_save_keeps_the_part_of_the_other_script(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    assert Measured.load(path) == Measured()
    idle = {"plain": {"connections": 10_000, "bytes_per_connection": 3_000, "p50_us": 9, "more": 1}}
    both = {"idle": idle, "websockets": {"other": {"connections": 63, "why": "a thread each"}}}
    dates = {"idle_environment": {"date": "then"}, "websockets_environment": {"date": "later"}}
    path.write_text(json.dumps({**both, **dates, "later": [1]}))
    written = Measured(
        environment={"date": "now", "engine": None},
        seconds=3.0,
        models={"plain": {"closed_session": summarize([make(7)])}},
        missing={"other": "it fell over"},
    )
    written.save(path)
    read = Measured.load(path)
    assert (read.models, read.environment, read.missing) == (written.models, written.environment, written.missing)
    assert read.seconds == 3.0
    assert read.idle == {"plain": Idle(10_000, 3_000, p50_us=9)}
    assert read.websockets == {"other": Idle(63, why="a thread each")}
    assert (read.idle_environment, read.websockets_environment) == ({"date": "then"}, {"date": "later"})
    assert json.loads(path.read_text())["later"] == [1]


@pytest.mark.parametrize("text", ["[]", "{", '{"models": {"plain": {"closed_session": {"rate": 1}}}}', '{"idle": [1]}'])
def test_damaged_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "measured.json"
    path.write_text(text)
    with pytest.raises(LabError, match=r"measured\.json"):
        Measured.load(path)
