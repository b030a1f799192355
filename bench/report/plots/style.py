"""How every figure looks: 16:9, large, one colour and one marker a family, labels at the lines.

The colours are Okabe and Ito's (2008, "Color Universal Design"), which people with the common
colour vision deficiencies tell apart; markers say the same once more, for those who print in grey.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BadInput

SIZE = (13.333, 7.5)  # inches, as a slide of 16:9
FORMATS = ("svg", "pdf", "png")
FAMILIES = {
    "transformer": ("#0072B2", "o"),  # blue
    "moe": ("#56B4E9", "s"),  # sky blue
    "mamba": ("#D55E00", "^"),  # vermilion
    "mamba2": ("#E69F00", "v"),  # orange
    "rwkv": ("#009E73", "D"),  # bluish green
    "resnet": ("#CC79A7", "P"),  # reddish purple
    "diffusion": ("#000000", "X"),
    "dit": ("#7F7F7F", "*"),
}
FURTHER = (("#8C6D31", "h"), ("#843C39", "<"), ("#637939", ">"), ("#7B4173", "d"))
TICKS = (  # from so many decades on, the ticks within each
    (2.5, (1.0,)),
    (1.2, (1.0, 2.0, 5.0)),
    (0.0, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)),
)
SETTINGS: dict[str, Any] = {
    "figure.figsize": SIZE,
    "font.size": 18,
    "axes.titlesize": 22,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 20,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 3,
    "lines.markersize": 10,
    "errorbar.capsize": 4,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "archbench",  # the same bytes from the same records
    "pdf.fonttype": 42,
    "savefig.dpi": 150,
}


@dataclass(frozen=True)
class Look:
    """Colour and marker of a family."""

    color: str
    marker: str


def look(model: str, family: str) -> Look:
    """The same for a model in every figure; a model that is not ours takes its family's look.

    A family that is not ours either gets one of `FURTHER`, always the same one.
    """
    for name in (model, family):
        if name in FAMILIES:
            return Look(*FAMILIES[name])
    number = int(hashlib.sha256(family.encode()).hexdigest(), 16)
    return Look(*FURTHER[number % len(FURTHER)])


@contextmanager
def canvas(title: str, caption: str) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes with this project's settings; `caption` stands small below."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(SETTINGS):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, pad=16)
        figure.supxlabel(caption, fontsize=11, color="#555555", x=0.01, ha="left")
        yield figure, axes


@contextmanager
def panels(title: str, caption: str, count: int, size: float = 13) -> Iterator[tuple[Any, Any]]:
    """A figure and `count` axes side by side and below each other, with letters of `size`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    smaller = {"font.size": size, "axes.titlesize": size + 2, "axes.labelsize": size,
               "lines.linewidth": 1.5, "lines.markersize": 5, "errorbar.capsize": 0}  # fmt: skip
    with rc_context({**SETTINGS, **smaller}):
        figure = Figure(layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=22, fontweight="bold")
        figure.supxlabel(caption, fontsize=11, color="#555555", x=0.01, ha="left")
        drawn = figure.subplots(rows, columns, squeeze=False).flatten()
        for empty in drawn[count:]:
            empty.remove()
        yield figure, drawn[:count]


def save(figure: Any, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write `name`.svg and so on; no date goes into the files."""
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    paths = [folder / f"{name}.{ending}" for ending in formats]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, ending in zip(paths, formats, strict=True):
            figure.savefig(path, metadata=dates[ending])
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"output folder '{folder}' cannot be written ({reason})") from error
    return paths


def logarithmic(axes: Any, which: str) -> None:
    """A log scale for the axis `which` (x or y), ticks written as people write: 0.5, 200, 20k, 3M.

    The fewer decades the axis spans, the more ticks each of them gets. Call it after drawing.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    steps = next(steps for least, steps in TICKS if decades >= least)
    axis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """A round number in few letters, e.g. `20k`."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (value >= size and letter != "k"):
            return f"{value / size:g}{letter}"
    return f"{value:g}"


Label = tuple[float, float, str, str]  # x, y, text, colour


def label_ends(axes: Any, labels: Sequence[Label], size: float | None = None) -> None:
    """Write each label right of the axes, moved apart where they would collide."""
    if not labels:
        return
    axes.figure.draw_without_rendering()  # heights are known once everything has its place
    to_axes = axes.transData + axes.transAxes.inverted()
    order = sorted(labels, key=lambda label: to_axes.transform((label[0], label[1]))[1])
    wanted = np.array([to_axes.transform((x, y))[1] for x, y, _, _ in order])
    size = size or SETTINGS["font.size"]
    height = size / 72 * axes.figure.dpi * 1.2 / axes.bbox.height
    for (x, y, text, color), at in zip(order, spread(wanted, height), strict=True):
        axes.annotate(
            text, (x, y), xytext=(1.03, at), textcoords="axes fraction", color=color, va="center",
            annotation_clip=False, fontsize=size,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 1, "alpha": 0.6, "shrinkB": 7},
        )  # fmt: skip


def place_labels(axes: Any, labels: Sequence[Label]) -> None:
    """Write each label beside its point, where it covers no other one.

    Of eight places around a point, the one with the least overlap with points and with labels that
    stand already; points with the fewest free places come first by their crowdedness.
    """
    axes.figure.draw_without_rendering()
    renderer = axes.figure._get_renderer()
    at = np.array([axes.transData.transform((x, y)) for x, y, _, _ in labels])
    radius = SETTINGS["lines.markersize"] / 72 * axes.figure.dpi
    boxes = [np.array([x - radius, y - radius, x + radius, y + radius]) for x, y in at]
    frame = np.array(axes.bbox.extents)
    distance = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + np.eye(len(at)) * 1e9
    for index in np.argsort(distance.min(1)):
        x, y, text, color = labels[index]
        written = axes.annotate(
            text, (x, y), xytext=(0, 0), textcoords="offset points", color=color,
            fontweight="bold", ha="center", va="center",
        )  # fmt: skip
        extent = written.get_window_extent(renderer)
        wide, high = extent.width / 2 + radius + 4, extent.height / 2 + radius
        offsets = [(0, high), (0, -high), (wide, 0), (-wide, 0), (wide, high), (-wide, high),
                   (wide, -high), (-wide, -high)]  # fmt: skip
        size = np.array([extent.width, extent.height]) / 2
        candidates = [
            np.concatenate([at[index] + offset - size, at[index] + offset + size])
            for offset in offsets
        ]
        costs = [
            sum(_overlap(box, other) for other in boxes) + _outside(box, frame)
            for box in candidates
        ]
        best = int(np.argmin(costs))
        written.set_position([value * 72 / axes.figure.dpi for value in offsets[best]])
        boxes.append(candidates[best])


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Area that two boxes (left, bottom, right, top) share."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0)))


def _outside(box: np.ndarray, frame: np.ndarray) -> float:
    """Area of a box that lies outside of the frame."""
    return float(np.prod(box[2:] - box[:2])) - _overlap(box, frame)


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Rising positions at least `gap` apart, as near to the wanted ones as least squares can.

    Pool adjacent violators: neighbours that collide share their mean.
    """
    offsets = gap * np.arange(len(wanted))
    pools: list[list[float]] = []
    for value in wanted - offsets:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    return np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools]) + offsets
