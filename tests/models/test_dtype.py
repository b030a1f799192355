"""Every model of the registry in bfloat16: what each scenario does, with finite numbers."""

import pytest
import torch
from torch import Tensor

from bench import protocol
from bench.training import Recipe, Trainer, autocast
from models.objectives.diffusion import Diffusion
from models.objectives.diffusion_classifier import DiffusionClassifier
from tests.models.kernels import needs_numba
from tests.zoo import PAIRS, build

SHORT = torch.bfloat16
CPU = torch.device("cpu")


def example(kind: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if kind == "language":
        tokens = torch.randint(256, (2, 32), generator=generator)
        return {"tokens": tokens, "labels": tokens}
    pixels = torch.randint(17, (4, 8, 8), generator=generator)
    if kind == "classify":
        return {"pixels": pixels, "labels": torch.arange(4)}
    return {"pixels": pixels, "condition": torch.arange(4), "labels": pixels}


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_training_steps(name: str, kind: str) -> None:
    model = build(name, kind).train()
    recipe = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.0, cooldown=0.0, clip=1.0)
    trainer = Trainer(model, recipe, steps=2, dtype=SHORT)
    before = [p.detach().clone() for p in model.parameters()]
    losses = torch.stack([trainer.step(example(kind)) for _ in range(2)])
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


@needs_numba
@pytest.mark.parametrize("name", ["mamba", "mamba2", "mamba3", "rwkv", "rwkv4"])
def test_recurrences_in_torch_keep_their_precision_under_autocast(name: str) -> None:
    """Where no fused kernel runs, as on a GPU, they differ from it by less than bfloat16 costs."""

    def gradient(kernel: str, dtype: torch.dtype) -> Tensor:
        model = build(name, "language")
        for module in model.modules():
            if hasattr(module, "kernel"):
                module.kernel = kernel
        with autocast(CPU, dtype):
            loss = model(**example("language")).loss
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    exact, fused, plain = (
        gradient(*way) for way in (("auto", torch.float32), ("auto", SHORT), ("torch", SHORT))
    )
    assert 0 < (fused - exact).norm() < 0.02 * exact.norm()
    assert (plain - fused).norm() < (fused - exact).norm() / 2


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@torch.no_grad()
def test_scores_under_autocast_are_close_to_those_of_float32(name: str, kind: str) -> None:
    model, batch = build(name, kind).eval(), example(kind)

    def scores() -> Tensor:
        if kind == "language":
            return model.log_prob(batch["tokens"]).nats
        if kind == "classify":
            return model.classify(batch["pixels"]).float()
        return model.log_prob(batch["pixels"], batch["condition"]).nats

    exact = scores()
    with autocast(CPU, SHORT):
        short = scores()
    assert short.isfinite().all()
    assert not torch.equal(short, exact)  # it did run in another dtype
    torch.testing.assert_close(short, exact, rtol=0.03, atol=0.3)
    if kind != "classify":
        assert short.dtype == torch.float32


@pytest.mark.parametrize(("name", "kind"), [p for p in PAIRS if p[1] != "classify"])
@torch.no_grad()
def test_samples_and_states_under_autocast(name: str, kind: str) -> None:
    """What the final evaluation does besides the likelihood: it carries a state, it draws."""
    model, batch = build(name, kind).eval(), example(kind)
    with autocast(CPU, SHORT):
        given = {"length": 8} if kind == "language" else {"condition": batch["condition"]}
        drawn = model.sample(4, **given, generator=torch.Generator().manual_seed(0))
        assert drawn.dtype == torch.int64
        if kind == "language" and isinstance(model, protocol.Recurrent):
            _, state = model.prefill(batch["tokens"])
            logits, state = model.prefill(batch["tokens"], model.crop(state, 16))
            assert logits.isfinite().all()
            logits, state = model.step(batch["tokens"][:, 0], state)
            assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@torch.no_grad()
def test_speed_scenarios(name: str, kind: str) -> None:
    """prefill, decode and sample hold the weights themselves in bfloat16."""
    model, batch = build(name, kind).to(SHORT).eval(), example(kind)
    labels = batch.pop("labels")
    found: list[Tensor] = []
    if kind == "classify":
        found.append(model.classify(batch["pixels"]))
        assert found[0].shape == (len(labels), 10)
    elif kind == "language" and isinstance(model, protocol.Recurrent):
        logits, state = model.prefill(batch["tokens"])
        found.append(logits)
        for _ in range(3):
            logits, state = model.step(batch["tokens"][:, 0], state)
            found.append(logits)
    else:
        found.append(model(**batch).logits)
    if kind != "classify":
        given = {"length": 8} if kind == "language" else {"condition": batch["condition"]}
        drawn = model.sample(len(labels), **given, generator=torch.Generator().manual_seed(0))
        assert drawn.dtype == torch.int64
        assert drawn.min() >= 0
        assert drawn.max() < (256 if kind == "language" else 17)
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize("name", ["diffusion", "dit"])
def test_grey_levels_are_exact_in_every_dtype(name: str) -> None:
    classifier = build(name, "classify")
    assert isinstance(classifier, DiffusionClassifier)
    model = classifier.diffusion
    assert isinstance(model, Diffusion)
    exact = torch.linspace(-1, 1, 17)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert model.to(dtype).values.dtype == torch.float32
        torch.testing.assert_close(model.values, exact)
