"""A record: what was asked for, joined with what the measured process returned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from bench.machine.environment import describe
from bench.store import Record, new_id

# Parts of a process's answer that are merged with what the runner knows, or are told apart.
MERGED = ("status", "reason", "cell", "config", "environment", "kernel", "fallback")


@dataclass(frozen=True)
class Asked:
    """What was asked for: the cell (`part`), its configuration and identity, and the source."""

    part: Mapping[str, Any]
    key: str
    versions: Mapping[str, Any]
    config: Mapping[str, Any]
    config_hash: str
    code: Mapping[str, Any]


def record_of(
    asked: Asked,
    payload: Mapping[str, Any],
    *,
    status: str,
    reason: str | None,
    wall_s: float,
    environment: Mapping[str, Any],
) -> Record:
    """The record of a process that took `wall_s` seconds, with an id that no other one has.

    `environment` is added to what is the same for every process of this machine.
    """
    part = {**asked.part, **(payload.get("cell") or {})}
    part["kernel"] = payload.get("kernel") or part.get("kernel")
    notes = [note for note in (part.get("fallback"), payload.get("fallback")) if note]
    if notes:
        part["fallback"] = "; ".join(notes)
    now = datetime.now(UTC)
    record: dict[str, Any] = {
        "schema": 1,
        "id": new_id(cast(Any, part), now),
        "created": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "status": status,
        "reason": reason,
        "key": asked.key,
        "cell": part,
        "versions": asked.versions,
        "config": payload.get("config") or asked.config,
        "config_hash": asked.config_hash,
        "code": asked.code,
        "environment": {
            **describe(int(part["threads"])),
            **environment,
            **(payload.get("environment") or {}),
        },
        "wall_s": round(wall_s, 3),
    }
    record |= {k: v for k, v in payload.items() if k not in MERGED and k not in record}
    return cast(Record, record)


def not_finite(payload: Mapping[str, Any]) -> str | None:
    """The dotted name of a figure that is NaN or infinite, where a result has one."""
    found = {f"figures.{k}": v for k, v in (payload.get("figures") or {}).items()}
    found |= _scores("quality", payload.get("quality") or {})
    for rival in payload.get("baselines") or ():
        found |= _scores(f"baselines.{rival['name']}", rival.get("quality") or {})
    found |= {f"timing.{k}": v for k, v in (payload.get("timing") or {}).items() if k == "median_s"}
    for name, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            return name
    return None


def _scores(name: str, quality: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a quality section; `stderr` is none: one item alone has no spread."""
    found = {f"{name}.{k}": quality.get(k) for k in ("value", "validation_value")}
    secondary = quality.get("secondary") or {}
    return found | {f"{name}.secondary.{k}": v for k, v in secondary.items()}
