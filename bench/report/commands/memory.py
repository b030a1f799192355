"""`memory [PATHS…]`: bytes by phase, and predictions beside them."""

import argparse
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bench.report.commands.reading import Subcommands, add_paths, read
from bench.report.formats import significant
from bench.report.rows import names, newest_cells
from bench.report.sheet import Entry, Sheet, show
from bench.store import Record, StoreError

MIB = 1 << 20
PHASES = ("parameters", "gradients", "optimizer", "activations", "state")
HEADS = ["model", "task", "scenario", *PHASES, "peak", "process", "predicted"]


def add(commands: Subcommands) -> None:
    """The arguments of the command."""
    parser = commands.add_parser("memory", help="bytes by phase, predicted beside measured")
    parser.set_defaults(run=run)
    add_paths(parser)


def run(options: argparse.Namespace) -> int:
    """Print the sheet; returns the exit code."""
    records, _ = read(options.paths)
    sheet = build(records)
    if not sheet.rows:
        raise StoreError("no record says how much memory it took; run `python -m bench` first")
    show(sheet, Console(highlight=False))
    return 0


def build(records: list[Record]) -> Sheet:
    """One row a cell whose memory was looked at."""
    rows, methods = [], set()
    for record in newest_cells(records):
        memory: Mapping[str, Any] = record.get("memory") or {}
        if memory.get("peak_bytes") is None:
            continue
        methods.add(str(memory.get("method")))
        sizes = [memory.get(f"{phase}_bytes") for phase in (*PHASES, "peak")]
        started, highest = memory.get("rss_start_bytes"), memory.get("rss_peak_bytes")
        grown = None if started is None or highest is None else highest - started
        rows.append(
            [*(Entry(name) for name in names(record)), *map(_mib, sizes), _mib(grown),
             Entry(_deviations(memory))]
        )  # fmt: skip
    return Sheet(
        "Memory by phase (MiB)", HEADS, rows,
        [
            f"Peak: of tensors ({', '.join(sorted(methods))}). Activations: kept by the forward "
            "pass for the backward pass. Process: its high-water mark over what it held at start.",
            "Predicted: by the formulas of model and recipe, how far off what was measured.",
        ],
    )  # fmt: skip


def _deviations(memory: Mapping[str, Any]) -> str | None:
    """By how much each prediction misses what was measured."""
    said = [
        f"{name.removesuffix('_bytes')} {memory[name] / predicted - 1:+.1%}"
        for name, predicted in (memory.get("predicted") or {}).items()
        if predicted and memory.get(name) is not None
    ]
    return ", ".join(said) or None


def _mib(size: float | None) -> Entry:
    return Entry(size, "" if size is None else significant(size / MIB))
