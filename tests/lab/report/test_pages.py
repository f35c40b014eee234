"""The report of a benchmark in a real browser, without a network."""

from pathlib import Path
from uuid import uuid4

import pytest

from lab.experiments.bench.findings import read_findings
from lab.experiments.bench.plan import MODES, Plan
from lab.experiments.store import Run
from lab.experiments.theory import describe_concurrency
from lab.metrics.verdict import Limit, Verdict
from lab.report import bench_page
from lab.report.bench_text import make_lines
from lab.servers.catalogue import Catalogue
from lab.servers.docker.containers import Containers
from tests.support.made_up import MEASUREMENT, vary
from tools.browser import read_page

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

CATALOGUE = Catalogue.load()
# One far behind, and one that could not be measured at all.
RATES = {"asyncio_streams": 9_000, "thread_pool": 11_000, "plain_socket": 50, "prefork": None}
PLAN = Plan(tuple(RATES), ("session", "sleep_20ms"), (), (4, 16), MODES[:3], 3, 1.0, 0.0, 1, "asyncio_streams", None)


def make_run(root: Path) -> Run:
    """Make a run with made-up measurements."""
    plain = vary(
        MEASUREMENT,
        histogram=((100.0, 900), (900.0, 100), (40_000.0, 3)),
        max_us=40_000.0,
        server_cpu_us=80.0,
        verdict=Verdict(Limit.SERVER, "<b>the server</b> used 99%"),
    )
    run = Run.create(
        "bench",
        {
            "plan": PLAN.as_json(),
            "environment": {"processor": "<i>a test's</i>", "commit": None},
            "models": describe_concurrency(CATALOGUE, CATALOGUE.select(PLAN.models)),
        },
        root=root,
    )
    for workload in PLAN.workloads:
        for number, (model, rate) in enumerate(RATES.items()):
            cost = 80.0 + 10 * number
            for users in PLAN.levels if rate else ():
                answered = (rate or 0) // 2
                found = vary(plain, users=users, answered=answered, server_cpu_us=cost, memory_bytes=users * 2**20)
                run.keep(f"sweep/{workload}/{model}/{users}", {"measurement": found.as_json()})
            for step in (f"round-{n}/{workload}/{model}/{mode}" for n in (1, 2, 3) for mode in PLAN.modes):
                found = vary(plain, answered=(rate or 0) + number, server_cpu_us=cost)
                run.keep(step, {"measurement": found.as_json()} if rate else {"failure": "it <u>has ended</u>"})
    for model in RATES:
        run.keep_log(model, "ready\n")
    run.finish({})
    return run


# The browser's image is built once, from half a gigabyte of packages.
@pytest.mark.timeout(900)
def test_report_works_in_a_browser(engine, find_of_project, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    backend = Containers(f"t{uuid4().hex[:8]}", CATALOGUE)
    try:
        seen = read_page(backend.helpers, bench_page.render(read_findings(run)))
    finally:
        backend.down()
        assert not find_of_project(backend.project)

    assert seen.complaints == []
    assert seen.requested == []
    assert seen.wide == []
    assert set(seen.pictures) == {"phone", "paper", "dark", "desk"}
    assert all(picture.startswith(b"\x89PNG") for picture in seen.pictures.values())

    files = [link for link in seen.links if not link.startswith("index.html#")]
    assert [link for link in files if not (run.folder / link).exists()] == []
    assert {"run.json", "steps/", "logs/", "steps/sweep/sleep_20ms/thread_pool/4.json"} <= set(files)
    rows = {f"index.html#{workload}-{model}" for workload in PLAN.workloads for model in RATES}
    assert set(seen.links) - set(files) == rows | {f"index.html#{workload}" for workload in PLAN.workloads}

    # At a glance, then pictures and figures of each workload.
    assert len(seen.sorted) == 1 + 2 * len(PLAN.workloads)
    figures = seen.sorted[2]
    assert list(figures) == list(make_lines(read_findings(run), "session")[0].cells)
    rising, falling = figures["requests/s"]
    assert rising == ["52.0", "9000.0", "11001.0", "–"]  # noqa: RUF001
    assert falling == ["11001.0", "9000.0", "52.0", "–"]  # noqa: RUF001
    assert figures["model"][0] == sorted(RATES)
    for table in seen.sorted:
        for title, (rising, falling) in table.items():
            known = [value for value in rising if value != "–"]  # noqa: RUF001
            assert sorted(rising) == sorted(falling), title
            assert falling[: len(known)] == known[::-1] or len(set(known)) < len(known), title
