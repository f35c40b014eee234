"""Numbers for people, and durations from people. An unknown figure is a dash, never 0."""

UNKNOWN = "–"  # noqa: RUF001  # a dash is meant


def show_count(value: float) -> str:
    """Three digits and a letter: 812, 4.71k, 12.3k, 1.04M."""
    for limit, factor, letter in ((999.5, 1, ""), (999_500, 1e3, "k"), (999.5e6, 1e6, "M")):
        if value < limit:
            return _three_digits(value / factor) + letter
    return f"{value:.3g}"


def show_us(value: float | None) -> str:
    """Microseconds to three digits, with thin groups of three: 52.3, 1 240, 48 100."""
    if value is None:
        return UNKNOWN
    rounded = float(f"{value:.3g}")
    return _three_digits(rounded) if rounded < 1000 else f"{rounded:,.0f}".replace(",", "\u202f")


def show_time(microseconds: float) -> str:
    """A time with the unit that fits it, for a sentence: 52.3 µs, 20.1 ms, 1.20 s."""
    for limit, factor, unit in ((999.5, 1, "µs"), (999_500, 1e3, "ms")):
        if microseconds < limit:
            return f"{_three_digits(microseconds / factor)} {unit}"
    return f"{_three_digits(microseconds / 1e6)} s"


def show_bytes(value: float | None) -> str:
    """Memory in MiB."""
    return UNKNOWN if value is None else f"{value / 2**20:.1f} MiB"


def show_number(value: float | None) -> str:
    """A whole number."""
    return UNKNOWN if value is None else f"{value:.0f}"


def _three_digits(value: float) -> str:
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"
