"""Format numbers, and parse durations and shares that a user typed. An unknown figure is a dash, never 0."""

import re
from collections.abc import Iterable
from decimal import Decimal

# Microseconds in each unit. Unicode has two micro signs, and users type both.
TIME_UNITS = {"us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([^\s0-9.]*)")

UNKNOWN = "–"  # noqa: RUF001  # a dash is meant


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `5s`, `500ms`, `200us`, `2m` or `1h`.

    Raises:
        ValueError: it is not a duration, or has no unit.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match and not match[2]:
        raise ValueError(f"{text!r} has no unit: write {match[1]}s or {match[1]}ms")
    if match is None or match[2] not in TIME_UNITS:
        raise ValueError(f"{text!r} is not a duration such as 5s, 500ms, 200us, 2m or 1h")
    return float(match[1]) * TIME_UNITS[match[2]] / 1e6


def parse_share(text: str) -> float:
    """Return a share such as `10%` or `0.1` as a ratio.

    `99.9%` is exactly 0.999. A division of floats would miss it by a little, and a percentile would miss it by a rank.

    Raises:
        ValueError: it is not a share.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in ("", "%"):
        raise ValueError(f"{text!r} is not a share such as 10%")
    return float(Decimal(match[1]) / (100 if match[2] else 1))


def show_share(share: float) -> str:
    """Return a ratio as a percentage of two digits, so that a small one is not shown as 0: 42%, 6.5%, 0.0017%."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 10 else f"{value:.2g}%"


def show_duration(seconds: float) -> str:
    """Return a duration as a user types it, in the largest unit that gives a whole number: 90s, 500ms, 1h."""
    units = (unit for unit in ("h", "m", "s", "ms", "us") if round(seconds * 1e6) % TIME_UNITS[unit] == 0)
    unit = next(units, "us")
    return f"{seconds * 1e6 / TIME_UNITS[unit]:.0f}{unit}"


def show_count(value: float) -> str:
    """Format with three digits and a letter: 812, 4.71k, 12.3k, 1.04M."""
    for limit, factor, letter in ((999.5, 1, ""), (999_500, 1e3, "k"), (999.5e6, 1e6, "M")):
        if value < limit:
            return _three_digits(value / factor) + letter
    return f"{value:.3g}"


def show_us(value: float | None) -> str:
    """Format microseconds with three digits, and thin spaces between groups: 52.3, 1 240, 48 100."""
    if value is None:
        return UNKNOWN
    rounded = float(f"{value:.3g}")
    return _three_digits(rounded) if rounded < 1000 else f"{rounded:,.0f}".replace(",", "\u202f")


def show_time(microseconds: float) -> str:
    """Format a time with a fitting unit: 52.3 µs, 20.1 ms, 1.20 s."""
    for limit, factor, unit in ((999.5, 1, "µs"), (999_500, 1e3, "ms")):
        if microseconds < limit:
            return f"{_three_digits(microseconds / factor)} {unit}"
    return f"{_three_digits(microseconds / 1e6)} s"


def show_bytes(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value / 2**20:.1f} MiB"


def show_number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def _three_digits(value: float) -> str:
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"


def encode_cores(cores: Iterable[int]) -> str:
    """Return the list of cores that Docker and `taskset` read."""
    return ",".join(map(str, cores))


def show_cores(cores: Iterable[int]) -> str:
    """Return the cores for a message: `core 1`, or `cores 1,2`."""
    found = list(cores)
    return f"core{'s' if len(found) > 1 else ''} {encode_cores(found)}"
