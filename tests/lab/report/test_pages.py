"""Every page in a real browser, which is started once, without a network."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from lab.base.paths import ROOT
from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.bench.plan import Plan
from lab.experiments.conformance.results import ModelResult
from lab.experiments.soak import MEGABYTE
from lab.experiments.store import Run
from lab.experiments.xray.recording import read_recordings
from lab.metrics.estimates import Estimate
from lab.report import bench_page, compare_page, demo_page, faults_page, load_page, soak_page, xray_page
from lab.report.bench_text import make_lines
from lab.report.cells import Cell
from lab.report.extra_columns import ExtraColumn
from lab.report.faults_text import Outcome
from lab.report.measurement_charts import Comparison
from lab.servers.docker.containers import Containers
from tests.support.made_up import vary
from tests.support.made_up_runs import (
    CATALOGUE,
    PLAN,
    RATES,
    make_bench_run,
    make_measurements,
    make_outcome,
    make_soak,
)
from tools.browser import Page, read_pages

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("labs"),
    # The browser's image is built once, from half a gigabyte of packages.
    pytest.mark.timeout(900),
]

RECORDED = ROOT / "docs" / "data" / "xray.json"
XRAYED = ("plain_socket", "asyncio_streams", "socketserver_threading", "prefork")

# Pages with charts, and one with lanes.
NAMES = ("bench", "bench of all models", "faults", "demo", "load", "load of one model", "soak", "compare")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def findings(root: Path) -> Findings:
    return read_findings(make_bench_run(root))


@pytest.fixture(scope="module")
def outcome(root: Path) -> Outcome:
    return make_outcome(root)


@pytest.fixture(scope="module")
def pages(root: Path, findings: Findings, outcome: Outcome) -> dict[str, str]:
    """Each page as HTML by name."""
    names = [model.name for model in CATALOGUE.models if not model.profile]
    plan = Plan.from_json(PLAN.as_json() | {"models": names})
    rates = {name: 500 + 1_000 * number for number, name in enumerate(names)}
    (large,) = bench_page.render_pages(read_findings(make_bench_run(root, rates, plan))).values()
    (small,) = bench_page.render_pages(findings).values()
    measured = make_measurements(names)
    costs = {item.model: Estimate(cost, cost - 5, cost + 30, 3) for item in measured if (cost := item.server.cpu_us)}
    soaked = [make_soak(name, 3_000.0 * (number == 2)) for number, name in enumerate(names)]
    facts = {"environment": {"processor": "<i>a test's</i>", "commit": None}}
    demo = demo_page.render(
        replace(Comparison.of(measured), costs=costs),
        title="16 servers",
        lead="One run.",
        captions=["how to read it"],
        checks={name: ModelResult(2513, 2, 7) for name in names},
        missing={"peer_redis": "it ended"},
        extra=[
            ExtraColumn(title, {}, lambda _: Cell(1.0, "≥ 16.5k"))
            for title in ("20 ms waits/s", "HTTP/s", "HTTP CPU µs")
        ],
        environment={"processor": None},
    )
    run = Run.create("soak", facts, root=root)
    charts = compare_page.draw_changes(findings, findings)
    texts = ["session, x: p99 1 -> 2", "4 cases in both runs"]
    found = (
        small,
        large,
        faults_page.render(outcome),
        demo,
        load_page.render(measured, title="Load: closed_session", lead="16 users."),
        load_page.render([vary(measured[0], asked_rate=9e4, service=((40.0, 9),))], title="Load", lead="16 users."),
        soak_page.render(soaked, run, limit=MEGABYTE, resolution="30 readings."),
        compare_page.render("2026-11-29T084642Z", "2026-11-29T085007Z", charts, texts, {"processor": "a test's"}),
    )
    recorded = [each for each in read_recordings(RECORDED) if each.model in XRAYED]
    return dict(
        zip((*NAMES, "xray"), (*found, xray_page.render(recorded, missing={"a_model": "it ended"})), strict=True)
    )


@pytest.fixture(scope="module")
def seen(
    engine: object, find_of_project: Callable[[str], list[str]], pages: dict[str, str]
) -> Iterator[dict[str, Page]]:
    """Each page as a reader has seen it."""
    backend = Containers(f"t{uuid4().hex[:8]}", CATALOGUE)
    try:
        yield read_pages(backend.helpers, pages)
    finally:
        backend.down()
        assert not find_of_project(backend.project)


@pytest.mark.parametrize("name", [*NAMES, "xray"])
def test_page_fits_every_window_in_silence(seen: dict[str, Page], pages: dict[str, str], name: str) -> None:
    page = seen[name]
    assert (page.complaints, page.requested, page.wide, page.cut) == ([], [], [], [])
    assert len(pages[name].encode()) <= bench_page.LARGEST_PAGE


@pytest.mark.parametrize("name", NAMES)
def test_every_chart_has_a_text_alternative(seen: dict[str, Page], pages: dict[str, str], name: str) -> None:
    page = seen[name]
    assert page.charts == pages[name].count('<svg class="chart"') > 0
    assert page.silent == []


@pytest.mark.parametrize("name", NAMES)
def test_mark_shows_its_figures_and_stands_out_in_all_charts(
    seen: dict[str, Page], pages: dict[str, str], name: str
) -> None:
    first = re.search(r'data-name="([^"]+)"><title>([^<]+)</title>', pages[name])
    assert first
    of_name = re.findall(rf'class="series \w+" data-name="{first[1]}"', pages[name])
    assert seen[name].tip == (first[2], len(of_name))


def test_benchmark_leads_to_its_data(seen: dict[str, Page], findings: Findings) -> None:
    links = set(seen["bench"].links)
    files = {link for link in links if not link.startswith("index.html#")}
    assert [link for link in files if not (findings.run.folder / link).exists()] == []
    assert {"run.json", "steps/", "logs/", "steps/sweep/sleep_20ms/", "steps/round-3/session/"} <= files
    rows = {f"index.html#{workload}-{model}" for workload in PLAN.workloads for model in RATES}
    assert links - files == rows | {f"index.html#{workload}" for workload in PLAN.workloads}


def test_tables_of_a_benchmark_sort_and_keep_missing_figures_last(seen: dict[str, Page], findings: Findings) -> None:
    # At a glance, then the figures of each workload.
    tables = seen["bench"].sorted
    assert len(tables) == 1 + len(PLAN.workloads)
    figures = tables[1]
    assert list(figures) == list(make_lines(findings, "session")[0].cells)
    rising, falling = figures["requests/s"]
    assert rising == ["52", "9000", "11001", "–"]  # noqa: RUF001
    assert falling == ["11001", "9000", "52", "–"]  # noqa: RUF001
    assert figures["model"][0] == sorted(RATES)
    for table in tables:
        for title, (up, down) in table.items():
            known = [value for value in up if value != "–"]  # noqa: RUF001
            assert sorted(up) == sorted(down), title
            assert down[: len(known)] == known[::-1] or len(set(known)) < len(known), title


@pytest.mark.parametrize("name", NAMES)
def test_arrow_is_at_the_heading_that_a_table_is_sorted_by_and_at_no_other(seen: dict[str, Page], name: str) -> None:
    clicks = [[{title: way} for title in table for way in ("ascending", "descending")] for table in seen[name].sorted]
    assert seen[name].marked == clicks


def test_xray_leads_to_each_scene_of_each_model(seen: dict[str, Page]) -> None:
    models = list(dict.fromkeys(each.model for each in read_recordings(RECORDED) if each.model in XRAYED))
    assert len(models) == len(XRAYED)
    assert seen["xray"].links == [f"index.html#{model}-{scene}" for scene in ("sleep", "slow") for model in models]


def test_faults_lead_to_their_data(seen: dict[str, Page], outcome: Outcome) -> None:
    assert {"run.json", "steps/", "steps/trio_nursery/slow-clients.json"} <= set(seen["faults"].links)
    assert [link for link in seen["faults"].links if not (outcome.run.folder / link).exists()] == []
