"""One colour a family in every figure, and what tells the rows of a family apart.

Our seven families have colours of Okabe and Ito (2008, "Color Universal Design"), all of them that
show on white; further families two of Paul Tol's scheme "muted" (2021, "Colour Schemes",
SRON/EPS/TN/09-002), chosen for their distance from the others as dichromats see them.
Markers and dashes say the same once more, for those who print in grey.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

from bench.store import Record

FAMILIES = {
    "transformer": ("#0072B2", "o"),  # blue
    "moe": ("#56B4E9", "s"),  # sky blue
    "mamba": ("#D55E00", "^"),  # vermilion
    "rwkv": ("#009E73", "D"),  # bluish green
    "resnet": ("#CC79A7", "P"),  # reddish purple
    "diffusion": ("#000000", "X"),
    "hybrid": ("#E69F00", "h"),  # orange
}
# Further models of a family have markers of their own.
MODELS = {"mamba2": "v", "mamba3": "<", "rwkv4": "d", "dit": "*"}
FURTHER = ("#882255", "#332288")  # wine, indigo
# As many as have no divisor in common with the colours, so that pairs repeat as late as they can.
FURTHER_MARKERS = ("<", ">", "d", "p", "8", "H", "*")
SOLID = "-"
Dash = str | tuple[float, tuple[float, ...]]
DASHES: tuple[Dash, ...] = (SOLID, (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
FILLS = ("full", "none", "left", "top")
CONTRAST = 3.0  # least contrast of large letters, Web Content Accessibility Guidelines 2.2, 1.4.3
APART = ("ceilings", "baselines")  # scenarios whose records are of no family
NEUTRAL = ("#555555", ".")  # of what is of no family


class Named(NamedTuple):
    """A row of a figure: what it is called there, and whose colour and marker it has."""

    label: str
    family: str
    model: str


@dataclass(frozen=True)
class Look:
    """Colour of a family; marker, its filling and the dash of a row."""

    color: str
    marker: str
    fill: str = FILLS[0]
    dash: Dash = SOLID

    @property
    def point(self) -> dict[str, Any]:
        """Settings of a marker; a hollow one hides the line below it."""
        face = "white" if self.fill == "none" else self.color
        fill = "full" if self.fill == "none" else self.fill
        return {
            "marker": self.marker, "color": self.color, "fillstyle": fill,
            "markerfacecolor": face, "markerfacecoloralt": "white",
            "markeredgecolor": self.color, "markeredgewidth": 2,
        }  # fmt: skip

    @property
    def ink(self) -> str:
        """The colour for letters, as dark as letters must be."""
        return ink(self.color)


class Palette:
    """The colours of all families that some records are of, so that figures of them agree."""

    def __init__(self, records: Iterable[Record]) -> None:
        cells = [r["cell"] for r in records if r["status"] == "ok"]
        found = {cell["family"] for cell in cells if cell["scenario"] not in APART}
        pairs = zip(cycle(FURTHER), cycle(FURTHER_MARKERS), strict=False)
        self._families = dict(FAMILIES)
        for family, pair in zip(sorted(found - FAMILIES.keys()), pairs, strict=False):
            self._families[family] = pair

    def look(self, family: str, model: str) -> Look:
        """That of a row that has no rival of its colour."""
        color, marker = self._families.get(family, NEUTRAL)
        return Look(color, MODELS.get(model, marker))

    def looks(self, rows: Sequence[Named]) -> dict[str, Look]:
        """The look of each row of a figure by its label; of one colour, the first 16 differ."""
        found: dict[str, Look] = {}
        for row in sorted(set(rows)):
            plain = self.look(row.family, row.model)
            same = [look for look in found.values() if look.color == plain.color]
            alike = sum(look.marker == plain.marker for look in same)
            place = len(same) + alike // len(FILLS)  # else filling and dash would repeat together
            fill, dash = FILLS[alike % len(FILLS)], DASHES[place % len(DASHES)]
            found[row.label] = Look(plain.color, plain.marker, fill, dash)
        return found


def ink(color: str) -> str:
    """The colour, darkened until large letters of it can be read on white."""
    levels = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    while 1.05 / (_luminance(levels) + 0.05) < CONTRAST:
        levels = [max(0, round(level * 0.97) - 1) for level in levels]
    return "#" + "".join(f"{level:02X}" for level in levels)


def _luminance(levels: Sequence[int]) -> float:
    """Relative luminance of sRGB levels of 0 to 255 (IEC 61966-2-1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (level / 255 for level in levels)]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
