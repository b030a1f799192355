"""Colours of families for eyes of three kinds, and looks that tell rows apart."""

import itertools

import numpy as np
import pytest

from bench.report.plots.palette import (
    CONTRAST,
    FAMILIES,
    FURTHER,
    FURTHER_MARKERS,
    Named,
    Palette,
    ink,
)
from tests.factories import make_record

# Machado, Oliveira and Fernandes (2009), "A Physiologically-based Model for Simulation of Color
# Vision Deficiency", table 1, severity 1: linear RGB as a dichromat sees it.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
}  # fmt: skip
FROM_SRGB = np.array([  # to CIE XYZ, IEC 61966-2-1
    [0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
APART = 17.0  # CIELAB units; about 2.3 are just noticeable side by side (Mahy et al. 1994)
COLORS = [color for color, _ in FAMILIES.values()] + list(FURTHER)


def linear(color: str) -> np.ndarray:
    srgb = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* for the white of D65."""
    t = FROM_SRGB @ np.clip(rgb, 0, 1) / (FROM_SRGB @ np.ones(3))
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colors: list[str], vision: str) -> float:
    seen = [lab(VISION[vision] @ linear(color)) for color in colors]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_families_stay_apart(vision: str) -> None:
    assert nearest(COLORS, vision) > APART


def test_the_simulation_confuses_red_and_green() -> None:
    red, green = "#B2182B", "#1B7837"
    assert nearest([red, green], "normal") > 90
    assert nearest([red, green], "deuteranopia") < APART
    assert lab(np.ones(3)) == pytest.approx([100, 0, 0], abs=1e-3)
    for seen in VISION.values():
        assert seen @ np.ones(3) == pytest.approx(np.ones(3), abs=2e-6)  # white stays white


def test_letters_have_contrast_on_white_and_keep_their_hue() -> None:
    for color in COLORS:
        luminance = FROM_SRGB[1] @ linear(ink(color))
        assert 1.05 / (luminance + 0.05) >= CONTRAST
        assert nearest([color, ink(color)], "normal") < 25
    assert ink("#0072B2") == "#0072B2"  # what can be read is left as it is


def test_further_families_differ_from_ours_and_from_each_other() -> None:
    mine = [f"mine{number}" for number in range(len(FURTHER) * len(FURTHER_MARKERS))]
    palette = Palette([make_record(model=name) for name in (*mine, "rwkv")])
    pairs = {(look.color, look.marker) for look in (palette.look(f, f) for f in mine)}
    assert len(pairs) == len(mine)
    assert not pairs & set(FAMILIES.values())
    assert not {color for color, _ in pairs} & {color for color, _ in FAMILIES.values()}
    assert palette.look("rwkv", "rwkv").color == FAMILIES["rwkv"][0]


def test_a_family_has_one_colour_whatever_else_is_in_its_figure() -> None:
    records = [make_record(model="a", task="digits"), make_record(model="b"),
               make_record(model="machine", scenario="ceilings")]  # fmt: skip
    palette = Palette(records)
    alone = palette.looks([Named("b", "b", "b")])
    beside = palette.looks([Named("a", "a", "a"), Named("b", "b", "b")])
    assert alone["b"] == beside["b"]
    assert alone["b"].color != beside["a"].color


def test_rows_of_a_family_share_its_colour_and_nothing_else() -> None:
    names = ["mamba/nano", "mamba/tiny", "mamba/small", "mamba2/nano", "mamba2/tiny", "mamba x=1"]
    rows = [Named(name, "mamba", name.split("/")[0].split(" ")[0]) for name in names]
    looks = Palette([]).looks(rows)
    assert {look.color for look in looks.values()} == {FAMILIES["mamba"][0]}
    points = [(look.marker, look.fill) for look in looks.values()]
    assert len(set(points)) == len(names)
    assert len({(look.marker, look.fill, look.dash) for look in looks.values()}) == len(names)
    dashes = [looks[name].dash for name in ("mamba/nano", "mamba/tiny")]
    assert dashes[0] != dashes[1]
