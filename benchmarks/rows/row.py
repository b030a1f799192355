"""A row of the speed table: two sides of the same work, timed in turns, and the peak of each.

The two sides alternate in one process (`benchmarks.ab`). Before that a row shows that they compute
the same, where equal weights make that possible; what it showed stands in its note. Memory is taken
in a pass of its own (`bench.meters.allocator`): all tensors that live at once while a side is
called, its parameters included.
"""

import contextlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.meters.allocator import run_phases
from benchmarks.ab import THREADS, Turns, take_turns
from benchmarks.rows.ceiling import product_rate

CPU = torch.device("cpu")
MIB = 1 << 20


class NotGivenError(Exception):
    """The rival of a row is not there; the message says how to get it."""


@dataclass(frozen=True)
class Setting:
    """What a user chooses: the length of sequences, seconds a row, and rivals' checkouts."""

    length: int = 512
    seconds: float = 15.0
    checkouts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """What is called, and the tensors that live on between calls."""

    call: Callable[[], object]
    resident: Sequence[Tensor] = ()

    def peak(self) -> int:
        """The most bytes of tensors at once while it is called."""
        peak = run_phases({"call": self.call}, self.resident, CPU)["call"].peak
        assert peak is not None  # a CPU's allocator tells it
        return peak


@dataclass(frozen=True)
class Pair:
    """Both sides; `flops` are those of one call of ours, `note` says what makes them alike."""

    ours: Side
    theirs: Side
    note: str
    flops: int | None = None


@dataclass(frozen=True)
class Row:
    """A claim: theirs takes at least `target` times as long as ours.

    With a `ceiling` the claim also holds where ours does that share of the arithmetic that matrix
    products reach on this machine. `length` is given where the claim is about one length alone.
    """

    key: str
    name: str
    target: float
    pair: Callable[[Setting], Pair]
    length: int | None = None
    ceiling: float | None = None

    def measure(self, setting: Setting) -> "Result":
        """Both sides in turns, then the memory of each; a failure is a result as well."""
        torch.set_num_threads(THREADS)
        torch.manual_seed(0)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # rivals greet
                pair = self.pair(setting)
            rate = product_rate() if self.ceiling else None
            turns = take_turns(pair.ours.call, pair.theirs.call, seconds=setting.seconds)
            peaks = (pair.ours.peak(), pair.theirs.peak())
        except NotGivenError as missing:
            return Result(self, setting.length, problem=f"not measured: {missing}")
        except Exception as error:  # of a rival in a version that nobody here has seen
            traceback.print_exc()
            return Result(self, setting.length, problem=f"failed: {type(error).__name__}: {error}")
        share = None
        if rate and pair.flops:
            share = pair.flops / min(turns.ours_s) / max(rate, product_rate())
        return Result(self, setting.length, pair.note, turns, peaks, share)


@dataclass(frozen=True)
class Result:
    """What a row gave; without `turns` there is a `problem`. `peaks` are bytes, ours and theirs."""

    row: Row
    length: int
    note: str = ""
    turns: Turns | None = None
    peaks: tuple[int, int] | None = None
    share: float | None = None
    problem: str | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the claim holds; None where nothing was measured."""
        if self.turns is None:
            return None
        at_ceiling = self.row.ceiling is not None and (self.share or 0.0) >= self.row.ceiling
        return self.turns.ratio >= self.row.target or at_ceiling

    @property
    def verdict(self) -> str:
        """In a word, or the problem."""
        return {True: "reached", False: "MISSED", None: self.problem or ""}[self.reached]

    @property
    def target(self) -> str:
        """The ratio asked for, or the share of the ceiling."""
        if self.row.ceiling is None:
            return f"{self.row.target:g}"
        share = "" if self.share is None else f" (here {self.share:.0%})"
        return f"{self.row.target:g}, or {self.row.ceiling:.0%} of the product ceiling{share}"

    def __str__(self) -> str:
        name = f"{self.row.key} ({self.row.name}), length {self.length}"
        if self.turns is None or self.peaks is None:
            return f"{name}: {self.problem}"
        ours, theirs = (peak / MIB for peak in self.peaks)
        return (
            f"{name}: {self.turns}, target {self.target} {self.verdict}; "
            f"peak {ours:.1f} MiB, theirs {theirs:.1f} MiB; {self.note}"
        )

    def as_json(self) -> dict[str, Any]:
        """All figures, the raw samples included."""
        turns = self.turns
        return {
            "row": self.row.key,
            "name": self.row.name,
            "length": self.length,
            "target": self.row.target,
            "ceiling": self.row.ceiling,
            "reached": self.reached,
            "problem": self.problem,
            "note": self.note,
            "ratio": turns and turns.ratio,
            "quartiles": turns and turns.quartiles,
            "ours_s": turns and turns.ours_s,
            "theirs_s": turns and turns.theirs_s,
            "peak_bytes": self.peaks and dict(zip(("ours", "theirs"), self.peaks, strict=True)),
            "ceiling_share": self.share,
        }
