"""The colours of all pages and charts, in light and dark, and the figures that judge them.

A tone never carries a meaning alone: each has its own shape of mark too.
"""

from collections.abc import Mapping
from enum import StrEnum


class Tone(StrEnum):
    """The colour and the shape of marks: blue discs, orange diamonds, grey rings."""

    BLUE = "blue"
    ORANGE = "orange"
    GREY = "grey"


# Names of CSS variables. `soft` is text too; `line` only separates.
LIGHT: Mapping[str, str] = {
    "page": "#fbfbfa",
    "card": "#ffffff",
    "ink": "#1c1e21",
    "soft": "#5c6370",
    "line": "#e3e4e6",
    "band": "#dcebf7",
    "bar": "#0072b2",
    "bad": "#b3261e",
    "blue": "#0072b2",
    "orange": "#c04a00",
    "grey": "#767d88",
}
DARK: Mapping[str, str] = {
    "page": "#14161a",
    "card": "#1b1e23",
    "ink": "#e7e9ec",
    "soft": "#a0a7b2",
    "line": "#2d3138",
    "band": "#1d3346",
    "bar": "#56b4e9",
    "bad": "#ff8a80",
    "blue": "#56b4e9",
    "orange": "#ff9a57",
    "grey": "#878e99",
}


def make_variables(colours: Mapping[str, str]) -> str:
    """Return the declarations of the colours as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def read_channels(colour: str) -> tuple[float, float, float]:
    """Return red, green and blue of `#rrggbb` as linear light, from 0 to 1."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return _linear(red), _linear(green), _linear(blue)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it, from 1 to 21. AA asks 4.5 of text and 3 of marks."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = read_channels(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
