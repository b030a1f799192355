"""One point of a frontier on real models: what is built, what is run, what a peak counts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.constants import ROOT
from bench.meters.allocator import nbytes
from bench.meters.memory import tensors_in
from bench.meters.time import Limits
from bench.scenarios import frontier
from bench.scenarios.base import Context, Unsupported
from bench.training import Recipe, Trainer
from tests.zoo import build

MIB = 2**20
AUTOREGRESSIVE = ["transformer", "moe", "mamba", "mamba2", "rwkv", "resnet"]


class Data:
    """Remembers what was asked for."""

    def __init__(self, kind: str) -> None:
        self.kind, self.asked = kind, list[tuple[int, int | None]]()

    def example(self, batch: int, length: int | None = None) -> dict[str, Tensor]:
        self.asked.append((batch, length))
        if self.kind == "classify":
            return {"pixels": torch.zeros(batch, 8, 8, dtype=torch.long),
                    "labels": torch.zeros(batch, dtype=torch.long)}  # fmt: skip
        tokens = torch.randint(256, (batch, 24 if length is None else length))
        return {"tokens": tokens, "labels": tokens}


def point(model: Any, folder: Path, *, kind: str = "language", **changes: Any) -> Context:
    settings = {
        "name": "frontier", "axis": "batch", "mode": "train", "at": 2, "batch_size": 3,
        "context": None, **changes,
    }  # fmt: skip
    return Context(
        task=Data(kind), build=lambda: model, recipe=Recipe(0.01, 0.5, 0.0, 0.6, 1.0),  # type: ignore[arg-type]
        config={"scenario": settings, "compile": False, "task": {"name": kind}},
        limits=Limits(0, 1, 0.0, 0.1, 1.0), device=torch.device("cpu"), dtype=torch.float32,
        workdir=folder,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["train", "prefill", "decode"])
@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"axis": "batch", "at": 5}, (5, None)),
        ({"axis": "batch", "at": 2, "context": 40}, (2, 40)),
        ({"axis": "context", "at": 33}, (3, 33)),
    ],
)
def test_the_axis_says_what_grows(
    mode: str, changes: dict[str, Any], asked: tuple[int, int | None], tmp_path: Path
) -> None:
    context = point(build("transformer", "language"), tmp_path, mode=mode, **changes)
    found = frontier.run(context)["point"]
    assert context.task.asked == [asked]  # type: ignore[attr-defined]
    assert found["peak_bytes"] >= found["start_bytes"] > 10 * MIB


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_writing_keeps_the_state_of_the_whole_context(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name, "language")
    held: list[int] = []
    step = model.step

    def watched(token: Tensor, state: Any) -> Any:
        held.append(nbytes(tensors_in(state)))
        return step(token, state)

    monkeypatch.setattr(model, "step", watched)
    frontier.run(point(model, tmp_path, mode="decode", axis="context", at=300, batch_size=2))
    # The start symbol and the context, which was read in pieces.
    assert held[0] == model.state_bytes(2, 1 + 300, torch.float32)  # type: ignore[operator]
    assert len(held) == frontier.WRITTEN


def test_training_runs_with_the_optimizers_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = Trainer.step

    def watched(self: Trainer, batch: dict[str, Tensor]) -> Tensor:
        seen.append(nbytes(self.moments()))
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", watched)
    frontier.run(point(build("resnet", "classify"), tmp_path, kind="classify", at=4))
    assert seen[0] == 0
    assert seen[1] > 0


class Holder(torch.nn.Module):
    """Takes 16 MiB an item, and lets them go."""

    def classify(self, pixels: Tensor) -> Tensor:
        return torch.ones(len(pixels), 4 * MIB).sum(1)


def peaks(folder: Path) -> list[int | None]:
    """Of one item and of five."""
    found = []
    for at in (1, 5):
        context = point(Holder(), folder, kind="classify", mode="prefill", at=at)
        found.append(frontier.run(context)["point"]["peak_bytes"])
    return found


def test_the_peak_is_the_processes_own(tmp_path: Path) -> None:
    """In a process of its own, as a cell is: in this one other tests left memory to be used."""
    code = (
        "import pathlib, sys, tests.test_frontier_scenario as t\nprint(t.peaks(pathlib.Path('.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    one, five = json.loads(done.stdout.replace("None", "null"))
    if one is None:
        pytest.skip("this system does not let the high-water mark be reset")
    assert five - one == pytest.approx(4 * 16 * MIB, rel=0.3)


@pytest.mark.parametrize("changes", [{"axis": "context"}, {"context": 64}])
def test_images_have_one_size(changes: dict[str, Any], tmp_path: Path) -> None:
    context = point(Holder(), tmp_path, kind="classify", **changes)
    with pytest.raises(Unsupported, match=r"task=classify have one size; allowed: scenario\.axis"):
        frontier.run(context)


def test_what_cannot_be_is_no_frontier(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no prefill and step"):
        frontier.run(point(build("diffusion", "language"), tmp_path, mode="decode"))
    half = point(build("transformer", "language"), tmp_path)
    with pytest.raises(Unsupported, match="float16"):
        frontier.run(dataclasses.replace(half, dtype=torch.float16))
