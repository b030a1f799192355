"""DiT: a Transformer over image patches as the denoiser of a diffusion model.

Scalable Diffusion Models with Transformers (arXiv:2212.09748), in its adaLN-Zero form: time and
class shift, scale and gate every sub-layer, and all gates start at zero. The frame (patches,
condition, modulation, read-out) is `denoiser`'s; here stand the blocks that the paper puts into it.

Reference: https://github.com/facebookresearch/DiT (`models.py`). Deviations, besides those of the
frame: queries and keys are normalised (arXiv:2302.05442).

Shapes: B batch, N patches, D width, h heads.
"""

from collections.abc import Iterable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.branches import Branch, Losses, keeping
from models.backbones.denoiser import SequenceDenoiser
from models.backbones.linear import Linear
from models.backbones.sizes import check_sizes


def plain_norm(d_model: int) -> nn.LayerNorm:
    """Without weights, since the condition has them."""
    return nn.LayerNorm(d_model, elementwise_affine=False, eps=1e-6)


class Block(nn.Module):
    """Attention and an MLP, each behind a norm without weights."""

    def __init__(self, *, d_model: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1 = plain_norm(d_model)
        self.qkv = Linear(d_model, 3 * d_model)
        self.proj = Linear(d_model, d_model)
        self.norm2 = plain_norm(d_model)
        self.fc1 = Linear(d_model, d_ff)
        self.fc2 = Linear(d_ff, d_model)

    def attention(self, x: Tensor) -> Tensor:
        """Softmax attention between all patches, (B, N, D) -> (B, N, D)."""
        head_dim = x.shape[-1] // self.n_heads
        qkv = self.qkv(x).unflatten(-1, (3, self.n_heads, head_dim))  # (B, N, 3, h, D/h)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 of (B, h, N, D/h)
        q, k = F.rms_norm(q, (head_dim,)), F.rms_norm(k, (head_dim,))
        y = F.scaled_dot_product_attention(q, k, v)  # (B, h, N, D/h)
        return self.proj(y.transpose(1, 2).flatten(2))  # (B, N, D)

    def mlp(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class DiTBlocks(nn.Module):
    """The paper's blocks as a sequence backbone."""

    def __init__(self, *, d_model: int, n_layers: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        check_sizes(n_layers=n_layers, d_ff=d_ff)
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
        self.d_model, self.d_ff = d_model, d_ff
        self.blocks = nn.ModuleList(
            Block(d_model=d_model, n_heads=n_heads, d_ff=d_ff) for _ in range(n_layers)
        )
        self.norm = plain_norm(d_model)

    def forward(self, x: Tensor) -> tuple[Tensor, Losses]:
        """Without a condition, (B, N, D) -> (B, N, D)."""
        for branch in self.branches(x.shape[1]):
            x = x + branch.run(branch.norm(x), None)[0]
        return self.norm(x), {}

    def enter(self, x: Tensor) -> Tensor:
        """The identity."""
        return x

    def branches(self, length: int) -> list[Branch]:
        """Attention and MLP of every block; no patch comes before another."""
        found = []
        for layer, block in enumerate(cast(Iterable[Block], self.blocks)):
            halves = (
                (block.norm1, block.attention, block.proj),
                (block.norm2, block.mlp, block.fc2),
            )
            found += [
                Branch(layer, norm, keeping(run), ordered=False, outputs=(last.weight,))
                for norm, run, last in halves
            ]
        return found

    def leave(self, x: Tensor) -> Tensor:
        """The final norm."""
        return self.norm(x)

    def flops(self, batch: int, length: int) -> int:
        """Matrix products of one forward pass."""
        d = self.d_model
        block = length * (4 * d * d + 2 * d * self.d_ff) + 2 * length * length * d
        return 2 * batch * len(self.blocks) * block


class DiT(SequenceDenoiser):
    """The frame around `DiTBlocks`, whose condition is as wide as the model."""

    def __init__(
        self,
        *,
        levels: int,
        n_classes: int,
        height: int,
        width: int,
        patch: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        d_ff: int,
        time_features: int,
    ) -> None:
        super().__init__(
            backbone=DiTBlocks(d_model=d_model, n_layers=n_layers, n_heads=n_heads, d_ff=d_ff),
            levels=levels,
            n_classes=n_classes,
            height=height,
            width=width,
            patch=patch,
            reduction=1,
            time_features=time_features,
        )
