"""What the templates make of the figures that they get: cells, marks, and the sentences around them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lab.experiments.bench.findings import read_findings
from lab.report import bench_page, compare_page, demo_page, faults_page
from lab.report.cells import Cell
from lab.report.html import load_template
from lab.report.measurement_charts import Comparison
from tests.support.made_up_runs import PLAN, make_bench_run, make_measurements, make_outcome


def show_table(row: dict[str, Cell], *texts: str) -> list[str]:
    """Return the cells of a table of one row, as HTML."""
    table = load_template("parts.html.j2").module.table([row], texts)  # type: ignore[attr-defined]
    return re.findall(r"<(?:th scope=\"row\"|td).*?</(?:th|td)>", table)


def test_cell_has_its_value_to_sort_by_its_heading_and_its_mark() -> None:
    cells = show_table(
        {
            "model": Cell("m", "m", note="a note"),
            "requests/s": Cell(11001.5, "11.0k", is_good=False),
            "users": Cell(16, "16"),
            "memory": Cell(None, "?", note="not <known>"),
            "raw": Cell("x", "x", link="steps/x", note="of x", is_good=False),
            "why": Cell("y", "y"),
            "verdict": Cell("held", "● held", words=("one", "two")),
            "other": Cell("failed", "▲ failed", words=("three",), is_good=False),
        },
        "model",
        "why",
        "verdict",
    )
    words = "<details><summary>{}</summary><div>{}</div></details>"
    assert cells == [
        '<th scope="row" data-value="m" title="a note">m</th>',
        '<td class="n bad" data-label="requests/s" data-value="11001.5">11.0k</td>',
        '<td class="n" data-label="users" data-value="16">16</td>',
        '<td class="n" data-label="memory" data-value="–" title="not &lt;known&gt;">?</td>',  # noqa: RUF001
        '<td class="n bad" data-label="raw" data-value="x"><a href="steps/x" title="of x">x</a></td>',
        '<td class="words" data-label="why" data-value="y">y</td>',
        '<td class="words" data-label="verdict" data-value="held">'
        + words.format("● held", '<p class="small">one</p><p class="small">two</p>')
        + "</td>",
        '<td class="words bad" data-label="other" data-value="failed">'
        + words.format("▲ failed", '<p class="small">three</p>')
        + "</td>",
    ]


def test_cells_of_a_scorecard_stand_out_unless_they_held(tmp_path: Path) -> None:
    page = faults_page.render(make_outcome(tmp_path))
    cells = re.findall(
        r'<td data-label="[^"]+"><a href="([^"]+)" title="[^"]+"( class="stands-out")?>([^<]+)</a>', page
    )
    assert len(cells) == len(make_outcome(tmp_path).scores) > 3
    assert {text for _, stands_out, text in cells if not stands_out} == {"●\N{NO-BREAK SPACE}held"}
    assert "●\N{NO-BREAK SPACE}held" not in {text for _, stands_out, text in cells if stands_out}


def test_best_and_worst_of_a_benchmark_are_named_and_how_often_it_measured(tmp_path: Path) -> None:
    plan = replace(PLAN, rounds=5, seconds=1.5, warm_up=0.5, seed=77)
    (page,) = bench_page.render_pages(read_findings(make_bench_run(tmp_path, plan=plan))).values()
    answers = re.findall(r'<span class="(best|worst)">(\w+: <b>[^<]+</b>)', page)
    assert answers == [("best", "Best: <b>thread_pool</b>"), ("worst", "Worst: <b>plain_socket</b>")] * 2
    assert "<li>4 models, interleaved, 5 rounds; started " in page
    assert " was measured for 1.5 s after 0.5 s of warm-up, in an order from seed 77." in page


@pytest.mark.parametrize("missing", [{}, {"peer_redis": "it <ended>"}])
def test_page_of_a_demo_names_models_that_were_not_measured(missing: dict[str, str]) -> None:
    page = demo_page.render(
        Comparison.of(make_measurements(["plain_socket"])),
        title="1 server",
        lead="One run.",
        captions=["how"],
        checks={},
        missing=missing,
        extra=[],
        environment={"processor": None},
    )
    assert page.count("<h2>Not measured</h2>") == len(missing)
    reasons = re.findall(r'<li><b class="mono">([^<]+)</b>: ([^<]+)</li>', page)
    assert reasons == [(model, "it &lt;ended&gt;") for model in missing]
    assert "<dt>processor</dt><dd>not known</dd>" in page


def test_page_of_a_comparison_has_its_result_first_and_then_what_changed() -> None:
    page = compare_page.render(
        "monday", "friday", [], ["p99 fell", "CPU rose", "2 of 9 figures changed"], {"cores": "2"}
    )
    assert "<title>monday and friday</title>" in page
    assert "<h1>What changed from monday to friday?</h1>\n<p><b>2 of 9 figures changed</b></p>" in page
    assert "<ul><li>p99 fell</li><li>CPU rose</li></ul>" in page
    assert "Figures that changed" not in compare_page.render("monday", "friday", [], ["nothing changed"], {})
