"""What charts are drawn of: each figure in its place, with its unit. `tests/lab/report/charts` tests the drawing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from lab.base.units import show_time, show_us
from lab.experiments.bench.findings import Findings, RowKey, read_findings
from lab.experiments.bench.plan import Plan
from lab.experiments.soak import MEGABYTE
from lab.load.measurement import Measurement
from lab.metrics.estimates import Change, Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.report import bench_charts, compare_page, faults_page, measurement_charts, soak_page
from lab.report.bench_answer import Answer
from lab.report.charts.chart import Chart, Margins
from lab.report.charts.lines import SHARES
from lab.report.charts.palette import Tone
from tests.support.approx import about
from tests.support.made_up import MEASUREMENT, vary
from tests.support.made_up_runs import make_bench_run, make_outcome, make_soak

_DRAWING = ("draw_intervals", "draw_lines", "draw_percentiles", "draw_scatter")


class Drawn:
    """The arguments of each chart by its name."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.options: dict[str, dict[str, Any]] = {}
        self.titles: dict[str, str] = {}

    def draw(self, name: str, title: str, data: object, **options: object) -> Chart:
        self.data[name], self.titles[name], self.options[name] = data, title, options
        return Chart(name, title, "", 1, Margins(0, 0, 0, 0), Markup())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    found = Drawn()
    for module in (bench_charts, compare_page, faults_page, measurement_charts, soak_page):
        for name in _DRAWING:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, found.draw)
    return found


PLAN = Plan(
    ("prefork", "thread_pool"), ("session",), (), (4, 16), ("closed", "open-70"), 2, 1.0, 0.0, 1, "prefork", None
)
ANSWER = Answer(best=("prefork",), worst="thread_pool")


@pytest.fixture
def make_findings(tmp_path: Path) -> Callable[..., Findings]:
    """Make a run of two models; the control server of the first one costs 10 % more than it."""

    def make(cost: float = 40.0, name: str = "run") -> Findings:
        run = make_bench_run(tmp_path / name, {}, PLAN)
        costs = {"prefork": cost, "control-prefork": cost * 1.1, "thread_pool": 100.0}
        for number, (model, each) in enumerate(costs.items(), 1):
            for users in PLAN.levels if not model.startswith("control") else ():
                memory = number * 2**20 + users * 50 * 1024
                level = vary(MEASUREMENT, users=users, answered=100 * users, memory_bytes=memory, model=model)
                run.keep(f"sweep/session/{model}/{users}", {"measurement": level.as_json()})
            for mode, tail in (("closed", 800.0), ("open-70", 600.0)):
                for number_of_round in (1, 2):
                    found = vary(
                        MEASUREMENT,
                        model=model,
                        answered=1000 * number,
                        server_cpu_us=each,
                        histogram=((100.0, 900), (tail * number, 100)),
                    )
                    run.keep(f"round-{number_of_round}/session/{model}/{mode}", {"measurement": found.as_json()})
        return read_findings(run)

    return make


def test_intervals_of_a_bench_have_its_noise(drawn: Drawn, make_findings: Callable[..., Findings]) -> None:
    bench_charts.draw_answer(make_findings(), "session", ANSWER)
    cheap, dear = drawn.data["session-cpu"]
    # The noise is the difference of 40 and 44 relative to their middle: 4 / 42.
    noise = 4 / 42
    assert (cheap.name, cheap.middle, cheap.low, cheap.high) == (
        "prefork",
        40.0,
        about(40 * (1 - noise)),
        about(40 * (1 + noise)),
    )
    assert (dear.name, dear.middle, dear.low, dear.high) == (
        "thread_pool",
        100.0,
        about(100 * (1 - noise)),
        about(100 * (1 + noise)),
    )
    assert [each.tone for each in (cheap, dear)] == [Tone.BLUE, Tone.ORANGE]
    assert drawn.options["session-cpu"] == {
        "axis": "CPU µs per request",
        "show": show_us,
        "band": (cheap.low, cheap.high),
    }
    # The rates are 1000 and 3000, the best first.
    assert [(each.name, each.middle) for each in drawn.data["session-rate"]] == [
        ("thread_pool", 3000.0),
        ("prefork", 1000.0),
    ]


def test_details_of_a_bench(drawn: Drawn, make_findings: Callable[..., Findings]) -> None:
    bench_charts.draw_details(make_findings(), "session", ANSWER)
    assert set(drawn.data) == {
        f"session-{name}" for name in ("saturation-rate", "saturation-p99", "latency", "cost", "memory")
    }
    rates, tails = drawn.data["session-saturation-rate"], drawn.data["session-saturation-p99"]
    assert [(line.name, line.points) for line in rates] == [
        (name, [(4, 400.0), (16, 1600.0)]) for name in ("prefork", "thread_pool")
    ]
    assert [line.marked for line in rates] == [(16,), (16,)]
    assert [line.points for line in tails] == [[(4, 900.0), (16, 900.0)]] * 2
    # Of 1 MiB and of 3 MiB, each connection 50 KiB more.
    memory = drawn.data["session-memory"]
    assert [line.points for line in memory] == [
        [(4, 1 + 200 / 1024), (16, 1 + 800 / 1024)],
        [(4, 3 + 200 / 1024), (16, 3 + 800 / 1024)],
    ]
    assert [line.tip.split("; ")[1] for line in memory] == ["50 KiB per connection"] * 2
    # In an open loop at 70 % of the knee, over both rounds.
    assert drawn.titles["session-latency"] == "Latency distribution, at 70% of each model's knee"
    latencies = drawn.data["session-latency"]
    assert [(each.name, each.count, each.times[0.5], each.times[0.99]) for each in latencies] == [
        ("prefork", 2000, 100.0, 600.0),
        ("thread_pool", 6000, 100.0, 1800.0),
    ]
    assert [(point.name, point.x, point.y) for point in drawn.data["session-cost"]] == [
        ("prefork", 40.0, 600.0),
        ("thread_pool", 100.0, 1800.0),
    ]
    axes = drawn.options["session-cost"]
    assert (axes["across"].title, axes["up"].title) == ("CPU µs per request", "p99, at 70% of each model's knee")


def test_changes_between_two_benches(drawn: Drawn, make_findings: Callable[..., Findings]) -> None:
    before, after = make_findings(40.0, "before"), make_findings(60.0, "after")
    compare_page.draw_changes(before, after)
    (same, dearer) = sorted(drawn.data["cpu"][:2], key=lambda row: float(row.middle))
    assert (same.name, same.middle, same.tone) == ("thread_pool", 0.0, Tone.GREY)
    # 60 instead of 40: 50 % more, and more is worse.
    assert (dearer.name, dearer.middle, dearer.text, dearer.tone) == ("prefork", about(50.0), "+50%", Tone.ORANGE)
    assert (dearer.note, same.note) == ("beyond the noise", "no difference beyond the noise")
    assert drawn.options["cpu"]["band"] == (about(-400 / 42), about(400 / 42))
    drawn.data.clear()
    compare_page.draw_changes(after, before)
    (cheaper,) = [row for row in drawn.data["cpu"] if row.middle and row.group == "session, closed"]
    assert (cheaper.middle, cheaper.tone) == (about(-100 / 3), Tone.BLUE)


def test_interval_of_a_change_is_between_the_furthest_ends() -> None:
    change = Change(Estimate(10.0, 8.0, 16.0, 3), Estimate(20.0, 16.0, 24.0, 3), 2.0, is_beyond_noise=True)
    (row,) = compare_page._make_rows([compare_page.Changed(RowKey("ping", "a", "closed"), change, is_worse=True)])
    # From 16 / 16 to 24 / 8, in per cent more.
    assert (row.low, row.middle, row.high) == (0.0, 100.0, 200.0)


def make_load(model: str, **changes: object) -> Measurement:
    series = ((1.0, 10.0, 2**20, 1, 1, 9), (2.0, 10.5, 2**21, 1, 1, 9), (4.0, 12.5, 3 * 2**20, 1, 1, 9))
    return vary(MEASUREMENT, model=model, series=series, **changes)


def test_charts_of_a_load(drawn: Drawn) -> None:
    found = [
        make_load("prefork", answered=7_000),
        # It has answered nothing in time, and its time-outs are times.
        make_load("thread_pool", answered=0, histogram=((5e6, 90),), verdict=Verdict(Limit.FAILED, "no reply")),
    ]
    costs = {"prefork": Estimate(40.0, 40.0, 40.0, 1), "thread_pool": Estimate(400.0, 400.0, 400.0, 1)}
    compared = measurement_charts.Comparison(found, costs, {})
    for draw in (compared.draw_latency, compared.draw_costs, compared.draw_course):
        list(draw())
    assert [(each.name, each.tone, each.count) for each in drawn.data["latency"]] == [
        ("prefork", Tone.BLUE, 7_000),
        ("thread_pool", Tone.ORANGE, 0),
    ]
    assert list(drawn.data["latency"][0].times) == list(SHARES)
    assert drawn.data["latency"][1].times[0.5] == 5e6
    assert drawn.options["latency"]["show"] is show_time
    assert [(point.x, point.y) for point in drawn.data["cost"]] == [(40.0, 900.0), (400.0, 5e6)]
    # 0.5 s of CPU in the second before 2, 2 s in the two before 4.
    assert drawn.data["cores"][0].points == [(2.0, 0.5), (4.0, 1.0)]
    assert drawn.data["memory"][0].points == [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)]


def test_picture_of_a_fault_under_load(drawn: Drawn, tmp_path: Path) -> None:
    (each,) = make_outcome(tmp_path).seen
    faults_page.draw_probe(each, "probe-1")
    tail, usual = drawn.data["probe-1"]
    # Each second is drawn at its middle; nothing was answered in the last one.
    assert (tail.name, tail.points) == ("p99", [(-0.5, 0.002), (0.5, 0.48), (1.5, None)])
    assert (usual.name, usual.points) == ("p50", [(-0.5, 0.001), (0.5, 0.2), (1.5, None)])
    options = drawn.options["probe-1"]
    assert (options["across"].low, options["across"].high) == (-1, 2)
    assert options["events"].shades == [(0.0, 0.5, "pause, 500 ms")]
    assert options["events"].crosses == [(0.5, "second 0: 3 failed"), (1.5, "second 1: 4 failed")]


def test_charts_of_a_soak_are_in_minutes_and_megabytes(drawn: Drawn) -> None:
    found = make_soak("plain_socket", 30_000.0)
    list(soak_page.draw_growth([found], MEGABYTE))
    list(soak_page.draw_memory([found]))
    list(soak_page.draw_counts([found]))
    (row,) = drawn.data["growth"]
    # 30 kB in 10 s are 10.8 MB per hour.
    assert (row.low, row.middle, row.high) == (about(10.8), about(10.8), about(10.8))
    assert drawn.options["growth"]["band"] == (0.0, 1.0)
    (memory,), (descriptors,) = drawn.data["memory"], drawn.data["descriptors"]
    # The readings are 10 s apart.
    assert [memory.points[number] for number in (0, 6)] == [(0.0, 20.0), (1.0, 20.18)]
    assert [descriptors.points[number] for number in (0, 6, 12)] == [(0.0, 26), (1.0, 26), (2.0, 27)]
    # A third of thirty readings.
    assert drawn.options["memory"]["events"].shades == [(0.0, about(100 / 60), "warm-up")]
