"""The findings of a stored run: tables, sentences, CSV, and changes between two runs."""

import csv
import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from rich.console import Console

from lab.base.errors import LabError
from lab.cli.commands.bench import bench as bench_command
from lab.experiments.bench.comparison import find_differences
from lab.experiments.bench.findings import CrossCheck, Findings, Row, RowKey, choose_costs, read_findings
from lab.experiments.store import Run
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.report import bench_page
from lab.report.bench_export import render_charts, render_csv, render_parquet, render_theory
from lab.report.bench_text import (
    Advice,
    make_answers,
    make_lines,
    make_reliability,
    print_report,
    render_markdown,
)
from lab.report.cells import Cell
from tests.support.made_up import MEASUREMENT, vary

RATES = {"asyncio_streams": 10_000, "twisted_reactor": 5_000, "plain_socket": 10_000}

Measure = Callable[..., Findings]


@pytest.fixture
def measured(bench, make_plan, make_measurement) -> Measure:
    """Store a run in which every model has its own rate with a little noise, and some fields changed."""

    def run(rates: dict[str, int] | None = None, **changes: object) -> Findings:
        known = RATES | (rates or {})
        count = iter(range(10_000))

        def answer(model: str, scenario: str, users: int, rate: float | None):
            return make_measurement(users=users, answered=known[model] + next(count) % 7, **changes)

        bench.answer = answer
        plan = make_plan()
        found = bench.begin(plan)
        bench.measure(found, plan)
        return read_findings(Run.open(found.folder))

    return run


def test_models_are_ranked_with_ties_within_the_noise(measured) -> None:
    found = measured()
    lines = {line.model: line.cells for line in make_lines(found, "session")}
    assert list(lines)[2] == "twisted_reactor"
    assert lines["twisted_reactor"]["rank"] == Cell(3, "3")
    assert lines["asyncio_streams"]["verdict"].text == "server-bound"
    assert lines["asyncio_streams"]["rank"] == lines["plain_socket"]["rank"] == Cell(1, "1-2")
    assert lines["twisted_reactor"]["requests/s"].text == "5.00k [5.00k 5.00k]"
    # As measured, and not as shown.
    value = lines["twisted_reactor"]["requests/s"].value
    assert isinstance(value, float)
    assert 5_000 < value <= 5_006
    text = " ".join(advice.text for advice in make_answers(found, "session"))
    assert "twisted_reactor" not in text.partition("Least CPU")[0]
    assert "at 12000 requests/s" in text


def test_model_below_the_fixed_rate_is_named(bench, make_plan, make_measurement) -> None:
    bench.answer = lambda model, scenario, users, rate: make_measurement(
        users=users, answered=9_000 if model == "twisted_reactor" else 12_000
    )
    plan = make_plan()
    run = bench.begin(plan)
    bench.measure(run, plan)
    text = " ".join(make_reliability(read_findings(run)))
    assert "12.0k session requests/s at which CPU per request is compared, twisted_reactor did not reach it" in text


def test_lower_bound_is_marked_and_ranks_behind_no_model(bench, make_plan, make_measurement) -> None:
    slow = Verdict(Limit.GENERATOR, "the generator used 99% of its core")
    bench.answer = lambda model, scenario, users, rate: (
        make_measurement(answered=4_000, users=users, verdict=slow)
        if model == "twisted_reactor"
        else make_measurement(users=users)
    )
    plan = make_plan()
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = read_findings(run)
    line = next(line for line in make_lines(found, "session") if line.model == "twisted_reactor")
    assert (line.cells["rank"].text, line.cells["requests/s"].text) == ("1-3", "≥ 4.00k")
    bounds = Advice("result", "Lower bounds, since the server was not the limit: twisted_reactor.")
    assert bounds in list(make_answers(found, "session"))


def test_wrong_replies_are_shown_in_the_row(measured) -> None:
    found = measured(failures={"wrong bytes": 5})
    assert all("failures: 15 × wrong bytes" in line.cells["verdict"].note for line in make_lines(found, "session"))  # noqa: RUF001
    kinds = [advice.kind for advice in make_answers(found, "session") if "% of its replies failed" in advice.text]
    assert kinds == ["avoid"] * 3


def test_report_describes_its_reliability(measured) -> None:
    found = measured()
    text = "\n".join(make_reliability(found))
    assert "two servers of asyncio_streams" in text
    assert "Drift of requests/s" in text
    assert "they differ beyond the noise: redis-benchmark is the slower client" in text
    assert "limit of the load generator: not measured" in text
    assert "Measuring itself took " in text
    assert "interrupted" not in text
    (found.run.folder / "end.json").unlink()
    assert f"lab bench --resume {found.run.started}" in "\n".join(make_reliability(found))


@pytest.mark.parametrize(
    ("noise", "drift", "said"),
    [
        (0.02, 0.021, "+2.1%. More than the noise: the machine changed during the run."),
        (0.02, -0.021, "-2.1%. More than the noise: the machine changed during the run."),
        (0.02, 0.02, "+2.0%."),
        (0.02, -0.02, "-2.0%."),
        (0.0, -0.001, "-0.1%. More than the noise: the machine changed during the run."),
        (None, -0.5, "-50.0%."),  # without a control server it is not known whether that is much
        (0.02, None, None),
    ],
)
def test_drift_beyond_the_noise_in_either_direction_is_a_warning(
    measured, monkeypatch, noise: float | None, drift: float | None, said: str | None
) -> None:
    found = measured()
    monkeypatch.setattr(Findings, "noise", lambda self, figure: noise if figure == "cpu_us" else None)
    monkeypatch.setattr(Findings, "drift", lambda self, figure: drift if figure == "cpu_us" else None)
    lines = [line for line in make_reliability(found) if line.startswith("Drift")]
    assert lines == ([] if said is None else [f"Drift of CPU per request from the first round to the last: {said}"])


def test_cross_check_beyond_the_spread_differs() -> None:
    ours = Estimate(100.0, 95.0, 105.0, 3)
    theirs = CrossCheck("ping", "m", "wrk", ours, Estimate(150.0, 140.0, 160.0, 3), None, None, None)
    assert theirs.differs(0.0) == "more"
    assert theirs.differs(0.5) is None
    assert replace(theirs, ours=Estimate(100.0, 95.0, float("inf"), 3)).differs(0.0) is None
    assert replace(theirs, theirs=Estimate(50.0, 45.0, 55.0, 3)).differs(0.0) == "less"
    assert replace(theirs, theirs=None).differs(0.0) is None


def test_limit_of_the_generator_is_in_every_run(bench, make_plan) -> None:
    plan = make_plan(workloads=("session",), levels=(16,), modes=("closed",), generator_limit="peer_redis")
    run = bench.begin(plan)
    bench.measure(run, plan)
    found = read_findings(run)
    assert found.generator_limit is not None
    assert found.generator_limit.model == "peer_redis"
    assert found.generator_limit.rate.repeats == plan.rounds
    assert "peer_redis" not in {row.model for row in found.rows.values()}
    assert "10.0k [10.0k 10.0k] PINGs/s from peer_redis" in "\n".join(make_reliability(found))
    assert {item.model for item in found.cross_checks} == {"asyncio_streams", "peer_redis"}


def test_every_row_links_its_raw_data(measured) -> None:
    found = measured()
    text = render_markdown(found)
    links = re.findall(r"\]\((steps/[^)]+)\)", text)
    assert len(links) == 3 * 6
    assert all((found.run.folder / link).is_file() for link in links)
    assert "| asyncio_streams |" in text
    printed = io.StringIO()
    print_report(found, Console(width=160, file=printed))
    assert "twisted_reactor" in printed.getvalue()


def test_page_is_self_contained_and_links_its_raw_data(measured) -> None:
    found = measured(failures={"<b>wrong</b>": 5})
    (text,) = bench_page.render_pages(found).values()
    links = {link for link in re.findall(r'href="([^"]+)"', text) if not link.startswith("#")}
    # Every stored file has a link or is in a folder that has one; there are further links to the plan and two folders.
    kept = {found.run.path_of(key) for key in found.run.list_keys()}
    assert links >= {"run.json", "steps/", "logs/", "steps/round-2/session/", "steps/sweep/session/"}
    assert {path for path in kept if not any(path.startswith(link) for link in links - {"steps/"})} == set()
    assert all((found.run.folder / link).exists() for link in links if link != "logs/")
    assert not re.search(r'(?:src|href)="(?:https?:)?//|@import|url\(', text)
    # The control has no row.
    assert 'scope="row" data-value="control-' not in text
    assert "<b>wrong" not in text
    # Sorted by the measured value; without one by the dash, which the page puts last.
    assert re.search(r'data-label="requests/s" data-value="500\d">5\.00k', text)
    assert 'data-label="theory" data-value="–">–<' in text  # noqa: RUF001


def test_csv_has_a_line_per_measurement(measured) -> None:
    found = measured()
    text = render_csv(found)
    assert "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 4 * 3 * 3
    assert {row["verdict"] for row in rows} == {"server-bound"}
    assert {float(row["p99_us"]) for row in rows} == {900.0}


def test_parquet_equals_csv(measured) -> None:
    found = measured()
    table = pyarrow.parquet.read_table(io.BytesIO(render_parquet(found)))
    rows = list(csv.DictReader(io.StringIO(render_csv(found))))
    assert table.column_names == list(rows[0])
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()
    ] == rows
    assert table.column("rate").type == pyarrow.float64()
    assert table.column("asked_rate").null_count == len(rows)


def test_parquet_without_its_library_is_an_error(measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LabError, match=r"the extra `parquet`: `make install` has it"):
        render_parquet(measured())


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("csv", b"workload,mode,round"),
        ("parquet", b"PAR1"),
        ("baseline", b"{"),
        ("theory", b"| workload | model |"),
        ("svg", b"/"),
    ],
)
def test_export_is_the_only_output(measured, form: str, begins: bytes) -> None:
    found = measured()
    root = found.run.folder.parent.parent
    done = CliRunner().invoke(bench_command, ["--show", found.run.started, "--export", form, "--out", str(root)])
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes.startswith(begins)


def test_exported_charts_are_files_whose_paths_are_printed(measured) -> None:
    found = measured()
    root = found.run.folder.parent.parent
    words = ["--show", found.run.started, "--export", "svg", "--out", str(root)]
    paths = [Path(line) for line in CliRunner().invoke(bench_command, words).stdout.splitlines()]
    charts = render_charts(found)
    assert {path.relative_to(found.run.folder).as_posix(): path.read_text() for path in paths} == charts != {}


def test_exported_theory_is_that_of_the_models_that_are_named(measured) -> None:
    found = measured()
    root = found.run.folder.parent.parent
    for names in ([], ["twisted_reactor"]):
        words = [*names, "--show", found.run.started, "--export", "theory", "--out", str(root)]
        assert CliRunner().invoke(bench_command, words).stdout == render_theory(found, names)
    assert render_theory(found, names) != render_theory(found, [])


def test_shown_run_gets_new_reports(measured) -> None:
    found = measured()
    root = found.run.folder.parent.parent
    done = CliRunner().invoke(bench_command, ["--show", "latest", "--out", str(root)])
    assert done.exit_code == 0, done.output
    assert "twisted_reactor" in done.output
    assert (found.run.folder / "index.html").read_text() == bench_page.render_pages(found)["index.html"]


def test_failed_sweep_is_no_failure_of_a_quick_workload(make_plan) -> None:
    def make_row(mode: str, *found: Measurement) -> Row:
        return Row("session", "m", mode, (), dict(enumerate(found, 1)), ())

    failing = replace(MEASUREMENT, verdict=Verdict(Limit.FAILED, "12% of all exchanges failed"))
    rows = {RowKey("session", "m", row.mode): row for row in (make_row("closed", MEASUREMENT), make_row("open"))}
    sweeps = {("session", "m"): {64: failing}}
    run = cast(Run, SimpleNamespace(facts={}))  # a run without a folder
    assert Findings(run, make_plan(), rows, sweeps, {}, (), None).failing("session", "m") == ""
    del rows[RowKey("session", "m", "closed")]
    assert Findings(run, make_plan(), rows, sweeps, {}, (), None).failing("session", "m") == failing.verdict.reason
    # Of a model that was only swept, a level that was served is no failure.
    sweeps = {("session", "m"): {1: MEASUREMENT}}
    assert Findings(run, make_plan(), rows, sweeps, {}, (), None).failing("session", "m") == ""


def test_costs_are_those_of_the_closed_loop_without_a_fixed_rate(make_plan) -> None:
    rows = [Row("session", "m", mode, (), {1: MEASUREMENT}, ()) for mode in ("closed", "fixed")]
    run = cast(Run, SimpleNamespace(facts={}))
    for found, chosen in (rows, rows[1:]), (rows[:1], rows[:1]):
        named = {RowKey(row.workload, row.model, row.mode): row for row in found}
        findings = Findings(run, make_plan(), named, {}, {}, (), None)
        assert choose_costs(findings, "session") == chosen


def test_figures_that_one_run_lacks_are_no_differences(make_plan) -> None:
    def make(*found: Measurement) -> Findings:
        row = Row("session", "asyncio_streams", "closed", (), dict(enumerate(found, 1)), ())
        run = cast(Run, SimpleNamespace(facts={}))
        return Findings(run, make_plan(), {RowKey(row.workload, row.model, row.mode): row}, {}, {}, (), None)

    nothing, known = vary(MEASUREMENT, answered=0, server_cpu_us=None), vary(MEASUREMENT, server_cpu_us=40.0)
    assert "cpu_us" not in {item.figure for item in find_differences(make(nothing), make(known), 0.1)}
    assert "cpu_us" not in {item.figure for item in find_differences(make(known), make(nothing), 0.1)}
    # From no answer a second, there is no relative change.
    assert "rate" not in {item.figure for item in find_differences(make(nothing), make(known), 0.1)}
