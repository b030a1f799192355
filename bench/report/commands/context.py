"""`context [PATHS…]`: reading, writing and state against the length of the context, with fits."""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from bench.arguments import Subcommands, add_paths
from bench.console import make_console
from bench.errors import BadInput
from bench.report.commands.reading import read
from bench.report.fits import STEEP, Power, crossover
from bench.report.formats import MISSING, significant
from bench.report.sheet import Entry, Sheet, show
from bench.report.sweeps import Sweep, SweepBlock, sweep_blocks
from bench.store import Record
from bench.store.parts import PointPart

HEADS = ["model", "context", "read ms", "± %", "written ms/token", "± %", "state KiB", "peak MiB"]
EVEN = 1.05  # ratio of two times up to which neither is called faster
POWER_HEADS = ["model", "read", "±", "written", "±", "state", "±", "over"]
FIT_HEADS = ["model", "a ms", "b µs/token", "c ns/token²", "c, 95 %", "growth", "exponent", "state"]


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser(
        "context", help="time and state against the length of the context, with fits"
    )
    parser.set_defaults(run=run)
    add_paths(parser)


def run(options: argparse.Namespace) -> int:
    """Print the sheets; returns the exit code."""
    records, _ = read(options.paths)
    if not show_sheets(records, make_console()):
        raise BadInput("no record has a context sweep; run `python -m bench suite=context` first")
    return 0


def show_sheets(records: Sequence[Record], console: Console) -> bool:
    """Print what the sweeps among `records` say; False where there is none."""
    blocks = sweep_blocks(records)
    for block in blocks:
        sheets = (points(block), fits(block.sweeps), powers(block.sweeps), crossings(block.sweeps))
        for sheet in sheets:
            console.print()
            show(sheet, console)
    return bool(blocks)


def points(block: SweepBlock) -> Sheet:
    """Every point, and the reason where there is none."""
    rows, notes = [], []
    for sweep in block.sweeps:
        for point in sweep.points:
            state, peak = point["state_bytes"] / 1024, point["peak_bytes"]
            rows.append(
                [Entry(sweep.label), Entry(point["at"]),
                 *_timed(point, "prefill"), *_timed(point, "step"),
                 Entry(state, significant(state)), _mebibytes(peak)]
            )  # fmt: skip
        for point in sweep.missing:
            reason = point.get("reason")
            notes.append(f"{sweep.label} at {point['at']}: {point['status']}, {reason}")
    return Sheet(f"Context sweep · {block.heading}", HEADS, rows, notes)


def _mebibytes(peak: int | None) -> Entry:
    """A dash where the device keeps no peak."""
    return Entry(None) if peak is None else Entry(peak / 2**20, significant(peak / 2**20))


def _timed(point: PointPart, name: str) -> list[Entry]:
    values: dict[str, Any] = dict(point)
    median = float(values[f"{name}_s"])
    half = (values[f"{name}_ci_high_s"] - values[f"{name}_ci_low_s"]) / 2 / median
    return [Entry(median, significant(median * 1e3)), Entry(half, f"{100 * half:.1f}")]


def fits(block: Sequence[Sweep]) -> Sheet:
    """Coefficients of a + b·T + c·T² and what they say."""
    rows = []
    for sweep in block:
        state = Entry("grows" if sweep.state_grows else "constant")
        if (fit := sweep.fit) is None:
            rows.append([Entry(sweep.label), *[Entry(None)] * 6, state])
            continue
        bounds = f"[{fit.c_low * 1e9:.3g}, {fit.c_high * 1e9:.3g}]"
        rows.append(
            [Entry(sweep.label), _scaled(fit.a, 1e3), _scaled(fit.b, 1e6), _scaled(fit.c, 1e9),
             Entry(bounds), Entry(fit.growth), Entry(fit.exponent, f"{fit.exponent:.2f}"), state]
        )  # fmt: skip
    return Sheet(
        "Time of reading T symbols, fitted as a + b·T + c·T²", FIT_HEADS, rows,
        [
            "Exponent: of the last octave. Linear: the interval of c holds zero; quadratic: it "
            f"lies above, and the exponent above {STEEP}; bent line: else, as where a cache "
            "overflows."
        ],
    )  # fmt: skip


def powers(block: Sequence[Sweep]) -> Sheet:
    """Exponents of time and state, as the figures show them."""
    rows = []
    for sweep in block:
        found = (sweep.read, sweep.written, sweep.state)
        over = next((f"{p.lengths[0]} to {p.lengths[-1]}" for p in found if p), MISSING)
        rows.append(
            [Entry(sweep.label), *[entry for p in found for entry in _power(p)], Entry(over)]
        )
    return Sheet(
        "Exponents of T", POWER_HEADS, rows,
        ["Least squares of logarithms over the upper half of the lengths, with 95 % intervals."],
    )  # fmt: skip


def _power(power: Power | None) -> list[Entry]:
    if power is None:
        return [Entry(None), Entry(None)]
    # Rounding leaves a zero its sign.
    exponent = round(power.exponent, 2) + 0.0
    return [Entry(power.exponent, f"{exponent:.2f}"), Entry(power.half, f"{power.half:.2f}")]


def _scaled(value: float, scale: float) -> Entry:
    return Entry(value, f"{value * scale:.3g}")


def crossings(block: Sequence[Sweep]) -> Sheet:
    """From which length on which family is faster."""
    rows = []
    fitted = [(sweep.label, sweep.fit) for sweep in block if sweep.fit is not None]
    for (name, fit), (rival, other) in itertools.combinations(fitted, 2):
        low, high = max(fit.lengths[0], other.lengths[0]), min(fit.lengths[-1], other.lengths[-1])
        length = crossover(fit, other)
        ratios = [fit.at(T) / other.at(T) for T in (low, high)]
        winners = [_faster(name, rival, ratio) for ratio in ratios]
        rows.append(
            [Entry(f"{name}, {rival}"), Entry(f"{low} to {high}"), Entry(winners[0]),
             Entry(length, f"{length:.0f}" if length else MISSING), Entry(winners[1])]
        )  # fmt: skip
    heads = ["models", "measured", "faster when short", "crossover", "faster when long"]
    return Sheet("Which reads faster", heads, rows)


def _faster(name: str, rival: str, ratio: float) -> str:
    if 1 / EVEN < ratio < EVEN:
        return "neither"
    return name if ratio < 1 else rival
