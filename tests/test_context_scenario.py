"""The context sweep on real models: states, skipped points, memory that runs out."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import describe
from bench.machine import cgroup
from bench.meters.time import Limits
from bench.scenarios import context as scenario
from bench.scenarios.base import Context, Unsupported
from bench.training import Recipe
from tests.zoo import build


class Bytes:
    kind, unit = "language", "tokens"

    def example(self, batch: int, length: int) -> dict[str, torch.Tensor]:
        return {"tokens": torch.randint(256, (batch, length))}


def cell(model: Any, tmp_path: Path, **changes: Any) -> Context:
    settings = {
        "name": "context", "batch_size": 1, "lengths": [16, 32, 64], "steps": 4,
        "point_seconds": 0.1, "max_seconds": 60.0, **changes,
    }  # fmt: skip
    return Context(
        task=Bytes(), build=lambda: model, config={"scenario": settings, "compile": False},  # type: ignore[arg-type]
        recipe=Recipe(0.01, 0.5, 0.0, 0.6, 1.0), limits=Limits(1, 3, 0.0, 0.1, 1.0),
        device=torch.device("cpu"), dtype=torch.float32, workdir=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["transformer", "moe", "mamba", "mamba2", "mamba3", "rwkv", "rwkv4", "resnet"]
)
def test_states_are_what_the_formula_says(name: str, tmp_path: Path) -> None:
    found = scenario.run(cell(build(name, "language"), tmp_path, lengths=[40, 64, 160]))
    points = found["sweep"]["points"]
    assert [point["status"] for point in points] == ["ok"] * 3
    for point in points:
        assert point["state_bytes"] == point["stated_bytes"]
    grows = points[-1]["stated_bytes"] > points[0]["stated_bytes"]
    assert grows == (name in ("transformer", "moe"))
    assert found["figures"]["context"] == 160


def test_time_that_would_not_suffice_is_not_begun(tmp_path: Path) -> None:
    model = build("mamba", "language")
    found = scenario.run(cell(model, tmp_path, lengths=[16, 32, 1 << 22], max_seconds=20.0))
    last = found["sweep"]["points"][-1]
    assert last["status"] == "skipped"
    assert "needed" in last["reason"]
    assert found["sweep"]["largest"] == 32


def test_positions_that_a_model_has_not_are_skipped(tmp_path: Path) -> None:
    model = build("transformer", "language")
    model.backbone.longest = 40
    found = scenario.run(cell(model, tmp_path))
    assert [point["status"] for point in found["sweep"]["points"]] == ["ok", "ok", "skipped"]
    assert found["sweep"]["points"][2]["reason"] == "69 positions needed, the model has 40"
    with pytest.raises(Unsupported, match="69 positions needed, the model has 40"):
        scenario.run(cell(model, tmp_path, lengths=[64]))


def test_running_out_of_memory_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("transformer", "language")
    prefill = model.prefill

    def limited(tokens: torch.Tensor, state: Any = None) -> Any:
        if tokens.shape[1] >= 32:
            torch.empty(1 << 60)  # what the allocator says for itself
        return prefill(tokens, state)

    monkeypatch.setattr(model, "prefill", limited)
    found = scenario.run(cell(model, tmp_path))
    assert [point["status"] for point in found["sweep"]["points"]] == ["ok", "failed", "skipped"]
    assert found["sweep"]["smallest_failed"] == 32
    assert "out of memory" in found["sweep"]["points"][1]["reason"]
    assert "32 symbols ran out of memory" in found["sweep"]["points"][2]["reason"]


def test_a_first_length_that_does_not_fit_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("transformer", "language")
    monkeypatch.setattr(model, "prefill", lambda *_: torch.empty(1 << 60))
    with pytest.raises(RuntimeError) as caught:
        scenario.run(cell(model, tmp_path))
    reason = describe(caught.value)
    assert reason.startswith("out of memory: RuntimeError: [enforce fail")
    assert reason.count("out of memory") == 1


def test_memory_that_would_not_suffice_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what the process may take, and not what the machine has."""
    monkeypatch.setattr(cgroup, "memory_left", lambda: 1 << 20)
    given = cell(build("mamba", "language"), tmp_path, lengths=[16, 32, 1 << 17], max_seconds=1e9)
    last = scenario.run(given)["sweep"]["points"][-1]
    assert last["status"] == "skipped"
    assert "GiB needed, 0." in last["reason"]


def test_what_a_point_took_is_there_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freed tensors stay in the heap: they are neither free to the system nor lost to the cell."""
    resident = [1000 << 20]
    monkeypatch.setattr(scenario, "room_bytes", lambda: (2000 << 20) - resident[0])
    monkeypatch.setattr(scenario, "resident_bytes", lambda: resident[0])
    model = build("mamba", "language")
    sweep = scenario._Sweep(cell(model, tmp_path), model)
    weights = sum(p.nbytes for p in model.parameters())
    for resident[0] in (1000 << 20, 1900 << 20):
        assert sweep._room() == pytest.approx((1000 << 20) + weights, rel=0.01)


def test_other_errors_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("transformer", "language")

    def broken(*_: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(model, "prefill", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        scenario.run(cell(model, tmp_path))


def test_what_has_no_state_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no prefill and step"):
        scenario.run(cell(build("diffusion", "language"), tmp_path))
