"""Durations and shares that a user types."""

import pytest

from lab.base.units import parse_duration, parse_share, show_duration


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("5s", 5.0, "5s"),
        ("500ms", 0.5, "500ms"),
        ("200us", 0.0002, "200us"),
        ("200µs", 0.0002, "200us"),
        ("200\u03bcs", 0.0002, "200us"),  # the other micro sign of Unicode
        ("2m", 120.0, "2m"),
        ("90s", 90.0, "90s"),
        ("1h", 3600.0, "1h"),
        ("36h", 129_600.0, "36h"),
        (" 1.5 s ", 1.5, "1500ms"),
        ("0s", 0.0, "0h"),
    ],
)
def test_duration_is_parsed_and_formatted_with_its_unit(text: str, seconds: float, shown: str) -> None:
    assert parse_duration(text) == seconds
    assert show_duration(seconds) == shown


@pytest.mark.parametrize("text", ["5", "1.5", "0"])
def test_duration_without_a_unit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=f"^'{text}' has no unit: write {text}s or {text}ms$"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "s", "five", "-1s", "+1s", "nan", "inf", "1e3s", "5S", "2d", "1m30s", ".5s", "5 s s"]
)
def test_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 5s, 500ms, 200us, 2m or 1h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0.25", 0.25), ("150%", 1.5), (" 2.5 % ", 0.025), ("99.9%", 0.999)]
)
def test_share_is_a_percentage_or_a_ratio(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "ten", "-10%", "10%%", "1e3", "10s"])
def test_invalid_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a share such as 10%"):
        parse_share(text)
