"""`memory [PATHS…]`: bytes by phase, what formulas predict beside what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.report.cell_rows import NAMES, TIMED, flaws, names, scaled
from bench.report.commands.cell_sheets import CellSheets
from bench.report.sheet import Entry, Sheet
from bench.store import Record

MIB = 2**20
PREDICTED = ("parameters", "gradients", "optimizer", "state")
OTHERS = ("activations", "peak", "reserved")
PHASES = [head for phase in PREDICTED for head in (phase, "formula")]
HEADS = [*NAMES, *PHASES, *OTHERS, "RSS+"]
MEANING = (
    "Formula: what the model or the recipe states, and how far the measured figure is from it. "
    "Activations: what forward keeps for backward. Peak: the most that tensors needed at once. "
    "RSS+: the process's peak in the phase, above what it held when the cell began."
)
EARLIER = (
    "Records of an earlier version state no formulas, state or RSS at the start; their activations "
    "are the peak of tensors less parameters, gradients and the optimizer's state."
)


def parts(records: Sequence[Record], _: Sequence[Record]) -> list[Sheet]:
    """A sheet a scenario, each with the columns that it has; notes stand below the last."""
    found = []
    for scenario in TIMED:
        rows = [_row(record) for record in records if record["cell"]["scenario"] == scenario]
        if rows:
            found.append(Sheet(f"Memory of {scenario}, MiB", HEADS, rows))
    return [*found[:-1], replace(found[-1], notes=_notes(records))]


def whole(records: Sequence[Record], _: Sequence[Record]) -> Sheet:
    """One sheet for a file: every record and column, the formulas named after their phases."""
    columns = [
        f"{HEADS[i - 1]} formula" if head == "formula" else head for i, head in enumerate(HEADS)
    ]
    return Sheet("Memory, MiB", columns, [_row(record) for record in records])


def _notes(records: Sequence[Record]) -> list[str]:
    earlier = any(
        "predicted" not in (r.get("memory") or {}) for r in records if r["status"] == "ok"
    )
    return [MEANING, *([EARLIER] if earlier else []), *flaws(records, invalid=False)]


def _row(record: Record) -> list[Entry]:
    memory: dict[str, Any] = dict(record.get("memory") or {})
    predicted = memory.get("predicted") or {}
    found = names(record)
    for phase in PREDICTED:
        key = f"{phase}_bytes"
        found += [scaled(memory.get(key), 1 / MIB), _formula(memory.get(key), predicted.get(key))]
    found += [scaled(memory.get(f"{phase}_bytes"), 1 / MIB) for phase in OTHERS]
    return [*found, scaled(_above_start(memory), 1 / MIB)]


def _formula(measured: float | None, predicted: float | None) -> Entry:
    """The predicted figure, and the deviation of the measured one."""
    if predicted is None:
        return Entry(None)
    entry = scaled(predicted, 1 / MIB)
    if not measured or not predicted:
        return entry
    deviation = f"{measured / predicted - 1:+.1%}" if measured != predicted else "0%"
    return Entry(entry.value, f"{entry} {deviation}")


def _above_start(memory: Mapping[str, Any]) -> float | None:
    peak, start = memory.get("rss_peak_bytes"), memory.get("rss_start_bytes")
    return None if peak is None or start is None else peak - start


COMMAND = CellSheets(
    name="memory",
    help="bytes by phase, what formulas predict beside what was measured",
    scenarios=TIMED,
    shown=lambda record: True,
    missing=f"no record is of scenario {', '.join(TIMED)}; run `python -m bench` first",
    sheets=parts,
    whole=whole,
)
add = COMMAND.add
