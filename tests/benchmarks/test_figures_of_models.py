"""Figures of models that benchmarks/ measures and the docs publish: idle clients, forecasts, no GIL."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import forecast, idle, nogil
from lab.base.errors import LabError
from lab.base.units import UNKNOWN
from lab.experiments.advise.model import Advice
from lab.experiments.published import Idle
from lab.load.measurement import Measurement
from lab.metrics.sample import Sample
from lab.metrics.server_use import ServerUse
from lab.metrics.verdict import Limit, Verdict
from services.protocol import BLOCKING_WORKERS
from tests.support.fakes import CATALOGUE
from tests.support.made_up import MEASUREMENT

# idle


def test_idle_client_costs_what_the_server_has_grown_by() -> None:
    times = [number / 1e6 for number in range(100, 0, -1)]
    found = idle.summarize(1_000, 20_000_000, 23_500_000, times, "a thread each")
    assert found == Idle(1_000, 3_500, 50, 99, "a thread each")


def test_percentiles_of_new_clients_are_by_the_same_rank() -> None:
    found = idle.summarize(1, 0, 0, [0.003, 0.001, 0.002], "")
    assert (found.p50_us, found.p99_us) == (2_000, 3_000)


@pytest.mark.parametrize(
    ("part", "environment"), [("idle", "idle_environment"), ("websockets", "websockets_environment")]
)
def test_figures_of_other_models_and_parts_stay(part: str, environment: str) -> None:
    before = {
        "models": {"a": 1},
        "idle": {"old": 1, "again": 2},
        "websockets": {"old": 1, "again": 2},
        "idle_environment": {"date": "old"},
        "websockets_environment": {"date": "old"},
    }
    merged = idle.merge(before, part, {"again": Idle(63, 1.0, 2.0, 3.0, "why")}, {"date": "today"})
    own = {"connections": 63, "bytes_per_connection": 1.0, "p50_us": 2.0, "p99_us": 3.0, "why": "why"}
    assert merged == before | {part: {"old": 1, "again": own}, environment: {"date": "today"}}
    assert idle.merge({}, part, {}, {}) == {part: {}, environment: {}}


def test_memory_is_read_when_three_readings_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(idle, "time", SimpleNamespace(sleep=slept.append))
    # 100,001 bytes apart, then 100,000.
    readings = iter([9_000_000, 1_000_000, 1_100_001, 1_050_000, 1_000_001, 5])
    meter: Any = SimpleNamespace(read=lambda: Sample(memory_bytes=next(readings)))
    assert idle.settle(meter) == 1_000_001
    assert slept == [0.3] * 5


def test_memory_that_cannot_be_read_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "time", SimpleNamespace(sleep=lambda _: None))
    meter: Any = SimpleNamespace(read=Sample)
    with pytest.raises(SystemExit, match="cannot be read"):
        idle.settle(meter)


def test_a_pool_holds_one_client_less_than_it_has_workers() -> None:
    """The last worker answers the new clients."""
    counts = {kind: count for kind, (count, _) in idle.COUNTS.items()}
    assert counts == {
        "loop": 10_000,
        "loops": 10_000,
        "thread each": 1_000,
        "process each": 200,
        "threads": BLOCKING_WORKERS - 1,
        "processes": BLOCKING_WORKERS - 1,
    }


class Lab:
    """Runs no model; notes what is asked of it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def up(self, names: Sequence[str]) -> None:
        self.done += [f"up {name}" for name in names]

    def down(self) -> None:
        self.done.append("down")

    def describe(self) -> dict[str, str | None]:
        return {"backend": "process"}


def test_idle_models_are_stopped_also_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    lab: Any = Lab()

    def hold(*arguments: object) -> Idle:
        assert arguments[1:] == ("thread_pool", idle.RESP, *idle.COUNTS["threads"])
        raise LabError("no more")

    monkeypatch.setattr(idle, "hold", hold)
    with pytest.raises(LabError):
        idle.measure(CATALOGUE, CATALOGUE["thread_pool"], lab, idle.RESP)
    assert lab.done == ["up thread_pool", "down"]
    # It serves one client at a time.
    assert idle.measure(CATALOGUE, CATALOGUE["plain_socket"], lab, idle.RESP) is None
    assert lab.done == ["up thread_pool", "down"]


@pytest.mark.parametrize(("option", "part"), [([], "idle"), (["--websocket"], "websockets")])
def test_figures_are_written_into_the_part_of_the_dialect(
    option: list[str], part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "measured.json"
    file.write_text(json.dumps({part: {"other": {}}}))
    monkeypatch.setattr(idle, "MEASURED_FILE", file)
    monkeypatch.setattr(idle, "ROOT", tmp_path)
    monkeypatch.setattr(idle, "Processes", lambda *_: Lab())
    monkeypatch.setattr(idle, "hold", lambda *_: Idle(63, 1.0, 2.0, 3.0, "why"))
    monkeypatch.setenv("LAB_IDLE_SECONDS", "3600")
    arguments = ["idle", *option, "--backend", "process", "plain_socket", "thread_pool"]
    monkeypatch.setattr("sys.argv", arguments)
    idle.main()
    written = json.loads(file.read_text())
    assert written[part].keys() == {"other", "thread_pool"}
    assert written[f"{part}_environment"]["backend"] == "process"
    assert capsys.readouterr().out.splitlines()[-1] == "written to measured.json; `make docs` puts it into the page"


# forecast


def load(**changes: Any) -> Measurement:
    """Return a measurement of all that was due, with changes of its load."""
    return replace(MEASUREMENT, load=replace(MEASUREMENT.load, asked=10_000, **changes))


@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ({}, True),
        ({"answered": 9_800}, True),
        ({"answered": 9_799}, False),
        ({"failures": {"timed out": 1}}, False),
        ({"starved": 1}, False),
    ],
)
def test_load_is_served_if_98_per_cent_are_answered_and_nobody_is_left_out(
    changes: dict[str, Any], served: bool
) -> None:
    assert forecast.is_served(load(**changes)) == served


def test_load_without_a_rate_is_not_served() -> None:
    assert not forecast.is_served(MEASUREMENT)


ADVICE = Advice("m", True, 0.5, 0.25, 2, 1.0, 1, 0.0005, None, "its cores", "")


def make_outcome(advice: Advice = ADVICE, *found: Measurement) -> forecast.Outcome:
    return forecast.Outcome(advice, found or (load(),))


def use(cores: float | None, **changes: Any) -> Measurement:
    """Return a measurement whose p99 is 900 µs."""
    return replace(load(**changes), server=ServerUse(cpu_us=40.0, cores=cores))


def test_model_holds_a_load_that_it_serves_in_most_rounds() -> None:
    good, bad = load(), load(starved=1)
    assert make_outcome(ADVICE, good, bad, good).held
    assert not make_outcome(ADVICE, good, bad).held
    assert not make_outcome(ADVICE, bad, good, bad).held


def test_use_of_a_load_is_the_median_and_only_of_one_that_is_served() -> None:
    outcome = make_outcome(ADVICE, use(0.25), use(0.75), use(0.5), use(None))
    assert outcome.cores == 0.5
    assert outcome.p99 == pytest.approx(900e-6, rel=0.001)
    bad = make_outcome(ADVICE, use(0.25, starved=1))
    assert bad.cores is bad.p99 is None


def test_computing_costs_what_it_takes_beyond_a_ping() -> None:
    assert forecast.find_burn(2_040.0, 40.0) == 0.002
    for burn, ping in ((None, 40.0), (2_040.0, None), (40.0, 40.0)):
        with pytest.raises(LabError, match="cannot be read"):
            forecast.find_burn(burn, ping)


def test_computing_is_measured_before_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measure(backend: object, model: object, preset: Any, **_: object) -> Measurement:
        asked.append(preset.name)
        costs = {"closed_burn": 2_040.0, "closed_ping": 40.0}
        return replace(MEASUREMENT, server=ServerUse(cpu_us=costs[preset.name]))

    class Generator:
        def __init__(self, helpers: object) -> None:
            pass

        def __enter__(self) -> "Generator":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(forecast, "measure", measure)
    monkeypatch.setattr(forecast, "PersistentGenerator", Generator)
    backend: Any = SimpleNamespace(catalogue=CATALOGUE, helpers=None)
    assert forecast.measure_burn(backend, None) == 0.002
    assert asked == ["closed_burn", "closed_ping"]


def test_loads_that_compute_ask_for_half_a_core_and_for_more_than_one() -> None:
    loads = {item.name: item for item in forecast.list_loads(0.002)}
    assert (loads["compute, half a core"].rate, loads["compute, 1.5 cores"].rate) == (250.0, 750.0)
    assert {item.cpu for item in loads.values()} == {0.0, 0.002}


def test_totals_compare_what_came_with_what_was_said() -> None:
    # 0.25 of 2 cores were said; 1 core came. 0.5 ms were said; 0.9 ms came. A load that broke has no use.
    outcomes = {
        ("ping", "a"): make_outcome(ADVICE, use(1.0)),
        ("ping", "b"): make_outcome(replace(ADVICE, holds=False, response=None), use(0.5)),
        ("ping", "c"): make_outcome(replace(ADVICE, holds=False), use(0.5, starved=1)),
    }
    assert list(forecast.list_totals(outcomes)) == [
        "\nwhether it can serve the load: 2 of 3 as was said",
        "CPU, measured of what was said: 1.50 times, 80 % of them 1.00 to 2.00 (2)",
        "p99, measured of what was said: 1.80 times, 80 % of them 1.80 to 1.80 (1)",
    ]


def test_spread_leaves_out_a_tenth_at_each_end() -> None:
    assert forecast.show_spread([10, 1, 3, 2, 4, 5, 6, 7, 8, 9]) == "5.50 times, 80 % of them 2.00 to 9.00 (10)"
    assert forecast.show_spread([]) == "nothing to compare"


def test_line_of_a_model_marks_what_was_said_wrong() -> None:
    right, wrong = make_outcome(ADVICE, use(1.0)), make_outcome(ADVICE, use(0.5, starved=1))
    assert " ".join(forecast.show("m", right).split()) == "m yes 0.50 cores, p99 500 µs -> yes 1.00 cores p99 900 µs"
    assert " ".join(forecast.show("m", wrong).split()) == "! m yes 0.50 cores, p99 500 µs -> no p99 -"


# nogil


def run(rate: int, cpu_us: float | None = 40.0, bound: Limit = Limit.SERVER, cores: float | None = 1.0) -> Measurement:
    """Return a run of a second with this many answers."""
    return replace(
        MEASUREMENT,
        load=replace(MEASUREMENT.load, answered=rate),
        server=ServerUse(cpu_us=cpu_us, cores=cores),
        verdict=Verdict(bound, "why"),
    )


def pair(before: Sequence[Measurement], after: Sequence[Measurement]) -> nogil.Pair:
    return nogil.Pair("closed_burn", 2, {nogil.WITH: [*before], nogil.WITHOUT: [*after]})


def test_gain_is_the_rate_without_the_gil_to_that_with_it() -> None:
    found = pair([run(100, 30.0), run(300, 10.0), run(200, 20.0)], [run(500, 40.0), run(400, 60.0), run(900, 50.0)])
    assert [found.middle(name).answered for name in found.runs] == [200, 500]
    assert (found.gain, found.price) == ("x 2.50", "x 2.50")
    assert (found.cpu(nogil.WITH), found.cpu(nogil.WITHOUT)) == (20.0, 50.0)
    assert found.span(nogil.WITH) == "100 to 300"
    assert found.name == "closed_burn, 2 clients"


def test_lower_bound_of_the_one_gives_no_gain_and_of_the_other_a_lower_bound() -> None:
    bound, free = run(100, bound=Limit.GENERATOR), run(200)
    assert bound.verdict.is_lower_bound
    assert pair([bound], [free]).gain == UNKNOWN
    assert pair([free], [bound]).gain == "≥ x 0.50"


def test_cost_that_is_not_known_of_every_run_is_not_known() -> None:
    found = pair([run(1, None), run(1)], [run(1, cores=0.25), run(1, cores=0.75)])
    assert found.cpu(nogil.WITH) is None
    assert found.price == UNKNOWN
    assert found.cores(nogil.WITHOUT) == 0.5


def test_failures_of_any_run_give_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    good = run(100)
    bad = replace(good, load=replace(good.load, failures={"wrong bytes": 3}))
    assert nogil.report_failures([pair([good], [good])]) == 0
    assert capsys.readouterr().out == ""
    assert nogil.report_failures([pair([good], [good, bad])]) == 1
    assert "wrong bytes" in capsys.readouterr().out


def test_table_has_gain_and_price_beside_the_model_without_the_gil() -> None:
    table = nogil.make_table([pair([run(100, 20.0)], [run(250, 30.0, cores=1.5)])])
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns["load"] == ["closed_burn, 2 clients", ""]
    assert columns["threads"] == ["with the GIL", "without the GIL"]
    assert columns["rate"] == ["", "x 2.50"]
    assert columns["CPU"] == ["", "x 1.50"]
    assert columns["cores used"] == ["1.00", "1.50"]
    assert columns["lowest to highest"] == ["100 to 100", "250 to 250"]
