"""Any sequence backbone as a denoiser: DiT's frame around it, from the identity on."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.backbones.denoiser import SequenceDenoiser
from models.backbones.dit import DiT, DiTBlocks
from models.objectives.diffusion import Diffusion
from tests.zoo import CROSSED_PAIRS, node, randomise
from tests.zoo import build as build_any

IMAGES = sorted({name for name, kind in CROSSED_PAIRS if kind == "generate" and "diff" in name})


def built(name: str) -> Diffusion:
    """As a cell's worker makes it, before training."""
    from hydra.utils import instantiate

    torch.manual_seed(0)
    model = instantiate(node(name, "generate"), _convert_="all")
    assert isinstance(model, Diffusion)
    return model


def batch(n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, 8, 8, generator=g)
    return x, torch.tensor([0.0, 10.0, 999.0])[:n], torch.arange(n) % 3


def test_every_sequence_model_is_there() -> None:
    assert [name.split()[0] for name in IMAGES] == [
        "hybrid", "mamba", "mamba2", "mamba3", "moe", "rwkv", "transformer"
    ]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", IMAGES)
def test_an_untrained_network_is_the_identity_and_says_nothing(name: str) -> None:
    network = built(name).network
    assert isinstance(network, SequenceDenoiser)
    x, t, y = batch()
    assert not network(x, t, y).any()
    hidden = torch.randn(3, 16, network.d_model)
    c = torch.randn(3, network.condition.embedding_dim)
    mixed, _ = network.mix(hidden, c)
    expected = network.backbone.leave(network.backbone.enter(hidden))
    assert torch.equal(mixed, expected)
    # No branch is dead: one that begins at zero behind a gate at zero would never learn.
    for branch in network.backbone.branches(16):
        assert all(output.any() for output in branch.outputs)
        assert branch.run(hidden, None)[0].abs().max() > 0


@pytest.mark.parametrize("name", IMAGES)
def test_time_class_and_all_patches_reach_all_logits_and_gradients_flow(name: str) -> None:
    network = build_any(name, "generate").network
    x, t, y = batch()
    logits = network(x, t, y)
    assert logits.shape == (3, 8, 8, 17)
    assert float((network(x, t + 50, y) - logits).abs().max()) > 1e-5
    assert float((network(x, t, (y + 1) % 3) - logits).abs().max()) > 1e-5
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, logits, rtol=1e-3, atol=1e-4)
    wide = copy.deepcopy(network).double()
    for row, column in ((0, 0), (7, 7)):
        moved = x.double()
        moved[:, 0, row, column] += 5
        changed = (wide(moved, t, y) - wide(x.double(), t, y)).abs().sum(-1)  # (B, H, W)
        assert bool((changed > 0).all())
    logits.square().mean().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@torch.no_grad()
def test_dit_is_the_frame_around_its_own_blocks() -> None:
    """`model=dit` and a denoiser around DiTBlocks are one network; so is a hand-written one."""
    sizes = {"d_model": 24, "n_layers": 2, "n_heads": 2, "d_ff": 48}
    image = {"levels": 5, "n_classes": 3, "height": 8, "width": 8, "patch": 2, "time_features": 8}
    torch.manual_seed(0)
    dit = randomise(DiT(**sizes, **image))
    frame = SequenceDenoiser(backbone=DiTBlocks(**sizes), reduction=1, **image)
    frame.load_state_dict(dit.state_dict())
    x, t, y = batch()
    torch.testing.assert_close(frame(x, t, y), dit(x, t, y), rtol=0, atol=0)
    torch.testing.assert_close(by_hand(dit, x, t, y), dit(x, t, y), rtol=1e-4, atol=1e-5)


def by_hand(dit: DiT, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """The paper's figure 3 on the weights of `dit`, one line a step, patches by a convolution."""
    weights = dit.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return nn.functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(x: Tensor) -> Tensor:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        return (x - mean) / (var + 1e-6).sqrt()

    kernel = weights["patch_in.weight"].view(24, 1, 2, 2)
    x = nn.functional.conv2d(x_t, kernel, weights["patch_in.bias"], stride=2)
    x = x.flatten(2).transpose(1, 2) + weights["position.weight"]  # (B, N, D)
    freqs = torch.exp(-math.log(10_000) * torch.arange(4) / 4)
    waves = torch.cat([(t[:, None] * freqs).cos(), (t[:, None] * freqs).sin()], -1)
    time = linear("time.down", nn.functional.silu(linear("time.up", waves)))
    c = nn.functional.silu(time + weights["condition.weight"][y])
    for i in range(2):
        b1, g1, a1, b2, g2, a2 = linear(f"modulations.{i}", c)[:, None].chunk(6, -1)
        h = norm(x) * (1 + g1) + b1
        qkv = linear(f"backbone.blocks.{i}.qkv", h).view(3, 16, 3, 2, 12)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, h, N, d)
        q, k = (part / (part.square().mean(-1, keepdim=True) + 1.2e-7).sqrt() for part in (q, k))
        scores = (q @ k.mT / math.sqrt(12)).softmax(-1) @ v
        x = x + a1 * linear(f"backbone.blocks.{i}.proj", scores.transpose(1, 2).flatten(2))
        h = norm(x) * (1 + g2) + b2
        h = nn.functional.gelu(linear(f"backbone.blocks.{i}.fc1", h), approximate="tanh")
        x = x + a2 * linear(f"backbone.blocks.{i}.fc2", h)
    b, g = linear("modulation", c)[:, None].chunk(2, -1)
    out = linear("patch_out", norm(x) * (1 + g) + b)  # (B, N, p p L)
    planes = out.view(3, 4, 4, 2, 2, 5).permute(0, 1, 3, 2, 4, 5)
    return planes.reshape(3, 8, 8, 5)


def test_flops_hold_the_counted_matrix_products() -> None:
    network = built("transformer under diffusion").network
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        network(*batch())
    assert network.flops(3, 8, 8) == counter.get_total_flops()


def test_losses_of_routers_are_part_of_what_is_minimised() -> None:
    model = build_any("moe under diffusion", "generate")
    pixels, labels = torch.randint(17, (4, 8, 8)), torch.arange(4)
    torch.manual_seed(0)
    out = model(pixels=pixels, condition=labels, labels=pixels)
    assert set(out.losses) == {"cross_entropy", "load_balancing", "router_z"}
    assert out.losses["load_balancing"] > 0
    torch.testing.assert_close(out.loss, out.nll + sum(out.losses.values()))


def test_bad_shapes_are_named() -> None:
    image = {"levels": 5, "n_classes": 3, "height": 8, "width": 8, "time_features": 8}
    blocks = DiTBlocks(d_model=24, n_layers=2, n_heads=2, d_ff=48)
    with pytest.raises(ValueError, match="reduction=5 must divide d_model=24"):
        SequenceDenoiser(backbone=blocks, patch=2, reduction=5, **image)
    with pytest.raises(ValueError, match="patch=3 must divide"):
        SequenceDenoiser(backbone=blocks, patch=3, reduction=1, **image)
