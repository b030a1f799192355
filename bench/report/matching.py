"""What was matched between the rows of a block, and what that left unequal."""

from collections.abc import Callable
from typing import Any

from bench.budgets import FLOPS, STATE, TIME
from bench.constants import TOLERANCE
from bench.report.formats import count, significant
from bench.report.heads import state_of
from bench.report.layout import Notes
from bench.report.select import Selection, Variant

SPREAD = (1 + TOLERANCE) / (1 - TOLERANCE)  # of two that are both within it
THOUSANDS = 10_000
Read = Callable[[Variant], float | None]  # a value of a row, None where it has none


def explain(selection: Selection, notes: Notes) -> None:
    """Say it where rows of more than one model stand side by side."""
    rows = selection.current
    found = {words: [read(row) for row in rows] for words, read in READ.items()}
    if len({variant.model for variant in rows}) < 2 or not any(map(any, found.values())):
        return
    words, read, target = _asked(selection.key.match)
    apart = [
        f"{row.model} {_short(value)}"
        for row in rows
        if (value := read(row))
        and (aim := target or _size(row))
        and abs(value / aim - 1) > TOLERANCE
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
        return f"{rest} of training", _first(_seconds), target
    if name == STATE:
        return f"{rest} of state", _first(_state_at(rest.partition(" at ")[2])), target
    if name == FLOPS and rest.endswith("training"):
        return f"{significant(target or 0)} FLOPs of all training", _first(_all_flops), target
    if name == FLOPS:
        return f"{_short(target or 0)} FLOPs a symbol forward", lambda row: None, target
    said = "" if target is None else f" ({_short(target)})"
    return f"parameters outside embeddings{said}", _first(_parameters("matched")), target


def _short(value: float) -> str:
    return count(value) if value >= THOUSANDS else significant(value)


def _first(read: Callable[[Any], float | None]) -> Read:
    """Of a row's records, what the first one says that says it."""

    def of(row: Variant) -> float | None:
        found = (read(record) for record in row.records() if record["status"] == "ok")
        return next((float(value) for value in found if value is not None), None)

    return of


def _parameters(name: str) -> Callable[[Any], float | None]:
    return lambda record: (record.get("parameters") or {}).get(name)


def _state_at(context: str) -> Callable[[Any], float | None]:
    """Bytes after that many symbols; "": after those of the task's items, as quality has them."""

    def of(record: Any) -> float | None:
        figures = record.get("figures") or {}
        stated = str(figures.get("state_context")) == context if context else (
            record["cell"]["scenario"] == "quality"
        )  # fmt: skip
        return figures.get("state_bytes") if stated else None

    return of


def _state(row: Variant) -> float | None:
    found = state_of(row)
    return None if found is None else found.size / 1024


def _seconds(record: Any) -> float | None:
    return _quality(record, "seconds")


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


_size = _first(_parameters("target"))  # of parameters, to which a row's models were brought
READ: dict[str, Read] = {
    "parameters": _first(_parameters("matched")),
    "active ones with embeddings": _first(_parameters("active")),
    "KiB of state": _state,
    "MFLOPs of training a token or image": _first(_flops),
    "FLOPs of training": _first(_all_flops),
    "seconds of training": _first(_seconds),
}
