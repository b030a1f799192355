"""Every sample of a duel as a record: nothing measured is lost, and any report can read it."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import recording
from bench.ab.sample import Sample, Side
from bench.environment import load
from bench.identity import digest
from bench.launch import FRESH
from bench.recording import Asked
from bench.store import Record, Store

PLAN_ONLY = ("config", "versions", "state", "predicted_s", "predicted_bytes")


def record_of(side: Side, request: Mapping[str, Any], sample: Sample) -> Record:
    """The record of one fresh interpreter."""
    config = request["config"]
    asked = Asked(
        part={name: value for name, value in request.items() if name not in PLAN_ONLY},
        key=digest([side.commit, side.dirty, config]),
        versions=request["versions"],
        config=config,
        config_hash=digest(config),
        code={"commit": side.commit, "dirty": side.dirty},
    )
    around = {"load_after": load(), "isolation": FRESH, "layout": secrets.token_hex(8)}
    return recording.record_of(
        asked,
        sample.payload,
        status=sample.payload["status"],
        reason=sample.payload.get("reason"),
        wall_s=sample.wall_s,
        environment=around,
    )


def make_stores(folder: Path, sides: tuple[Side, Side]) -> tuple[Store, Store]:
    """The two stores of a duel, named after what is compared: FOLDER/BASE..HEAD/{base,head}."""
    names = [(side.commit or "none")[:12] + ("+" if side.dirty else "") for side in sides]
    root = folder / "..".join(names)
    found = Store(root / "base"), Store(root / "head")
    for store in found:
        store.check_writable()
    return found
