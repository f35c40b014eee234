"""What charts are drawn of: each figure in its place, with its unit. `tests/lab/report/charts` tests the drawing."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from lab.base.units import show_count, show_time, show_us
from lab.experiments.bench.baseline import Baseline
from lab.experiments.bench.findings import Findings, RowKey, read_findings
from lab.experiments.bench.plan import Plan
from lab.experiments.soak import MEGABYTE
from lab.load.measurement import Measurement
from lab.metrics.estimates import Change, Estimate
from lab.metrics.trend import Slope, Trend
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
        assert isinstance(title, str)
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
    # A tick at each level of the sweep; a rate from 0 on, and a p99 on a logarithmic axis though it is the same twice.
    for options, unit, is_log in (
        (drawn.options["session-saturation-rate"], "requests/s", False),
        (drawn.options["session-saturation-p99"], "p99", True),
    ):
        across, up = options["across"], options["up"]
        assert (across.title, across.low, across.high, across.ticks, across.is_log) == (
            "connections",
            4,
            16,
            (4, 16),
            True,
        )
        assert across.label(16) == "16"
        assert (up.title, up.is_log) == (f"{unit}; a ring marks the knee", is_log)
    assert drawn.options["session-memory"]["across"].ticks == (4, 16)
    assert drawn.options["session-memory"]["up"].title == "memory in MiB"
    axes = drawn.options["session-cost"]
    assert (axes["across"].title, axes["up"].title) == ("CPU µs per request", "p99, at 70% of each model's knee")
    # Every mark has the colour of the answer, and every tooltip and axis the unit of its figure.
    assert [[each.tone for each in data] for data in drawn.data.values()] == [[Tone.BLUE, Tone.ORANGE]] * 5
    assert tails[0].tip == "prefork: 900 µs at 4, 900 µs at 16; knee at 16 connections"
    assert memory[0].tip.startswith("prefork: 1.2 MiB at 4, 1.8 MiB at 16; ")
    assert [point.tip for point in drawn.data["session-cost"]] == [
        "prefork: 40.0 µs, p99 600 µs",
        "thread_pool: 100 µs, p99 1.80 ms",
    ]
    assert (axes["across"].label(40.0), axes["up"].label(1800.0)) == ("40", "1.8 ms")
    assert drawn.options["session-memory"]["up"].label(3.0) == "3"
    assert drawn.options["session-latency"]["show"] is show_time


@pytest.mark.parametrize(
    ("modes", "mode", "words"),
    [
        (("closed", "fixed", "open-50", "open-70"), "open-70", "at 70% of each model's knee"),
        (("closed", "open-50"), "open-50", "at 50% of each model's knee"),
        (("closed", "fixed"), "closed", "closed loop"),
        (("fixed", "open-90"), "closed", "closed loop"),
    ],
)
def test_latencies_are_those_of_the_best_mode_that_was_measured(
    tmp_path: Path, modes: tuple[str, ...], mode: str, words: str
) -> None:
    run = make_bench_run(tmp_path, {}, replace(PLAN, modes=modes))
    for each in (*modes, "closed"):
        key = f"round-1/session/prefork/{each}"
        if not run.has(key):
            run.keep(key, {"measurement": vary(MEASUREMENT, model="prefork").as_json()})
    run.keep(f"round-1/session/thread_pool/{mode}", {"failure": "it has ended"})
    rows, found = bench_charts.list_latencies(read_findings(run), "session")
    assert ([(row.model, row.mode) for row in rows], found) == ([("prefork", mode)], mode)
    assert bench_charts.describe_mode(found) == words


def test_costs_against_tails_are_those_at_the_fixed_rate(drawn: Drawn, tmp_path: Path) -> None:
    """Each the median of three rounds."""
    run = make_bench_run(tmp_path, {}, replace(PLAN, modes=("closed", "fixed"), rounds=3))
    for number, (tail, costs) in enumerate(((800.0, (70.0, 30.0)), (900.0, (75.0, 40.0)), (1200.0, (80.0, 60.0))), 1):
        for mode, cost in zip(("closed", "fixed"), costs, strict=True):
            histogram = ((100.0, 900), (tail, 100))
            found = vary(MEASUREMENT, model="prefork", server_cpu_us=cost, histogram=histogram)
            run.keep(f"round-{number}/session/prefork/{mode}", {"measurement": found.as_json()})
    findings = read_findings(run)
    bench_charts.draw_details(findings, "session", ANSWER)
    assert [(point.x, point.y) for point in drawn.data["session-cost"]] == [(40.0, 900.0)]
    bench_charts.draw_answer(findings, "session", ANSWER)
    assert [(row.low, row.middle, row.high) for row in drawn.data["session-cpu"]] == [(30.0, 40.0, 60.0)]


def test_changes_of_costs_are_those_of_both_modes_and_of_the_rate_those_at_full_speed(
    drawn: Drawn, tmp_path: Path
) -> None:
    plan = replace(PLAN, workloads=("ping", "session"), modes=("closed", "fixed"), control=None)
    found = []
    for name in ("before", "after"):
        run = make_bench_run(tmp_path / name, {}, plan)
        for workload in plan.workloads:
            for mode in plan.modes:
                kept = {"measurement": vary(MEASUREMENT, model="prefork").as_json()}
                run.keep(f"round-1/{workload}/prefork/{mode}", kept)
        found.append(read_findings(run))
    compare_page.draw_changes(*found)
    assert [row.group for row in drawn.data["cpu"]] == [
        *("ping, closed", "ping, fixed", "session, closed", "session, fixed")
    ]
    assert [row.group for row in drawn.data["rate"]] == ["ping, closed", "session, closed"]


def test_rate_is_on_an_axis_from_zero_however_much_it_rises(drawn: Drawn, tmp_path: Path) -> None:
    """From 100 to 10,000 requests/s; the model with one level has no memory of a connection."""
    run = make_bench_run(tmp_path, {}, PLAN)
    for model, levels in {"prefork": (4, 16, 64), "thread_pool": (4,)}.items():
        for users in levels:
            level = vary(MEASUREMENT, model=model, users=users, answered=100 if users == 4 else 10_000)
            run.keep(f"sweep/session/{model}/{users}", {"measurement": level.as_json()})
    bench_charts.draw_details(read_findings(run), "session", ANSWER)
    assert not drawn.options["session-saturation-rate"]["up"].is_log
    assert [line.points for line in drawn.data["session-saturation-rate"]] == [
        [(4, 100.0), (16, 10_000.0), (64, 10_000.0)],
        [(4, 100.0)],
    ]
    # The ring is where more connections gain nothing, and not at the last level.
    assert [line.marked for line in drawn.data["session-saturation-rate"]] == [(16,), (4,)]
    assert drawn.options["session-saturation-rate"]["across"].high == 64
    prefork, thread_pool = drawn.data["session-memory"]
    assert (prefork.tip, thread_pool.tip) == (
        "prefork: 15.0 MiB at 4, 15.0 MiB at 16, 15.0 MiB at 64; 0 KiB per connection",
        "thread_pool: 15.0 MiB at 4",
    )


def test_sweep_of_one_level_is_not_drawn(drawn: Drawn, tmp_path: Path) -> None:
    run = make_bench_run(tmp_path, {}, PLAN)
    run.keep("sweep/session/prefork/4", {"measurement": vary(MEASUREMENT, model="prefork", users=4).as_json()})
    bench_charts.draw_details(read_findings(run), "session", ANSWER)
    assert drawn.data == {}


def test_figures_without_a_control_have_no_noise(drawn: Drawn, tmp_path: Path) -> None:
    """At the fixed rate prefork costs 40 µs, and at full speed, where thread_pool alone was measured, 70."""
    run = make_bench_run(tmp_path, {}, replace(PLAN, control=None))
    for model, mode, rate, cost in (
        ("prefork", "closed", 900, 60.0),
        ("thread_pool", "closed", 800, None),
        ("prefork", "fixed", 100, 40.0),
        ("thread_pool", "fixed", 110, None),
        ("selector_loop", "fixed", 120, 50.0),
    ):
        found = vary(MEASUREMENT, model=model, answered=rate, server_cpu_us=cost)
        run.keep(f"round-1/session/{model}/{mode}", {"measurement": found.as_json()})
    bench_charts.draw_answer(read_findings(run), "session", ANSWER)
    assert [(row.name, row.low, row.middle, row.high, row.text, row.note) for row in drawn.data["session-cpu"]] == [
        ("prefork", 40.0, 40.0, 40.0, "40.0", "rank 1, 40.0"),
        ("selector_loop", 50.0, 50.0, 50.0, "50.0", "rank 2, 50.0"),
    ]
    assert drawn.titles["session-cpu"] == "CPU per request at 12.0k requests/s: less is better"
    assert drawn.titles["session-rate"] == "Requests/s: more is better"
    assert [(row.name, row.low) for row in drawn.data["session-rate"]] == [("prefork", 900.0), ("thread_pool", 800.0)]


def test_interval_that_noise_widens_ends_at_zero(drawn: Drawn, make_findings: Callable[..., Findings]) -> None:
    findings = make_findings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Findings, "noise", lambda self, figure: 1.5)
        bench_charts.draw_answer(findings, "session", ANSWER)
    cheap, dear = drawn.data["session-cpu"]
    # 40 and 100, 150 % to both sides.
    assert [(row.low, row.high) for row in (cheap, dear)] == [(0.0, about(100)), (0.0, about(250))]
    assert cheap.note == "ties for ranks 1 to 2, 40.0 [40.0 40.0]"


def test_charts_of_full_speed_say_so(drawn: Drawn, make_findings: Callable[..., Findings]) -> None:
    bench_charts.draw_answer(make_findings(), "session", ANSWER)
    assert drawn.titles["session-cpu"] == "CPU per request: less is better"


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


def change(model: str, before: float, after: float, *, is_beyond_noise: bool = True) -> compare_page.Changed:
    one, other = (Estimate(middle, middle, middle, 3) for middle in (before, after))
    found = Change(one, other, after / before, is_beyond_noise)
    return compare_page.Changed(RowKey("ping", model, "closed"), found, is_worse=after > before)


def test_changes_are_listed_from_the_largest_to_the_smallest(drawn: Drawn) -> None:
    found = [change("a", 10, 8), change("b", 10, 13), change("c", 10, 10, is_beyond_noise=False)]
    compare_page._draw("cpu", "CPU", found, 0.05)
    assert [(row.name, row.text, row.tone, row.group) for row in drawn.data["cpu"]] == [
        ("b", "+30%", Tone.ORANGE, "ping, closed"),
        ("c", "+0%", Tone.GREY, "ping, closed"),
        ("a", "-20%", Tone.BLUE, "ping, closed"),
    ]
    assert (drawn.options["cpu"]["axis"], drawn.options["cpu"]["band"]) == ("change in %", (-5.0, 5.0))
    assert [drawn.options["cpu"]["show"](value) for value in (0.0, 12.5, -3.0)] == ["0", "+12.5", "-3"]


def test_of_more_than_a_hundred_rows_only_changes_are_drawn(drawn: Drawn) -> None:
    rows = [change(f"m{number}", 10, 12, is_beyond_noise=number < 7) for number in range(101)]
    compare_page._draw("few", "", rows[:100], 0.0)
    compare_page._draw("many", "", rows, 0.0)
    assert (len(drawn.data["few"]), len(drawn.data["many"])) == (100, 7)
    assert {row.note for row in drawn.data["many"]} == {"beyond the noise"}


def test_noise_of_a_comparison_is_that_of_the_noisier_run(drawn: Drawn, make_findings: Callable[..., Findings]) -> None:
    """thread_pool costs 100 and 100 in both, and prefork 40 and 46: 15 % more, within a noise of 20 %."""
    before, after = make_findings(40.0, "before"), make_findings(46.0, "after")
    for noises, is_grey in (((0.2, 0.01), True), ((0.01, 0.2), True), ((0.01, 0.02), False)):
        drawn.data.clear()
        with pytest.MonkeyPatch.context() as patch:
            levels = {(id(before), "cpu_us"): noises[0], (id(after), "cpu_us"): noises[1]}
            patch.setattr(Findings, "noise", lambda self, figure, levels=levels: levels.get((id(self), figure)))
            compare_page.draw_changes(before, after)
        row = next(row for row in drawn.data["cpu"] if row.name == "prefork")
        assert (row.tone is Tone.GREY) is is_grey
        assert drawn.options["cpu"]["band"] == (about(-100 * max(noises)), about(100 * max(noises)))


def test_figure_that_one_run_lacks_is_not_compared(drawn: Drawn, make_findings: Callable[..., Findings]) -> None:
    before, after = make_findings(40.0, "before"), make_findings(40.0, "after")
    rows = {key: replace(row, found={}) if key.model == "thread_pool" else row for key, row in after.rows.items()}
    lacking = replace(after, rows=rows)
    for pair in ((before, lacking), (lacking, before)):
        compare_page.draw_changes(*pair)
        assert {row.name for row in drawn.data["cpu"]} == {"prefork"}
    known = {key: row for key, row in after.rows.items() if key.model != "thread_pool"}
    compare_page.draw_changes(before, replace(after, rows=known))
    assert {row.name for row in drawn.data["cpu"]} == {"prefork"}


def test_baseline_shows_models_that_became_dearer_than_the_reference(
    drawn: Drawn, make_findings: Callable[..., Findings]
) -> None:
    """Relative to prefork, thread_pool cost 100 / 40 = 2.5, and costs 100 / 50 = 2 now, or 100 / 25 = 4."""
    for cost, text, tone in ((50.0, "-20%", Tone.BLUE), (25.0, "+60%", Tone.ORANGE)):
        was = Baseline.of(make_findings(40.0, f"was-{cost}"))
        drawn.data.clear()
        compare_page.draw_baseline(was, make_findings(cost, f"now-{cost}"))
        rows = [row for row in drawn.data["cpu"] if row.name == "thread_pool"]
        assert rows
        assert {(row.text, row.tone) for row in rows} == {(text, tone)}
    noisy = make_findings(50.0, "noisy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Findings, "noise", lambda self, figure: {"cpu_us": 0.3}.get(figure))
        compare_page.draw_baseline(was, noisy)
        assert {row.tone for row in drawn.data["cpu"]} == {Tone.GREY}
        patch.setattr(Findings, "noise", lambda self, figure: None)
        compare_page.draw_baseline(was, noisy)
        assert drawn.options["cpu"]["band"] == (0.0, 0.0)


def test_page_of_a_comparison_has_its_result_first() -> None:
    sentences = ["prefork: CPU +12%", "1 figure changed"]
    chart = Chart("cpu", "CPU per request", "", 1, Margins(0, 0, 0, 0), Markup())
    text = compare_page.render("one", "two", [chart], sentences, {"system": "Linux 6"})
    assert "<h1>What changed from one to two?</h1>" in text
    assert "<b>1 figure changed</b>" in text
    assert "<li>prefork: CPU +12%</li>" in text
    assert "CPU per request" in text
    assert "Linux 6" in text


def test_interval_of_a_change_is_between_the_furthest_ends() -> None:
    change = Change(Estimate(10.0, 8.0, 16.0, 3), Estimate(20.0, 16.0, 24.0, 3), 2.0, is_beyond_noise=True)
    (row,) = compare_page._make_rows([compare_page.Changed(RowKey("ping", "a", "closed"), change, is_worse=True)])
    # From 16 / 16 to 24 / 8, in per cent more.
    assert (row.low, row.middle, row.high) == (0.0, 100.0, 200.0)
    # From 9 / 16 to 13 / 8: neither of the two is at an end of its axis.
    change = Change(Estimate(10.0, 8.0, 16.0, 3), Estimate(11.0, 9.0, 13.0, 3), 1.1, is_beyond_noise=False)
    (row,) = compare_page._make_rows([compare_page.Changed(RowKey("ping", "a", "closed"), change, is_worse=True)])
    assert (row.low, row.middle, row.high) == (about(-43.75), about(10.0), about(62.5))


def test_change_from_a_lower_bound_or_to_one_has_an_open_interval() -> None:
    def read(before: Estimate, after: Estimate) -> tuple[float, float]:
        found = Change(before, after, after.middle / before.middle, is_beyond_noise=False)
        (row,) = compare_page._make_rows([compare_page.Changed(RowKey("ping", "a", "closed"), found, is_worse=False)])
        return row.low, row.high

    known, bound = Estimate(10.0, 8.0, 12.5, 3), Estimate(20.0, 15.0, math.inf, 3)
    # From 8 / 20, as nothing is known of how much the first may be, to 12.5 / 15.
    assert read(bound, known) == (about(-50.0), about(-100 / 6))
    assert read(known, bound) == (about(20.0), math.inf)
    # Up to 12.5 / 0.5.
    assert read(replace(known, low=0.5), known)[1] == about(2400.0)
    # What was 0 at its lowest may be any multiple.
    assert read(replace(known, low=0.0), known) == (about(-36.0), 0.0)


def make_load(model: str, **changes: object) -> Measurement:
    series = ((1.0, 10.0, 2**20, 1, 1, 9), (2.0, 10.5, 2**21, 1, 1, 9), (4.0, 12.5, 3 * 2**20, 1, 1, 9))
    return vary(MEASUREMENT, model=model, series=series, **changes)


def test_charts_of_a_load(drawn: Drawn) -> None:
    found = [
        make_load("prefork", answered=7_000),
        # It has answered nothing in time, and its time-outs are times.
        make_load("thread_pool", answered=0, histogram=((5e6, 90),), verdict=Verdict(Limit.FAILED, "no reply")),
    ]
    costs = {"prefork": Estimate(40.0, 30.0, 60.0, 3), "thread_pool": Estimate(400.0, 390.0, 400.0, 3)}
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
    assert [(point.x, point.y, point.tone, point.tip) for point in drawn.data["cost"]] == [
        (40.0, 900.0, Tone.BLUE, "prefork: 40.0 µs per request, p99 900 µs"),
        (400.0, 5e6, Tone.ORANGE, "thread_pool: 400 µs per request, p99 5.00 s"),
    ]
    across, up = drawn.options["cost"]["across"], drawn.options["cost"]["up"]
    assert (across.low <= 40.0, across.high >= 400.0, across.label(4e3)) == (True, True, "4\u202f000")
    assert (up.low <= 900.0, up.high >= 5e6, up.label(900.0)) == (True, True, "900 µs")
    assert [line.tone for name in ("cores", "memory") for line in drawn.data[name]] == [Tone.BLUE, Tone.ORANGE] * 2
    # 0.5 s of CPU in the second before 2, 2 s in the two before 4.
    assert drawn.data["cores"][0].points == [(2.0, 0.5), (4.0, 1.0)]
    assert drawn.data["memory"][0].points == [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)]


def test_measurement_without_a_response_time_has_no_distribution(drawn: Drawn) -> None:
    found = [make_load("prefork"), make_load("silent", answered=0, histogram=())]
    list(measurement_charts.Comparison(found, {}, {}).draw_latency())
    assert [each.name for each in drawn.data["latency"]] == ["prefork"]


def test_distribution_of_an_open_loop_counts_from_when_a_request_was_due(drawn: Drawn) -> None:
    found = [make_load("prefork", histogram=((2000.0, 10),), service=((100.0, 10),))]
    list(measurement_charts.Comparison(found, {}, {}).draw_latency())
    assert drawn.data["latency"][0].times[0.5] == 2000.0


def test_axes_over_time_start_at_zero_but_that_of_memory(drawn: Drawn) -> None:
    """From 1 to 100 s, at 0.1 and then 4 cores, with 1 and then 100 MiB: an axis that may be logarithmic is."""
    series = ((1.0, 10.0, 2**20, 1, 1, 9), (10.0, 10.9, 2**20, 1, 1, 9), (100.0, 370.9, 100 * 2**20, 1, 1, 9))
    measured = vary(MEASUREMENT, model="prefork", series=series)
    list(measurement_charts.Comparison.of([measured]).draw_course())
    cores, memory = drawn.options["cores"], drawn.options["memory"]
    assert (cores["across"].title, cores["across"].low, cores["across"].is_log) == ("seconds", 0.0, False)
    assert (cores["up"].title, cores["up"].low, cores["up"].is_log) == ("cores", 0.0, False)
    assert (memory["up"].title, memory["up"].is_log) == ("memory in MiB", True)
    assert [line.tip for name in ("cores", "memory") for line in drawn.data[name]] == [
        "prefork: 0.10 to 4.00",
        "prefork: 1 to 100",
    ]
    assert not drawn.data["cores"][0].has_dots


def test_course_leaves_out_unknown_readings_and_models_with_one(drawn: Drawn) -> None:
    # The second has no CPU time, the third no time; the fourth is of the same moment as the one before.
    series = ((1.0, 1.0, 2**20), (2.0, None, 2**21), (None, 3.0, None), (4.0, 4.0, None), (4.0, 4.5, 2**22))
    course = tuple((*row, 1, 1, 9) for row in series)
    found = [vary(MEASUREMENT, model="prefork", series=course), vary(MEASUREMENT, model="once", series=course[:1])]
    list(measurement_charts.Comparison.of(found).draw_course())
    assert [(line.name, line.points) for line in drawn.data["memory"]] == [
        ("prefork", [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)])
    ]
    # 3 s of CPU in 3 s: one point makes no line.
    assert "cores" not in drawn.data


def test_figures_of_single_measurements(drawn: Drawn) -> None:
    costs: dict[str, float | None] = {"prefork": 40.0, "thread_pool": 130.0, "echo": None}
    found = [
        vary(MEASUREMENT, model=name, family=f"of {name}", answered=1000 * number, server_cpu_us=cost)
        for number, (name, cost) in enumerate(costs.items(), 1)
    ]
    found[1] = replace(found[1], verdict=Verdict(Limit.GENERATOR, "it was"))
    compared = measurement_charts.Comparison.of(found)
    assert compared.costs == {"prefork": Estimate(40, 40, 40, 1), "thread_pool": Estimate(130, 130, 130, 1)}
    list(compared.draw_figures())
    assert [(row.name, row.middle, row.text, row.note, row.tone, row.group) for row in drawn.data["cpu"]] == [
        ("prefork", 40.0, "40.0", "40.0, server-bound", Tone.BLUE, "of prefork"),
        ("thread_pool", 130.0, "130", "130, generator-bound", Tone.ORANGE, "of thread_pool"),
    ]
    # The generator was the limit of the second: the server could have done more.
    assert [(row.name, row.middle, row.low, row.high, row.text) for row in drawn.data["rate"]] == [
        ("prefork", 1000.0, 1000.0, 1000.0, "1.00k"),
        ("thread_pool", 2000.0, 2000.0, math.inf, "≥ 2.00k"),
        ("echo", 3000.0, 3000.0, 3000.0, "3.00k"),
    ]
    assert (drawn.options["cpu"]["axis"], drawn.options["rate"]["axis"]) == ("CPU µs per request", "requests/s")
    assert (drawn.options["cpu"]["show"], drawn.options["rate"]["show"]) == (show_us, show_count)


def test_figures_of_repeated_measurements_have_their_interval_in_the_tooltip(drawn: Drawn) -> None:
    costs = {MEASUREMENT.model: Estimate(40.0, 35.0, 45.0, 3)}
    list(measurement_charts.Comparison([MEASUREMENT], costs, {}).draw_figures())
    (row,) = drawn.data["cpu"]
    assert (row.low, row.middle, row.high) == (35.0, 40.0, 45.0)
    assert (row.text, row.note) == ("40.0", "40.0 [35.0 45.0], server-bound")
    assert "rate" not in drawn.data


def test_costs_of_two_rounds_or_more_differ_if_their_intervals_do() -> None:
    """24 instead of 20: of single windows, this would be no difference."""
    found = [vary(MEASUREMENT, model=name) for name in ("prefork", "thread_pool")]
    for repeats, tone in ((1, Tone.BLUE), (2, Tone.ORANGE), (3, Tone.ORANGE)):
        costs = {item.model: Estimate(x, x, x, repeats) for item, x in zip(found, (20.0, 24.0), strict=True)}
        assert measurement_charts.Comparison(found, costs, {}).tones["thread_pool"] is tone


def test_picture_of_a_fault_under_load(drawn: Drawn, tmp_path: Path) -> None:
    (each,) = make_outcome(tmp_path).seen
    faults_page.draw_probe(each, "probe-1")
    tail, usual = drawn.data["probe-1"]
    # Each second is drawn at its middle; nothing was answered in the last one.
    assert (tail.name, tail.points) == ("p99", [(-0.5, 0.002), (0.5, 0.48), (1.5, None)])
    assert (usual.name, usual.points) == ("p50", [(-0.5, 0.001), (0.5, 0.2), (1.5, None)])
    assert (tail.tone, usual.tone) == (Tone.BLUE, Tone.GREY)
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
    assert not drawn.options["memory"]["events"].are_faults
    assert memory.tip == "plain_socket: 20 MB first, 20.9 MB last"
    assert descriptors.tip == "plain_socket: 26 descriptors first, 29 descriptors last"
    assert not memory.has_dots
    assert not descriptors.has_dots


def test_soak_of_two_models_is_drawn_in_the_units_of_its_axes(drawn: Drawn) -> None:
    """One of 30 readings, and one of 60: the shaded interval is that of the first to end its warm-up."""
    found = [make_soak("prefork", 30_000.0, 60), make_soak("plain_socket", 60_000.0)]
    list(soak_page.draw_growth(found, 2 * MEGABYTE))
    list(soak_page.draw_memory(found))
    slow, fast = drawn.data["growth"]
    assert (fast.middle, fast.text) == (about(21.6), "+21.60")
    drawn.data.clear()
    # Memory that is flat is drawn as such, though descriptors grow; the model as a whole is not flat.
    leaking = replace(found[0], growth={**found[0].growth, "memory": Trend.FLAT, "descriptors": Trend.GROWS})
    list(soak_page.draw_growth([leaking], MEGABYTE))
    list(soak_page.draw_memory([leaking]))
    list(soak_page.draw_counts([leaking]))
    tones = {name: [each.tone for each in data] for name, data in drawn.data.items()}
    assert tones == {"growth": [Tone.BLUE], "memory": [Tone.ORANGE], "descriptors": [Tone.ORANGE]}
    drawn.data.clear()
    list(soak_page.draw_growth(found, 2 * MEGABYTE))
    list(soak_page.draw_memory(found))
    assert (slow.note, fast.note) == ("+10.80 to +10.80 MB/h, grows", "+21.60 to +21.60 MB/h, grows")
    assert drawn.titles["growth"] == "Growth of memory; the band ends at the limit of 2 MB per hour"
    assert (drawn.options["growth"]["axis"], drawn.options["growth"]["band"]) == ("MB per hour", (0.0, 2.0))
    memory = drawn.options["memory"]
    assert memory["events"].shades == [(0.0, about(100 / 60), "warm-up")]
    assert (memory["across"].title, memory["up"].title) == ("minutes", "MB")
    # 590 s, which is more than eight times the first 10; its axis starts at 0.
    assert (memory["across"].low, memory["across"].is_log) == (0.0, False)


def test_interval_of_a_growth_is_in_megabytes(drawn: Drawn) -> None:
    found = replace(make_soak("prefork", 30_000.0), memory=Slope(3e6, -1e6, 5e6))
    list(soak_page.draw_growth([found], MEGABYTE))
    (row,) = drawn.data["growth"]
    assert (row.middle, row.low, row.high, row.text) == (3.0, -1.0, 5.0, "+3.00")
    assert row.note == "-1.00 to +5.00 MB/h, grows"
    # Shrinking is no leak: the band reaches to the lowest end.
    assert drawn.options["growth"]["band"] == (-1.0, 1.0)
    drawn.data.clear()
    list(soak_page.draw_growth([replace(found, memory=None)], MEGABYTE))
    assert drawn.data == {}


def test_count_that_is_not_known_for_a_while_has_not_changed(drawn: Drawn) -> None:
    flat = make_soak("prefork", 0.0)
    unread = replace(flat.readings[-3], threads=None, memory_bytes=None)
    found = replace(flat, readings=(*flat.readings[:-3], unread, *flat.readings[-2:]))
    list(soak_page.draw_counts([found]))
    assert drawn.data == {}
    # One that has, and was not known, has a gap.
    more = replace(found, readings=(*found.readings[:-1], replace(flat.readings[-1], threads=2)))
    list(soak_page.draw_counts([more]))
    (threads,) = drawn.data["threads"]
    assert threads.points[-4:] == [(about(260 / 60), 1), (4.5, None), (about(280 / 60), 1), (about(290 / 60), 2)]
    list(soak_page.draw_memory([more]))
    assert [value for _, value in drawn.data["memory"][0].points[-4:]] == [20.0, None, 20.0, 20.0]
