"""The line of progress on a terminal."""

import os

import pytest

from lab.base import progress


@pytest.mark.parametrize(
    ("text", "shown"),
    [("123456789", "123456789"), ("1234567890", "12345678…"), ("1234567890abc", "12345678…"), ("", "")],
)
def test_line_leaves_the_last_column_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, shown: str
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((10, 24)))
    monkeypatch.setattr("sys.stderr.fileno", lambda: 2)
    progress._rewrite(text)
    assert capsys.readouterr().err == f"\r{shown}\x1b[K"
