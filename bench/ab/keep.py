"""Every sample of a duel as a record: nothing measured is lost, and any report can read it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from bench.ab.sample import Sample, Side
from bench.environment import describe, load
from bench.identity import digest
from bench.store import Record, Store, new_id

PLAN_ONLY = ("config", "versions", "state", "predicted_s", "predicted_bytes")


def record_of(side: Side, request: Mapping[str, Any], sample: Sample) -> Record:
    """The record of one fresh interpreter."""
    payload = dict(sample.payload)
    part = {name: value for name, value in request.items() if name not in PLAN_ONLY}
    part["kernel"] = payload.pop("kernel", None) or part.get("kernel")
    now = datetime.now(UTC)
    identity = new_id(cast(Any, part), now)
    record: dict[str, Any] = {
        "schema": 1,
        "id": identity,
        "created": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "status": payload.pop("status"),
        "reason": payload.pop("reason", None),
        "key": digest([side.commit, side.dirty, request["config"]]),
        "cell": part,
        "versions": request["versions"],
        "config": request["config"],
        "config_hash": digest(request["config"]),
        "code": {"commit": side.commit, "dirty": side.dirty},
        "environment": {
            **describe(int(request["threads"])),
            "load_after": load(),
            "isolation": "fresh interpreter",
            "layout": identity,
            **(payload.pop("environment", None) or {}),
        },
        "wall_s": round(sample.wall_s, 3),
    }
    return cast(Record, record | {k: v for k, v in payload.items() if k not in record})


def make_stores(folder: Path, sides: tuple[Side, Side]) -> tuple[Store, Store]:
    """The two stores of a duel, named after what is compared: FOLDER/BASE..HEAD/{base,head}."""
    names = [(side.commit or "none")[:12] + ("+" if side.dirty else "") for side in sides]
    root = folder / "..".join(names)
    found = Store(root / "base"), Store(root / "head")
    for store in found:
        store.check_writable()
    return found
