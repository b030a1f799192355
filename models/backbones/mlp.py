"""The position-wise half of a Transformer's block, as hybrids have it too.

SwiGLU (arXiv:2002.05202), or a squared ReLU (Primer, arXiv:2109.08668).

Shapes: B batch, T positions, D width, F hidden width (`d_ff`).
"""

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from models.backbones.elementwise import squared_relu, swiglu
from models.backbones.linear import Linear
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.kernels.views import Array

MLPS = ("swiglu", "relu2")


def projection(d_in: int, d_out: int, scale: float = 1.0) -> Linear:
    """A projection without bias, normal with standard deviation scale / sqrt(d_in)."""
    layer = Linear(d_in, d_out, bias=False)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(d_in))
    return layer


class FeedForward(Protocol):
    """What a block asks of its position-wise half."""

    def __call__(self, x: Tensor) -> Tensor: ...
    def fuse(self, norm: RMSNorm) -> Callable[[Array], Array]: ...
    def flops(self, batch: int, length: int) -> int: ...
    def outputs(self) -> tuple[Tensor, ...]: ...


class MLP(nn.Module):
    """SwiGLU, W_down (silu(W_gate x) * W_up x), or squared ReLU, W_down relu(W_up x)^2."""

    def __init__(self, *, d_model: int, d_ff: int, mlp: str, residual_init: float) -> None:
        super().__init__()
        if mlp not in MLPS:
            raise ValueError(f"mlp={mlp!r} is unknown; allowed: {', '.join(MLPS)}")
        check_sizes(d_ff=d_ff)
        self.gated = mlp == "swiglu"
        if self.gated:
            self.gate_proj = projection(d_model, d_ff)
        self.up_proj = projection(d_model, d_ff)
        self.down_proj = projection(d_ff, d_model, residual_init)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        up = self.up_proj(x)  # (..., d_ff)
        hidden = swiglu(self.gate_proj(x), up) if self.gated else squared_relu(up)
        return self.down_proj(hidden)

    def weights(self) -> tuple[Tensor, ...]:
        """Gate, up and down; without a gate two."""
        layers = (self.up_proj, self.down_proj)
        return tuple(p.weight for p in ((self.gate_proj, *layers) if self.gated else layers))

    def outputs(self) -> tuple[Tensor, ...]:
        """The matrix onto the residual stream."""
        return (self.down_proj.weight,)

    def fuse(self, norm: RMSNorm) -> Callable[[Array], Array]:
        """x + mlp(norm(x)) of one position by a kernel."""
        from models.kernels.mlp_step import FusedMLP

        return FusedMLP(norm.weight, norm.eps, self.weights())

    def flops(self, batch: int, length: int) -> int:
        """The matrix products."""
        return 2 * batch * length * sum(p.numel() for p in self.parameters())
