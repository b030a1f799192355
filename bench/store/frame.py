"""Records as a pandas DataFrame."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas

from bench.store.record import Record

WHOLE = ("config", "baselines", "artefacts")


def flatten(records: Sequence[Record]) -> pandas.DataFrame:
    """One row per record; nested sections become columns joined by dots."""
    frame = pandas.DataFrame([dict(_items(record, "")) for record in records])
    if "created" in frame:
        frame["created"] = pandas.to_datetime(frame["created"], utc=True, format="ISO8601")
    return frame


def _items(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict) and not (prefix == "" and name in WHOLE):
            yield from _items(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
