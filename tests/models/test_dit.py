"""DiT: patches land where they came from, adaLN-Zero starts as the identity, cost is counted."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.denoiser import modulate
from models.backbones.dit import DiT


def build(patch: int = 2, d_ff: int = 48, **changes: int) -> DiT:
    given = {
        "levels": 5, "n_classes": 3, "height": 8, "width": 4, "d_model": 24, "n_layers": 2,
        "n_heads": 2, "time_features": 8,
    } | changes  # fmt: skip
    torch.manual_seed(0)
    return DiT(patch=patch, d_ff=d_ff, **given)


def batch(n: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(n, 1, 8, 4), torch.tensor([0.0, 10.0, 999.0])[:n], torch.arange(n) % 3


@pytest.mark.parametrize("patch", [1, 2])
def test_untrained_logits_are_zero_and_shaped(patch: int) -> None:
    logits = build(patch)(*batch())
    assert logits.shape == (3, 8, 4, 5)
    assert not logits.any()


@pytest.mark.parametrize("patch", [1, 2])
def test_pixels_keep_their_place(patch: int) -> None:
    """With gates at zero and no positions, a logit depends on its own patch alone."""
    model = build(patch)
    torch.nn.init.normal_(model.patch_out.weight)
    torch.nn.init.zeros_(model.position.weight)
    x, t, y = batch(1)
    base = model(x, t, y)
    for row, column in ((0, 0), (3, 2), (7, 3)):
        moved = x.clone()
        moved[0, 0, row, column] += 1
        changed = (model(moved, t, y) - base).abs().sum(-1)[0] > 1e-6  # (H, W)
        expected = torch.zeros(8, 4, dtype=torch.bool)
        top, left = row // patch * patch, column // patch * patch
        expected[top : top + patch, left : left + patch] = True
        assert torch.equal(changed, expected)


def test_class_and_time_reach_the_logits_and_gradients_flow() -> None:
    model = build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, t, y = batch()
    logits = model(x, t, y)
    assert float((model(x, t + 50, y) - logits).abs().max()) > 1e-4
    assert float((model(x, t, (y + 1) % 3) - logits).abs().max()) > 1e-4
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-5)
    logits.square().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.parameters())


def test_modulate() -> None:
    x, shift, scale = torch.randn(2, 3, 4), torch.randn(2, 4), torch.randn(2, 4)
    torch.testing.assert_close(modulate(x, shift, scale), x * (1 + scale[:, None]) + shift[:, None])


@pytest.mark.parametrize("patch", [1, 2])
def test_flops_equal_the_counted_matrix_products(patch: int) -> None:
    model = build(patch)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(*batch())
    assert model.flops(3, 8, 4) == counter.get_total_flops()


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="patch"):
        build(3)
    with pytest.raises(ValueError, match="n_heads"):
        build(n_heads=5)
    with pytest.raises(ValueError, match="patches"):
        build()(torch.randn(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
