"""Tables of text: tabs between the cells in a pipe, and groups of rows on a terminal."""

import pytest

from lab.report.tables import show_table

COLUMNS = ("family", "model", "cores")
ROWS = [["thread", "pool", "1"], ["thread", "[forking]", "2"], ["loop", "pool", "2"], ["loop", "streams", "2"]]


def test_table_in_a_pipe_has_every_cell_and_no_head(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(COLUMNS, ROWS, group=0)
    assert capsys.readouterr().out == "thread\tpool\t1\nthread\t[forking]\t2\nloop\tpool\t2\nloop\tstreams\t2\n"


@pytest.mark.parametrize(
    ("group", "rows"),
    [
        (None, ["thread pool 1", "thread [forking] 2", "loop pool 2", "loop streams 2"]),
        (0, ["thread pool 1", "[forking] 2", "", "loop pool 2", "streams 2"]),
        (1, ["thread pool 1", "", "thread [forking] 2", "", "loop pool 2", "", "loop streams 2"]),
        (2, ["thread pool 1", "", "thread [forking] 2", "loop pool", "loop streams"]),
    ],
)
def test_repeated_cells_of_a_group_are_left_empty_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, group: int | None, rows: list[str]
) -> None:
    monkeypatch.setenv("TERM", "dumb")  # no colours
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show_table(COLUMNS, ROWS, group=group)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    rule = next(number for number, line in enumerate(lines) if line.startswith("──"))
    assert lines[rule - 1] == "family model cores"
    assert lines[rule + 1 :] == [*rows, ""]
    # The first row is a repetition of none, also where all are alike.
    show_table(("model", "cores"), [["pool", "1"]] * 2, group=0)
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-3:]] == [["pool", "1"], ["1"], []]
