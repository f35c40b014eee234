"""The answer of a benchmark: the best models, the worst one, and why; and the charts that show it."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.experiments.bench.findings import Findings, read_findings
from lab.report import bench_page
from lab.report.bench_answer import Answer, find_answer
from lab.report.bench_charts import draw_answer, draw_details
from lab.report.bench_export import render_charts
from lab.report.bench_text import render_markdown
from lab.report.charts.palette import Tone
from tests.support.chart_reading import read_chart, read_svg
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


def test_many_names_are_counted() -> None:
    assert Answer(tuple("abcd")).names == "a, b, c, d"
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
    assert read_svg(files["charts/session-rate.svg"]).title == "Requests/s: more is better"
    text = render_markdown(findings)
    assert "](charts/session-rate.svg)" in text
    assert "**session**: best: **thread_pool** (highest rate; least CPU per request: asyncio_streams); worst" in text


def test_large_run_has_a_page_for_each_workload(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(bench_page.render_pages(findings)) == ["index.html"]
    whole = len(bench_page.render_pages(findings)["index.html"].encode())
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
