"""Theory, compared with figures computed by hand and with made-up stored runs."""

import re
from collections.abc import Callable
from dataclasses import asdict
from math import inf, log
from typing import Any

import pytest

from lab.base.errors import LabError
from lab.base.messages import build
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import WORKLOADS
from lab.experiments.bench.theory_check import expect, read_wait
from lab.experiments.store import Run
from lab.experiments.theory import Server, describe_concurrency, find_upper_bound, queue_wait, wait_chance
from lab.load.presets import find_preset
from lab.metrics.verdict import Limit, Verdict
from lab.report.bench_export import render_theory
from lab.report.bench_text import make_lines, render_markdown
from lab.servers.catalogue import Catalogue

CATALOGUE = Catalogue.load()
MS, US = 1e-3, 1e-6


def find_rate(model: str, **given: float | None) -> float:
    server = Server.of(CATALOGUE, CATALOGUE[model])
    assert server is not None
    asked = {"connections": 16, "cores": 1, "cpu": 100 * US, "wait": 0.0} | given
    found = find_upper_bound(server, **asked)  # type: ignore[arg-type]
    assert found is not None
    return found.rate


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        # Sleeping requests overlap up to the number of slots.
        ("plain_socket", {"wait": 20 * MS, "cpu": 0.0}, 50),
        ("socketserver_threading", {"wait": 20 * MS, "cpu": 0.0}, 800),
        ("asyncio_streams", {"wait": 20 * MS, "cpu": 0.0, "connections": 1000}, 50_000),
        ("thread_pool", {"wait": 20 * MS, "cpu": 0.0, "connections": 1000}, 64 * 50),
        ("prefork", {"wait": 20 * MS, "cpu": 0.0, "connections": 10}, 500),
        # Computing overlaps only on several cores.
        ("plain_socket", {}, 10_000),
        ("asyncio_streams", {"connections": 1000}, 10_000),
        ("socketserver_threading", {"connections": 1000}, 10_000),
        ("asyncio_prefork", {"cores": 4}, 40_000),
        ("socketserver_forking", {"cores": 4}, 40_000),
        # The CPU is the limit.
        ("asyncio_streams", {"wait": 20 * MS, "connections": 1000}, 10_000),
        # A sequential server is occupied for the whole round trip.
        ("plain_socket", {"hold": 500 * US}, 2000),
    ],
)
def test_rate_is_limited_by_slots_or_cores(model: str, given: dict[str, float], expected: float) -> None:
    assert find_rate(model, **given) == pytest.approx(expected)


def test_unknown_costs_have_no_upper_bound() -> None:
    server = Server("loop", None, 12_000, False)
    assert find_upper_bound(server, connections=4, cores=1, cpu=None, wait=0.0) is None
    assert build(Server, asdict(server)) == server


def test_limits_come_from_the_catalogue() -> None:
    forking, pool = (Server.of(CATALOGUE, CATALOGUE[name]) for name in ("socketserver_forking", "thread_pool"))
    assert forking is not None
    assert pool is not None
    assert (forking.workers, forking.connections, forking.uses_all_cores) == (None, 220, True)
    assert pool.workers == 64


def test_limits_of_the_environment_replace_those_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(model: str) -> tuple[int | None, int]:
        found = Server.of(CATALOGUE, CATALOGUE[model])
        assert found is not None
        return found.workers, found.connections

    names = ("thread_pool", "prefork", "plain_socket", "socketserver_threading")
    assert [read(name) for name in names] == [(64, 12_000), (64, 12_000), (1, 12_000), (None, 1100)]
    monkeypatch.setenv("LAB_WORKERS", "7")
    monkeypatch.setenv("LAB_MAX_CONNECTIONS", "50")
    assert [read(name) for name in names] == [(7, 50), (7, 50), (1, 50), (None, 50)]


def test_wait_chance_is_erlangs_c() -> None:
    assert wait_chance(1, 0.5) == pytest.approx(0.5)
    assert wait_chance(2, 1.0) == pytest.approx(1 / 3)
    # 100 servers, 90 busy on average.
    assert wait_chance(100, 90.0) == pytest.approx(0.217, abs=0.001)
    assert wait_chance(2, 2.0) == 1.0


def test_wait_is_certain_at_full_load() -> None:
    assert wait_chance(1, 1.0) == 1.0
    # C(2, 1.5) by its definition: (a^2/2! x 2/(2 - a)) / (1 + a + a^2/2! x 2/(2 - a)) = 4.5 / 7.
    assert wait_chance(2, 1.5) == pytest.approx(4.5 / 7)


def test_wait_decays_with_the_spare_capacity() -> None:
    # 2 servers of 1 ms, 1500/s: each leaves 500/s, (2000 - 1500) together.
    assert queue_wait(2, 1500.0, 1 * MS, 0.99) == pytest.approx(log((4.5 / 7) / 0.01) / (2000 - 1500))
    # Half of the requests wait: the median wait is zero.
    assert queue_wait(1, 500.0, 1 * MS, 0.5) == 0.0
    assert queue_wait(1, 600.0, 1 * MS, 0.5) == pytest.approx(log(0.6 / 0.5) / 400)


@pytest.mark.parametrize(
    ("concurrency", "workers", "given", "reason"),
    [
        ("process each", None, {"cores": 1}, "1 core: 1/S with S = 100 µs of CPU"),
        ("process each", None, {"cores": 2}, "2 cores: 2/S with S = 100 µs of CPU"),
        ("loops", 2, {}, "1 core: 1/S with S = 100 µs of CPU"),
        ("one", 1, {"cpu": None, "wait": 2 * MS}, "one client at a time: 1/S with S = 2.00 ms in total"),
        (
            "threads",
            8,
            {"cpu": None, "wait": 2 * MS},
            "8 requests at the same time: 8/S with S = 2.00 ms in total",
        ),
        # Computing occupies the slot as well: 2 ms + 0.1 ms.
        ("one", 1, {"wait": 2 * MS}, "one client at a time: 1/S with S = 2.10 ms in total"),
        # A measured hold time contains everything.
        (
            "one",
            1,
            {"wait": 2 * MS, "hold": 3 * MS},
            "one client at a time: 1/S with S = 3.00 ms in total",
        ),
    ],
)
def test_reason_of_an_upper_bound_names_the_limit(
    concurrency: str, workers: int | None, given: dict[str, Any], reason: str
) -> None:
    server = Server(concurrency, workers, 12_000, concurrency == "process each")
    found = find_upper_bound(server, **{"connections": 64, "cores": 1, "cpu": 100 * US, "wait": 0.0} | given)
    assert found is not None
    assert found.reason == reason


def test_queue_wait_of_one_and_of_many_servers() -> None:
    # M/M/1: with the probability C there is a wait, which is exponential.
    assert queue_wait(1, 500.0, 1 * MS, 0.99) == pytest.approx(log(0.5 / 0.01) / 500)
    assert queue_wait(1, 500.0, 1 * MS, 0.5) == 0.0
    assert queue_wait(1, 1000.0, 1 * MS, 0.99) == inf
    assert queue_wait(64, 1000.0, 20 * MS, 0.99) == 0.0


def test_wait_of_a_workload_is_its_mean_sleep() -> None:
    assert read_wait("sleep_20ms") == pytest.approx(20 * MS)
    assert read_wait("session") == 0.0
    exchange = find_preset(WORKLOADS["mixed"].closed).workload.exchange
    assert exchange is not None
    turns = exchange.turns
    assert 0 < read_wait("mixed") < 20 * MS
    assert sum(b"SLEEP" in request for request, _ in turns) / len(turns) < 0.5


@pytest.fixture
def measured(bench, make_plan, make_measurement) -> Callable[..., Findings]:
    """Store a run whose measurements depend on the connections: `few` for the lowest level, `many` for the others."""

    def run(few: dict[str, object], many: dict[str, object], **plan: object) -> Findings:
        bench.answer = lambda model, scenario, users, rate: make_measurement(
            users=users, **(few if users == 4 else many)
        )
        asked = make_plan(**{"models": ("asyncio_streams",), "levels": (4, 16, 64), **plan})
        facts = {
            "plan": asked.as_json(),
            "environment": {},
            "models": describe_concurrency(CATALOGUE, [CATALOGUE[name] for name in asked.models]),
        }
        kept = Run.create("bench", facts, root=bench.root)
        bench.measure(kept, asked)
        return read_findings(Run.open(kept.folder))

    return run


def test_theory_is_shown_next_to_the_measurement(measured) -> None:
    found = measured({"answered": 5_000, "server_cpu_us": 80.0}, {"answered": 12_000, "server_cpu_us": 80.0})
    line = make_lines(found, "session")[0]
    shown = [cell.text for cell in line.cells.values()]
    assert shown[:4] == ["asyncio_streams", "1", "12.0k [12.0k 12.0k]", "≤ 12.5k"]
    assert line.cells["theory"].value == pytest.approx(12_500)
    assert line.deviation == ""
    assert "1/S with S = 80.0 µs of CPU, so at most 12.5k/s" in line.cells["theory"].note
    assert "sweep/session/asyncio_streams/4" in line.keys
    assert "≤ 12.5k" in render_markdown(found)


@pytest.mark.parametrize(
    ("rate", "cpu", "says"),
    [
        (14_000, 70.0, "12% above theory: a request took less CPU here: 70.0 µs, not 80.0 µs"),
        (14_000, 80.0, "12% above theory: more of it ran in parallel than it declares"),
        (13_000, 80.0, ""),
        (6_500, 150.0, ""),
        (6_000, 150.0, "48% of what theory allows: a request took more CPU here: 150 µs, not 80.0 µs"),
        (6_000, 80.0, "48% of what theory allows: the server used 99% of a core"),
    ],
)
def test_deviation_from_theory_is_marked(measured, rate: int, cpu: float, says: str) -> None:
    found = measured({"answered": 5_000, "server_cpu_us": 80.0}, {"answered": rate, "server_cpu_us": cpu})
    line = make_lines(found, "session")[0]
    assert line.deviation == says
    assert line.cells["theory"].text.endswith(" !") is bool(says)


def test_lower_bound_is_not_a_deviation(measured) -> None:
    bound = Verdict(Limit.GENERATOR, "the generator used 99% of its core")
    found = measured({"answered": 5_000, "server_cpu_us": 80.0}, {"answered": 6_000, "verdict": bound})
    assert make_lines(found, "session")[0].deviation == ""


def test_sequential_server_gains_nothing_from_more_clients(measured) -> None:
    found = measured({"answered": 5_000}, {"answered": 5_400}, models=("plain_socket",), control=None)
    row = found.rows["session", "plain_socket", "closed"]
    theory = expect(found, row)
    assert theory is not None
    assert theory.upper_bound.rate == pytest.approx(5_000)
    assert theory.deviation == ""


def test_median_is_the_hold_time_without_a_sweep(measured) -> None:
    found = measured({}, {"answered": 9_500}, models=("plain_socket",), levels=(16,), modes=("closed",), control=None)
    theory = expect(found, found.rows["session", "plain_socket", "closed"])
    assert theory is not None
    # p50 is 100 µs.
    assert theory.upper_bound.rate == pytest.approx(10_000)
    assert (theory.key, theory.deviation) == (None, "")


def test_theory_is_exported_for_the_docs(measured) -> None:
    found = measured({"server_cpu_us": 80.0}, {"server_cpu_us": 80.0}, models=("asyncio_streams", "thread_pool"))
    text = render_theory(found, ["thread_pool"])
    assert "| session | `thread_pool` | ≤ 12.5k | 10.0k [10.0k 10.0k] | threads take turns at one GIL: 1/S" in text
    assert "asyncio_streams" not in text
    assert render_theory(found, ["thread_pool", "asyncio_streams"]) == render_theory(found)
    with pytest.raises(LabError, match=r"^trio_nursery is not in this run; it has asyncio_streams, thread_pool$"):
        render_theory(found, ["thread_pool", "trio_nursery"])
    assert "**!**" not in text
    environment = {"date": "today", "commit": "abc", "processor": "a chip", "cores": "one each"}
    found.run.facts["environment"].update(environment)
    assert render_theory(found).endswith("\n\n*today, commit abc: a chip, one each.*\n")
    # 300 µs allow 3.3k requests/s.
    found = measured({"server_cpu_us": 300.0}, {"server_cpu_us": 300.0}, models=("asyncio_streams",))
    (row,) = [line for line in render_theory(found).splitlines() if "`asyncio_streams`" in line]
    assert re.fullmatch(
        r"\| session \| `asyncio_streams` \| ≤ 3\.33k ! \| 10\.0k \[10\.0k 10\.0k\] \| .*1/S with S = 300 µs .*"
        r"\. \*\*!\*\* 200% above theory: .* \|",
        row,
    )
    with pytest.raises(LabError, match="trio_nursery is not in this run"):
        render_theory(found, ["trio_nursery"])


def test_run_without_declarations_has_no_theory(bench, make_plan) -> None:
    plan = make_plan()
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = read_findings(run)
    assert {line.cells["theory"].text for line in make_lines(found, "session")} == {"–"}  # noqa: RUF001
    rows = [line for line in render_theory(found).splitlines() if line.startswith("| session")]
    assert {row.rsplit(" | ", 1)[1] for row in rows} == {"– |"}  # noqa: RUF001
