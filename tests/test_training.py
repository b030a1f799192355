"""The recipe: rates, roles of parameters, divergence, determinism."""

import itertools
import time
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from bench.parameters import by_role, count
from bench.training import Budget, Curve, Diverged, Recipe, Trainer, steps_for, train
from tests.zoo import node

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


def test_a_marked_matrix_is_orthogonalised_and_does_not_decay() -> None:
    model = nn.ModuleDict(
        {"free": nn.Linear(4, 4, bias=False), "kept": nn.Linear(4, 4, bias=False)}
    )
    model["kept"].weight._no_weight_decay = True  # type: ignore[union-attr, assignment]
    trainer = Trainer(model, recipe(lr=0.1, weight_decay=0.5), steps=1)
    (muon,) = trainer.optimizers
    assert [g["weight_decay"] for g in muon.param_groups] == [0.5, 0.0]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # decay alone moves anything
    muon.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["free.weight"], before["free.weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(after["kept.weight"], before["kept.weight"])


# What the authors' trainer of RWKV-7 decays: two-dimensional tensors called `.weight`.
@pytest.mark.parametrize("kind", ["language", "classify", "generate"])
def test_of_rwkv_its_authors_weights_alone_decay(kind: str) -> None:
    with torch.device("meta"):
        model = instantiate(node("rwkv", kind), _convert_="all")
    trainer = Trainer(model, recipe(weight_decay=0.5), steps=1)
    decay = {
        id(p): g["weight_decay"]
        for o in trainer.optimizers
        for g in o.param_groups
        for p in g["params"]
    }
    named = {name: decay[id(p)] for name, p in model.named_parameters()}
    decayed = {
        name
        for name, p in model.named_parameters()
        if name.endswith(".weight") and p.squeeze().ndim > 1
    }
    assert {name for name, value in named.items() if value == 0.5} == decayed
    assert any(name.endswith("att.receptance.weight") for name in decayed)


def test_facts_are_those_of_the_optimizers() -> None:
    model = Tiny()
    found = Trainer(model, recipe(weight_decay=0.3), steps_for(101, 10)).facts()
    assert found == {
        "groups": [
            {"optimizer": "Muon", "tensors": 1, "parameters": 16, "lr": 0.1, "weight_decay": 0.3},
            # embedding 5 x 4 and head 5 x 4, then the biases of four and five
            {"optimizer": "AdamW", "tensors": 2, "parameters": 40, "lr": 0.05, "weight_decay": 0.3},
            {"optimizer": "AdamW", "tensors": 2, "parameters": 9, "lr": 0.05, "weight_decay": 0.0},
        ],
        "schedule": "constant, then linear to zero",
        "cooldown": 0.5,
        "steps": 11,
        "clip": 1.0,
    }
    assert sum(g["parameters"] for g in found["groups"]) == count(model).total


def test_training_lowers_the_loss_and_writes_a_curve() -> None:
    torch.manual_seed(0)
    done = train(
        Tiny(), itertools.repeat(batch()), budget=Budget(items=300), batch_size=5,
        recipe=recipe(), device=CPU, every=10,
    )  # fmt: skip
    curve = done.curve
    assert curve.items == [50, 100, 150, 200, 250, 300]
    assert curve.loss[-1] < 0.1 < 1 < curve.loss[0]
    assert curve.seconds == sorted(curve.seconds)


def test_two_runs_of_one_seed_agree_to_the_last_digit() -> None:
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        done = train(
            Tiny(),
            itertools.repeat(batch()),
            budget=Budget(items=100),
            batch_size=5,
            recipe=recipe(),
            device=CPU,
        )
        losses.append(done.curve.loss)
    assert losses[0] == losses[1]


def test_a_loss_that_is_not_finite_stops_training() -> None:
    model = Tiny()
    nn.init.constant_(model.head.bias, float("nan"))
    with pytest.raises(Diverged, match="nan at step 20 of 20"):
        train(
            model,
            itertools.repeat(batch()),
            budget=Budget(items=100),
            batch_size=5,
            recipe=recipe(),
            device=CPU,
        )


def test_a_thinned_curve_keeps_the_mean_loss_and_its_end() -> None:
    # Steps of ten items, the last of five.
    items = [10 * (i + 1) for i in range(1000)] + [10_005]
    losses = [2.0 + i % 7 for i in range(1001)]
    whole = Curve(items=items, seconds=[i / 10 for i in range(1001)], loss=losses)
    thin = whole.thinned(200)
    assert len(thin.items) == len(thin.seconds) == len(thin.loss) == 167  # six points each
    assert (thin.items[-1], thin.seconds[-1]) == (items[-1], 100.0)
    means = [
        sum(b * loss for b, loss in zip(widths(c.items), c.loss, strict=True)) / items[-1]
        for c in (whole, thin)
    ]
    assert means[0] == pytest.approx(means[1])
    assert whole.thinned(2000) == whole


def widths(items: list[int]) -> list[int]:
    return [b - a for a, b in itertools.pairwise([0, *items])]


def test_bytes_of_the_optimizers_are_those_of_torch() -> None:
    trainer = Trainer(Tiny(), recipe(), steps=1)
    trainer.step(batch())
    held = [
        value.numel() * value.element_size()
        for optimizer in trainer.optimizers
        for state in optimizer.state.values()
        for value in state.values()
    ]
    gradients = [p.grad.nbytes for p in trainer.parameters if p.grad is not None]
    assert trainer.predicted_bytes() == {
        "gradients_bytes": sum(gradients), "optimizer_bytes": sum(held),
    }  # fmt: skip


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


def test_a_budget_of_seconds_ends_when_they_are_over() -> None:
    class Seen(Tiny):
        def forward(self, **inputs: Tensor) -> SimpleNamespace:
            time.sleep(0.01)
            return super().forward(**inputs)

    done = train(
        Seen(), itertools.repeat(batch()), budget=Budget(seconds=0.3), batch_size=5,
        recipe=recipe(), device=CPU, every=1,
    )  # fmt: skip
    assert 0.15 < done.curve.seconds[-1] < 3  # a busy machine may hold a step up
    steps = len(done.curve.items)
    assert 1 <= steps <= 30
    assert done.curve.items[-1] == 5 * steps
    assert done.optimizer["steps"] == steps


def test_the_rate_falls_by_what_is_spent() -> None:
    trainer = Trainer(Tiny(), recipe(), steps=0)  # cools down over the last half
    for spent, share in ((0.0, 1.0), (0.4, 1.0), (0.75, 0.5), (1.2, 0.0)):
        trainer.step(batch(), spent)
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * share)


def test_the_last_step_is_the_one_that_ends_nearest_to_the_budget() -> None:
    budget = Budget(seconds=10.0)  # steps of 3 s end at 3, 6, 9, 12
    spent = [budget.spent(step, 0, 3.0 * step) for step in range(5)]
    assert [share >= 1 for share in spent] == [False, False, False, True, True]
    assert spent == sorted(spent)
