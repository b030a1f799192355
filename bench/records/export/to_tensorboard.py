"""Event files for TensorBoard: a run a record, its settings as hyperparameters.

A run is written under another name and renamed when it is whole, so that one that was cut short is
written again.
"""

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from bench.records.export.values import Values


def write(records: Iterable[Values], folder: Path) -> int:
    """Write the runs that are not in `folder` yet, DIR/<id>; returns how many."""
    made = 0
    for record in records:
        final = folder / record.id
        if final.exists():
            continue
        temporary = folder / f".{record.id}.{secrets.token_hex(8)}.tmp"
        try:
            _run(record, temporary)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        made += 1
    return made


def _run(record: Values, folder: Path) -> None:
    writer = EventFileWriter(str(folder))

    def add(summary: summary_pb2.Summary, step: int, moment: float) -> None:
        writer.add_event(event_pb2.Event(wall_time=moment, step=step, summary=summary))

    settings = {**record.settings, **{f"artefact.{k}": v for k, v in record.artefacts.items()}}
    begin = record.moment - record.seconds
    add(hparams.hparams_pb(settings, trial_id=record.id, start_time_secs=begin), 0, record.moment)
    for name, value in record.metrics.items():
        add(_scalar(name.replace(".", "/", 1), value), 0, record.moment)
    for items, seconds, loss in record.curve:
        add(_scalar("curve/loss", loss), items, begin + seconds)
        add(_scalar("curve/seconds", seconds), items, begin + seconds)
    writer.close()


def _scalar(name: str, value: float) -> summary_pb2.Summary:
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=name, simple_value=value)])
