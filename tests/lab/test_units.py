"""Durations and shares that a user types, and the figures of tables and charts."""

import pytest

from lab.base.units import (
    parse_duration,
    parse_share,
    show_bytes,
    show_cores,
    show_count,
    show_duration,
    show_number,
    show_share,
    show_time,
    show_us,
)


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


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (1.7e-5, "0.0017%"),
        (0.00654, "0.65%"),
        (0.0234, "2.3%"),
        (0.0996, "10%"),
        (0.1, "10%"),
        (0.424, "42%"),
        (0.996, "100%"),
        (1.0, "100%"),
    ],
)
def test_share_has_two_digits_however_small(share: float, text: str) -> None:
    assert show_share(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (9.994, "9.99"),
        (9.995, "10.0"),
        (99.94, "99.9"),
        (99.95, "100"),
        (812.4, "812"),
        (999.4, "999"),
        (999.5, "1.00k"),
        (4_706, "4.71k"),
        (12_340, "12.3k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (1_044_000, "1.04M"),
        (999.4e6, "999M"),
        (999.5e6, "1e+09"),
        (1.5e9, "1.5e+09"),
    ],
)
def test_count_has_three_digits_and_a_letter(value: float, text: str) -> None:
    assert show_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),  # noqa: RUF001  # a dash is meant
        (0, "0.00"),
        (52.34, "52.3"),
        (999.4, "999"),
        (999.6, "1\u202f000"),
        (1_239.6, "1\u202f240"),
        (48_149, "48\u202f100"),
        (1_234_567, "1\u202f230\u202f000"),
    ],
)
def test_microseconds_have_three_digits_and_thin_spaces(value: float | None, text: str) -> None:
    assert show_us(value) == text


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0.5, "0.50 µs"),
        (52.34, "52.3 µs"),
        (999.4, "999 µs"),
        (999.5, "1.00 ms"),
        (20_080, "20.1 ms"),
        (999_499, "999 ms"),
        (999_500, "1.00 s"),
        (61_500_000, "61.5 s"),
    ],
)
def test_time_has_a_fitting_unit(microseconds: float, text: str) -> None:
    assert show_time(microseconds) == text


def test_unknown_figure_is_a_dash_and_never_zero() -> None:
    assert [show(None) for show in (show_us, show_bytes, show_number)] == ["–"] * 3  # noqa: RUF001  # a dash is meant
    assert [show_bytes(0), show_bytes(1_572_864), show_bytes(10 * 2**30)] == ["0.0 MiB", "1.5 MiB", "10240.0 MiB"]
    assert [show_number(0), show_number(3.6), show_number(12_345)] == ["0", "4", "12345"]


def test_cores_are_listed_as_docker_reads_them() -> None:
    assert [show_cores([3]), show_cores([1, 2]), show_cores(range(3))] == ["core 3", "cores 1,2", "cores 0,1,2"]
