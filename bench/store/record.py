"""The record of one cell: its sections, its id, and the check of what was read.

Every key but the required ones may be absent or null; keys that this version does not know are
kept, so that a record written by a later minor version stays readable.
"""

import re
import secrets
from datetime import datetime
from typing import Any, TypedDict, cast

from bench.store.check import checker, kind_of
from bench.store.parts import (
    AgreementPart,
    ArtefactPart,
    BaselinePart,
    CellPart,
    CheckpointPart,
    CodePart,
    CostPart,
    CurvePart,
    DataPart,
    EnergyPart,
    EnvironmentPart,
    HarnessPart,
    LatencyPart,
    MemoryPart,
    ParametersPart,
    QualityPart,
    SweepPart,
    TimingPart,
    TuningPart,
    ValidityPart,
    VersionsPart,
)

SCHEMA = 1
STATUSES = ("ok", "failed", "unsupported")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}")


class Record(TypedDict, total=False):
    """One finished cell; see the module's docstring."""

    schema: int
    id: str
    created: str
    status: str
    reason: str | None
    key: str
    cell: CellPart
    versions: VersionsPart
    config: dict[str, Any]
    config_hash: str
    data: DataPart
    code: CodePart
    environment: EnvironmentPart
    validity: ValidityPart
    parameters: ParametersPart
    checkpoint: CheckpointPart
    agreement: AgreementPart
    timing: TimingPart
    latency: LatencyPart
    figures: dict[str, Any]
    memory: MemoryPart
    cost: CostPart
    energy: EnergyPart
    sweep: SweepPart
    curve: CurvePart
    quality: QualityPart
    tuning: TuningPart
    harness: HarnessPart
    baselines: list[BaselinePart]
    artefacts: list[ArtefactPart]
    shape: dict[str, Any]  # the model's own part of the configuration, brought to its size
    wall_s: float  # of the cell's process


REQUIRED = ("schema", "id", "created", "status", "key", "cell")
REQUIRED_CELL = ("family", "model", "task", "kind", "scenario", "seed")


def validate(value: object) -> Record:
    """`value` as a record; ValueError with one sentence where it is none."""
    if not isinstance(value, dict):
        raise ValueError(f"is a JSON {kind_of(value)}, not a record (an object)")
    for name in REQUIRED:
        if value.get(name) is None:
            raise ValueError(f"is not a record: the key '{name}' is missing")
    if value["schema"] != SCHEMA:
        raise ValueError(f"has schema {value['schema']!r}, this version reads schema {SCHEMA}")
    checker(Record)(value, "")
    record = cast(Record, value)
    if not NAME.fullmatch(record["id"]):
        raise ValueError(f"has the id {record['id']!r}, which cannot name a file")
    if record["status"] not in STATUSES:
        raise ValueError(f"has status {record['status']!r}, allowed are {', '.join(STATUSES)}")
    for name in REQUIRED_CELL:
        if record["cell"].get(name) is None:
            raise ValueError(f"is not a record: the key 'cell.{name}' is missing")
    created(record)
    return record


def created(record: Record) -> datetime:
    """When the record was made, with its time zone."""
    try:
        moment = datetime.fromisoformat(record["created"])
    except ValueError:
        raise ValueError(f"has created {record['created']!r}, not an ISO 8601 time") from None
    if moment.tzinfo is None:
        raise ValueError(f"has created {record['created']!r} without a time zone")
    if not 1970 <= moment.year < 9999:  # UTC would lie outside of what a calendar holds
        raise ValueError(f"has created {record['created']!r}, no moment of measuring")
    return moment


def new_id(cell: CellPart, moment: datetime) -> str:
    """A readable id that no other process draws: time, cell, 32 random bits."""
    parts = [cell.get("model"), cell.get("size"), cell.get("task"), cell.get("scenario")]
    words = [re.sub(r"[^A-Za-z0-9._+]", "_", str(part))[:40] for part in parts if part]
    stamp = moment.strftime("%Y%m%dT%H%M%S")
    return "-".join([stamp, *words, f"s{cell.get('seed', 0)}", secrets.token_hex(4)])
