"""Cells and columns that several reports share, one at a time."""

import re
from dataclasses import replace
from typing import cast

import pytest

from lab.experiments.bench.findings import Findings, read_findings
from lab.experiments.demo import Demo
from lab.load.measurement import Measurement
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit
from lab.report.bench_export import list_measurements
from lab.report.bench_text import make_lines, make_reliability
from lab.report.cells import Cell
from lab.report.charts.chart import STYLE
from lab.report.charts.palette import Tone
from lab.report.demo_files import make_columns
from lab.report.demo_page import _show_cost
from lab.report.extra_columns import ExtraColumn
from lab.report.markdown import make_row
from lab.report.terminal import _STYLES
from tests.support.made_up import MEASUREMENT, vary
from tests.support.made_up_runs import make_bench_run


def test_cell_of_a_markdown_row_is_one_line_without_bars() -> None:
    assert make_row(["a", "b|c\nd", ""]) == "| a | b/c d |  |"


def test_colours_of_verdicts_on_a_terminal() -> None:
    assert {limit: _STYLES.get(limit, "") for limit in Limit} == {
        Limit.HELD: "green",
        Limit.SERVER: "green",
        Limit.GENERATOR: "yellow",
        Limit.MACHINE: "yellow",
        Limit.WAITING: "",
        **dict.fromkeys(
            (Limit.WRONG, Limit.DISTURBED, Limit.FAILED, Limit.STARVED, Limit.INCONSISTENT, Limit.UNKNOWN), "bold red"
        ),
    }


def test_series_have_the_colour_of_their_tone() -> None:
    found = re.findall(r"\.chart \.(\w+) \{ --tone: var\(--(\w+)\); \}", STYLE)
    assert sorted(found) == sorted((tone, tone) for tone in Tone)


def test_further_load_of_another_model_is_not_this_ones() -> None:
    column = ExtraColumn("x", {"a": MEASUREMENT}, lambda found: Cell(None, found.model if found else "none"))
    assert (column.cell("a").text, column.cell("b").text) == (MEASUREMENT.model, "none")


def test_columns_of_a_demo_are_of_their_own_loads() -> None:
    class Loads:
        waits: dict[str, Measurement] = {"m": vary(MEASUREMENT, answered=1_000)}  # noqa: RUF012
        http: dict[str, Measurement] = {"m": MEASUREMENT}  # noqa: RUF012

    columns = make_columns(cast(Demo, Loads()))
    assert [(column.heading, column.found) for column in columns] == [
        ("20 ms waits/s", Loads.waits),
        ("HTTP/s", Loads.http),
        ("HTTP CPU µs", Loads.http),
    ]
    values = [column.cell("m").value for column in columns]
    assert values == [Loads.waits["m"].rate, MEASUREMENT.rate, MEASUREMENT.server.cpu_us]
    assert len(set(values)) == 3
    assert [column.cell("other").value for column in columns] == [None] * 3


@pytest.mark.parametrize(("family", "mark"), [("thread", "≈ 110"), ("process", "110")])
def test_cost_ties_only_with_that_of_its_family(family: str, mark: str) -> None:
    costs = {"a": Estimate(100, 90, 115, 3), "b": Estimate(110, 105, 120, 3)}
    above, found = vary(MEASUREMENT, model="a", family="thread"), vary(MEASUREMENT, model="b", family=family)
    assert _show_cost(found, costs, above).text == mark


@pytest.mark.parametrize(("drift", "warns"), [(0.1001, True), (0.1, False), (-0.1, False), (-0.1001, True)])
def test_drift_beyond_the_noise_is_a_warning_in_both_directions(
    monkeypatch: pytest.MonkeyPatch, findings: Findings, drift: float, warns: bool
) -> None:
    monkeypatch.setattr(Findings, "drift", lambda self, figure: drift if figure == "rate" else None)
    monkeypatch.setattr(Findings, "noise", lambda self, figure: 0.1)
    (said,) = [text for text in make_reliability(findings) if text.startswith("Drift")]
    assert said.startswith(f"Drift of requests/s from the first round to the last: {drift:+.1%}.")
    assert said.endswith("More than the noise: the machine changed during the run.") == warns


def test_memory_of_a_connection_is_in_kib(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Findings, "connection_bytes", lambda self, workload, model: 102_400.0)
    assert {line.cells["KiB/conn"].text for line in make_lines(findings, "session")} == {"100"}


def test_exported_row_has_the_number_of_failures_and_not_of_their_kinds(findings: Findings) -> None:
    (key, row), *_ = findings.rows.items()
    found = {1: vary(MEASUREMENT, failures={"timeout": 5, "reset": 2})}
    (exported,) = list_measurements(replace(findings, rows={key: replace(row, found=found)}))
    assert (exported["failed"], exported["verdict"]) == (7, str(MEASUREMENT.verdict.bound))
    assert not [name for name, value in exported.items() if isinstance(value, dict | list | tuple)]


def test_exported_rows_have_their_step_and_their_reason(findings: Findings) -> None:
    (key, row), *_ = findings.rows.items()
    found = {number: vary(MEASUREMENT, workload="closed_x", users=number) for number in (2, 5)}
    exported = list_measurements(replace(findings, rows={key: replace(row, found=found)}))
    names = ("workload", "mode", "round", "preset", "reason")
    reason = "the server used 99% of a core"
    assert [tuple(each[name] for name in names) for each in exported] == [
        (key.workload, key.mode, number, "closed_x", reason) for number in (2, 5)
    ]
    assert len({key.workload, key.mode, "closed_x"}) == 3


@pytest.fixture
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return read_findings(make_bench_run(tmp_path_factory.mktemp("run")))
