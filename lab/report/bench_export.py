"""Export a run: its measurements as CSV and Parquet, a table of theory for the docs, and its charts for slides."""

import csv
import io
from collections.abc import Mapping, Sequence

from lab.base.errors import LabError
from lab.base.units import UNKNOWN
from lab.experiments.bench.findings import Findings
from lab.report.bench_answer import find_answer
from lab.report.bench_charts import draw_answer, draw_details
from lab.report.bench_text import make_lines

_Row = Mapping[str, object]


def list_measurements(findings: Findings) -> list[_Row]:
    """Return a row for each measurement of the rounds, with its parameters and all single figures."""
    rows: list[_Row] = []
    for row in findings.rows.values():
        for number, item in row.found.items():
            figures = item.as_json()
            rows.append(
                {"workload": row.workload, "mode": row.mode, "round": number, "preset": figures.pop("workload")}
                | {name: value for name, value in figures.items() if not isinstance(value, list | tuple | dict)}
                | {"failed": item.load.failed, "verdict": str(item.verdict.bound), "reason": item.verdict.reason}
            )
    return rows


def render_csv(findings: Findings) -> str:
    """Return CSV; a missing value is an empty field."""
    rows = list_measurements(findings)
    file = io.StringIO()
    writer = csv.DictWriter(file, _list_names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def render_parquet(findings: Findings) -> bytes:
    """Return Parquet; a missing value is null.

    Raises:
        LabError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise LabError("Parquet needs pyarrow, which is the extra `parquet`: `make install` has it") from None
    rows = list_measurements(findings)
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in _list_names(rows)})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def render_theory(findings: Findings, models: Sequence[str] = ()) -> str:
    """Return a table of theory and measurement in Markdown, for docs/reading-the-numbers.md.

    Args:
        models: Models to include (default: all of the run).

    Raises:
        LabError: The run has no such model.
    """
    for name in models:
        if name not in findings.plan.models:
            raise LabError(f"{name} is not in this run; it has {', '.join(findings.plan.models)}")
    facts = findings.run.facts["environment"]
    text = ["| workload | model | theory: requests/s | measured | why |", "|---|---|---:|---:|---|"]
    for workload in findings.plan.workloads:
        for line in make_lines(findings, workload):
            if not models or line.model in models:
                theory, rate = line.cells["theory"], line.cells["requests/s"]
                why = theory.note + (f". **!** {line.deviation}" if line.deviation else "")
                text.append(f"| {workload} | `{line.model}` | {theory.text} | {rate.text} | {why or UNKNOWN} |")
    text += [
        "",
        f"*{facts.get('date')}, commit {facts.get('commit')}: {facts.get('processor')}, {facts.get('cores')}.*",
    ]
    return "\n".join(text) + "\n"


def _list_names(rows: Sequence[_Row]) -> Sequence[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def render_charts(findings: Findings) -> dict[str, str]:
    """Return all charts of a run as SVG by path, relative to the folder of the run."""
    found: dict[str, str] = {}
    for workload in findings.plan.workloads:
        answer = find_answer(findings, workload)
        charts = [*draw_answer(findings, workload, answer), *draw_details(findings, workload, answer)]
        found |= {path_of_chart(chart.name): chart.render_file() for chart in charts}
    return found


def path_of_chart(name: str) -> str:
    """Return where the file of a chart is, relative to the folder of the run."""
    return f"charts/{name}.svg"
