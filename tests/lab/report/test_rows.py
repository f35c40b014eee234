"""The rows of a measurement, on a terminal and on pages: each column has its own figure, and no two are equal."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.experiments.conformance.results import ModelResult
from lab.metrics.estimates import Estimate
from lab.metrics.verdict import Limit, Verdict
from lab.report import demo_page, load_page
from lab.report.cells import Cell
from lab.report.extra_columns import ExtraColumn
from lab.report.terminal import make_table, open_console
from tests.support.made_up import MEASUREMENT, vary

OPENED = vary(
    MEASUREMENT,
    model="opened",
    histogram=((200.0, 9_000), (700.0, 1_000)),
    service=((40.0, 5_000), (60.0, 5_000)),
    asked_rate=10_046.0,
    late=12,
    dropped=34,
    lost=56,
    duplicates=78,
    reordered=90,
    threads=7,
    failures={"connection reset": 3, "time-out: no reply": 2},
    verdict=Verdict(Limit.GENERATOR, "the generator used 99% of its core"),
)


def read_table(table: Table) -> dict[str, list[str]]:
    return {str(column.header): [str(cell) for cell in column.cells] for column in table.columns}


def read_row(row: dict[str, Cell]) -> dict[str, str]:
    return {name: cell.text for name, cell in row.items()}


def test_table_of_a_terminal() -> None:
    extra = ExtraColumn("further", {}, lambda found: Cell(None, "–" if found is None else "?"))  # noqa: RUF001
    table = make_table([MEASUREMENT, OPENED], extra=[extra])
    assert read_table(table) == {
        "model": ["asyncio_streams", "opened"],
        "requests/s": ["10.0k", "≥ 10.0k"],
        "p50 µs": ["100", "200"],
        "p99 µs": ["900", "700"],
        "CPU µs/req": ["40.0", "40.0"],
        "memory": ["15.0 MiB", "15.0 MiB"],
        "service p99 µs": ["–", "60.0"],  # noqa: RUF001
        "late": ["0", "12"],
        "dropped": ["0", "34"],
        "lost": ["0", "56"],
        "duplicate": ["0", "78"],
        "reordered": ["0", "90"],
        "further": ["–", "–"],  # noqa: RUF001
        "verdict": [
            "server-bound: the server used 99% of a core",
            "generator-bound: the generator used 99% of its core\n"
            "failures: 3 × connection reset; 2 × time-out: no reply",  # noqa: RUF001
        ],
    }
    assert [cell.style for cell in table.columns[-1].cells if isinstance(cell, Text)] == ["green", "yellow"]


CLOSED = "model|requests/s|p50 µs|p99 µs|CPU µs/req|memory"
OPEN, DATAGRAMS = "service p99 µs|late|dropped", "lost|duplicate|reordered"


@pytest.mark.parametrize(
    ("changes", "further"),
    [
        ({}, ""),
        ({"asked_rate": 9e3}, OPEN),
        ({"lost": 1}, DATAGRAMS),
        ({"duplicates": 1}, DATAGRAMS),
        ({"reordered": 1}, DATAGRAMS),
        ({"asked_rate": 9e3, "reordered": 1}, f"{OPEN}|{DATAGRAMS}"),
    ],
)
def test_table_has_columns_of_an_open_loop_or_of_datagrams_if_a_measurement_has_them(
    changes: dict[str, object], further: str
) -> None:
    table = read_table(make_table([MEASUREMENT, vary(MEASUREMENT, **changes)]))
    assert "|".join(table) == "|".join(filter(None, (CLOSED, further, "verdict")))


FIGURES = "10.0k 100 900 40.0 15.0 MiB"


@pytest.mark.parametrize(
    ("width", "summaries", "bound", "rule", "lines"),
    [
        # The name has at most 46 columns, and the verdict at least 15.
        (
            200,
            True,
            Limit.HELD,
            119,
            [f"{FIGURES} held", "a summary of some words in which a client", "reads what it does"],
        ),
        (200, False, Limit.HELD, 99, [f"{FIGURES} held: by all clients of it"]),
        (
            97,
            True,
            Limit.SERVER,
            95,
            [f"{FIGURES} server-bound", "a summary of some", "words in which a", "client reads what it", "does"],
        ),
        (97, False, Limit.SERVER, 95, [f"{FIGURES} server-bound: by all", "clients of it"]),
        (80, True, Limit.SERVER, 78, [f"{FIGURES} server-bound"]),
        (80, False, Limit.SERVER, 79, [f"{FIGURES} server"]),
    ],
)
def test_table_on_a_narrow_terminal_wraps_words_alone(
    width: int, summaries: bool, bound: Limit, rule: int, lines: list[str]
) -> None:
    """A summary stands under its name, else the reason of a verdict beside it."""
    summary = "a summary of some words in which a client reads what it does"
    found = vary(MEASUREMENT, summary=summary, verdict=Verdict(bound, "by all clients of it"))
    # Without room for all figures, the name is cut; it is the only thing that a reader can guess.
    name = "asyn…" if width == 80 and summaries else "asyncio_streams"
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(make_table([found], summaries=summaries))
    assert isinstance(console.file, StringIO)
    head, ruled, *rows = filter(None, (" ".join(line.split()) for line in console.file.getvalue().splitlines()))
    assert "model requests/s p50 µs p99 µs CPU µs/req memory verdict".startswith(head)
    assert head.endswith("verdict" if width > 80 or summaries else "verdic")
    assert (ruled, rows[: len(lines)]) == ("─" * rule, [f"{name} {lines[0]}", *lines[1:]])


def test_console_is_wide_enough_for_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert (open_console().width, open_console(99).width) == (140, 99)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert open_console().width == 40
    assert not open_console()._highlight


def test_row_of_the_page_of_a_load() -> None:
    row = load_page.make_row(OPENED)
    assert read_row(row) == {
        "model": "opened",
        "requests/s": "≥ 10.0k",
        "p50 µs": "200",
        "p99 µs": "700",
        "service p99 µs": "60.0",
        "late": "12",
        "dropped": "34",
        "CPU µs/req": "40.0",
        "memory": "15.0 MiB",
        "threads": "7",
        "failures": "5",
        "verdict": "◐ generator",
    }
    assert [name for name, cell in row.items() if not cell.is_good] == ["failures"]
    assert row["failures"].value == 5


def test_row_of_the_page_of_a_demo() -> None:
    costs = {"asyncio_streams": Estimate(41.0, 40.0, 43.0, 3), "opened": Estimate(42.0, 38.0, 45.0, 3)}
    above = replace(MEASUREMENT, family=OPENED.family)
    row = demo_page._make_row(OPENED, costs, above, ModelResult(20, 1, 2), ())
    assert read_row(row) == {
        "model": "opened",
        "family": "coroutine",
        "CPU µs/req": "≈ 42.0",
        "requests/s": "≥ 10.0k",
        "p50 µs": "200",
        "p99 µs": "700",
        "memory": "15.0 MiB",
        "threads": "7",
        "tests": "▲ 1 fail",
        "verdict": "◐ generator",
    }
    assert row["CPU µs/req"].note == "ties with asyncio_streams; 42.0 [38.0 45.0]"
    assert [name for name, cell in row.items() if not cell.is_good] == ["tests"]
    assert row["family"].value == "coroutine"


def test_verdict_that_is_a_failure_stands_out() -> None:
    bad = {
        bound
        for bound in Limit
        if not load_page.make_row(replace(OPENED, verdict=Verdict(bound, "why")))["verdict"].is_good
    }
    assert bad == {Limit.WRONG, Limit.DISTURBED, Limit.STARVED, Limit.FAILED, Limit.INCONSISTENT, Limit.UNKNOWN}
