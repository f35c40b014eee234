"""The line of progress on a terminal."""

import os
from contextlib import suppress

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


def test_text_that_is_not_a_terminals_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for is_terminal, said in ((True, ["a", "b", ""]), (False, [])):
        shown: list[str] = []
        monkeypatch.setattr("sys.stderr.isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(progress, "_rewrite", shown.append)
        assert progress.is_shown() is is_terminal
        with progress.progress_line() as show:
            show("a")
            show("b")
        # The line is removed at the end, also after an error.
        assert shown == said
        with suppress(KeyboardInterrupt), progress.progress_line():
            raise KeyboardInterrupt
        assert shown == said + [""] * is_terminal
    assert capsys.readouterr() == ("", "")


def test_text_is_shown_by_the_innermost_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both would write to the last line."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    outer: list[str] = []
    inner: list[str] = []
    with progress.shown_by(outer.append):
        with suppress(KeyboardInterrupt), progress.shown_by(inner.append):
            assert progress.is_shown()
            with progress.progress_line() as show:
                show("a")
            raise KeyboardInterrupt
        with progress.progress_line() as show:
            show("b")
    assert (outer, inner) == (["b", ""], ["a", ""])
    assert not progress.is_shown()


def test_width_of_a_terminal_that_does_not_say_it_is_80(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: int) -> os.terminal_size:
        raise OSError

    monkeypatch.setattr("sys.stderr.fileno", lambda: 2)
    for size in (fail, lambda *_: os.terminal_size((0, 0))):
        monkeypatch.setattr(os, "get_terminal_size", size)
        progress._rewrite("x" * 80)
        assert capsys.readouterr().err == f"\r{'x' * 78}…\x1b[K"
