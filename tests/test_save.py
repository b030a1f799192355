"""What `python -m bench.save` writes, and what it says where it cannot."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import nn

from bench.building import filled
from bench.save import main
from bench.store import Store
from models.backbones.transformer import Transformer
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel
from tests.factories import make_record

BACKBONE = {
    "attention": "sdpa", "causal": True, "residual_init": 1.0, "d_model": 32, "n_layers": 1,
    "n_heads": 2, "n_kv_heads": 1, "d_ff": 48, "qk_norm": False, "rope_theta": 1e4,
    "norm_eps": 1e-5, "mlp": "swiglu",
}  # fmt: skip
SHAPE: dict[str, Any] = {
    "_target_": "models.objectives.autoregressive.LanguageModel",
    "vocab_size": 256,
    "init": "backbone",
    "backbone": {"_target_": "models.backbones.transformer.Transformer", **BACKBONE},
}
CHECKPOINTS = {"_target_": "models.checkpoints.formats.Formats", "family": "transformer",
               "default": "huggingface"}  # fmt: skip


def model(*, tied: bool) -> LanguageModel:
    torch.manual_seed(0)
    backbone = Transformer(**BACKBONE)  # type: ignore[arg-type]
    made = LanguageModel(backbone=backbone, vocab_size=256, init="backbone")
    if tied:
        made.lm_head.weight = made.embedding.weight
    return made


def recorded(
    folder: Path, made: nn.Module, shape: dict[str, Any] = SHAPE, task: dict[str, Any] | None = None
) -> str:
    """The id of a record that left the weights of `made`."""
    save_model(made, str(folder / "weights"))
    record = make_record(
        scenario="quality", shape=shape,
        config={"model": {"name": "transformer", "checkpoints": CHECKPOINTS}, "task": task or {}},
    )  # fmt: skip
    Store(folder / "results").write(record, {"checkpoint.safetensors": folder / "weights"})
    return record["id"]


def said(folder: Path, identity: str, capsys: pytest.CaptureFixture[str], to: str = "to") -> str:
    """The one sentence with which a record is refused; nothing is left beside the store."""
    before = sorted(folder.iterdir())
    assert main([identity, str(folder / to), "--results", str(folder / "results")]) == 2
    assert sorted(folder.iterdir()) == before
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    return error


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_of_a_record_is_saved(tied: bool, tmp_path: Path) -> None:
    """Of a tied checkpoint the file holds one table, from which two were made again."""
    made, to = model(tied=tied), tmp_path / "to"
    identity = recorded(tmp_path, made)
    to.mkdir()  # an empty folder is as good as none
    assert main([identity, str(to), "--results", str(tmp_path / "results")]) == 0
    read = Formats(family="transformer", default="huggingface").read(str(to))
    assert read.tied is tied
    again = model(tied=False)
    read.load(again)
    for name, value in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert json.loads((to / "config.json").read_text())["tie_word_embeddings"] is tied
    assert str(tmp_path) not in (to / "config.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "to", "weights"]


def test_tied_tensors_stay_one(tmp_path: Path) -> None:
    save_model(model(tied=True), str(tmp_path / "weights"))
    assert "lm_head.weight" not in load_file(tmp_path / "weights")
    again: Any = filled(SHAPE, tmp_path / "weights")
    assert again.lm_head.weight is again.embedding.weight


def test_a_disk_that_takes_no_more_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = recorded(tmp_path, model(tied=False))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        error = said(tmp_path, identity, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{tmp_path}/to cannot be written" in error


def test_what_cannot_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = recorded(tmp_path, model(tied=False))
    assert "RECORD is empty" in said(tmp_path, "", capsys)
    (tmp_path / "file").touch()
    assert "file is a file; give a new folder" in said(tmp_path, identity, capsys, "file")
    assert "results is not empty" in said(tmp_path, identity, capsys, "results")


def test_what_a_task_trains_under_an_objective_of_its_own_is_no_language_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = recorded(tmp_path, model(tied=False), task={"form": {"scenarios": ["quality"]}})
    assert "language models of families with a format are saved" in said(tmp_path, identity, capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_ff": 40}, "its weights are not those of its model"),
        ({"n_heads": 3}, "its model cannot be built: "),
        ({"nosuch": 3}, "its model cannot be built: "),
    ],
)
def test_a_record_of_another_version(
    changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {**SHAPE, "backbone": {**SHAPE["backbone"], **changes}}
    assert words in said(tmp_path, recorded(tmp_path, model(tied=False), shape), capsys)
