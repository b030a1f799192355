"""Reading, writing and state against the length of the context, with the power of each."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.fits import Power
from bench.report.plots.figure import Request
from bench.report.plots.palette import Look, Named, Palette
from bench.report.plots.placing import Label, label_ends
from bench.report.plots.style import canvas, logarithmic, save
from bench.report.sweeps import Sweep, SweepBlock, sweep_blocks

NEEDS = "a context sweep (python -m bench suite=context)"
FITTED = "Powers of T ± 95 % intervals: fitted to the upper half of the lengths (thick lines)."
BARS = " Bars: 95 % intervals."
NAMED = 6  # lengths that can all be named along the axis


def draw(request: Request) -> list[Path]:
    """Three figures for each block of sweeps."""
    paths = []
    palette = Palette(request.records)
    blocks = [(block, [sweep for sweep in block.sweeps if sweep.points])
              for block in sweep_blocks(request.records)]  # fmt: skip
    for number, (block, sweeps) in enumerate(pair for pair in blocks if pair[1]):
        ending = f"-{number + 1}" if number else ""
        looks = palette.looks([Named(s.label, s.family, s.model) for s in sweeps])
        for name, (title, bars, curves) in FIGURES.items():
            caption = _caption(block, FITTED + bars)
            with canvas(title, caption) as (figure, axes):
                curves(axes, sweeps, looks)
                axes.set_xlabel("context T (bytes of text)")
                paths += save(figure, request.folder, f"context-{name}{ending}", request.formats)
    return paths


def _caption(block: SweepBlock, explained: str) -> str:
    """Where it was measured, what is drawn, and which points are missing."""
    missing = [
        f"{sweep.label} at {sweep.missing[0]['at']:,}: {sweep.missing[0]['status']}"
        for sweep in block.sweeps
        if sweep.missing
    ]
    reasons = f"\nNot measured from there on: {'; '.join(missing)}." if missing else ""
    return f"{block.heading}\n{explained}{reasons}"


def _reading(axes: Any, sweeps: Sequence[Sweep], looks: dict[str, Look]) -> None:
    """A thin line is the fit a + b·T + c·T² that the crossings are of."""
    axes.set_ylabel("time to read it (ms)")
    for sweep in sweeps:
        look = looks[sweep.label]
        _points(axes, sweep, "prefill", look, line=sweep.fit is None)
        if sweep.fit is not None:
            T = np.geomspace(sweep.fit.lengths[0], sweep.fit.lengths[-1], 200)
            axes.plot(T, [1e3 * sweep.fit.at(length) for length in T], color=look.color,
                      linewidth=1.2)  # fmt: skip
    _powers(axes, sweeps, looks, [s.read for s in sweeps], 1e3, "prefill_s")


def _writing(axes: Any, sweeps: Sequence[Sweep], looks: dict[str, Look]) -> None:
    axes.set_ylabel("time to write one more byte (ms)")
    for sweep in sweeps:
        _points(axes, sweep, "step", looks[sweep.label], line=True)
    _powers(axes, sweeps, looks, [s.written for s in sweeps], 1e3, "step_s")


def _state(axes: Any, sweeps: Sequence[Sweep], looks: dict[str, Look]) -> None:
    axes.set_ylabel("state of one sequence (KiB)")
    for sweep in sweeps:
        axes.plot(
            [point["at"] for point in sweep.points],
            [point["state_bytes"] / 1024 for point in sweep.points],
            **looks[sweep.label].point, linewidth=1.2,
        )  # fmt: skip
    _powers(axes, sweeps, looks, [s.state for s in sweeps], 1 / 1024, "state_bytes")


def _points(axes: Any, sweep: Sweep, name: str, look: Look, *, line: bool) -> None:
    """Medians in ms with their 95 % intervals."""
    values: list[dict[str, Any]] = [dict(point) for point in sweep.points]
    middle = np.array([point[f"{name}_s"] for point in values])
    below = middle - [point[f"{name}_ci_low_s"] for point in values]
    above = np.array([point[f"{name}_ci_high_s"] for point in values]) - middle
    axes.errorbar(
        [point["at"] for point in values], 1e3 * middle, yerr=1e3 * np.array([below, above]),
        **look.point, linestyle="-" if line else "none", linewidth=1.2, elinewidth=2,
    )  # fmt: skip


def _powers(
    axes: Any, sweeps: Sequence[Sweep], looks: dict[str, Look], powers: Sequence[Power | None],
    scale: float, name: str,
) -> None:  # fmt: skip
    """Thick lines of the fitted powers, and each sweep's label at its last point."""
    labels = []
    for sweep, power in zip(sweeps, powers, strict=True):
        look = looks[sweep.label]
        last: dict[str, Any] = dict(sweep.points[-1])
        text = sweep.label
        if power is not None:
            ends = [power.lengths[0], power.lengths[-1]]
            axes.plot(ends, [scale * power.at(T) for T in ends], color=look.color,
                      linestyle=look.dash)  # fmt: skip
            text += f"  {_power(power)}"
        labels.append(Label(last["at"], last[name] * scale, text, look.ink))
    for which in ("x", "y"):
        logarithmic(axes, which)
    lengths = sorted({point["at"] for sweep in sweeps for point in sweep.points})
    step = 1 if len(lengths) <= NAMED else 2
    named = [f"{T:,}" if n % step == 0 else "" for n, T in enumerate(reversed(lengths))][::-1]
    axes.set_xticks(lengths, named)
    label_ends(axes, labels)


def _power(power: Power) -> str:
    """The power as it is written on paper; rounding leaves a zero its sign."""
    return f"$T^{{{round(power.exponent, 2) + 0.0:.2f} \\pm {power.half:.2f}}}$"


Curves = Callable[[Any, Sequence[Sweep], dict[str, Look]], None]
FIGURES: dict[str, tuple[str, str, Curves]] = {
    "read": ("Time to read a context", BARS + " Thin: a + b·T + c·T².", _reading),
    "write": ("Time to write one more byte after a context", BARS, _writing),
    "state": ("What a sequence carries along", "", _state),
}
