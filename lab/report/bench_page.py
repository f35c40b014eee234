"""The report of `lab bench` as self-contained HTML that links to the raw data: one file, or more if it is too large."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.experiments.bench.findings import Findings
from lab.experiments.bench.plan import WARM_UP, WORKLOADS, Phase, Step
from lab.experiments.records import CONFORMANCE
from lab.report.bench_answer import Answer, find_answer
from lab.report.bench_charts import draw_answer, draw_details
from lab.report.bench_text import TEXTS, Line, make_answers, make_environment, make_lines, make_reliability
from lab.report.cells import Cell, mark_bounds
from lab.report.charts.chart import Chart
from lab.report.html import load_template

# Bytes of a page: it opens at once, and can be sent by mail.
LARGEST_PAGE = 200_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What a page contains.

    Args:
        details: all charts and tables of each workload.
        pictures: the charts of the answer of each workload.
        index: the reliability and the environment of the run.
    """

    details: bool = True
    pictures: bool = True
    index: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """One workload.

    Args:
        answer: the best models and the worst.
        picture: the charts of the answer.
        details: all other charts.
        sentences: the results in words.
        rows: of the table, by heading.
        raw: the folders of its steps, by name.
    """

    name: str
    summary: str
    answer: Answer
    picture: tuple[Chart, ...]
    details: tuple[Chart, ...]
    sentences: tuple[str, ...]
    rows: tuple[Mapping[str, Cell], ...]
    raw: Mapping[str, str]


def render_pages(findings: Findings) -> dict[str, str]:
    """Return the pages as HTML by file name: `index.html`, and more if one page would be too large.

    The details of each workload then have a page, and so have its charts if even these are too many.
    """
    sections = [section for workload in findings.plan.workloads if (section := make_section(findings, workload)).rows]
    for inside in (Parts(), Parts(details=False), Parts(details=False, pictures=False)):
        index = _render(findings, sections, inside)
        if len(index.encode()) <= LARGEST_PAGE:
            break
    pages = {"index.html": index}
    if not inside.details:
        pages |= {f"{section.name}.html": _render(findings, [section], Parts(index=False)) for section in sections}
    return pages


def _render(findings: Findings, sections: Sequence[Section], inside: Parts) -> str:
    return load_template("bench.html.j2").render(
        run=findings.run,
        plan=findings.plan,
        texts=TEXTS,
        sections=sections,
        inside=inside,
        overview=list(_make_overview(sections, inside)) if len(sections) > 1 else [],
        trust=list(make_reliability(findings)),
        trust_raw={title: [findings.run.path_of(key) for key in keys] for title, keys in _list_others(findings)},
        environment=make_environment(findings),
    )


def make_section(findings: Findings, workload: str) -> Section:
    """Return the section of a workload; without rows if nothing of it is stored."""
    answer = find_answer(findings, workload)
    return Section(
        workload,
        WORKLOADS[workload].summary,
        answer,
        tuple(draw_answer(findings, workload, answer)),
        tuple(draw_details(findings, workload, answer)),
        tuple(advice.text for advice in make_answers(findings, workload)),
        tuple(_make_row(line) for line in make_lines(findings, workload)),
        _list_folders(findings, workload),
    )


def _make_row(line: Line) -> Mapping[str, Cell]:
    """Return the cells of a line; the verdict is a mark, and its words are shown on demand."""
    verdict, theory = line.cells["verdict"], line.cells["theory"]
    words = [f"{verdict.text}: {verdict.note}"]
    words += [f"! {line.deviation}"] if line.deviation else []
    words += [f"theory: {theory.note}"] if theory.note else []
    cell = replace(verdict, text=mark_bounds(verdict.text), words=tuple(words))
    return {**line.cells, "verdict": cell}


def _make_overview(sections: Sequence[Section], inside: Parts) -> Iterator[Mapping[str, Cell]]:
    """Yield a row for each model with its rates; each links to its row of figures."""
    models = dict.fromkeys(row["model"].text for section in sections for row in section.rows)
    for model in models:
        found: dict[str, Cell] = {"model": Cell(model, model)}
        for section in sections:
            row = next((row for row in section.rows if row["model"].text == model), None)
            rate = row["requests/s"] if row else Cell.of(None, str)
            note = f"rank {row['rank'].text}; {row['verdict'].value}" if row else ""
            page = "" if inside.details else f"{section.name}.html"
            link = f"{page}#{section.name}-{model}" if row else ""
            found[section.name] = replace(rate, text=rate.text.split(" [")[0], note=note, link=link)
        yield found


def _list_folders(findings: Findings, workload: str) -> Mapping[str, str]:
    """Return the folders with the steps of a workload: of each round, and of the sweep."""
    steps = [step for key in findings.run.list_keys() if (step := Step.parse(key)) and step.workload == workload]
    keys = sorted((step.phase is Phase.SWEEP, step.number, step.key) for step in steps if not step.is_control)
    found: dict[str, str] = {}
    for is_sweep, number, key in keys:
        if is_sweep or key.startswith(str(Phase.ROUND)):
            folder = key[: key.index(f"{workload}/") + len(workload)]
            found.setdefault("sweep" if is_sweep else f"round {number}", f"steps/{folder}/")
    return found


def _list_others(findings: Findings) -> Iterator[tuple[str, list[str]]]:
    """Yield the steps that belong to no row, as titles with keys."""
    run = findings.run
    yield "control server", [key for key in run.list_keys() if (step := Step.parse(key)) and step.is_control]
    for folder in (Phase.CROSS_CHECK, CONFORMANCE, WARM_UP):
        yield folder, run.list_keys(folder)
