"""What is kept of a record in the index: a brief for tables, and one value a column.

The brief is the record without what only its own file needs to hold: configuration, raw samples,
sweeps and curves. Columns are named by their path joined by dots and hold scalars.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from bench.store.record import Record, created

LEFT_OUT = frozenset(("config", "shape", "curve", "sweep"))
RAW = {"timing": "samples_s", "latency": "ttft_samples_s"}
# Texts about a figure, which nobody selects by.
UNSELECTED = frozenset(("baselines", "artefacts", "tuning", "config", "notes", "trace"))


def brief(record: Record) -> Record:
    """The record as tables and forecasts need it; parts that stay are shared, not copied."""
    whole = cast(dict[str, Any], record)
    kept = {name: part for name, part in whole.items() if name not in LEFT_OUT}
    for name, raw in RAW.items():
        if part := kept.get(name):
            kept[name] = {key: value for key, value in part.items() if key != raw}
    # What a forecast of a cell's time holds records against.
    suite = (whole.get("config") or {}).get("suite")
    if isinstance(suite, Mapping):
        kept["config"] = {"suite": {name: suite.get(name) for name in ("items", "measure")}}
    return cast(Record, kept)


def columns(record: Record) -> Iterator[tuple[str, Any]]:
    """Names and scalars; `record` may be a brief."""
    for name, value in _scalars(cast(dict[str, Any], record), ""):
        yield name, created(record) if name == "created" else value


def _scalars(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if type(value) is dict:
            if name not in UNSELECTED:
                yield from _scalars(value, f"{prefix}{name}.")
        elif type(value) is not list:
            yield prefix + name, value
        elif prefix == "cell.":  # overrides: words, as they were given
            yield prefix + name, " ".join(map(str, value))


def text(value: Any) -> str | None:
    """A value of a column that holds several types, as text."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, default=str)
