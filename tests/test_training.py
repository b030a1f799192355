"""The recipe: rates, roles of parameters, divergence, determinism."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench.parameters import by_role, count
from bench.training import Diverged, Recipe, Trainer, train

CPU = torch.device("cpu")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, *, tokens: Tensor, labels: Tensor) -> SimpleNamespace:
        logits = self.head(self.hidden(self.embedding(tokens)).relu())
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits, labels))


def recipe(**changes: float) -> Recipe:
    values = {"lr": 0.1, "adam_ratio": 0.5, "weight_decay": 0.0, "cooldown": 0.5, "clip": 1.0}
    return Recipe(**(values | changes))


def batch() -> dict[str, Tensor]:
    return {"tokens": torch.arange(5), "labels": (torch.arange(5) + 1) % 5}


def test_only_inner_matrices_are_orthogonalised() -> None:
    model = Tiny()
    matrices, rest = by_role(model)
    assert [id(p) for p in matrices] == [id(model.hidden.weight)]
    assert len(rest) == 4


def test_rate_is_constant_then_falls_linearly_to_zero() -> None:
    trainer = Trainer(Tiny(), recipe(), steps=10)
    rates = []
    for _ in range(10):
        trainer.step(batch())
        rates.append([g["lr"] for o in trainer.optimizers for g in o.param_groups])
    muon, adam, undecayed = zip(*rates, strict=True)
    assert adam == undecayed
    assert muon[:6] == pytest.approx([0.1] * 6)
    assert muon[5:] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])
    assert adam == pytest.approx([rate / 2 for rate in muon])


def test_only_tables_matrices_and_kernels_decay() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 4)
            self.convolution = nn.Conv1d(4, 4, 3)
            self.norm = nn.LayerNorm(4)
            self.shift = nn.Parameter(torch.ones(1, 1, 4))
            self.marked = nn.Parameter(torch.ones(4, 2, 2))
            self.marked._no_weight_decay = True  # type: ignore[attr-defined]

    model = Mixed()
    (adam,) = Trainer(model, recipe(weight_decay=0.5), steps=1).optimizers
    decay = {id(p): g["weight_decay"] for g in adam.param_groups for p in g["params"]}
    named = {name: decay.pop(id(p)) for name, p in model.named_parameters()}
    assert not decay
    assert {name for name, value in named.items() if value == 0.5} == {
        "embedding.weight",
        "convolution.weight",
    }
    assert set(named.values()) == {0.0, 0.5}


def test_training_lowers_the_loss_and_writes_a_curve() -> None:
    torch.manual_seed(0)
    curve = train(
        Tiny(), itertools.repeat(batch()), items=300, batch_size=5, recipe=recipe(), device=CPU,
        every=10,
    )  # fmt: skip
    assert curve.items == [50, 100, 150, 200, 250, 300]
    assert curve.loss[-1] < 0.1 < 1 < curve.loss[0]
    assert curve.seconds == sorted(curve.seconds)


def test_two_runs_of_one_seed_agree_to_the_last_digit() -> None:
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        curve = train(
            Tiny(), itertools.repeat(batch()), items=100, batch_size=5, recipe=recipe(), device=CPU
        )
        losses.append(curve.loss)
    assert losses[0] == losses[1]


def test_a_loss_that_is_not_finite_stops_training() -> None:
    model = Tiny()
    nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(Diverged, match="nan at step 20 of 20"):
        train(
            model, itertools.repeat(batch()), items=100, batch_size=5, recipe=recipe(), device=CPU
        )


def test_count_of_masked_and_sparse_modules() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 4))
            self.register_buffer("weight_mask", torch.tensor([[1, 1, 0, 0]] * 3))
            self.experts = nn.Parameter(torch.ones(8, 2))

        def inactive_parameters(self) -> int:
            return 12

    numbers = count(Sparse())
    assert (numbers.total, numbers.active, numbers.matched) == (28, 16, 10)
