"""What was matched between the rows of a block, and what that left unequal."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.report.formats import count, significant
from bench.report.layout import Notes
from bench.report.select import Selection, Variant

TOLERANCE = 0.03  # within which rows count as equal; that of `bench.sizes`
SPREAD = 1 + 2 * TOLERANCE
THOUSANDS = 10_000
MATCH, TARGET = "match=", "match.target="
WORDS = {
    "params": "parameters outside embeddings",
    "flops": "FLOPs of training",
    "symbol": "FLOPs a symbol",
    "time": "seconds of training",
    "state": "bytes of state",
}


def explain(selection: Selection, notes: Notes) -> None:
    """Say it where rows of more than one model stand side by side."""
    quantities = {words: _values(selection.current, read) for words, read in READ.items()}
    if len({variant.model for variant in selection.current}) < 2 or not any(quantities.values()):
        return
    given = selection.key.changes.split()
    name = next((text.removeprefix(MATCH) for text in given if text.startswith(MATCH)), "params")
    if "match.of=symbol" in given:
        name = "symbol"
    target = next((text for text in given if text.startswith(TARGET)), None)
    asked = "" if target is None else f" ({target.removeprefix(TARGET)} asked for)"
    unequal = [
        f"{words} {_short(low)} to {_short(high)}"
        for words, found in quantities.items()
        if found and (high := max(found)) > SPREAD * max(low := min(found), 1e-12)
    ]
    left = f" Left unequal: {'; '.join(unequal)}." if unequal else ""
    notes.add(f"Matched: {WORDS.get(name, name)}, within {TOLERANCE:.0%}{asked}.{left}")


def _short(value: float) -> str:
    return count(value) if value >= THOUSANDS else significant(value)


def _values(rows: Sequence[Variant], read: Callable[[Any], float | None]) -> list[float]:
    """One value a row: that of its first record that has it."""
    found = (next(_of(row, read), None) for row in rows)
    return [value for value in found if value is not None]


def _of(row: Variant, read: Callable[[Any], float | None]) -> Iterator[float]:
    for record in row.records():
        if record["status"] == "ok" and (value := read(record)) is not None:
            yield float(value)


def _parameters(name: str) -> Callable[[Any], float | None]:
    return lambda record: (record.get("parameters") or {}).get(name)


def _state(record: Any) -> float | None:
    found = (record.get("figures") or {}).get("state_bytes")
    return None if found is None else found / 1024


def _flops(record: Any) -> float | None:
    """Millions of a token or an image in training."""
    curve = record.get("curve") or {}
    flops = curve.get("flops_per_item")
    return None if flops is None else flops / (curve.get("tokens_per_item") or 1) / 1e6


def _all_flops(record: Any) -> float | None:
    """Billions of a whole training."""
    flops, items = (record.get("curve") or {}).get("flops_per_item"), _quality(record, "items")
    return None if flops is None or items is None else flops * items / 1e9


def _quality(record: Any, name: str) -> float | None:
    found = (record.get("quality") or {}).get(f"train_{name}")
    return found or None  # none of a checkpoint that was not trained


READ: dict[str, Callable[[Any], float | None]] = {
    "parameters": _parameters("matched"),
    "active ones with embeddings": _parameters("active"),
    "KiB of state": _state,
    "MFLOPs of training a symbol": _flops,
    "GFLOPs of training": _all_flops,
    "seconds of training": lambda record: _quality(record, "seconds"),
}
