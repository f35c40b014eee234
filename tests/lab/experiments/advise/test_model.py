"""The figures of `lab advise`: each limit, each boundary, the order of the models, and where its inputs come from."""

import json
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
from lab.servers.catalogue import Catalogue
from tests.support.made_up import LOAD, LOOP, MEASUREMENT, MIB

CATALOGUE = Catalogue.load()


def advice(load: dict[str, Any] | None = None, **known: Any) -> Advice:
    return advise_model(replace(LOAD, **(load or {})), replace(LOOP, **known))


# One model.


def test_model_without_a_declaration_has_an_advice_that_says_nothing() -> None:
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
        "it does not declare whom it serves at the same time (lab.concurrency in compose.yaml).",
    )
    assert advice(server=None).as_json()["strain"] is None
    assert advice().as_json()["strain"] == pytest.approx(0.5)


def test_model_that_answered_wrongly_is_no_advice() -> None:
    why = "What it answered in that run cannot be relied on: 3 wrong replies."
    assert advice(failing="3 wrong replies") == Advice(
        "loop", False, inf, 0.0, 1, 0.0, 0, None, None, "its replies", why
    )


def test_unknown_cost_is_none_of_its_own_and_is_said() -> None:
    found = advice(costs=())
    # 1000/s x 0.4 ms.
    assert found.cpu_load == pytest.approx(0.4)
    assert "1.00k/s x (400 µs + an unknown cost) is 0.40 of 1 core." in found.reason


def test_costs_between_rates_are_in_proportion_and_beyond_them_as_at_the_end() -> None:
    known = replace(LOOP, costs=((1000.0, 40e-6), (3000.0, 20e-6), (5000.0, 10e-6)))
    found = [known.cost(rate) for rate in (999.0, 1000.0, 1500.0, 3000.0, 4000.0, 5000.0, 5001.0)]
    assert found == [pytest.approx(cost) for cost in (40e-6, 40e-6, 35e-6, 20e-6, 15e-6, 10e-6, 10e-6)]


def test_workers_keep_requests_waiting_for_a_turn() -> None:
    # 10 workers, 20.5 ms each: they can do 10 / 0.0205 = 487.8/s. 10 connections ask 400/s: 8.2 are busy.
    found = advice({"connections": 10, "rate": 400.0}, server=Server("threads", 10, 12_000, False))
    assert found.places == 10
    assert found.in_hand == pytest.approx(8.2)
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
    assert f"wait less than {1000 * (turn + queue):.1f} ms for their turn" in found.reason


def test_load_at_the_limit_does_not_hold() -> None:
    # 2000/s x 0.5 ms is one core exactly.
    assert (advice({"rate": 2000.0}).strain, advice({"rate": 2000.0}).holds) == (pytest.approx(1.0), False)
    assert advice({"rate": 1999.0, "limit": None}).holds
    assert "the queue has no end" in advice({"rate": 2000.0}).reason
    assert "the queue has no end" not in advice({"rate": 1990.0}).reason


@pytest.mark.parametrize(
    ("strain", "text"), [(4.9, "490% of it"), (9.94, "994% of it"), (10.0, "10 times it"), (25.4, "25 times it")]
)
def test_limit_is_shown_as_a_share_below_ten_times_it(strain: float, text: str) -> None:
    # One core takes 2000 requests/s.
    assert advice({"rate": strain * 2000.0, "limit": None}).breaks_first == f"the core: {text}"


@pytest.mark.parametrize(
    ("server", "cores", "name"),
    [
        (Server("process each", None, 12_000, True), 2, "the cores"),
        (Server("process each", None, 12_000, True), 1, "the core"),
        (Server("loop", None, 12_000, False), 2, "the core"),
    ],
)
def test_cores_that_are_the_limit_are_named_by_their_number(server: Server, cores: int, name: str) -> None:
    found = advice({"rate": 9000.0, "limit": None, "cores": cores}, server=server)
    assert found.breaks_first.partition(":")[0] == name
    # 9000/s x 0.5 ms.
    assert f"is 4.50 of {found.cores} core{'s' if found.cores == 2 else ''}." in found.reason
    assert found.cpu_load == pytest.approx(4.5 / found.cores)


@pytest.mark.parametrize(
    ("connections", "strain"),
    # As many connections as workers are no harm yet; one more waits until another one leaves.
    [(4, 0.5), (8, 0.99), (9, 9 / 8)],
)
def test_workers_are_full_with_one_connection_more_than_there_are(connections: int, strain: float) -> None:
    load = {"connections": connections, "rate": 1.0, "limit": None}
    found = advice(load, server=Server("threads", 8, 12_000, False))
    assert found.breaks_first.startswith("LAB_WORKERS=8: ")
    assert found.strain == pytest.approx(strain)
    assert found.holds is (connections <= 8)
    assert ("for their turn" in found.reason) is (connections <= 8)
    left = "1 of 9 connections wait until another one leaves, or are refused." in found.reason
    assert left is (connections == 9)
    assert (found.response is None) is (connections == 9)


def test_memory_is_that_of_the_connections_that_are_served() -> None:
    # 10 MiB and 8 x 0.01 MiB; the other 992 wait outside.
    found = advice(server=Server("threads", 8, 12_000, False))
    assert found.memory_bytes == pytest.approx(10.08 * MIB)
    # LAB_MAX_CONNECTIONS lets in fewer than there are workers.
    found = advice(server=Server("threads", 8, 4, False))
    assert (found.memory_bytes, found.places) == (pytest.approx(10.04 * MIB), 4)
    assert "996 of 1000 connections wait" in found.reason


@pytest.mark.parametrize("unknown", [{"base_bytes": None}, {"connection_bytes": None}])
def test_memory_of_which_a_part_is_unknown_is_unknown(unknown: dict[str, None]) -> None:
    found = advice(memory_limit=1, **unknown)
    assert found.memory_bytes is None
    assert found.holds
    assert "What a connection takes of its memory was not measured." in found.reason
    assert "was not measured" not in advice().reason


def test_memory_without_a_limit_is_no_limit() -> None:
    assert advice(memory_limit=None).breaks_first == "the core: 50% of it"


def test_requests_that_do_not_fit_into_the_places_are_said() -> None:
    # 1000/s x 20.5 ms = 20.5 requests at a time.
    one = advice({"connections": 1}, server=Server("one", 1, 12_000, False))
    assert "20.5 requests at a time do not fit into 1 place." in one.reason
    eight = advice({"connections": 8}, server=Server("threads", 8, 12_000, False))
    assert "20.5 requests at a time do not fit into 8 places." in eight.reason
    # As many as there are places do not fit either: 50/s x 20 ms = 1.
    exact = advice(
        {"connections": 1, "rate": 50.0, "cpu": 0.0, "limit": None}, server=Server("one", 1, 9, False), costs=()
    )
    assert "1 requests at a time do not fit into 1 place." in exact.reason
    assert "do not fit" not in advice().reason


def test_wait_for_a_turn_is_said_with_its_percentile() -> None:
    # M/M/1 at half load: ln(0.5 / 0.01) / (2000 - 1000) s.
    assert "99 % of them wait less than 3.91 ms for their turn." in advice().reason
    assert "50 % of them wait not at all for their turn." in advice({"share": 0.5}).reason
    assert "A PING took" not in advice().reason
    assert "A PING took 2.00 ms where nobody had to wait for it." in advice(plain=0.002).reason


@pytest.mark.parametrize(
    ("load", "known", "said"),
    [
        ({"rate": 499.0}, {}, "its own cost is that at 500 requests/s"),
        ({"rate": 500.0}, {}, None),
        ({"connections": 10_001}, {}, "it was measured with at most 10000 connections"),
        ({"connections": 10_000}, {}, None),
        ({"connections": 10_001}, {"most_connections": None}, None),
        ({}, {"most_rate": None}, "how far it goes was not measured"),
        ({"rate": 1001.0}, {"most_rate": 1000.0}, "at most 1.00k requests/s, which was its end"),
        ({"rate": 1000.0}, {"most_rate": 1000.0}, None),
        ({"rate": 1001.0}, {"most_rate": 1000.0, "is_lower_bound": True}, "1.00k requests/s, which was not its end"),
    ],
)
def test_extrapolation_is_said_beyond_what_was_measured(
    load: dict[str, Any], known: dict[str, Any], said: str | None
) -> None:
    reason = advice(load, **known).reason
    assert ("Extrapolated" in reason) is (said is not None)
    assert (said or "") in reason


# All models.


def make_advice(model: str, *, holds: bool = True, strain: float = 0.5, memory: float | None = 1.0) -> Advice:
    return Advice(model, holds, strain, 0.25, 2, 20.5, 64, 0.0123, memory, f"{model} first", f"{model} because.")


def test_models_are_ranked_by_holding_then_strain_then_memory_then_name() -> None:
    found = [
        make_advice("f", holds=False, strain=0.1),
        make_advice("e", strain=0.9),
        make_advice("d", strain=0.5, memory=3.0),
        make_advice("c", strain=0.5, memory=2.0),
        make_advice("b", strain=0.5, memory=2.0),
        make_advice("a", strain=0.5, memory=None),
    ]
    assert [item.model for item in rank(found)] == ["a", "b", "c", "d", "e", "f"]


def show(found: list[Advice]) -> list[str]:
    console = Console(width=200, file=StringIO())
    print_advice(LOAD, found, Sources(None, Measured(), ("a note",)), console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_answer_names_those_within_10_percent_of_the_best() -> None:
    found = [
        make_advice("a", strain=0.5),
        make_advice("b", strain=0.55),
        make_advice("c", strain=0.56),
        make_advice("d", strain=0.5, holds=False),
    ]
    assert show(found)[0] == "Best: a, b."
    assert show([make_advice("d", holds=False)])[0] == "No model can serve this."


def test_table_has_a_line_for_each_model_with_its_figures() -> None:
    lines = show([make_advice("a", memory=1.5 * MIB), make_advice("b", holds=False, memory=2 * MIB)])
    assert " ".join(lines[2].split()) == "model CPU requests in hand p99 memory holds what breaks first"
    assert " ".join(lines[4].split()) == "a 25% of 2 20.5 of 64 12.3 ms 1.5 MiB yes a first"
    assert " ".join(lines[5].split()) == "b 25% of 2 20.5 of 64 12.3 ms 2.0 MiB no b first"
    assert "a: a because." in lines
    assert "a note" in lines
    assert any("P(wait > t) = C x exp(-(c / S - rate) x t)" in line for line in lines)
    # An empty line parts the reasoning from the sources.
    assert lines[lines.index("a note") - 1] == ""


def test_time_without_an_end_is_shown_as_unknown() -> None:
    lines = show([replace(make_advice("a"), response=None)])
    assert " 12.3 ms " not in lines[4]
    assert "–" in lines[4]  # noqa: RUF001


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, (0.99, None)), ("p99 < 50ms", (0.99, 0.05)), ("p50 <= 200us", (0.5, 0.0002)), ("p99.9<1s", (0.999, 1.0))],
)
def test_condition_is_a_share_and_seconds(text: str | None, found: tuple[float, float | None]) -> None:
    assert read_slo(text) == pytest.approx(found) if text else read_slo(text) == found


@pytest.mark.parametrize("text", ["p100 < 1s", "p99 > 1s"])
def test_condition_that_cannot_be_foretold_is_refused(text: str) -> None:
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
    """The demand that a command line comes to."""

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


def test_wait_is_the_service_time_without_its_computing(ask: Callable[..., Demand]) -> None:
    found = ask("--cores", "3", "--slo", "p90 < 50ms")
    assert (found.wait, found.cpu) == (pytest.approx(0.0198), pytest.approx(0.0002))
    assert (found.share, found.limit, found.cores) == (pytest.approx(0.9), pytest.approx(0.05), 3)
    assert (found.connections, found.rate) == (100, 1000.0)


def test_cores_default_to_those_of_this_machine(ask: Callable[..., Demand], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 4} if pid == 0 else {0})
    assert ask().cores == 5


def test_request_that_only_computes_is_taken(ask: Callable[..., Demand]) -> None:
    assert ask("--cpu", "20ms").wait == 0.0


# Where the figures come from.


def keep(root: Path, make_plan: Callable[..., Any], rows: dict[str, Measurement], **changes: Any) -> Path:
    """Keep one round of one model: the mode -> what was measured; `sweep/N` is a level."""
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
    return replace(MEASUREMENT, answered=rate, server_cpu_us=cpu, **changes)


def test_costs_are_those_at_each_rate_that_was_measured(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
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
    assert known.plain == pytest.approx(700e-6)
    assert read(folder, 0.5).plain == pytest.approx(100e-6)
    assert (known.most_rate, known.is_lower_bound, known.base_bytes) == (10_000, False, 7 * MIB)


def test_rate_that_the_generator_limited_is_a_lower_bound(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
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
        assert (known.connection_bytes, known.most_connections) == (pytest.approx(bytes_each), most)
    else:
        # Known better from the idle connections of the committed figures.
        assert known.most_connections == 10_000


def test_models_and_works_that_a_run_does_not_have_are_noted(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
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


def test_server_that_serves_one_at_a_time_has_no_time_of_an_empty_server(
    tmp_path: Path, make_plan: Callable[..., Any]
) -> None:
    plan = make_plan(models=("plain_socket",), rounds=1, control=None, modes=("closed", "open-50"))
    run = Run.create("bench", {"plan": plan.as_json(), "environment": {}}, root=tmp_path)
    for mode in plan.modes:
        run.keep(f"round-1/session/plain_socket/{mode}", {"measurement": make(10, 20.0).as_json()})
    known = read_sources(CATALOGUE, run.folder, tmp_path).read(CATALOGUE, CATALOGUE["plain_socket"])
    assert known.plain is None
    assert known.most_rate == 10


@pytest.mark.parametrize(
    ("text", "size"), [("1k", 1024), ("2m", 2 * MIB), ("1g", 2**30), ("3gb", 3 * 2**30), ("5", 5), ("x", None)]
)
def test_size_is_read_as_compose_reads_it(text: str, size: int | None) -> None:
    assert read_size({"mem_limit": text}) == size


def test_figures_of_the_committed_file_are_in_seconds_and_its_limit_of_memory_is_that_of_the_container() -> None:
    measured = Measured.load()
    known = Sources(None, measured, ()).read(CATALOGUE, CATALOGUE["thread_pool"])
    summary = measured.models["thread_pool"]["closed_session"]
    assert summary.cpu_us is not None
    assert known.costs == ((summary.rate, pytest.approx(summary.cpu_us * 1e-6)),)
    assert known.base_bytes == summary.memory_bytes
    assert known.memory_limit == read_size(CATALOGUE.definitions["thread_pool"])
    assert known.memory_limit is not None


def test_row_without_a_cost_has_a_rate_and_no_cost(tmp_path: Path, make_plan: Callable[..., Any]) -> None:
    rows = {"closed": make(10_000, None), "fixed": make(2_000, 40.0)}  # type: ignore[arg-type]
    known = read(keep(tmp_path, make_plan, rows, modes=("closed", "fixed")))
    assert (known.costs, known.most_rate) == (((2_000, pytest.approx(40e-6)),), 10_000)
