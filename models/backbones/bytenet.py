"""Neural Machine Translation in Linear Time, the ByteNet decoder (arXiv:1610.10099).

A residual network of causal dilated convolutions over time: its receptive field grows
exponentially with depth, and its state is a fixed window of every layer.

Glossary: `d_model` is 2d, the width of the residual stream; `d_inner` is d, the width of the
bottleneck; `kernel` is k; `dilations` is r of each block, "doubled every layer up to a maximum
rate r" and then repeated (section 3.3). A block is figure 3 (left): layer norm, ReLU and a 1 x 1
convolution into the bottleneck; layer norm, ReLU and the masked dilated convolution; layer norm,
ReLU and a 1 x 1 convolution back, added to the input.

Deviations: the first ReLU is left out, as the 1 x 1 convolution is a plain matrix; no biases
outside the norms; the last matrix of every block starts at zero, so that a network starts as the
identity. The masked convolution is written as shifted copies side by side times one matrix: as
fast as conv1d on a CPU, and an optimizer sees the matrix that it is.

Shapes: B batch, T time, D width, d bottleneck, k kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.branches import Branch, keeping
from models.backbones.linear import Linear, linear
from models.backbones.sizes import check_sizes


class CausalConv1d(nn.Module):
    """y_t = sum_i W_i x_{t - (k - 1 - i) r}: a dilated convolution that never looks ahead."""

    def __init__(self, *, d_in: int, d_out: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation
        self.reach = (kernel - 1) * dilation  # how many earlier inputs are needed
        # Tap i is columns i * d_in to (i + 1) * d_in.
        self.weight = nn.Parameter(torch.empty(d_out, kernel * d_in))
        nn.init.normal_(self.weight, std=(kernel * d_in) ** -0.5)

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        """(B, T, d_in), and the `reach` inputs before it or zeros -> (B, T, d_out)."""
        length = x.shape[1]
        if past is None:
            past = x.new_zeros(x.shape[0], self.reach, x.shape[2])
        padded = torch.cat([past, x], 1)  # (B, reach + T, d_in)
        starts = range(0, self.reach + 1, self.dilation)
        taps = [padded[:, start : start + length] for start in starts]
        return linear(torch.cat(taps, -1), self.weight)  # (B, T, d_out)

    def step(self, x: Tensor, ring: Tensor, slot: int) -> Tensor:
        """(B, d_in) -> (B, d_out); `ring` (B, reach, d_in) holds the oldest input at `slot`."""
        if self.reach == 0:
            return linear(x, self.weight)
        earlier = range(slot, slot + self.reach, self.dilation)
        taps = [ring[:, index % self.reach] for index in earlier]
        out = linear(torch.cat([*taps, x], -1), self.weight)
        ring[:, slot] = x
        return out


class Block(nn.Module):
    """x + W_2 relu(norm(conv(relu(norm(W_1 norm(x))))))."""

    def __init__(
        self, *, d_model: int, d_inner: int, kernel: int, dilation: int, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(d_model, norm_eps)
        self.reduce = Linear(d_model, d_inner, bias=False)
        self.norm_conv = nn.LayerNorm(d_inner, norm_eps)
        self.conv = CausalConv1d(d_in=d_inner, d_out=d_inner, kernel=kernel, dilation=dilation)
        self.norm_out = nn.LayerNorm(d_inner, norm_eps)
        self.expand = Linear(d_inner, d_model, bias=False)
        nn.init.normal_(self.reduce.weight, std=d_model**-0.5)
        nn.init.zeros_(self.expand.weight)

    def enter(self, x: Tensor) -> Tensor:
        """What the convolution reads, (..., D) -> (..., d)."""
        return self._narrow(self.norm_in(x))

    def leave(self, x: Tensor, convolved: Tensor) -> Tensor:
        """The residual sum, (..., D) and (..., d) -> (..., D)."""
        return x + self._widen(convolved)

    def branch(self, normed: Tensor) -> Tensor:
        """All between norm and residual sum, (B, T, D) -> (B, T, D)."""
        return self._widen(self.conv(self._narrow(normed)))

    def _narrow(self, normed: Tensor) -> Tensor:
        return F.relu(self.norm_conv(self.reduce(normed)))

    def _widen(self, convolved: Tensor) -> Tensor:
        return self.expand(F.relu(self.norm_out(convolved)))


@dataclass
class ByteNetState:
    """The last inputs of every convolution as rings, (B, reach, d) each, and the symbols read.

    Symbol number n of a ring lies at slot n % reach.
    """

    rings: list[Tensor]
    position: int


class ByteNet(nn.Module):
    """Residual blocks whose dilations run through `dilations` again and again, and a norm."""

    def __init__(
        self,
        *,
        d_model: int,
        d_inner: int,
        n_layers: int,
        kernel: int,
        dilations: Sequence[int],
        norm_eps: float,
    ) -> None:
        super().__init__()
        check_sizes(d_inner=d_inner, n_layers=n_layers, kernel=kernel)
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations is {list(dilations)}; give at least one, each at least 1")
        self.d_model = d_model
        self.d_inner = d_inner
        self.kernel = kernel
        self.blocks = nn.ModuleList(
            Block(
                d_model=d_model,
                d_inner=d_inner,
                kernel=kernel,
                dilation=dilations[layer % len(dilations)],
                norm_eps=norm_eps,
            )
            for layer in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model, norm_eps)

    @property
    def _blocks(self) -> list[Block]:
        return cast(list[Block], self.blocks)

    @property
    def receptive_field(self) -> int:
        """How many symbols an output sees: 1 + (k - 1) times the sum of all dilations."""
        return 1 + sum(block.conv.reach for block in self._blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> (B, T, D), and no auxiliary loss."""
        for block in self._blocks:
            x = block.leave(x, block.conv(block.enter(x)))
        return self.norm(x), {}

    def enter(self, x: Tensor) -> Tensor:
        """The identity."""
        return x

    def branches(self, length: int) -> list[Branch]:
        """Every block."""
        return [
            Branch(
                layer,
                block.norm_in,
                keeping(block.branch),
                ordered=True,
                outputs=(block.expand.weight,),
            )
            for layer, block in enumerate(self._blocks)
        ]

    def leave(self, x: Tensor) -> Tensor:
        """The final norm."""
        return self.norm(x)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> ByteNetState:
        """Windows of zeros: what the parallel form pads with."""
        rings = [
            torch.zeros(batch, block.conv.reach, self.d_inner, device=device, dtype=dtype)
            for block in self._blocks
        ]
        return ByteNetState(rings=rings, position=0)

    def prefill(self, x: Tensor, state: ByteNetState) -> tuple[Tensor, ByteNetState]:
        """Continue over (B, T, D) in parallel."""
        end = state.position + x.shape[1]
        rings = []
        for block, ring in zip(self._blocks, state.rings, strict=True):
            h = block.enter(x)  # (B, T, d)
            reach = block.conv.reach
            # Oldest first, so that the window can stand before the new inputs.
            past = ring.roll(-(state.position % reach), 1) if reach else ring
            x = block.leave(x, block.conv(h, past))
            if reach:
                window = torch.cat([past, h], 1)[:, -reach:]  # (B, reach, d)
                ring = window.roll(end % reach, 1)
            rings.append(ring)
        return self.norm(x), ByteNetState(rings=rings, position=end)

    def step(self, x: Tensor, state: ByteNetState) -> tuple[Tensor, ByteNetState]:
        """One symbol, (B, D) -> (B, D), at a cost that does not depend on the context."""
        for block, ring in zip(self._blocks, state.rings, strict=True):
            slot = state.position % max(block.conv.reach, 1)
            x = block.leave(x, block.conv.step(block.enter(x), ring, slot))
        return self.norm(x), ByteNetState(rings=state.rings, position=state.position + 1)

    def crop(self, state: ByteNetState, length: int) -> ByteNetState:
        """The identity: the windows do not grow."""
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the windows, whatever the context."""
        return batch * (self.receptive_field - 1) * self.d_inner * dtype.itemsize

    def flops(self, batch: int, length: int) -> int:
        """Two 1 x 1 matrices and k taps in every block."""
        symbol = 2 * self.d_inner * (2 * self.d_model + self.kernel * self.d_inner)
        return batch * length * len(self._blocks) * symbol
