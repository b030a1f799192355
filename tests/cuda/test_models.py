"""Every model of the registry on a CUDA device: the CPU's numbers, steps, states."""

import pytest
import torch
from torch import Tensor

from bench import protocol
from bench.training import Recipe, Trainer
from tests.cuda import DEVICE, ON_CUDA
from tests.models.test_dtype import example
from tests.zoo import PAIRS, build

pytestmark = ON_CUDA
EXACT = [p for p in PAIRS if p[0] not in ("diffusion", "dit") and p[1] == "language"]
DTYPES = [torch.float32, torch.bfloat16]


def moved(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(DEVICE) for name, value in batch.items()}


@pytest.mark.parametrize(("name", "kind"), [p for p in PAIRS if p[0] not in ("diffusion", "dit")])
@torch.no_grad()
def test_scores_are_those_of_the_cpu(name: str, kind: str) -> None:
    model, batch = build(name, kind).eval(), example(kind)

    def score(given: dict[str, Tensor]) -> Tensor:
        if kind == "language":
            return model.log_prob(given["tokens"]).nats
        if kind == "classify":
            return model.classify(given["pixels"])
        return model.log_prob(given["pixels"], given["condition"]).nats

    expected = score(batch)
    model.to(DEVICE)
    torch.testing.assert_close(score(moved(batch)).cpu(), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_training_lowers_the_loss(name: str, kind: str, dtype: torch.dtype) -> None:
    model = build(name, kind).to(DEVICE).train()
    recipe = Recipe(lr=0.01, adam_ratio=0.5, weight_decay=0.0, cooldown=0.0, clip=1.0)
    trainer = Trainer(model, recipe, steps=30, dtype=dtype)
    batch = moved(example(kind))
    losses = torch.stack([trainer.step(batch) for _ in range(30)])
    assert losses.isfinite().all()
    assert losses[-5:].mean() < losses[:5].mean()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "kind"), EXACT)
@torch.no_grad()
def test_a_step_continues_what_was_read(name: str, kind: str, dtype: torch.dtype) -> None:
    model = build(name, kind).to(DEVICE, dtype).eval()
    assert isinstance(model, protocol.Recurrent)
    tokens = moved(example(kind))["tokens"]
    whole, _ = model.prefill(tokens)
    logits, state = model.prefill(tokens[:, :20])
    pieces = [logits]
    for t in range(20, tokens.shape[1]):
        logits, state = model.step(tokens[:, t], state)
        pieces.append(logits[:, None])
    exact = dtype == torch.float32
    torch.testing.assert_close(
        torch.cat(pieces, 1), whole, atol=1e-3 if exact else 0.5, rtol=1e-3 if exact else 0.1
    )


@pytest.mark.parametrize(("name", "kind"), [p for p in PAIRS if p[1] != "classify"])
@torch.no_grad()
def test_samples_are_drawn_there(name: str, kind: str) -> None:
    model = build(name, kind).to(DEVICE).eval()
    given = {"length": 8} if kind == "language" else {"condition": torch.arange(4, device=DEVICE)}
    generator = torch.Generator(DEVICE).manual_seed(0)
    drawn = model.sample(4, **given, generator=generator)
    assert drawn.device.type == "cuda"
    assert drawn.dtype == torch.int64
