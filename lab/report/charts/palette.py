"""The colours of all pages and charts, in light and dark.

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
