"""What was matched between the rows of a block, and what that left unequal."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.budgets import FLOPS, STATE, TIME
from bench.constants import TOLERANCE
from bench.report.formats import count, significant
from bench.report.layout import Notes
from bench.report.select import Selection, Variant

SPREAD = (1 + TOLERANCE) / (1 - TOLERANCE)  # of two that are both within it
THOUSANDS = 10_000
Read = Callable[[Any], float | None]


def explain(selection: Selection, notes: Notes) -> None:
    """Say it where rows of more than one model stand side by side."""
    rows = selection.current
    found = {words: _values(rows, read) for words, read in READ.items()}
    if len({variant.model for variant in rows}) < 2 or not any(map(any, found.values())):
        return
    words, read, target = _asked(selection.key.match)
    apart = [
        f"{row.model} {_short(value)}"
        for row, value in zip(rows, _values(rows, read), strict=True)
        if value and (aim := target or _size(row)) and abs(value / aim - 1) > TOLERANCE
    ]
    missed = f", but not by {', '.join(dict.fromkeys(apart))}" if apart else ""
    unequal = [
        f"{name} {_short(min(known))} to {_short(max(known))}"
        for name, values in found.items()
        if (known := [value for value in values if value]) and max(known) > SPREAD * min(known)
    ]
    left = f" Left unequal: {'; '.join(unequal)}." if unequal else ""
    notes.add(f"Matched: {words}, within {TOLERANCE:.0%}{missed}.{left}")


def _asked(match: str) -> tuple[str, Read, float | None]:
    """What was to be equal in words, how it is read, and its target; None: that of each size."""
    name, _, rest = match.partition(" ")
    target = float(rest.split()[0]) if rest else None
    if name == TIME:
        return f"{rest} of training", lambda record: _quality(record, "seconds"), target
    if name == STATE:
        return f"{rest} of state", _state_bytes, target
    if name == FLOPS and rest.endswith("training"):
        return f"{significant(target or 0)} FLOPs of all training", _all_flops, target
    if name == FLOPS:
        return f"{_short(target or 0)} FLOPs a symbol forward", lambda record: None, target
    said = "" if target is None else f" ({_short(target)})"
    return f"parameters outside embeddings{said}", _parameters("matched"), target


def _size(row: Variant) -> float | None:
    """Parameters of the size that a row's models were brought to."""
    return next(_of(row, _parameters("target")), None)


def _short(value: float) -> str:
    return count(value) if value >= THOUSANDS else significant(value)


def _values(rows: Sequence[Variant], read: Read) -> list[float | None]:
    """One value a row: that of its first record that has it."""
    return [next(_of(row, read), None) for row in rows]


def _of(row: Variant, read: Read) -> Iterator[float]:
    for record in row.records():
        if record["status"] == "ok" and (value := read(record)) is not None:
            yield float(value)


def _parameters(name: str) -> Read:
    return lambda record: (record.get("parameters") or {}).get(name)


def _state_bytes(record: Any) -> float | None:
    return (record.get("figures") or {}).get("state_bytes")


def _state(record: Any) -> float | None:
    found = _state_bytes(record)
    return None if found is None else found / 1024


def _flops(record: Any) -> float | None:
    """Millions of a token or an image in training."""
    curve = record.get("curve") or {}
    flops = curve.get("flops_per_item")
    return None if flops is None else flops / (curve.get("tokens_per_item") or 1) / 1e6


def _all_flops(record: Any) -> float | None:
    """Of a whole training."""
    flops, items = (record.get("curve") or {}).get("flops_per_item"), _quality(record, "items")
    return None if flops is None or items is None else flops * items


def _quality(record: Any, name: str) -> float | None:
    found = (record.get("quality") or {}).get(f"train_{name}")
    return found or None  # none of a checkpoint that was not trained


READ: dict[str, Read] = {
    "parameters": _parameters("matched"),
    "active ones with embeddings": _parameters("active"),
    "KiB of state": _state,
    "MFLOPs of training a symbol": _flops,
    "FLOPs of training": _all_flops,
    "seconds of training": lambda record: _quality(record, "seconds"),
}
