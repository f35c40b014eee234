"""Contrast and difference of all colours, for readers with and without colour vision, in light and dark."""

from collections.abc import Mapping
from itertools import combinations

import pytest

from lab.report.charts.palette import DARK, LIGHT, Tone

THEMES = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009:
# complete protanopia, deuteranopia and tritanopia, for linear light.
VISIONS = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}

# Differences in CIELAB (CIE76) from which two colours are told apart at a glance, even in small marks.
CLEAR = 20.0


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


def make_lab(colour: str, vision: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    """Return a colour in CIELAB as a reader sees it."""
    light = read_channels(colour)
    red, green, blue = (min(max(sum(a * b for a, b in zip(row, light, strict=True)), 0.0), 1.0) for row in vision)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ffffff", "#777777") == contrast("#777777", "#ffffff")


@THEMES
@pytest.mark.parametrize("ground", ["page", "card"])
def test_text_has_the_contrast_of_aa(colours: Mapping[str, str], ground: str) -> None:
    known = {name: contrast(colours[name], colours[ground]) for name in ("ink", "soft", "bar", "bad")}
    assert {name: value for name, value in known.items() if value < 4.5} == {}


@THEMES
@pytest.mark.parametrize("ground", ["page", "card", "band"])
def test_marks_have_the_contrast_of_aa(colours: Mapping[str, str], ground: str) -> None:
    known = {tone: contrast(colours[tone], colours[ground]) for tone in Tone}
    assert {tone: value for tone, value in known.items() if value < 3} == {}


@THEMES
def test_text_on_a_marked_row_has_the_contrast_of_aa(colours: Mapping[str, str]) -> None:
    known = {name: contrast(colours[name], colours["band"]) for name in ("ink", "soft", "bad")}
    assert {name: value for name, value in known.items() if value < 4.5} == {}
    # The tooltip is the page in reverse.
    assert contrast(colours["page"], colours["ink"]) >= 4.5


@THEMES
@pytest.mark.parametrize("vision", list(VISIONS))
def test_tones_differ_for_every_reader(colours: Mapping[str, str], vision: str) -> None:
    seen = {tone: make_lab(colours[tone], VISIONS[vision]) for tone in Tone}
    for one, other in combinations(Tone, 2):
        apart = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5
        assert apart > CLEAR, f"{one} and {other}"


def test_themes_have_the_same_names() -> None:
    assert LIGHT.keys() == DARK.keys()
