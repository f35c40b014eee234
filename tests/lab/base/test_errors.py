"""What an error quotes of a program's output: few lines, and none that fills a screen."""

from lab.base.errors import last_line, last_lines


def test_last_lines_are_those_that_say_something() -> None:
    assert last_lines("one\n\ntwo\n  \n three\n", 2) == ["two", " three"]
    assert last_lines("one\ntwo", 5) == ["one", "two"]
    assert last_lines("\n".join(map(str, range(20)))) == [str(number) for number in range(10, 20)]
    assert last_lines(" \n\n") == []


def test_line_of_any_length_is_cut_to_300_characters() -> None:
    (whole,) = last_lines("x" * 300)
    assert whole == "x" * 300
    (cut,) = last_lines("x" * 301)
    assert cut == "x" * 299 + "…"


def test_last_line_has_a_substitute() -> None:
    assert last_line("one\ntwo\n\n", "no output") == "two"
    assert last_line("\n", "no output") == "no output"
