"""Every sample of a duel as a record: nothing measured is lost, and any report can read it."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import recording
from bench.ab.sample import Sample, Side
from bench.identity import digest
from bench.machine.environment import load
from bench.machine.variables import SPIN
from bench.process.launch import FRESH
from bench.recording import Asked
from bench.store import Record, Store

PLAN_ONLY = ("config", "versions", "state", "predicted_s", "predicted_bytes")


def record_of(side: Side, request: Mapping[str, Any], sample: Sample) -> Record:
    """The record of one fresh interpreter."""
    config = request["config"]
    asked = Asked(
        part={name: value for name, value in request.items() if name not in PLAN_ONLY},
        key=digest([side.commit, side.source, config]),
        versions=request["versions"],
        config=config,
        config_hash=digest(config),
        code={"commit": side.commit, "dirty": side.dirty, "source_sha256": side.source},
    )
    around = {
        "load_after": load(), "isolation": FRESH, "layout": secrets.token_hex(8), "spin": SPIN,
    }  # fmt: skip
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
    root = folder / "..".join(_name(side) for side in sides)
    found = Store(root / "base"), Store(root / "head")
    for store in found:
        store.check_writable()
    return found


def _name(side: Side) -> str:
    """The commit; what is not committed yet adds its own hash, so that no two changes mix."""
    changes = f"+{(side.source or '')[:8]}" if side.dirty else ""
    return (side.commit or "none")[:12] + changes
