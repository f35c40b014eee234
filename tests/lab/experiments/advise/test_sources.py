"""`lab advise`: predictions that can be computed by hand, the sources, and invalid options."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.base.errors import LabError
from lab.cli.main import cli
from lab.experiments.advise.model import advise_model
from lab.experiments.advise.sources import _read_findings, _read_measured, read_size, read_sources
from lab.experiments.bench.findings import RowKey, read_findings
from lab.experiments.store import Run
from lab.experiments.theory import Server, describe_concurrency
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.servers.catalogue import Catalogue
from tests.support.approx import about
from tests.support.made_up import LOAD, LOOP, MIB

CATALOGUE = Catalogue.load()


def test_loop_with_spare_capacity_holds() -> None:
    found = advise_model(LOAD, LOOP)
    assert found.holds
    assert (found.cpu_load, found.cores, found.slots) == (about(0.5), 1, 1000)
    assert found.in_flight == pytest.approx(20.5)
    # M/M/1 at half load: 99 % wait less than ln(0.5 / 0.01) / (2000 - 1000) s.
    assert found.response == pytest.approx(0.0205 + 0.003912, abs=1e-6)
    assert found.memory_bytes == pytest.approx(20 * MIB)
    assert found.breaks_first == "the core: 50% of it"
    assert "Extrapolated" not in found.reason


def test_model_with_wrong_replies_does_not_hold() -> None:
    found = advise_model(LOAD, replace(LOOP, failing="3 wrong replies: 3 x wrong bytes"))
    assert not found.holds
    assert found.breaks_first == "its replies"
    assert "3 wrong replies: 3 x wrong bytes" in found.reason


def test_failing_rows_reach_the_advice(bench, make_plan, make_measurement) -> None:
    failing = Verdict(Limit.FAILED, "12% of all exchanges failed")
    bench.answer = lambda model, scenario, users, rate: make_measurement(
        users=users, **({"verdict": failing} if model == "plain_socket" else {})
    )
    plan = make_plan()
    run = bench.begin(plan)
    bench.measure(run, plan)
    findings = read_findings(run)
    known = {name: _read_findings(findings, name, 0.99).get("failing") for name in ("plain_socket", "asyncio_streams")}
    assert known == {"plain_socket": failing.reason, "asyncio_streams": None}


@pytest.mark.parametrize(
    ("workloads", "cost", "base"),
    [(("session", "ping"), 40e-6, 15 * MIB), (("ping", "session"), 40e-6, 15 * MIB), (("ping",), 90e-6, 33 * MIB)],
    ids=["both", "both, ping first", "only ping"],
)
def test_facts_are_those_of_sessions_or_else_of_pings(
    workloads: tuple[str, ...], cost: float, base: int, bench, make_plan, make_measurement
) -> None:
    pings = {"server_cpu_us": 90.0, "memory_bytes": 33 * MIB}
    bench.answer = lambda model, scenario, users, rate: make_measurement(
        users=users, **({} if "session" in scenario else pings)
    )
    plan = make_plan(models=("asyncio_streams",), workloads=workloads)
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = _read_findings(read_findings(run), "asyncio_streams", 0.99)
    costs: Any = found["costs"]
    assert costs
    assert [each for _, each in costs] == [about(cost)] * len(costs)
    assert found["base_bytes"] == base


def test_request_costs_more_at_a_lower_rate() -> None:
    known = replace(LOOP, costs=((1_000.0, 40e-6), (5_000.0, 20e-6)))
    assert [known.cost(rate) for rate in (100.0, 1_000.0, 3_000.0, 5_000.0, 9_000.0)] == [
        pytest.approx(cost) for cost in (40e-6, 40e-6, 30e-6, 20e-6, 20e-6)
    ]
    assert replace(LOOP, costs=()).cost(1.0) is None
    seldom = advise_model(replace(LOAD, rate=100.0), known)
    assert "its own cost is that at 1.00k requests/s" in seldom.reason


def test_cost_is_that_at_the_rate_of_the_load() -> None:
    """At 1000 requests/s, half way from 100 to 200 µs. With 400 µs of each request that is 0.55 of the core."""
    found = advise_model(LOAD, replace(LOOP, costs=((500.0, 100e-6), (1_500.0, 200e-6))))
    assert found.cpu_load == about(0.55)
    assert "150 µs of its own" in found.reason


def test_utilization_that_is_not_finite_is_null() -> None:
    found = advise_model(LOAD, LOOP)
    assert replace(found, utilization=2.0).as_json()["utilization"] == 2.0
    assert replace(found, utilization=inf).as_json()["utilization"] is None


def test_response_takes_at_least_as_long_as_a_ping() -> None:
    known = replace(LOOP, ping_time=0.003)
    # Waiting for the core and computing take longer.
    assert advise_model(LOAD, known).response == advise_model(LOAD, LOOP).response
    seldom = replace(LOAD, rate=1.0)
    assert advise_model(seldom, known).response == pytest.approx(0.023)
    assert "A PING took 3.00 ms" in advise_model(seldom, known).reason


@pytest.mark.parametrize(
    ("load", "known", "breaks"),
    [
        ({"rate": 3000.0}, {}, "the core: 150% of it"),
        ({"connections": 13_000}, {}, "LAB_MAX_CONNECTIONS=12000: 108% of it"),
        ({"limit": 0.02}, {}, "20.0 ms for p99: 122% of it"),
        ({}, {"memory_limit": 16 * MIB}, "the container's memory of 16.0 MiB: 125% of it"),
        ({}, {"server": Server("threads", 64, 12_000, False)}, "LAB_WORKERS=64: 16 times it"),
        ({"connections": 1}, {"server": Server("one", 1, 12_000, False)}, "one client at a time: 20 times it"),
        (
            {"connections": 64, "rate": 4000.0},
            {"server": Server("processes", 64, 99, True)},
            "LAB_WORKERS=64: 128% of it",
        ),
    ],
)
def test_nearest_limit_breaks_first(load: dict[str, Any], known: dict[str, Any], breaks: str) -> None:
    found = advise_model(replace(LOAD, **load), replace(LOOP, **known))
    assert found.breaks_first == breaks
    assert not found.holds


def test_unserved_connections_have_no_percentile() -> None:
    found = advise_model(LOAD, replace(LOOP, server=Server("threads", 64, 12_000, False)))
    assert found.response is None
    assert "936 of 1000 connections wait" in found.reason
    # All are connected, and 3500 x 20.5 ms are more requests than it has workers: the queue has no end.
    busy = Server("processes", 64, 99, True)
    found = advise_model(replace(LOAD, connections=64, rate=3500.0), replace(LOOP, server=busy))
    assert "71.8 requests in flight exceed 64 slots." in found.reason
    assert "in the queue" not in found.reason


def test_processes_compute_on_all_cores() -> None:
    found = advise_model(replace(LOAD, rate=3000.0), replace(LOOP, server=Server("process each", None, 12_000, True)))
    assert found.holds
    assert (found.cores, found.cpu_load) == (2, about(0.75))


def test_extrapolation_is_named() -> None:
    beyond = advise_model(replace(LOAD, connections=11_000), replace(LOOP, most_rate=900.0, is_lower_bound=True))
    assert "Extrapolated: it was measured with at most 10000 connections." in beyond.reason
    assert "at most 900 requests/s, which was not its maximum." in beyond.reason


def test_undeclared_concurrency_does_not_hold() -> None:
    found = advise_model(LOAD, replace(LOOP, server=None))
    assert not found.holds
    assert "lab.concurrency" in found.reason


@pytest.fixture
def stored(bench, make_plan, make_measurement) -> Path:
    """Store a run of one model, whose PING costs 40 µs."""
    plan = make_plan(models=("asyncio_streams",))
    facts = {
        "plan": plan.as_json(),
        "environment": {"processor": "a test's"},
        "models": describe_concurrency(CATALOGUE, [CATALOGUE["asyncio_streams"]]),
    }
    run = Run.create("bench", facts, root=bench.root)
    bench.answer = lambda model, scenario, users, rate: make_measurement(users=users)
    bench.measure(run, plan)
    return run.folder


Ask = Callable[..., Result]


@pytest.fixture
def ask() -> Ask:
    """Run `lab advise` with defaults that most models can serve."""
    usual = ["--connections", "100", "--rate", "1000", "--service-time", "20ms", "--cpu", "200us"]
    return lambda *more: CliRunner().invoke(cli, ["advise", *usual, *more])


def test_figures_come_from_the_run_or_the_published_ones(stored: Path) -> None:
    sources = read_sources(CATALOGUE, stored, stored)
    known = sources.read(CATALOGUE, CATALOGUE["asyncio_streams"])
    assert (known.cost(4000.0), known.most_rate, known.base_bytes) == (about(40e-6), 10_000, 15 * MIB)
    # The sweep has only 64 connections, so the memory of a connection is that of 10,000 idle ones.
    assert known.most_connections == 10_000
    other = sources.read(CATALOGUE, CATALOGUE["trio_nursery"])
    assert other.costs
    assert other.costs != known.costs
    assert any("Not in that run" in note and "trio_nursery" in note for note in sources.notes)


def test_notes_name_the_source_without_a_run(tmp_path: Path) -> None:
    sources = read_sources(CATALOGUE, None, tmp_path)
    assert sources.findings is None
    measured = sources.measured.environment
    (note,) = sources.notes
    assert note.startswith("No run of `lab bench` (no run 'latest' in ")
    assert note.endswith(
        f"): costs and memory are those of docs/data/measured.json ({measured['date']}, {measured['processor']})."
    )
    assert sources.read(CATALOGUE, CATALOGUE["trio_nursery"]).costs


def test_named_run_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not a stored run"):
        read_sources(CATALOGUE, tmp_path / "none", tmp_path)


def test_published_facts_are_those_of_sessions_and_of_idle_connections() -> None:
    summary = SimpleNamespace(cpu_us=40.0, rate=900.0, memory_bytes=7, users=64, is_lower_bound=True)
    idle = SimpleNamespace(bytes_per_connection=500.0, connections=10_000, p50_us=None)
    measured: Any = SimpleNamespace(models={"m": {"closed_session": summary}}, idle={"m": idle}, websockets={})
    plain = {"base_bytes": 7, "most_rate": 900.0, "is_lower_bound": True}
    assert _read_measured(measured, "m") == plain | {
        "costs": ((900.0, about(40e-6)),),
        "connection_bytes": 500.0,
        "most_connections": 10_000,
    }
    summary.cpu_us = idle.bytes_per_connection = None
    idle.p50_us = 3.0
    assert _read_measured(measured, "m") == plain | {"costs": (), "most_connections": 64}


def test_facts_of_a_run_are_its_medians() -> None:
    def row(mode: str, **figures: Estimate) -> SimpleNamespace:
        return SimpleNamespace(workload="session", model="m", mode=mode, read=figures.get, memory_bytes=None)

    rate, cost = Estimate(900.0, 800.0, 950.0, 3), Estimate(40.0, 20.0, 50.0, 3)
    rows = {"closed": row("closed", rate=rate, cpu_us=cost), "fixed": row("fixed", cpu_us=cost)}
    findings: Any = SimpleNamespace(
        rows={RowKey("session", "m", mode): found for mode, found in rows.items()},
        failing=lambda workload, model: "",
        plan=SimpleNamespace(workloads=["session"]),
        sweeps={("session", "m"): {10_000: None}},
        connection_bytes=lambda workload, model: None,
    )
    # A cost without its rate says nothing, and the memory of a connection is not known.
    assert _read_findings(findings, "m", 0.99) == {
        "costs": ((900.0, about(40e-6)),),
        "most_rate": 900.0,
        "is_lower_bound": False,
    }


def test_damaged_run_is_an_error(stored: Path) -> None:
    (stored / "run.json").write_text("{")
    with pytest.raises(LabError, match="cannot be read"):
        read_sources(CATALOGUE, None, stored.parent.parent)


def test_output_has_answer_reasons_and_sources(ask: Ask, stored: Path) -> None:
    done = ask("--run", str(stored), "--slo", "p99 < 50ms", "--cores", "2")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Best: ")
    assert "plain_socket" not in done.output.partition("\n")[0]
    assert "(200 µs + 40.0 µs of its own)" in done.output
    assert "From the run" in done.output


def test_json_has_each_model(ask: Ask, stored: Path) -> None:
    done = ask("--run", str(stored), "asyncio_streams", "plain_socket", "--json", "--slo", "p99.9<=1s")
    rows = json.loads(done.output)["models"]
    assert [row["model"] for row in rows] == ["asyncio_streams", "plain_socket"]
    assert [row["holds"] for row in rows] == [True, False]


def test_load_that_no_model_can_serve_is_exit_code_1(ask: Ask, stored: Path) -> None:
    done = ask("--run", str(stored), "plain_socket")
    assert done.exit_code == 1
    assert "No model can serve this." in done.output


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--cpu", "200"], "'200' has no unit: write 200s or 200ms"),
        (["--cpu", "2h"], "'2h' is too long: at most 1h"),
        (["--cpu", "7200s"], "is too long: at most 1h"),
        (["--cpu", "21ms"], "--cpu 21.0 ms is a part of --service-time, which is 20.0 ms"),
        (["--slo", "p99"], "--slo 'p99': not of the form 'p99 > 5ms'"),
        (["--slo", "p99 < 50"], "--slo 'p99 < 50': p99 takes us"),
        (["--slo", "p99 > 50ms"], "is not an upper limit of a percentile"),
        (["--slo", "rate > 1k"], "is not an upper limit of a percentile"),
        (["--slo", "rate < 1k"], "is not an upper limit of a percentile"),
        (["--rate", "0"], "0"),
        (["pong"], "unknown model 'pong'"),
        (["--run", "/nowhere"], "does not exist"),
    ],
)
def test_invalid_option_is_refused(ask: Ask, given: list[str], says: str) -> None:
    done = ask(*given)
    assert done.exit_code != 0
    assert says in done.output + str(done.exception)


def test_size_is_read_from_compose() -> None:
    assert read_size({"mem_limit": "512m"}) == 512 * MIB
    assert read_size({"mem_limit": "1gb"}) == 1024 * MIB
    assert read_size({"mem_limit": 4096}) == 4096
    assert read_size({}) is None
