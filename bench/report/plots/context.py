"""Reading, writing and state against the length of the context."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.plots.figure import Request
from bench.report.plots.style import canvas, label_ends, logarithmic, look, save
from bench.report.sweeps import Sweep, SweepBlock, sweep_blocks

NEEDS = "a context sweep (python -m bench suite=context)"


def draw(request: Request) -> list[Path]:
    """Three figures for each block of sweeps."""
    paths = []
    for number, block in enumerate(sweep_blocks(request.records)):
        ending = f"-{number + 1}" if number else ""
        for name, (title, curves) in FIGURES.items():
            with canvas(title, _caption(block)) as (figure, axes):
                curves(axes, block.sweeps)
                axes.set_xlabel("context (bytes of text)")
                paths += save(figure, request.folder, f"context-{name}{ending}", request.formats)
    return paths


def _caption(block: SweepBlock) -> str:
    """Where it was measured, and which points are missing."""
    missing = [
        f"{sweep.model} at {sweep.missing[0]['at']:,}: {sweep.missing[0]['status']}"
        for sweep in block.sweeps
        if sweep.missing
    ]
    reasons = f"\nNot measured from there on: {'; '.join(missing)}." if missing else ""
    return block.heading + reasons


def _logarithmic(axes: Any, lengths: Sequence[int]) -> None:
    """Octaves along the context; call it after drawing."""
    for which in ("x", "y"):
        logarithmic(axes, which)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])


def _lengths(sweeps: Sequence[Sweep]) -> list[int]:
    return sorted({point["at"] for sweep in sweeps for point in sweep.points})


def _reading(axes: Any, sweeps: Sequence[Sweep]) -> None:
    """Points with their intervals, the fit through them, the exponent of the last octave."""
    labels = []
    for sweep in sweeps:
        color, last = look(sweep.model, sweep.family).color, sweep.points[-1]
        _points(axes, sweep, "prefill", line="none" if sweep.fit else "-")
        text = sweep.model
        if sweep.fit is not None:
            T = np.geomspace(sweep.fit.lengths[0], sweep.fit.lengths[-1], 200)
            axes.plot(T, [1e3 * sweep.fit.at(length) for length in T], color=color)
            text += f"  $T^{{{sweep.fit.exponent:.2f}}}$"
        labels.append((last["at"], 1e3 * last["prefill_s"], text, color))
    axes.set_ylabel("time to read it (ms)")
    _logarithmic(axes, _lengths(sweeps))
    label_ends(axes, labels)


def _writing(axes: Any, sweeps: Sequence[Sweep]) -> None:
    labels = []
    for sweep in sweeps:
        _points(axes, sweep, "step", line="-")
        last = sweep.points[-1]
        labels.append(
            (last["at"], 1e3 * last["step_s"], sweep.model, look(sweep.model, sweep.family).color)
        )
    axes.set_ylabel("time to write one more byte (ms)")
    _logarithmic(axes, _lengths(sweeps))
    label_ends(axes, labels)


def _state(axes: Any, sweeps: Sequence[Sweep]) -> None:
    labels = []
    for sweep in sweeps:
        style = look(sweep.model, sweep.family)
        lengths = [point["at"] for point in sweep.points]
        kib = [point["state_bytes"] / 1024 for point in sweep.points]
        axes.plot(lengths, kib, color=style.color, marker=style.marker)
        labels.append((lengths[-1], kib[-1], sweep.model, style.color))
    axes.set_ylabel("state of one sequence (KiB)")
    _logarithmic(axes, _lengths(sweeps))
    label_ends(axes, labels)


def _points(axes: Any, sweep: Sweep, name: str, line: str) -> None:
    """Medians in ms with their 95 % intervals."""
    style = look(sweep.model, sweep.family)
    values: list[dict[str, Any]] = [dict(point) for point in sweep.points]
    middle = np.array([point[f"{name}_s"] for point in values])
    below = middle - [point[f"{name}_ci_low_s"] for point in values]
    above = np.array([point[f"{name}_ci_high_s"] for point in values]) - middle
    axes.errorbar(
        [point["at"] for point in values], 1e3 * middle, yerr=1e3 * np.array([below, above]),
        color=style.color, marker=style.marker, linestyle=line, elinewidth=2,
    )  # fmt: skip


FIGURES: dict[str, tuple[str, Callable[[Any, Sequence[Sweep]], None]]] = {
    "read": ("Time to read a context, with a + b·T + c·T²", _reading),
    "write": ("Writing one more byte after a context", _writing),
    "state": ("What a sequence carries along", _state),
}
