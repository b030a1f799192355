"""Runs of MLflow in `DIR/mlflow.db` (SQLite): `mlflow ui --backend-store-uri sqlite:///…`.

A run bears its record's id as a tag and ends as FINISHED or FAILED when all of it is written; one
that was cut short is still RUNNING, is deleted and written again.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import alembic  # noqa: F401 (MLflow asks for these two when it opens its database, which is late)
import sqlalchemy  # noqa: F401
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from bench.records.export.values import Values

EXPERIMENT = "archbench"
ID = "archbench.id"
METRICS, PARAMETERS, TAGS = 1000, 100, 100  # of one call
TEXT = 6000  # characters of a parameter
UNNAMED = re.compile(r"[^\w./ -]")  # what a name cannot hold


def write(records: Iterable[Values], folder: Path) -> int:
    """Write the runs that are not in the database yet; returns how many."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(
        EXPERIMENT, artifact_location=(folder / "artifacts").resolve().as_uri()
    )  # fmt: skip
    present = set()
    for run in _runs(client, experiment):
        if run.info.status == "RUNNING":
            client.delete_run(run.info.run_id)
        else:
            present.add(run.data.tags.get(ID))
    made = 0
    for record in records:
        if record.id not in present:
            _run(client, experiment, record)
            made += 1
    return made


def _runs(client: MlflowClient, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _run(client: MlflowClient, experiment: str, record: Values) -> None:
    end = int(record.moment * 1000)
    begin = end - int(record.seconds * 1000)
    run = client.create_run(
        experiment, start_time=begin, run_name=record.name, tags={ID: record.id}
    ).info.run_id
    metrics = [Metric(_name(n), v, end, 0) for n, v in record.metrics.items()]
    for items, seconds, loss in record.curve:
        moment = begin + int(seconds * 1000)
        metrics.append(Metric("curve.loss", loss, moment, items))
        metrics.append(Metric("curve.seconds", seconds, moment, items))
    parameters = [Param(_name(n), str(v)[:TEXT]) for n, v in record.settings.items()]
    tags = [RunTag(_name(f"artefact.{n}"), path) for n, path in record.artefacts.items()]
    for part in _chunks(metrics, METRICS):
        client.log_batch(run, metrics=part)
    for part in _chunks(parameters, PARAMETERS):
        client.log_batch(run, params=part)
    for part in _chunks(tags, TAGS):
        client.log_batch(run, tags=part)
    status = "FAILED" if record.status == "failed" else "FINISHED"
    client.set_terminated(run, status=status, end_time=end)


def _name(name: str) -> str:
    return UNNAMED.sub("_", name)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
