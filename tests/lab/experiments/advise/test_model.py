"""The figures of `lab advise`: limits, boundaries, the order of the models, and the sources of its inputs."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from math import inf, log
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from lab.base.errors import LabError
from lab.cli.commands import advise
from lab.cli.main import cli
from lab.cli.params import DURATION
from lab.experiments.advise.model import Advice, Demand, Known, advise_model
from lab.experiments.advise.ranking import rank, read_slo
from lab.experiments.advise.sources import Sources, read_size, read_sources
from lab.experiments.bench.findings import read_findings
from lab.experiments.published import Measured
from lab.experiments.store import Run
from lab.experiments.theory import Server
from lab.load.measurement import Measurement
from lab.metrics.verdict import Limit, Verdict
from lab.report.advise_text import print_advice
from lab.servers.catalogue import Catalogue, Model
from tests.support.approx import about
from tests.support.made_up import LOAD, LOOP, MEASUREMENT, MIB, vary

CATALOGUE = Catalogue.load()


def advice(load: dict[str, Any] | None = None, **known: Any) -> Advice:
    return advise_model(replace(LOAD, **(load or {})), replace(LOOP, **known))


# One model.


def test_model_without_declared_concurrency_does_not_hold() -> None:
    assert advice(server=None) == Advice(
        "loop",
        False,
        inf,
        0.0,
        1,
        0.0,
        0,
        None,
        None,
        "not known",
        "it does not declare its concurrency (lab.concurrency in compose.yaml).",
    )
    assert advice(server=None).as_json()["utilization"] is None
    assert advice().as_json()["utilization"] == pytest.approx(0.5)


def test_model_with_wrong_replies_does_not_hold() -> None:
    why = "Its replies in that run were not correct: 3 wrong replies."
    assert advice(failing="3 wrong replies") == Advice(
        "loop", False, inf, 0.0, 1, 0.0, 0, None, None, "its replies", why
    )


def test_unknown_cost_counts_as_zero_and_is_named() -> None:
    found = advice(costs=())
    # 1000/s x 0.4 ms.
    assert found.cpu_load == pytest.approx(0.4)
    assert "1.00k/s x (400 µs + an unknown cost) is 0.40 of 1 core." in found.reason


def test_costs_are_interpolated_and_constant_beyond() -> None:
    known = replace(LOOP, costs=((1000.0, 40e-6), (3000.0, 20e-6), (5000.0, 10e-6)))
    found = [known.cost(rate) for rate in (999.0, 1000.0, 1500.0, 3000.0, 4000.0, 5000.0, 5001.0)]
    assert found == [pytest.approx(cost) for cost in (40e-6, 40e-6, 35e-6, 20e-6, 15e-6, 10e-6, 10e-6)]


def test_requests_wait_for_a_worker() -> None:
    # 10 workers, 20.5 ms each: they can do 10 / 0.0205 = 487.8/s. 10 connections ask 400/s: 8.2 are busy.
    found = advice({"connections": 10, "rate": 400.0}, server=Server("threads", 10, 12_000, False))
    assert found.slots == 10
    assert found.in_flight == pytest.approx(8.2)
    # Erlang's C(10, 8.2) = 0.4378..., from its definition in test_theory: the 99th percentile of the wait for a worker.
    busy, servers = 8.2, 10
    terms = [1.0]
    for number in range(1, servers):
        terms.append(terms[-1] * busy / number)
    last = terms[-1] * busy / servers * servers / (servers - busy)
    chance = last / (sum(terms) + last)
    turn = log(chance / 0.01) / (servers / 0.0205 - 400)
    # For the core: 400/s x 0.5 ms = 20 %, M/M/1.
    queue = log(0.2 / 0.01) / (1 / 0.0005 - 400)
    assert found.response == pytest.approx(0.0205 + turn + queue)
    assert f"wait less than {1000 * (turn + queue):.1f} ms in the queue" in found.reason


def test_load_at_the_limit_does_not_hold() -> None:
    # 2000/s x 0.5 ms is one core exactly.
    assert (advice({"rate": 2000.0}).utilization, advice({"rate": 2000.0}).holds) == (about(1.0), False)
    assert advice({"rate": 1999.0, "limit": None}).holds
    assert "the queue grows without bound" in advice({"rate": 2000.0}).reason
    assert "the queue grows without bound" not in advice({"rate": 1990.0}).reason


@pytest.mark.parametrize(
    ("utilization", "text"), [(4.9, "490% of it"), (9.94, "994% of it"), (10.0, "10 times it"), (25.4, "25 times it")]
)
def test_utilization_is_shown_in_percent_below_ten(utilization: float, text: str) -> None:
    # One core takes 2000 requests/s.
    assert advice({"rate": utilization * 2000.0, "limit": None}).breaks_first == f"the core: {text}"


@pytest.mark.parametrize(
    ("server", "cores", "name"),
    [
        (Server("process each", None, 12_000, True), 2, "the cores"),
        (Server("process each", None, 12_000, True), 1, "the core"),
        (Server("loop", None, 12_000, False), 2, "the core"),
    ],
)
def test_limit_names_the_core_or_cores(server: Server, cores: int, name: str) -> None:
    found = advice({"rate": 9000.0, "limit": None, "cores": cores}, server=server)
    assert found.breaks_first.partition(":")[0] == name
    # 9000/s x 0.5 ms.
    assert f"is 4.50 of {found.cores} core{'s' if found.cores == 2 else ''}." in found.reason
    assert found.cpu_load == pytest.approx(4.5 / found.cores)


@pytest.mark.parametrize(
    ("connections", "utilization"),
    # With as many connections as workers none waits; a further one waits until another one closes.
    [(4, 0.5), (8, 0.99), (9, 9 / 8)],
)
def test_one_connection_above_the_workers_exceeds_the_limit(connections: int, utilization: float) -> None:
    load = {"connections": connections, "rate": 1.0, "limit": None}
    found = advice(load, server=Server("threads", 8, 12_000, False))
    assert found.breaks_first.startswith("LAB_WORKERS=8: ")
    assert found.utilization == pytest.approx(utilization)
    assert found.holds is (connections <= 8)
    assert ("in the queue" in found.reason) is (connections <= 8)
    left = "1 of 9 connections wait until another one closes, or are refused." in found.reason
    assert left is (connections == 9)
    assert (found.response is None) is (connections == 9)


def test_memory_counts_served_connections() -> None:
    # 10 MiB and 8 x 0.01 MiB; the other 992 wait.
    found = advice(server=Server("threads", 8, 12_000, False))
    assert found.memory_bytes == pytest.approx(10.08 * MIB)
    # LAB_MAX_CONNECTIONS allows fewer connections than workers.
    found = advice(server=Server("threads", 8, 4, False))
    assert (found.memory_bytes, found.slots) == (about(10.04 * MIB), 4)
    assert "996 of 1000 connections wait" in found.reason


@pytest.mark.parametrize("unknown", [{"base_bytes": None}, {"connection_bytes": None}])
def test_memory_with_an_unknown_part_is_unknown(unknown: dict[str, None]) -> None:
    found = advice(memory_limit=1, **unknown)
    assert found.memory_bytes is None
    assert found.holds
    assert "The memory of a connection was not measured." in found.reason
    assert "was not measured" not in advice().reason


def test_memory_without_a_limit_is_no_limit() -> None:
    assert advice(memory_limit=None).breaks_first == "the core: 50% of it"


def test_requests_above_the_slots_are_named() -> None:
    # 1000/s x 20.5 ms = 20.5 requests at a time.
    one = advice({"connections": 1}, server=Server("one", 1, 12_000, False))
    assert "20.5 requests in flight exceed 1 slot." in one.reason
    eight = advice({"connections": 8}, server=Server("threads", 8, 12_000, False))
    assert "20.5 requests in flight exceed 8 slots." in eight.reason
    # As many requests as slots are too many as well: 50/s x 20 ms = 1.
    exact = advice(
        {"connections": 1, "rate": 50.0, "cpu": 0.0, "limit": None}, server=Server("one", 1, 9, False), costs=()
    )
    assert "1 requests in flight exceed 1 slot." in exact.reason
    assert "exceed" not in advice().reason


def test_wait_in_the_queue_is_named_with_its_percentile() -> None:
    # M/M/1 at half load: ln(0.5 / 0.01) / (2000 - 1000) s.
    assert "99 % of the requests wait less than 3.91 ms in the queue." in advice().reason
    assert "50 % of the requests do not wait in the queue." in advice({"share": 0.5}).reason
    assert "A PING took" not in advice().reason
    assert "A PING took 2.00 ms without a queue." in advice(ping_time=0.002).reason


@pytest.mark.parametrize(
    ("load", "known", "said"),
    [
        ({"rate": 499.0}, {}, "its own cost is that at 500 requests/s"),
        ({"rate": 500.0}, {}, None),
        ({"connections": 10_001}, {}, "it was measured with at most 10000 connections"),
        ({"connections": 10_000}, {}, None),
        ({"connections": 10_001}, {"most_connections": None}, None),
        ({}, {"most_rate": None}, "its maximum was not measured"),
        ({"rate": 1001.0}, {"most_rate": 1000.0}, "at most 1.00k requests/s, which was its maximum"),
        ({"rate": 1000.0}, {"most_rate": 1000.0}, None),
        (
            {"rate": 1001.0},
            {"most_rate": 1000.0, "is_lower_bound": True},
            "1.00k requests/s, which was not its maximum",
        ),
    ],
)
def test_extrapolation_is_named(load: dict[str, Any], known: dict[str, Any], said: str | None) -> None:
    reason = advice(load, **known).reason
    assert ("Extrapolated" in reason) is (said is not None)
    assert (said or "") in reason


# All models.


def make_advice(model: str, *, holds: bool = True, utilization: float = 0.5, memory: float | None = 1.0) -> Advice:
    reason = f"{model} [b]because[/b]."
    return Advice(model, holds, utilization, 0.25, 2, 20.5, 64, 0.0123, memory, f"{model} first", reason)


def test_models_are_ranked_by_holding_then_utilization_then_memory_then_name() -> None:
    found = [
        make_advice("f", holds=False, utilization=0.1),
        make_advice("e", utilization=0.9),
        make_advice("a", utilization=0.5, memory=3.0),
        make_advice("c", utilization=0.5, memory=2.0),
        make_advice("b", utilization=0.5, memory=2.0),
        make_advice("d", utilization=0.5, memory=None),
    ]
    assert [item.model for item in rank(found)] == ["d", "b", "c", "a", "e", "f"]


def show(found: list[Advice]) -> list[str]:
    console = Console(width=200, file=StringIO())
    print_advice(LOAD, found, Sources(None, Measured(), ("a [b]note[/b]",)), console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_percentile_is_that_of_the_demand() -> None:
    console = Console(width=200, file=StringIO())
    for share, name in ((0.99, "p99"), (0.5, "p50"), (0.999, "p99.9")):
        print_advice(replace(LOAD, share=share), [make_advice("a")], Sources(None, Measured(), ()), console)
        *_, head = (line for line in console.file.getvalue().splitlines() if "what breaks first" in line)  # type: ignore[attr-defined]
        assert re.split(r"  +", head.strip())[2:5] == ["requests in flight", name, "memory"]


def test_answer_names_models_within_10_percent_of_the_best() -> None:
    found = [
        make_advice("a", utilization=0.5),
        make_advice("b", utilization=0.55),
        make_advice("c", utilization=0.56),
        make_advice("d", utilization=0.5, holds=False),
    ]
    assert show(found)[0] == "Best: a, b."
    assert show([make_advice("d", holds=False)])[0] == "No model can serve this."


def test_table_has_a_line_for_each_model_with_its_figures() -> None:
    lines = show([make_advice("a", memory=1.5 * MIB), make_advice("b", holds=False, memory=2 * MIB)])
    assert " ".join(lines[2].split()) == "model CPU requests in flight p99 memory holds what breaks first"
    assert " ".join(lines[4].split()) == "a 25% of 2 20.5 of 64 12.3 ms 1.5 MiB yes a first"
    assert " ".join(lines[5].split()) == "b 25% of 2 20.5 of 64 12.3 ms 2.0 MiB no b first"
    # Brackets are no markup.
    assert "a: a [b]because[/b]." in lines
    assert "a [b]note[/b]" in lines
    assert any("P(wait > t) = C x exp(-(c / S - rate) x t)" in line for line in lines)
    # An empty line separates the reasons from the sources.
    assert lines[lines.index("a [b]note[/b]") - 1] == ""


def test_unbounded_response_time_is_shown_as_unknown() -> None:
    lines = show([replace(make_advice("a"), response=None)])
    assert " 12.3 ms " not in lines[4]
    assert "–" in lines[4]  # noqa: RUF001


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, (0.99, None)), ("p99 < 50ms", (0.99, 0.05)), ("p50 <= 200us", (0.5, 0.0002)), ("p99.9<1s", (0.999, 1.0))],
)
def test_condition_has_percentile_and_limit(text: str | None, found: tuple[float, float | None]) -> None:
    assert read_slo(text) == pytest.approx(found) if text else read_slo(text) == found


@pytest.mark.parametrize("text", ["p100 < 1s", "p99 > 1s"])
def test_unsupported_condition_is_refused(text: str) -> None:
    with pytest.raises(LabError):
        read_slo(text)


@pytest.mark.parametrize(("text", "seconds"), [("20ms", 0.02), ("200us", 0.0002), ("1.5s", 1.5), ("3600s", 3600.0)])
def test_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == pytest.approx(seconds)


def test_duration_above_an_hour_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="is too long: at most 1h"):
        DURATION.convert("3600.1s", None, None)


# The command.


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Demand]:
    """Return the demand of a command line."""

    def run(*more: str) -> Demand:
        seen: list[Demand] = []

        def note(demand: Demand, known: Known) -> Advice:
            seen.append(demand)
            return make_advice(known.model)

        monkeypatch.setattr(advise, "advise_model", note)
        usual = ["--connections", "100", "--rate", "1000", "--service-time", "20ms", "--cpu", "200us"]
        done: Result = CliRunner().invoke(cli, ["advise", *usual, "plain_socket", *more])
        assert done.exit_code == 0, done.output
        return seen[0]

    return run


def test_wait_is_service_time_minus_cpu(ask: Callable[..., Demand]) -> None:
    found = ask("--cores", "3", "--slo", "p90 < 50ms")
    assert (found.wait, found.cpu) == (about(0.0198), about(0.0002))
    assert (found.share, found.limit, found.cores) == (about(0.9), about(0.05), 3)
    assert (found.connections, found.rate) == (100, 1000.0)


def test_times_are_read_at_the_percentile_of_the_condition(
    ask: Callable[..., Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, shares = Sources.read, []

    def note(sources: Sources, catalogue: Catalogue, model: Model, share: float = 0.5) -> Known:
        shares.append(share)
        return read(sources, catalogue, model, share)

    monkeypatch.setattr(Sources, "read", note)
    ask("--slo", "p90 < 50ms")
    ask()
    assert shares == [about(0.9), 0.99]


def test_cores_default_to_those_of_this_machine(ask: Callable[..., Demand], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 4} if pid == 0 else {0})
    assert ask().cores == 5


def test_request_that_only_computes_is_accepted(ask: Callable[..., Demand]) -> None:
    assert ask("--cpu", "20ms").wait == 0.0


# Sources of the figures.


def keep(root: Path, make_plan: Callable[..., Any], rows: dict[str, Measurement], **changes: Any) -> Path:
    """Store one round of one model: mode -> measurement; `sweep/N` is a level of the sweep."""
    plan = make_plan(**{"models": ("asyncio_streams",), "rounds": 1, "control": None} | changes)
    run = Run.create("bench", {"plan": plan.as_json(), "environment": {"processor": "P", "cores": "C"}}, root=root)
    for mode, found in rows.items():
        key = f"sweep/session/asyncio_streams/{mode[6:]}" if mode.startswith("sweep/") else None
        record = json.loads(json.dumps({"measurement": found.as_json()}))
        run.keep(key or f"round-1/session/asyncio_streams/{mode}", record)
    return run.folder


def read(folder: Path, share: float = 0.99) -> Known:
    return read_sources(CATALOGUE, folder, folder).read(CATALOGUE, CATALOGUE["asyncio_streams"], share)


def make(rate: int, cpu: float, **changes: Any) -> Measurement:
    return vary(MEASUREMENT, answered=rate, server_cpu_us=cpu, **changes)


def test_costs_are_measured_at_each_rate(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
    folder = keep(
        tmp_path,
        make_plan,
        {
            "closed": make(10_000, 20.0, memory_bytes=7 * MIB),
            "open-50": make(5_000, 30.0, histogram=((100.0, 98), (700.0, 2))),
            "fixed": make(2_000, 40.0),
        },
        modes=("closed", "fixed", "open-50"),
    )
    known = read(folder)
    assert [rate for rate, _ in known.costs] == [2_000, 5_000, 10_000]
    assert [cost for _, cost in known.costs] == pytest.approx([40e-6, 30e-6, 20e-6])
    assert known.ping_time == pytest.approx(700e-6)
    assert read(folder, 0.5).ping_time == pytest.approx(100e-6)
    assert (known.most_rate, known.is_lower_bound, known.base_bytes) == (10_000, False, 7 * MIB)


def test_rate_limited_by_the_generator_is_a_lower_bound(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
    limited = Verdict(Limit.GENERATOR, "its core")
    assert read(keep(tmp_path, make_plan, {"closed": make(10_000, 20.0, verdict=limited)})).is_lower_bound


@pytest.mark.parametrize(("most", "bytes_each"), [(199, None), (200, 1000.0), (1000, 1000.0)])
def test_memory_of_a_connection_is_from_a_sweep_of_200_or_more(
    tmp_path: Path, make_plan: Callable[..., Any], most: int, bytes_each: float | None
) -> None:
    rows = {
        "closed": make(10_000, 20.0),
        "sweep/4": make(1, 1.0, memory_bytes=10_000),
        f"sweep/{most}": make(1, 1.0, memory_bytes=10_000 + 1000 * (most - 4)),
    }
    known = read(keep(tmp_path, make_plan, rows))
    if bytes_each:
        assert (known.connection_bytes, known.most_connections) == (about(bytes_each), most)
    else:
        # The published figures of idle connections are used instead.
        assert known.most_connections == 10_000


def test_cost_is_that_of_a_session_else_of_a_ping_and_memory_that_of_any_workload(
    tmp_path: Path, make_plan: Callable[..., Any]
) -> None:
    def store(*workloads: str) -> Known:
        plan = make_plan(models=("asyncio_streams",), rounds=1, control=None, workloads=workloads)
        run = Run.create("bench", {"plan": plan.as_json(), "environment": {}}, root=tmp_path)
        for number, workload in enumerate(workloads, 1):
            found = make(1000 * number, 10.0 * number)
            run.keep(f"round-1/{workload}/asyncio_streams/closed", {"measurement": found.as_json()})
        for users in (4, 404):
            level = make(1, 1.0, memory_bytes=1000 * users)
            run.keep(f"sweep/{workloads[-1]}/asyncio_streams/{users}", {"measurement": level.as_json()})
        return read(run.folder)

    known = store("ping", "session", "churn")
    assert (known.costs, known.most_rate) == (((2000, about(20e-6)),), 2000)
    assert (known.connection_bytes, known.most_connections) == (about(1000), 404)
    assert store("churn", "ping").costs == ((2000, about(20e-6)),)
    # Of another workload's requests, only the memory is that of a model.
    churn = store("churn")
    assert 1000 not in [rate for rate, _ in churn.costs]
    # A run without any of the two has no facts of a model at all.
    assert churn.most_connections == 10_000


def test_missing_models_and_workloads_are_noted(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
    folder = keep(tmp_path, make_plan, {"closed": make(1, 1.0)})
    notes = read_sources(CATALOGUE, folder, tmp_path).notes
    assert len(notes) == 2
    assert notes[0].startswith(f"From the run {read_findings(Run.open(folder)).run.started} (P, C); else from docs/")
    assert notes[1].startswith("Not in that run: ")
    assert "asyncio_streams" not in notes[1]
    other = keep(tmp_path, make_plan, {}, workloads=("burn",))
    assert read_sources(CATALOGUE, other, tmp_path).notes[-1].startswith("It has none of session, ping")
    every = keep(tmp_path, make_plan, {}, models=tuple(model.name for model in CATALOGUE.select()))
    assert len(read_sources(CATALOGUE, every, tmp_path).notes) == 1


def test_sequential_server_has_no_ping_time(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
    plan = make_plan(models=("plain_socket",), rounds=1, control=None, modes=("closed", "open-50"))
    run = Run.create("bench", {"plan": plan.as_json(), "environment": {}}, root=tmp_path)
    for mode in plan.modes:
        run.keep(f"round-1/session/plain_socket/{mode}", {"measurement": make(10, 20.0).as_json()})
    known = read_sources(CATALOGUE, run.folder, tmp_path).read(CATALOGUE, CATALOGUE["plain_socket"])
    assert known.ping_time is None
    assert known.most_rate == 10


@pytest.mark.parametrize(
    ("text", "size"), [("1k", 1024), ("2m", 2 * MIB), ("1g", 2**30), ("3gb", 3 * 2**30), ("5", 5), ("x", None)]
)
def test_size_is_read_as_compose_reads_it(text: str, size: int | None) -> None:
    assert read_size({"mem_limit": text}) == size


def test_published_figures_are_in_seconds_with_the_containers_memory_limit() -> None:
    measured = Measured.load()
    known = Sources(None, measured, ()).read(CATALOGUE, CATALOGUE["thread_pool"])
    summary = measured.models["thread_pool"]["closed_session"]
    assert summary.cpu_us is not None
    assert known.costs == ((summary.rate, about(summary.cpu_us * 1e-6)),)
    assert known.base_bytes == summary.memory_bytes
    assert known.memory_limit == read_size(CATALOGUE.definitions["thread_pool"])
    assert known.memory_limit is not None


def test_row_without_a_cost_has_a_rate_and_no_cost(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
    rows = {"closed": make(10_000, None), "fixed": make(2_000, 40.0)}  # type: ignore[arg-type]
    known = read(keep(tmp_path, make_plan, rows, modes=("closed", "fixed")))
    assert (known.costs, known.most_rate) == (((2_000, about(40e-6)),), 10_000)
