"""The measurements of a benchmark for other programs: as CSV and as Parquet, a row each."""

import csv
import io
from collections.abc import Mapping, Sequence

from lab.bench.findings import Findings
from lab.errors import LabError

_Row = Mapping[str, object]


def list_measurements(findings: Findings) -> list[_Row]:
    """One row a measurement of the rounds: what was asked, and every figure that is a number."""
    rows: list[_Row] = []
    for row in findings.rows.values():
        for number, item in row.found.items():
            flat = {name: value for name, value in item.as_json().items() if not isinstance(value, list | tuple | dict)}
            rows.append(
                {"work": row.work, "way": row.way, "round": number, **flat, "failed": item.failed}
                | {"verdict": str(item.verdict.bound), "reason": item.verdict.reason}
            )
    return rows


def render_csv(findings: Findings) -> str:
    """As CSV; what is not known is an empty field."""
    rows = list_measurements(findings)
    file = io.StringIO()
    writer = csv.DictWriter(file, _list_names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def render_parquet(findings: Findings) -> bytes:
    """As Parquet; what is not known is null.

    Raises:
        LabError: what writes it is not installed.
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


def _list_names(rows: Sequence[_Row]) -> Sequence[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
