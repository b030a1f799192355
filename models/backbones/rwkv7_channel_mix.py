"""The channel mix of RWKV-7 (arXiv:2503.14456); the glossary stands in `rwkv7`.

Shapes: B batch, T time, D width, F hidden width.
"""

import torch
from torch import Tensor, nn

from models.backbones.elementwise import squared_relu
from models.backbones.linear import Linear
from models.backbones.token_shift import token_shift


class ChannelMix(nn.Module):
    """The feed-forward half of a block: squared ReLU after a token shift."""

    def __init__(self, *, d_model: int, d_ff: int, layer: int, n_layers: int, kernel: str) -> None:
        super().__init__()
        self.kernel = kernel
        channel = torch.arange(d_model) / d_model
        power = (1 - layer / n_layers) ** 4
        self.x_k = nn.Parameter((1 - channel**power).view(1, 1, d_model))
        self.key = Linear(d_model, d_ff, bias=False)
        self.value = Linear(d_ff, d_model, bias=False)
        nn.init.uniform_(self.key.weight, -0.5 / d_model**0.5, 0.5 / d_model**0.5)
        nn.init.zeros_(self.value.weight)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        (x_k,) = token_shift(x, last, self.x_k)
        return self.value(squared_relu(self.key(x_k), self.kernel))

    def flops(self, batch: int, length: int) -> int:
        """The matrix products."""
        return 2 * batch * length * (self.key.weight.numel() + self.value.weight.numel())
