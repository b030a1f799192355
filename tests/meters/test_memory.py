"""Memory against tensors of known size, and against another way to follow them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.allocator import nbytes, run_phases
from bench.meters.memory import peak_of, tensors_in, tensors_of
from bench.scenarios.train import step_memory
from bench.training import Recipe, Trainer
from tests.meters.storages import StorageTracker

CPU = torch.device("cpu")
MEGA = 250_000  # float32 values of a megabyte
RECIPE = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.0, cooldown=0.0, clip=1.0)


def test_peak_counts_what_is_alive_at_once() -> None:
    model = nn.Linear(500, 500, bias=False)  # 1 MB

    def call() -> None:
        for _ in range(5):
            torch.ones(2 * MEGA)  # dies at once
        first = torch.ones(3 * MEGA)
        second = first + 1
        del first
        second.mul_(2)

    peak = peak_of(call, model, CPU)
    assert peak["peak_bytes"] == pytest.approx(7e6, rel=0.02)
    assert peak["parameters_bytes"] == 1_000_000
    assert peak["method"] == "CPU allocator events"
    assert peak_of(call, model, CPU)["peak_bytes"] == peak["peak_bytes"]


def test_views_are_counted_once() -> None:
    def call() -> None:
        base = torch.zeros(4 * MEGA)
        _ = [base.view(2, -1).t() for _ in range(10)]

    assert peak_of(call, nn.Identity(), CPU)["peak_bytes"] == pytest.approx(4e6, rel=0.02)


def test_what_was_done_before_leaves_its_tensors_but_not_its_peak() -> None:
    kept: list[Tensor] = []

    def before() -> None:
        torch.ones(9 * MEGA)
        kept.append(torch.ones(2 * MEGA))

    peak = peak_of(lambda: torch.ones(MEGA), nn.Identity(), CPU, before=before)["peak_bytes"]
    assert peak == pytest.approx(3e6, rel=0.02)


def test_phases_part_what_each_adds_and_frees() -> None:
    kept: list[Tensor] = []
    given = torch.ones(MEGA)
    phases = run_phases(
        {
            "adds": lambda: kept.append(torch.ones(2 * MEGA)),
            "needs": lambda: torch.ones(4 * MEGA).sum().item(),
            "frees": kept.clear,
        },
        [given, given[:5]],
        CPU,
    )
    added = {name: phase.added for name, phase in phases.items()}
    peaks = {name: phase.peak for name, phase in phases.items()}
    assert added == pytest.approx({"adds": 2e6, "needs": 0, "frees": -2e6}, rel=0.02, abs=100)
    assert peaks == pytest.approx({"adds": 3e6, "needs": 7e6, "frees": 3e6}, rel=0.02)


def test_a_tensor_from_before_that_a_phase_frees_is_not_taken_off() -> None:
    """Neither one that nothing watched, nor one at an address that was watched in another pass."""
    kept: list[Tensor] = []
    run_phases({"fill": lambda: kept.append(torch.ones(MEGA))}, [], CPU)
    kept.append(torch.ones(MEGA))
    found = run_phases({"free": kept.clear, "use": lambda: torch.ones(3 * MEGA)}, [], CPU)
    assert found["free"].added == 0
    assert found["use"].peak == pytest.approx(3e6, rel=0.02)


def block(x: Tensor) -> Tensor:
    return (F.gelu(x @ x.T) @ x).softmax(-1)


def attention(x: Tensor) -> Tensor:
    heads = x.view(1, 2, 512, 64)
    return F.scaled_dot_product_attention(heads, heads, heads)


def followed(call: Callable[[Tensor], Tensor], x: Tensor) -> tuple[int, int]:
    """Peaks above x by the allocator's events and by following operators' results."""
    call(x)
    events = run_phases({"call": lambda: call(x)}, [], CPU)["call"].peak
    with StorageTracker() as tracker:
        call(x)
    return events, tracker.peak


def test_both_ways_agree_where_operators_need_no_scratch() -> None:
    events, results = followed(block, torch.randn(512, 128))
    assert events == pytest.approx(results, rel=0.02)


@pytest.mark.parametrize("call", [attention, torch.unique, torch.median])
def test_events_see_scratch_inside_operators(call: Callable[[Tensor], Tensor]) -> None:
    """Why they are the measure: results of operators miss a part of the peak."""
    events, results = followed(call, torch.randn(512, 128))
    assert events > 1.2 * results


class Network(nn.Module):
    """Two layers of known activations."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(100, 1000, bias=False)  # 0.4 MB, a matrix for Muon
        self.head = nn.Linear(1000, 500)  # 2 MB and a bias, for AdamW

    def forward(self, x: Tensor) -> Any:
        hidden = self.embedding(x).relu()
        return type("Output", (), {"loss": self.head(hidden).square().mean()})


def test_each_phase_of_a_training_step_is_what_a_hand_computes() -> None:
    trainer = Trainer(Network(), RECIPE, steps=10)
    batch = {"x": torch.randn(800, 100)}
    trainer.step(batch)
    found = step_memory(trainer, batch)
    matrix, head = 4 * 100 * 1000, 4 * (1000 * 500 + 500)
    assert found["parameters_bytes"] == matrix + head
    assert found["gradients_bytes"] == matrix + head
    # One average for Muon, two moments for AdamW.
    assert found["optimizer_bytes"] == pytest.approx(matrix + 2 * head, rel=0.02)
    # relu keeps its result, which the head's product reads as well; square keeps its argument.
    assert found["activations_bytes"] == pytest.approx(4 * 800 * (1000 + 500), rel=0.02)
    assert found["peak_bytes"] > sum(
        found[f"{name}_bytes"] for name in ("parameters", "optimizer", "activations")
    )
    predicted = trainer.predicted_bytes()
    assert predicted == {name: found[name] for name in ("gradients_bytes", "optimizer_bytes")}


def test_activations_are_what_autograd_saves() -> None:
    """The same as torch's own hook on saved tensors says."""
    trainer = Trainer(Network(), RECIPE, steps=10)
    batch = {"x": torch.randn(800, 100)}
    trainer.step(batch)
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.loss(batch)
    given = [*trainer.parameters, *batch.values()]
    kept = nbytes([*saved, *given]) - nbytes(given)
    assert step_memory(trainer, batch)["activations_bytes"] == pytest.approx(kept, rel=0.02)


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass
class Layers:
    layers: list[Pair]
    extra: dict[str, Tensor]
    position: int = 3


def test_a_state_is_what_its_storages_hold() -> None:
    whole = torch.ones(2, MEGA)  # 2 MB, held by a view of its last row
    pair = Pair(torch.ones(MEGA), whole[1])
    state = Layers([pair, pair], {"window": torch.ones(MEGA // 2)})
    assert nbytes(tensors_in(state)) == pytest.approx(3.5e6, rel=0.02)


def test_a_state_that_holds_itself_is_walked_once() -> None:
    state: dict[str, Any] = {"x": torch.ones(10)}
    state["self"] = [state]
    assert nbytes(tensors_in(state)) == 40


def test_tensors_that_modules_keep_beside_their_buffers_count() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
    model[0].packed = [torch.ones(100)]  # type: ignore[assignment]
    registered = nbytes([*model.parameters(), *model.buffers()])
    assert nbytes(tensors_of(model)) == registered + 400


def test_bytes_of_shared_storage() -> None:
    base = torch.zeros(10)
    assert nbytes([base, base[:5], None]) == 40
