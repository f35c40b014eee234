"""The pages of `lab load`, `lab soak` and `lab compare`: what their charts and rows contain."""

import re
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from lab.clients.soak_traffic import TrafficCounts
from lab.experiments.bench.baseline import Baseline
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.soak import MEGABYTE, SoakResult
from lab.experiments.store import Run
from lab.metrics.trend import Slope, Trend
from lab.report import load_page
from lab.report.cells import Cell
from lab.report.compare_page import draw_baseline, draw_changes
from lab.report.load_page import make_row
from lab.report.measurement_charts import Comparison
from lab.report.soak_page import _make_row, draw_counts, draw_growth, draw_memory, find_trend, render
from tests.support.approx import about
from tests.support.chart_reading import read_chart
from tests.support.made_up import MEASUREMENT, vary
from tests.support.made_up_runs import PLAN, make_bench_run, make_measurements, make_soak

NAMES = ("plain_socket", "prefork")
FIGURES = ["requests/s", "p50 µs", "p99 µs", "CPU µs/req", "memory", "threads", "failures"]
AS_FAR = "Nothing grows, as far as this run can show"
RATES = {"asyncio_streams": 9_000, "thread_pool": 11_000, "plain_socket": 5_000}


def make_findings(root: Path, rates: dict[str, int]) -> Findings:
    return read_findings(make_bench_run(root, rates, replace(PLAN, models=tuple(rates))))


def test_course_of_a_load_has_cores_and_memory() -> None:
    measured = make_measurements(["plain_socket", "prefork"])
    cores, memory = (read_chart(chart) for chart in Comparison.of(measured).draw_course())
    # 0.1 CPU seconds in each second, and 0.2.
    assert [each.tip for each in cores.series.values()] == ["plain_socket: 0.10 to 0.10", "prefork: 0.20 to 0.20"]
    assert cores.axes == ["seconds", "cores"]
    assert memory.series["prefork"].tip == "prefork: 16 to 16"
    assert list(Comparison.of([MEASUREMENT]).draw_course()) == []


def read_page(page: str) -> str:
    """Return the words of a page."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("<main>")[2].partition("<script>")[0]).split())


def list_charts(page: str) -> list[str]:
    return re.findall(r'<svg [^>]*aria-labelledby="(\S+)-title', page)


def test_page_of_a_load_compares_its_models_if_it_has_more_than_one() -> None:
    several = [vary(found, versions={"Locust": "2.1", "gevent": "25"}) for found in make_measurements(NAMES)]
    page = load_page.render(several, title="Load: <b>", lead="16 users.")
    assert page.count("<title>Load: &lt;b&gt;</title>") == 1
    said = read_page(page)
    assert said.startswith("Load: &lt;b&gt; 16 users. CPU per request Least: plain_socket")
    assert said.endswith("Environment load generator Locust 2.1, gevent 25 backend process cores 2")
    assert re.findall('<tr data-name="([^"]+)"', page) == list(NAMES)
    assert re.findall('<th class="n" scope="col"><button type="button">([^<]+)<', page) == FIGURES
    assert list_charts(page) == ["cpu", "rate", "latency", "cost", "cores", "memory"]
    assert '<th scope="row" data-value="prefork" title="' in page
    alone = load_page.render([vary(several[0], versions={})], title="Load", lead="16 users.")
    assert list_charts(alone) == ["latency", "cores", "memory"]
    assert "Least" not in alone
    assert read_page(alone).endswith("Environment backend process cores 2")


def test_row_of_an_open_loop_has_its_own_columns() -> None:
    closed, opened = (
        make_row(MEASUREMENT),
        make_row(vary(MEASUREMENT, asked_rate=9e3, service=((40.0, 5),), late=12)),
    )
    assert set(opened) - set(closed) == {"service p99 µs", "late", "dropped"}
    assert (opened["service p99 µs"].text, opened["late"].text) == ("40.0", "12")
    failed = make_row(vary(MEASUREMENT, failures={"timeout": 2}))
    assert (failed["failures"].text, failed["failures"].is_good) == ("2", False)
    assert failed["verdict"].words[1] == "failures: 2 × timeout"  # noqa: RUF001


def test_growth_is_shown_beside_the_limit() -> None:
    flat, grows = make_soak("prefork", 0.0), make_soak("plain_socket", 30_000.0)
    assert [find_trend(found) for found in (flat, grows)] == [Trend.FLAT, Trend.GROWS]
    (chart,) = draw_growth([flat, grows], MEGABYTE)
    seen = read_chart(chart)
    assert [each.tone for each in seen.series.values()] == ["blue", "orange"]
    # 30 kB in 10 s: 10.8 MB per hour, and the band is from 0 to 1.
    assert seen.series["plain_socket"].labels == ["plain_socket", "+10.80"]
    assert seen.bands == [(0, about(100 / (10.8 * 1.04), abs=0.01))]


SERVED, UNSERVED, UNASKED = TrafficCounts(3, 9, {}), TrafficCounts(3, 9, {"no answer": 2}), TrafficCounts(3, 0, {})


def soak(memory: Trend, descriptors: Trend, threads: Trend, *, visits: TrafficCounts = SERVED) -> SoakResult:
    growth = {"memory": memory, "descriptors": descriptors, "threads": threads, "zombies": Trend.FLAT}
    return replace(make_soak("prefork", 0.0), growth=growth, visits=visits)


@pytest.mark.parametrize("growth", list(permutations([Trend.FLAT, Trend.UNKNOWN, Trend.GROWS])))
def test_growth_is_worse_than_an_unknown_series_and_that_is_worse_than_none(growth: tuple[Trend, ...]) -> None:
    assert find_trend(soak(*growth)) is Trend.GROWS
    tame = [Trend.FLAT if each is Trend.GROWS else each for each in growth]
    assert find_trend(soak(*tame)) is Trend.UNKNOWN


@pytest.mark.parametrize(
    ("memory", "visits", "text", "is_good", "said"),
    [
        (Trend.FLAT, SERVED, "● flat", True, "Nothing grows; Every client was served"),
        (Trend.FLAT, UNSERVED, "▲ not served", False, "Nothing grows; A client was not served by prefork"),
        (Trend.GROWS, SERVED, "▲ grows", False, "Grows: prefork; Every client was served"),
        (Trend.GROWS, UNSERVED, "▲ not served", False, "Grows: prefork; A client was not served by prefork"),
        (Trend.UNKNOWN, SERVED, "○ unknown", True, f"{AS_FAR}; Inconclusive, which is not a pass: prefork"),
        (Trend.FLAT, UNASKED, "○ unknown", True, f"{AS_FAR}; Inconclusive, which is not a pass: prefork"),
    ],
)
def test_verdict_of_a_soak_has_its_growth_and_its_clients(
    tmp_path: Path, memory: Trend, visits: TrafficCounts, text: str, is_good: bool, said: str
) -> None:
    found = soak(memory, Trend.FLAT, Trend.FLAT, visits=visits)
    cell = _make_row(found)["verdict"]
    assert cell.value is find_trend(found)
    assert (cell.text, cell.is_good) == (text, is_good)
    assert ("2 x no answer" in cell.words) == (visits is UNSERVED)
    assert ("no request was answered" in cell.words) == (visits is UNASKED)
    run = Run.create("soak", {"plan": {}, "environment": {}}, root=tmp_path)
    page = render([found], run, limit=MEGABYTE, resolution="")
    (answer,) = re.findall(r'<ul class="answers">.*?</ul>', page, re.DOTALL)
    assert " ".join(re.sub(r"<[^>]+>", "", answer).split()) == f"1 model {said.replace(';', '')}"


def test_page_of_a_soak_names_every_model_that_grows_or_was_not_served(tmp_path: Path) -> None:
    found = [
        soak(Trend.FLAT, Trend.FLAT, Trend.FLAT),
        replace(soak(Trend.FLAT, Trend.GROWS, Trend.FLAT, visits=UNSERVED), model="thread_pool"),
        replace(soak(Trend.FLAT, Trend.FLAT, Trend.FLAT, visits=UNSERVED), model="trio_nursery"),
        replace(make_soak("plain_socket", 30_000.0), visits=SERVED),
    ]
    run = Run.create("soak", {"environment": {}}, root=tmp_path)
    page = render(found, run, limit=MEGABYTE, resolution="It saw it.")
    said = read_page(page)
    assert "4 models Grows: thread_pool, plain_socket" in said
    assert "A client was not served by thread_pool, trio_nursery" in said
    assert "It saw it. The shaded minutes" in said
    assert list_charts(page) == ["growth", "memory", "descriptors"]


def test_row_of_a_soak_has_its_growth_and_the_counts_of_its_ends(tmp_path: Path) -> None:
    """The warm-up, the first third, is left out: the counts are those of the eleventh reading and of the last."""
    found = make_soak("prefork", 30_000.0)
    readings = list(found.readings)
    readings[9] = replace(readings[9], descriptors=77, threads=77, zombies=77)
    readings[10] = replace(readings[10], descriptors=30, threads=5, zombies=None)
    readings[-2] = replace(readings[-2], descriptors=88, threads=88, zombies=88)
    readings[-1] = replace(readings[-1], descriptors=41, threads=5, zombies=2)
    row = _make_row(replace(found, readings=tuple(readings)))
    # 30 kB in 10 s are 10.8 MB per hour.
    assert {name: (cell.value, cell.text) for name, cell in row.items() if name != "verdict"} == {
        "model": ("prefork", "prefork"),
        "memory, MB/h": (about(10.8), "+10.80"),
        "descriptors": (41, "30 → 41"),
        "threads": (5, "5"),
        "zombies": (2, "– → 2"),  # noqa: RUF001
        "requests": (1234, "1,234"),
    }
    # The median, not an end of its interval.
    assert _make_row(replace(found, memory=Slope(3e6, -1e6, 5e6)))["memory, MB/h"] == Cell(3.0, "+3.00")
    unread = replace(found, memory=None, readings=tuple(replace(each, zombies=None) for each in readings))
    row = _make_row(unread)
    assert [(row[name].value, row[name].text) for name in ("memory, MB/h", "zombies")] == [(None, "–")] * 2  # noqa: RUF001
    run = Run.create("soak", {"plan": {}, "environment": {"commit": None, "system": "Linux"}}, root=tmp_path)
    page = " ".join(re.sub(r"<[^>]+>", " ", render([found], run, limit=MEGABYTE, resolution="")).split())
    assert "commit not known" in page
    assert "system Linux" in page


def test_only_counts_that_changed_have_a_chart() -> None:
    flat, grows = make_soak("prefork", 0.0), make_soak("plain_socket", 30_000.0)
    (chart,) = draw_counts([flat, grows])
    assert (chart.name, read_chart(chart).notes) == ("descriptors", ["warm-up"])
    assert list(draw_counts([flat])) == []
    (memory,) = draw_memory([flat, grows])
    assert read_chart(memory).series["prefork"].tip == "prefork: 20 MB first, 20 MB last"


def test_changes_are_blue_or_orange_beyond_the_noise(tmp_path: Path) -> None:
    before = make_findings(tmp_path / "a", RATES)
    after = make_findings(tmp_path / "b", {"asyncio_streams": 9_000, "thread_pool": 22_000, "plain_socket": 1_000})
    cost, rate = (read_chart(chart) for chart in draw_changes(before, after))
    # The largest first; each workload is a group.
    assert {name: each.tone for name, each in rate.series.items()} == {
        "thread_pool": "blue",
        "asyncio_streams": "grey",
        "plain_socket": "orange",
    }
    assert rate.series["thread_pool"].labels == ["thread_pool", "+100%"]
    assert rate.notes == ["session, closed", "sleep_20ms, closed"]
    assert {each.tone for each in cost.series.values()} == {"grey"}


def test_baseline_is_compared_by_ratio(tmp_path: Path) -> None:
    findings = make_findings(tmp_path, RATES)
    baseline = Baseline.of(read_findings(make_bench_run(tmp_path / "was", RATES, replace(PLAN, models=tuple(RATES)))))
    (chart,) = draw_baseline(baseline, findings)
    seen = read_chart(chart)
    assert seen.title == "CPU per request relative to asyncio_streams: left is better"
    assert seen.series["thread_pool"].labels == ["thread_pool", "+0%"]
