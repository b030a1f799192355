"""Offline runs of Weights & Biases in `DIR/wandb`: `wandb sync` sends them where one wants to.

The id of a run is made of its record's, so that syncing twice makes one run. A run that is whole
has the file `exported`; one that was cut short is removed and written again.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import wandb

from bench.records.export.values import Values

PROJECT = "archbench"
WHOLE = "exported"


def write(records: Iterable[Values], folder: Path) -> int:
    """Write the runs that are not in `folder` yet; returns how many."""
    made = 0
    present: dict[str, list[Path]] = {}
    for path in folder.glob("wandb/offline-run-*"):
        present.setdefault(path.name.rpartition("-")[2], []).append(path)
    for record in records:
        identity = run_id(record.id)
        found = present.get(identity, [])
        if any((path / WHOLE).is_file() for path in found):
            continue
        for path in found:
            shutil.rmtree(path)
        _run(record, identity, folder)
        made += 1
    return made


def run_id(record: str) -> str:
    """A run's id: short, and the same for the same record."""
    return hashlib.sha256(record.encode()).hexdigest()[:16]


def _run(record: Values, identity: str, folder: Path) -> None:
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=True,
        x_disable_stats=True,
    )  # fmt: skip
    run = wandb.init(
        project=PROJECT, id=identity, name=record.name, group=str(record.settings["cell.task"]),
        job_type=str(record.settings["cell.scenario"]), dir=str(folder), mode="offline",
        config={"id": record.id, **record.settings}, settings=settings, reinit="finish_previous",
    )  # fmt: skip
    place = Path(run.dir).parent
    run.define_metric("curve/loss", step_metric="curve/items")
    for items, seconds, loss in record.curve:
        run.log({"curve/items": items, "curve/seconds": seconds, "curve/loss": loss})
    run.summary.update({**record.metrics, "artefacts": record.artefacts})
    run.finish(exit_code=1 if record.status == "failed" else 0)
    (place / WHOLE).write_text(record.id + "\n", encoding="utf-8")
