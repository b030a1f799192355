"""What is kept of a record in the index: a brief for tables, and one value a column.

The brief is the record without what only its own file needs to hold: configuration, raw samples,
sweeps and the points of curves. Columns are named by their path joined by dots and hold scalars.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from bench.store.record import Record

LEFT_OUT = frozenset(("config", "shape", "sweep"))
RAW = {
    "timing": ("samples_s",), "latency": ("ttft_samples_s",), "data": ("notes", "sizes"),
    "curve": ("items", "seconds", "loss"),
}  # fmt: skip
# Of the configuration, what `bench.predict` holds records against.
FORECAST = {"suite": ("items", "measure"), "scenario": ("memory_limit_gib",)}
# Texts about a figure, which nobody selects by.
UNSELECTED = frozenset(("baselines", "artefacts", "tuning", "config", "notes"))
Columns = dict[str, dict[str, dict[int, Any]]]  # values by place, by name, by prefix of the name


def brief(record: Record) -> Record:
    """The record as tables and forecasts need it; parts that stay are shared, not copied."""
    whole = cast(dict[str, Any], record)
    kept = {name: part for name, part in whole.items() if name not in LEFT_OUT}
    for name, raw in RAW.items():
        if part := kept.get(name):
            kept[name] = {key: value for key, value in part.items() if key not in raw}
    config: Mapping[str, Any] = whole.get("config") or {}
    held = {
        group: {name: config[group].get(name) for name in names}
        for group, names in FORECAST.items()
        if isinstance(config.get(group), Mapping)
    }
    return cast(Record, {**kept, "config": held} if held else kept)


def collect(record: Record, place: int, into: Columns) -> None:
    """Put the scalars of a record, or of a brief, into columns at `place`."""
    _collect(cast(dict[str, Any], record), "", place, into)


def _collect(section: Mapping[str, Any], prefix: str, place: int, into: Columns) -> None:
    columns = into.setdefault(prefix, {})
    for name, value in section.items():
        kind = type(value)
        if kind is dict:
            if name not in UNSELECTED:
                _collect(value, f"{prefix}{name}.", place, into)
            continue
        if kind is list:
            if prefix != "cell.":
                continue
            value = " ".join(map(str, value))  # overrides: words, as they were given
        if value is not None:
            column = columns.get(name)
            if column is None:
                column = columns[name] = {}
            column[place] = value


def text(value: Any) -> str | None:
    """A value of a column that holds several types, as text."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, default=str)
