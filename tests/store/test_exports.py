"""What trackers read back, each by its own library, is what the records say."""

import struct
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.store import Record, Store
from tests.factories import items_file, make_record, quality, timing

CURVE = {"items": [64, 128, 256], "seconds": [0.5, 1.0, 2.0], "loss": [5.0, 3.0, 2.5]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A training with a curve, a score and an artefact, and a failure."""
    made = Store(tmp_path / "results")
    score = quality(value=1.75, secondary={"carried_bits_per_byte": 1.7})
    trained = make_record(
        model="mamba", scenario="quality", seed=3, quality=score, curve=CURVE, wall_s=4.0,
        timing=timing(), memory={"peak_bytes": 1234, "method": "allocator"},
    )  # fmt: skip
    made.write(trained, {"items.npy": items_file([1.0])})
    made.write(make_record(status="failed", reason="out of memory"))
    return made


def export(store: Store, tracker: str, folder: Path) -> list[Record]:
    """Export one record, then all, then all again; the records that should be there."""
    arguments = ["records", "export", tracker, "--to", str(folder), "--in", str(store.root)]
    assert main([*arguments, "--where", "status=ok"]) == 0
    assert main(arguments) == 0
    assert main(arguments) == 0
    return store.read_all()[0]


def check(record: Record, metrics: dict[str, float], settings: dict[str, Any]) -> None:
    """The figures of the record with the curve; the failure has no such figures."""
    cell = record["cell"]
    assert str(settings["cell.model"]) == cell["model"]
    assert float(settings["cell.seed"]) == cell["seed"]
    assert settings["status"] == record["status"]
    assert float(metrics["parameters.total"]) == record["parameters"]["total"]
    if record["status"] == "ok":
        assert metrics["quality.value"] == pytest.approx(1.75)
        assert metrics["quality.secondary.carried_bits_per_byte"] == pytest.approx(1.7)
        assert metrics["timing.median_s"] == pytest.approx(0.1)
        assert metrics["memory.peak_bytes"] == 1234
        assert settings["memory.method"] == "allocator"
    else:
        assert settings["reason"] == "out of memory"
        assert "quality.value" not in metrics


def artefact(store: Store, record: Record) -> str:
    return str(store.artefact(record, "items.npy").resolve())


def test_tensorboard(store: Store, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import metadata

    folder = tmp_path / "out"
    records = export(store, "tensorboard", folder)
    assert sorted(path.name for path in folder.iterdir()) == [r["id"] for r in records]
    for record in records:
        run = accumulator.EventAccumulator(str(folder / record["id"]))
        run.Reload()
        tags = run.Tags()["scalars"]
        metrics = {
            tag.replace("/", ".", 1): run.Scalars(tag)[0].value
            for tag in tags if not tag.startswith("curve/")
        }  # fmt: skip
        assert all(len(run.Scalars(tag)) == 1 for tag in tags if not tag.startswith("curve/"))
        content = run.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        start = metadata.parse_session_start_info_plugin_data(content)
        settings = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
        }
        check(record, metrics, settings)
        if record["status"] == "ok":
            points = run.Scalars("curve/loss")
            assert [p.step for p in points] == CURVE["items"]
            assert [p.value for p in points] == CURVE["loss"]
            assert [p.wall_time - points[0].wall_time for p in points] == [0.0, 0.5, 1.5]
            assert settings["artefact.items.npy"] == artefact(store, record)


def test_mlflow(store: Store, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path / "out"
    records = export(store, "mlflow", folder)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("archbench")
    runs = {run.data.tags["archbench.id"]: run for run in
            client.search_runs([experiment.experiment_id])}  # fmt: skip
    assert len(runs) == len(client.search_runs([experiment.experiment_id])) == 2
    for record in records:
        run = runs[record["id"]]
        check(record, run.data.metrics, run.data.params)
        assert run.info.status == ("FINISHED" if record["status"] == "ok" else "FAILED")
        if record["status"] == "ok":
            history = client.get_metric_history(run.info.run_id, "curve.loss")
            assert [point.step for point in history] == CURVE["items"]
            assert [point.value for point in history] == CURVE["loss"]
            assert run.info.end_time - run.info.start_time == 4000
            assert run.data.tags["artefact.items.npy"] == artefact(store, record)
    # A run that was cut short is written again.
    cut = runs[records[0]["id"]].info.run_id
    client.update_run(cut, status="RUNNING")
    arguments = ["--to", str(folder), "--in", str(store.root)]
    assert main(["records", "export", "mlflow", *arguments]) == 0
    again = client.search_runs([experiment.experiment_id])
    assert {run.data.tags["archbench.id"] for run in again} == set(runs)
    assert len(again) == 2
    assert cut not in {run.info.run_id for run in again}


def wandb_records(path: Path) -> list[Any]:
    """Messages of an offline run: the blocks of LevelDB's log, as wandb's own messages."""
    from wandb.proto import wandb_internal_pb2

    data, place, found, parts = path.read_bytes(), 7, [], b""
    assert data[:4] == b":W&B"
    block = 32_768
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        if kind == 0:
            break
        parts = (b"" if kind in (1, 2) else parts) + data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
    return found


def test_wandb(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    import json

    from bench.records.export.to_wandb import run_id

    folder = tmp_path / "out"
    records = export(store, "wandb", folder)
    files = {path.stem.removeprefix("run-"): path for path in folder.glob("wandb/*/*.wandb")}
    whole = list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(whole) == 2
    assert set(files) == {run_id(record["id"]) for record in records}
    for record in records:
        messages = wandb_records(files[run_id(record["id"])])
        (run,) = [m.run for m in messages if m.HasField("run")]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        summary: dict[str, Any] = {}
        for message in messages:
            for item in message.summary.update if message.HasField("summary") else ():
                name = item.key or ".".join(item.nested_key)
                summary[name] = json.loads(item.value_json)
        assert config["id"] == record["id"]
        check(record, summary, config)
        (end,) = [m.exit.exit_code for m in messages if m.HasField("exit")]
        assert end == (0 if record["status"] == "ok" else 1)
        if record["status"] == "ok":
            points = [
                {i.key or i.nested_key[0]: json.loads(i.value_json) for i in m.history.item}
                for m in messages if m.HasField("history")
            ]  # fmt: skip
            assert [p["curve/items"] for p in points] == CURVE["items"]
            assert [p["curve/loss"] for p in points] == CURVE["loss"]
            assert summary["artefacts"] == {"items.npy": artefact(store, record)}
    # A run that was cut short is written again.
    (marked,) = folder.glob(f"wandb/offline-run-*-{run_id(records[0]['id'])}/exported")
    marked.unlink()
    assert main(["records", "export", "wandb", "--to", str(folder), "--in", str(store.root)]) == 0
    assert len(list(folder.glob("wandb/offline-run-*/*.wandb"))) == 2


def test_without_a_library_the_command_to_install_it_is_told(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "bench.records.export.to_wandb", raising=False)
    arguments = ["--to", str(tmp_path / "out"), "--in", str(store.root)]
    assert main(["records", "export", "wandb", *arguments]) == 2
    assert "pip install 'archbench[export]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
