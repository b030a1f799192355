"""How every figure looks: 16:9, with letters that can be read from the last row."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BadInput

SIZE = (13.333, 7.5)  # inches, as a slide of 16:9
FORMATS = ("svg", "pdf", "png")
LEAST = 14  # points of the smallest letters on a slide
LINE = 134  # letters of that size that fit on one line
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


@contextmanager
def canvas(title: str, caption: str) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes with this project's settings; `caption` stands small below it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(SETTINGS):
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, pad=16)
        _below(figure, caption)
        yield figure, axes


@contextmanager
def panels(title: str, caption: str, count: int) -> Iterator[tuple[Any, Any]]:
    """A figure and `count` axes side by side and below each other, with the smallest letters."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    smaller = {"font.size": LEAST, "axes.titlesize": LEAST + 2, "axes.labelsize": LEAST,
               "lines.linewidth": 1.5, "lines.markersize": 7, "errorbar.capsize": 0}  # fmt: skip
    with rc_context({**SETTINGS, **smaller}):
        figure = Figure(layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=22, fontweight="bold")
        _below(figure, caption)
        drawn = figure.subplots(rows, columns, squeeze=False).flatten()
        for empty in drawn[count:]:
            empty.remove()
        yield figure, drawn[:count]


def _below(figure: Any, caption: str) -> None:
    """Write the caption, each of its lines broken where it would leave the slide."""
    lines = [part for line in caption.split("\n") for part in textwrap.wrap(line, LINE)]
    figure.supxlabel("\n".join(lines), fontsize=LEAST, color="#555555", x=0.01, ha="left")


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
