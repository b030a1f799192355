"""A causal backbone made to see both sides: every other layer reads from the end.

Vision-LSTM (ViL, arXiv:2406.04303) turns a causal recurrence into an encoder by alternating blocks:
odd ones read from the first patch to the last, even ones from the last to the first. ZigMa
(arXiv:2403.13802) does so with Mamba in a diffusion model, along more paths. It costs no parameter
and no work, and every mixer can do it with its own causal kernel, by turning its input around.
Two layers that read are enough for every output to depend on every input.

Attention loses its mask instead, and what is taken symbol by symbol stays as it is.

Deviations: DiS (arXiv:2402.05608) runs two scans in every block, as Vision Mamba does
(arXiv:2401.09417), and Diffusion-RWKV (arXiv:2404.04478) a recurrence of its own over both sides:
both would need a second mixer for every family, and twice the scans.

Shapes: B batch, T time, D width.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from models.backbones.branches import Branch, BranchedBackbone, Losses


def unmasked(backbone: nn.Module) -> BranchedBackbone:
    """`backbone` with its attention unmasked; ValueError where it cannot see both sides."""
    if not isinstance(backbone, BranchedBackbone):
        raise ValueError(
            f"{type(backbone).__name__} does not show its branches, so it cannot read from both "
            "sides; allowed are sequence backbones that do, as those of transformer and mamba"
        )
    for module in backbone.modules():
        if hasattr(module, "causal"):
            module.causal = False  # type: ignore[assignment]
    found = cast(BranchedBackbone, backbone)
    # Branches are the same for every length.
    layers = {branch.layer for branch in found.branches(1) if branch.ordered}
    if len(layers) == 1:
        raise ValueError(
            "n_layers leaves one layer alone that reads in order, and a single one sees one side; "
            "it has to be at least 2"
        )
    return found


class Direction:
    """Which layers read from the end: every other one of those that read in order."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self.from_end = set(sorted({b.layer for b in branches if b.ordered})[1::2])

    def read(
        self, branch: Branch, x: Tensor, kept: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Losses]:
        """The branch over x (B, T, D), turned around and back where its layer asks for that."""
        if not branch.ordered or branch.layer not in self.from_end:
            return branch.run(x, kept)
        y, kept, losses = branch.run(x.flip(1), None if kept is None else kept.flip(1))
        return y.flip(1), None if kept is None else kept.flip(1), losses


def added(losses: Mapping[str, Tensor], more: Losses) -> dict[str, Tensor]:
    """The sum of losses of the same name."""
    return {**losses, **{key: losses[key] + v if key in losses else v for key, v in more.items()}}


class Bidirectional(nn.Module):
    """`backbone` as an encoder, a `SequenceBackbone` of the same parameters."""

    causal = False

    def __init__(self, *, backbone: nn.Module) -> None:
        super().__init__()
        self.d_model = unmasked(backbone).d_model
        self.backbone = backbone

    def forward(self, x: Tensor) -> tuple[Tensor, Losses]:
        """(B, T, D) -> (B, T, D), and the backbone's auxiliary losses."""
        inner = cast(BranchedBackbone, self.backbone)
        branches = inner.branches(x.shape[1])
        direction, losses, kept = Direction(branches), dict[str, Tensor](), None
        x = inner.enter(x)
        for branch in branches:
            y, kept, more = direction.read(branch, branch.norm(x), kept)
            x, losses = x + y, added(losses, more)
        return inner.leave(x), losses

    def flops(self, batch: int, length: int) -> int | None:
        """Those of the backbone: turning around costs none."""
        return cast(BranchedBackbone, self.backbone).flops(batch, length)
