"""The answer of a benchmark: the best models, the worst one, and why; and the charts that show it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lab.experiments.bench.findings import Findings, Row, RowKey, read_findings
from lab.experiments.bench.plan import WORKLOADS, name_control
from lab.metrics.estimates import Estimate, rank
from lab.metrics.verdict import Limit, Verdict
from lab.report import bench_page
from lab.report.bench_answer import Answer, _choose_best, _choose_worst, _explain_worst, find_answer
from lab.report.bench_charts import draw_answer, draw_details
from lab.report.bench_export import render_charts
from lab.report.bench_text import make_answers, render_markdown
from lab.report.charts.palette import Tone
from tests.support.chart_reading import read_chart, read_svg
from tests.support.made_up import MEASUREMENT, vary
from tests.support.made_up_runs import PLAN, make_bench_run


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return read_findings(make_bench_run(tmp_path))


def test_answer_is_the_cheapest_of_the_fastest_and_the_one_far_behind(findings: Findings) -> None:
    """By cost: asyncio_streams 80, thread_pool 90, plain_socket 100. By rate: 9,000, 11,001 and 52."""
    answer = find_answer(findings, "session")
    assert (answer.best, answer.worst) == (("thread_pool",), "plain_socket")
    assert answer.why_best == "highest rate; least CPU per request: asyncio_streams"
    assert answer.why_worst == "0.47% of the best rate (one line)"
    assert [answer.tone(name) for name in ("thread_pool", "plain_socket", "asyncio_streams")] == list(Tone)


def test_answer_is_the_one_that_is_fastest_and_cheapest(tmp_path: Path) -> None:
    rates = {"asyncio_streams": 11_000, "thread_pool": 9_000, "plain_socket": 8_000}
    plan = replace(PLAN, models=tuple(rates))
    answer = find_answer(read_findings(make_bench_run(tmp_path, rates, plan)), "session")
    assert (answer.best, answer.why_best) == (("asyncio_streams",), "none is measurably faster, none cheaper")
    # None is far behind in rate, and none costs half as much again.
    assert (answer.worst, answer.why_worst) == ("", "")


def test_worst_is_the_expensive_one_where_all_are_equally_fast(tmp_path: Path) -> None:
    """Each makes 11,000 requests/s; the costs are 80, 90, 100, 110 and 120."""
    names = ("asyncio_streams", "thread_pool", "plain_socket", "prefork", "selector_loop")
    rates = {name: 11_000 - number for number, name in enumerate(names)}
    answer = find_answer(read_findings(make_bench_run(tmp_path, rates, replace(PLAN, models=names))), "session")
    assert (answer.best, answer.worst) == (("asyncio_streams",), "selector_loop")
    assert answer.why_worst == "1.5 times the least CPU per request (one line)"


@pytest.mark.parametrize(("rate", "best"), [(5_500, "plain_socket"), (5_499, "thread_pool")])
def test_lower_bound_below_half_of_the_best_rate_is_not_recommended(tmp_path: Path, rate: int, best: str) -> None:
    """The best is thread_pool with 10,999 + 1; plain_socket may reach more than its lower bound, and is cheapest.

    These are the medians: one round was slower by 100, and one faster.
    """
    rates = {"plain_socket": rate, "thread_pool": 10_999, "asyncio_streams": 9_000}
    findings = read_findings(make_bench_run(tmp_path, rates, replace(PLAN, models=tuple(rates))))
    bound = Verdict(Limit.GENERATOR, "the generator used 99% of its core")
    rows = {
        key: replace(
            row,
            found={
                number: vary(
                    item,
                    answered=item.answered + 100 * (number - 2),
                    verdict=bound if key.model == "plain_socket" else item.verdict,
                )
                for number, item in row.found.items()
            },
        )
        for key, row in findings.rows.items()
    }
    varied = replace(findings, rows=rows)
    assert find_answer(varied, "session").best == (best,)
    said = [advice.text for advice in make_answers(varied, "session") if advice.kind == "best"]
    assert said == ["Best: plain_socket (no model is measurably faster or cheaper)."] * (best == "plain_socket")


def test_model_with_failures_is_the_worst_and_not_the_best(tmp_path: Path) -> None:
    """asyncio_streams is the fastest and the cheapest; 330 of its 33,330 requests failed."""
    rates = {"asyncio_streams": 11_000, "thread_pool": 9_000, "plain_socket": 8_000}
    findings = read_findings(make_bench_run(tmp_path, rates, replace(PLAN, models=tuple(rates))))
    key = RowKey("session", "asyncio_streams", "closed")
    row = findings.rows[key]
    failing = replace(row, found={**row.found, 2: vary(row.found[2], failures={"timeout": 330})})
    answer = find_answer(replace(findings, rows={**findings.rows, key: failing}), "session")
    assert (answer.best, answer.why_best) == (("thread_pool",), "none is measurably faster, none cheaper")
    assert (answer.worst, answer.why_worst) == ("asyncio_streams", "0.99% of its requests failed: timeout")


def make_rows(failures: Mapping[str, int] | None = None, names: str = "abcd") -> list[Row]:
    """Return a row with 10,000 replies for each name, and so many failures."""
    found = {
        name: vary(MEASUREMENT, failures={"timeout": count} if (count := (failures or {}).get(name)) else {})
        for name in names
    }
    return [Row("session", name, "closed", (), {1: item}, ()) for name, item in found.items()]


def make_estimates(*middles: float) -> dict[str, Estimate]:
    """Return estimates of 5 % to both sides for a, b, c and so on."""
    return {
        name: Estimate(middle, middle * 0.95, middle * 1.05, 3) for name, middle in zip("abcd", middles, strict=False)
    }


def choose_worst(rows: list[Row], good: str, rates: dict[str, Estimate], costs: dict[str, Estimate]) -> str | None:
    found = _choose_worst(rows, good, rates, costs, rank(costs, higher_is_better=False))
    return found.model if found else None


def test_best_are_in_both_first_places_or_the_cheapest_of_the_fastest() -> None:
    ranks = {"a": (1, 2), "b": (1, 2), "c": (3, 3), "d": (4, 4)}
    assert _choose_best("bc", "ab", ranks) == (("b",), "none is measurably faster, none cheaper")
    assert _choose_best("ba", "ab", ranks)[0] == ("a", "b")
    assert _choose_best("dc", "ab", ranks) == (("c",), "highest rate; least CPU per request: a, b")
    # Without a cost, all of the fastest.
    assert _choose_best("xy", "", {}) == (("x", "y"), "highest rate; least CPU per request: not known")
    assert _choose_best("", "ab", ranks) == ((), "")
    # The best rank that each may have: d has the narrower interval.
    assert _choose_best("cd", "ab", {"a": (1, 2), "b": (1, 2), "c": (2, 4), "d": (3, 3)})[0] == ("c",)


def test_worst_has_the_largest_share_of_failures() -> None:
    rates, costs = make_estimates(100, 100, 1, 100), make_estimates(1, 1, 1, 9)
    assert choose_worst(make_rows({"a": 5, "b": 70}), "a", rates, costs) == "b"
    # The share, and not the number: 60 of few requests are more than 70 of many.
    rows = make_rows({"a": 60, "b": 70})
    few = replace(rows[0], found={1: vary(MEASUREMENT, answered=1_000, failures={"timeout": 60})})
    assert choose_worst([few, *rows[1:]], "", rates, costs) == "a"


def test_worst_is_the_slowest_of_those_far_behind() -> None:
    rates, costs = make_estimates(100, 40, 20, 100), make_estimates(1, 1, 1, 9)
    assert choose_worst(make_rows(), "a", rates, costs) == "c"
    # A good one is not the worst, nor one whose interval reaches half of the best rate.
    assert choose_worst(make_rows(), "ac", rates, costs) == "b"
    assert choose_worst(make_rows(), "ac", make_estimates(100, 49, 20, 100), make_estimates(1, 1, 1, 1)) is None
    # One that reaches exactly half is not far behind.
    half = {"a": Estimate(100, 90, 110, 3), "b": Estimate(45, 40, 50, 3)}
    assert choose_worst(make_rows(), "a", half, {}) is None
    assert choose_worst(make_rows(), "a", half | {"b": Estimate(45, 40, 49.9, 3)}, {}) == "b"
    assert choose_worst(make_rows(), "a", {}, {}) is None
    # By the medians, not by the ends of intervals.
    uneven = {"a": Estimate(100, 90, 110, 3), "b": Estimate(30, 10, 40, 3), "c": Estimate(20, 18, 22, 3)}
    assert choose_worst(make_rows(), "a", uneven, {}) == "c"


def test_worst_is_the_most_expensive_if_none_is_far_behind() -> None:
    rates = make_estimates(100, 100, 100, 100)
    assert choose_worst(make_rows(), "a", rates, make_estimates(10, 20, 30, 25)) == "c"
    assert choose_worst(make_rows(), "a", rates, make_estimates(10, 15, 12, 14)) == "b"
    # Less than half as much again is no reason, nor is a tie with the least.
    assert choose_worst(make_rows(), "a", rates, make_estimates(10, 14, 11, 12)) is None
    # By the medians, not by the ends of intervals.
    uneven = {"a": Estimate(10, 9, 11, 3), "b": Estimate(30, 28, 32, 3), "c": Estimate(31, 20, 40, 3)}
    assert choose_worst(make_rows(), "a", rates, uneven) == "c"
    assert choose_worst(make_rows(), "a", rates, {"a": uneven["a"], "b": Estimate(15, 13, 17, 3)}) == "b"
    assert choose_worst(make_rows(), "a", rates, {"a": Estimate(10, 5, 11, 3), "b": Estimate(14, 13, 15, 3)}) is None
    wide = {"a": Estimate(10, 5, 30, 3), "b": Estimate(20, 5, 30, 3)}
    assert choose_worst(make_rows(), "a", rates, wide) is None
    # c and d have no known cost; and nothing is a multiple of 0.
    assert choose_worst(make_rows(), "a", rates, make_estimates(10, 30)) == "b"
    assert choose_worst(make_rows(), "a", rates, make_estimates(0, 30)) is None
    assert choose_worst(make_rows(), "a", rates, make_estimates(0.3, 0.6)) == "b"
    assert _choose_worst(make_rows(), "a", rates, make_estimates(10, 30), {}) is None


def test_reason_has_the_rate_and_the_cost_where_they_stand_out() -> None:
    row = make_rows(names="b")[0]
    assert _explain_worst(row, make_estimates(100, 20), make_estimates(10, 30)) == (
        "20% of the best rate, 3.0 times the least CPU per request (one line)"
    )
    assert _explain_worst(row, make_estimates(100, 90), make_estimates(10, 15)) == (
        "1.5 times the least CPU per request (one line)"
    )
    assert _explain_worst(row, make_estimates(100, 20), make_estimates(10, 14)) == "20% of the best rate (one line)"
    assert _explain_worst(row, make_estimates(100, 20), make_estimates(10)) == "20% of the best rate (one line)"
    half = {"a": Estimate(100, 90, 110, 3), "b": Estimate(45, 40, 50, 3)}
    assert _explain_worst(row, half, {}) == " (one line)"
    assert _explain_worst(row, {}, make_estimates(0, 30)) == " (one line)"
    failing = make_rows({"a": 100}, "a")[0]
    assert _explain_worst(failing, make_estimates(1), {}) == "0.99% of its requests failed: timeout"


def test_run_without_a_measurement_has_no_answer(tmp_path: Path) -> None:
    rates: dict[str, int | None] = {"asyncio_streams": None, "prefork": None}
    findings = read_findings(make_bench_run(tmp_path, rates, replace(PLAN, models=tuple(rates))))
    assert find_answer(findings, "session") == Answer()
    assert draw_answer(findings, "session", Answer()) == draw_details(findings, "session", Answer()) == []
    assert "it &lt;u&gt;has ended" in bench_page.render_pages(findings)["index.html"]


def test_many_names_are_counted() -> None:
    assert Answer(tuple("abcd")).names == "a, b, c, d"
    assert Answer(tuple("abcde")).names == "a, b, c, d and 1 more"
    assert Answer(tuple("abcdef")).names == "a, b, c, d and 2 more"
    assert Answer().names == ""


def test_picture_of_the_answer_has_all_models_the_best_first(findings: Findings) -> None:
    rate, cost = (read_chart(chart) for chart in draw_answer(findings, "session", find_answer(findings, "session")))
    assert list(rate.series) == ["thread_pool", "asyncio_streams", "plain_socket"]
    assert list(cost.series) == ["asyncio_streams", "thread_pool", "plain_socket"]
    assert [each.tone for each in rate.series.values()] == ["blue", "grey", "orange"]
    assert rate.series["thread_pool"].labels == ["thread_pool", "11.0k"]
    assert "rank 1" in rate.series["thread_pool"].tip
    assert len(rate.bands) == len(cost.bands) == 1


def test_details_show_saturation_latency_cost_and_memory(findings: Findings) -> None:
    answer = find_answer(findings, "session")
    charts = {chart.name: read_chart(chart) for chart in draw_details(findings, "session", answer)}
    names = ("saturation-rate", "saturation-p99", "latency", "cost", "memory")
    assert list(charts) == [f"session-{name}" for name in names]
    saturation = charts["session-saturation-rate"]
    assert saturation.ticks[:2] == ["4", "16"]
    # The rate is the same at both levels, so the knee is the first.
    assert saturation.series["thread_pool"].classes.count("ring") == 1
    assert saturation.series["thread_pool"].tip == "thread_pool: 5.50k at 4, 5.50k at 16; knee at 4 connections"
    assert "p99 901 µs" in charts["session-latency"].series["thread_pool"].tip
    assert charts["session-memory"].series["plain_socket"].tip.endswith("1024 KiB per connection")
    assert set(charts["session-cost"].series) == {"thread_pool", "asyncio_streams", "plain_socket"}


def test_charts_are_files_that_the_markdown_names(findings: Findings) -> None:
    files = render_charts(findings)
    assert len(files) == 2 * 7
    # By its tones, a chart shows the answer of its own workload.
    for workload in ("session", "sleep_20ms"):
        (cost, *_) = draw_answer(findings, workload, find_answer(findings, workload))
        assert files[f"charts/{cost.name}.svg"] == cost.render_file()
    assert read_svg(files["charts/session-rate.svg"]).title == "Requests/s: more is better"
    text = render_markdown(findings)
    assert "](charts/session-rate.svg)" in text
    assert "**session**: best: **thread_pool** (highest rate; least CPU per request: asyncio_streams); worst" in text


def test_large_run_has_a_page_for_each_workload(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(bench_page.render_pages(findings)) == ["index.html"]
    assert bench_page.LARGEST_PAGE == 200_000
    whole = len(bench_page.render_pages(findings)["index.html"].encode())
    monkeypatch.setattr(bench_page, "LARGEST_PAGE", whole)
    assert list(bench_page.render_pages(findings)) == ["index.html"]
    monkeypatch.setattr(bench_page, "LARGEST_PAGE", whole - 1)
    pages = bench_page.render_pages(findings)
    assert list(pages) == ["index.html", "session.html", "sleep_20ms.html"]
    # The index keeps the pictures of the answers, and leads to the rows.
    assert 'id="session-rate-title"' in pages["index.html"]
    assert 'id="session-latency-title"' not in pages["index.html"]
    assert 'href="session.html#session-thread_pool"' in pages["index.html"]
    assert 'id="session-thread_pool"' in pages["session.html"]
    assert "Environment" not in pages["session.html"]
    monkeypatch.setattr(bench_page, "LARGEST_PAGE", 1)
    assert "<svg" not in bench_page.render_pages(findings)["index.html"]


def test_verdict_of_a_page_has_its_reason_and_its_theory_on_demand(findings: Findings) -> None:
    """Of 40 ms in total, plain_socket makes 25 requests/s by theory, and 52 here. prefork was not measured."""
    rows = bench_page.make_section(findings, "session").rows
    cells = [row["verdict"] for row in rows]
    assert [cell.text for cell in cells] == ["● server", "● server", "● server", "not measured"]
    reason = "server-bound: <b>the server</b> used 99%"
    assert [cell.words for cell in cells[1:]] == [
        (reason, f"theory: {rows[1]['theory'].note}"),
        (
            reason,
            "! 108% above theory: more of it ran in parallel than it declares",
            f"theory: {rows[2]['theory'].note}",
        ),
        ("not measured: it <u>has ended</u>",),
    ]


def test_overview_has_the_rate_of_each_model_that_leads_to_its_figures(findings: Findings) -> None:
    one, other = (bench_page.make_section(findings, workload) for workload in ("session", "sleep_20ms"))
    for section in (one, other):
        answer = find_answer(findings, section.name)
        assert (section.answer, section.summary) == (answer, WORKLOADS[section.name].summary)
        assert section.details == tuple(draw_details(findings, section.name, answer))
    # Of the first model only one workload is stored.
    sections = [one, replace(other, rows=other.rows[1:])]
    for inside, page in ((bench_page.Parts(), ""), (bench_page.Parts(details=False), "session.html")):
        rows = {str(row["model"].value): row for row in bench_page._make_overview(sections, inside)}
        assert list(rows) == ["thread_pool", "asyncio_streams", "plain_socket", "prefork"]
        found = [(cell.value, cell.text, cell.note, cell.link) for cell in rows["thread_pool"].values()]
        assert found == [
            ("thread_pool", "thread_pool", "", ""),
            (11_001.0, "11.0k", "rank 1; server-bound", f"{page}#session-thread_pool"),
            (None, "–", "", ""),  # noqa: RUF001
        ]
        assert (rows["plain_socket"]["sleep_20ms"].text, rows["plain_socket"]["sleep_20ms"].value) == ("52.0", 52.0)
        assert rows["prefork"]["session"].note == "rank –; not measured"  # noqa: RUF001
    assert "All workloads" in bench_page.render_pages(findings)["index.html"]


def test_page_leads_to_each_step_that_belongs_to_no_row(tmp_path: Path) -> None:
    run = make_bench_run(tmp_path, plan=replace(PLAN, workloads=("session",)))
    step = run.read("round-1/session/asyncio_streams/closed")
    control = [f"round-{number}/session/{name_control('asyncio_streams')}/closed" for number in (1, 2)]
    others = {
        "control server": dict.fromkeys(control, step),
        "cross-check": {
            "cross-check/ping/thread_pool/ours-1": step,
            "cross-check/ping/thread_pool/redis-benchmark-1": {"rate": 5.0, "server_cpu_us": None},
        },
        "conformance": {f"conformance/{name}": {"passed": 5, "failed": 0} for name in ("prefork", "thread_pool")},
        "warm-up": {f"warm-up/{moment}": {"visits": {}} for moment in ("now", "then")},
    }
    for kept in others.values():
        for key, record in kept.items():
            run.keep(key, record)
    findings = read_findings(run)
    page = bench_page.render_pages(findings)["index.html"]
    found = dict(re.findall(r"Raw data, ([^:]+): (.*)</li>", page))
    links = {title: re.findall('href="([^"]+)"', text) for title, text in found.items()}
    assert links == {title: [run.path_of(key) for key in kept] for title, kept in others.items()}
    # Of many, the first twenty.
    for number in range(3, 23):
        run.keep(f"round-{number}/session/{name_control('asyncio_streams')}/closed", step)
    page = bench_page.render_pages(read_findings(run))["index.html"]
    (text,) = re.findall(r"Raw data, control server: (.*)</li>", page)
    assert len(re.findall(r'<a href="steps/round-\d+/session/control-', text)) == 20
    assert text.endswith('… all in <a href="steps/">steps</a>')
    section = bench_page.make_section(findings, "session")
    assert section.raw == {
        **{f"round {number}": f"steps/round-{number}/session/" for number in (1, 2, 3)},
        "sweep": "steps/sweep/session/",
    }
    assert "Highest rate: thread_pool." in section.sentences


def test_page_of_one_workload_has_no_overview_and_leads_to_its_control_server(tmp_path: Path) -> None:
    run = make_bench_run(tmp_path, plan=replace(PLAN, workloads=("session",)))
    step = run.read("round-1/session/asyncio_streams/closed")
    run.keep(f"round-1/session/{name_control('asyncio_streams')}/closed", step)
    page = bench_page.render_pages(read_findings(run))["index.html"]
    assert "All workloads" not in page
    (links,) = re.findall(r"Raw data, control server: (.*)</li>", page)
    assert re.findall('href="([^"]+)"', links) == [
        run.path_of(f"round-1/session/{name_control('asyncio_streams')}/closed")
    ]
