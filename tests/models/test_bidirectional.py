"""Backbones by their branches: the sum is the backbone's own, and turned around it sees all."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.backbones.bidirectional import Bidirectional, Direction
from models.backbones.branches import Branch, BranchedBackbone
from tests.zoo import GROUPS, build

NAMES = sorted(name for name, group in GROUPS.items() if "diffusion" in group.get("objectives", {}))
RECURRENT = [name for name in NAMES if name not in ("transformer", "moe")]


def backbone(name: str) -> nn.Module:
    """In double, so that what is equal is equal to the last digits; attention sees the past."""
    return build(name, "language").backbone.double().eval()


def inputs(model: nn.Module, length: int = 12) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, length, model.d_model, generator=g, dtype=torch.float64)


def test_the_names_are_those_of_sequence_models() -> None:
    assert NAMES == [
        "hybrid", "mamba", "mamba2", "mamba3", "moe", "resnet", "rwkv", "transformer"
    ]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_sum_of_the_branches_is_the_backbone(name: str) -> None:
    model = backbone(name)
    assert isinstance(model, BranchedBackbone)
    x, kept, losses = inputs(model), None, {}
    expected, told = model(x)
    x = model.enter(x)
    for branch in model.branches(x.shape[1]):
        y, kept, more = branch.run(branch.norm(x), kept)
        x = x + y
        losses = {key: losses.get(key, 0) + value for key, value in more.items()} or losses
    torch.testing.assert_close(model.leave(x), expected, atol=1e-12, rtol=1e-12)
    assert losses.keys() == told.keys()
    for key, value in told.items():
        torch.testing.assert_close(losses[key], value)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_every_output_depends_on_every_input(name: str) -> None:
    """As under masked diffusion: a symbol at either end changes the output at the other."""
    both = build(f"{name} under diffusion", "language").backbone.double().eval()
    assert isinstance(both, Bidirectional)
    x = inputs(both, 8)
    late, early = x.clone(), x.clone()
    late[:, -1] += 3 * torch.randn(both.d_model, dtype=torch.float64)
    early[:, 0] += 3 * torch.randn(both.d_model, dtype=torch.float64)
    base = both(x)[0]
    assert (both(late)[0] - base)[:, 0].abs().max() > 1e-9
    assert (both(early)[0] - base)[:, -1].abs().max() > 1e-9
    assert both.flops(2, 8) == both.backbone.flops(2, 8)
    assert not both.causal


@torch.no_grad()
@pytest.mark.parametrize("name", RECURRENT)
def test_turning_around_equals_flipping_by_hand(name: str) -> None:
    """Layer by layer on the flipped residual stream, with what is not ordered left in place."""
    model = backbone(name)
    x = inputs(model)
    got, _ = Bidirectional(backbone=model)(x)
    branches = model.branches(x.shape[1])
    layers = sorted({branch.layer for branch in branches if branch.ordered})
    x, kept = model.enter(x), None
    for layer in sorted({branch.layer for branch in branches}):
        turned = layer in layers and layers.index(layer) % 2 == 1
        if turned:
            x = x.flip(1)
            kept = None if kept is None else kept.flip(1)
        for branch in (branch for branch in branches if branch.layer == layer):
            y, kept, _ = branch.run(branch.norm(x), kept)
            x = x + y
        if turned:
            x = x.flip(1)
            kept = None if kept is None else kept.flip(1)
    torch.testing.assert_close(got, model.leave(x), atol=1e-12, rtol=1e-12)


class Shift(nn.Module):
    """Two layers, each of which adds the symbol before: what they see can be counted."""

    d_model = 1

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.n_layers = n_layers

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        raise AssertionError("it is read by its branches")

    def flops(self, batch: int, length: int) -> None:
        return None

    def enter(self, x: Tensor) -> Tensor:
        return x

    def leave(self, x: Tensor) -> Tensor:
        return x

    def branches(self, length: int) -> list[Branch]:
        def cumulated(x: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None, dict]:
            return x.cumsum(1) - x, kept, {}  # all those before

        same: Callable[[Tensor], Tensor] = nn.Identity()
        return [Branch(i, same, cumulated, True, ()) for i in range(self.n_layers)]


def test_two_layers_that_sum_what_they_see_sum_everything() -> None:
    """y = (1 + strictly upper) (1 + strictly lower) x: ones below, sums of both above."""
    length = 5
    unit = torch.eye(length)[..., None]  # each input by itself, (T, T, 1)
    got = Bidirectional(backbone=Shift(2))(unit)[0][..., 0].T
    lower = torch.tril(torch.ones(length, length))
    torch.testing.assert_close(got, lower.T @ lower)
    assert bool((got > 0).all())


def test_directions_alternate_over_the_layers_that_read_in_order() -> None:
    same = nn.Identity()

    def branch(layer: int, ordered: bool) -> Branch:
        return Branch(layer, same, lambda x, kept: (x, kept, {}), ordered, ())

    mixed = [branch(0, True), branch(0, False), branch(1, False), branch(2, True), branch(4, True)]
    assert Direction(mixed).from_end == {2}
    assert Direction(mixed[1:3]).from_end == set()


def test_what_cannot_see_both_sides_is_refused() -> None:
    with pytest.raises(ValueError, match="Identity does not show its branches"):
        Bidirectional(backbone=nn.Identity())
    with pytest.raises(ValueError, match="it has to be at least 2"):
        Bidirectional(backbone=Shift(1))
