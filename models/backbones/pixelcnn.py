"""Pixel Recurrent Neural Networks, the PixelCNN (arXiv:1601.06759), with the gates of Conditional
Image Generation with PixelCNN Decoders (arXiv:1606.05328).

A residual network of masked two-dimensional convolutions over an image read in raster order.

Glossary: `d_model` is 2h, the width of the residual stream; `d_inner` is h, the width of the
masked convolution; `kernel` is n. A block is figure 5 (right) of the first paper, 1 x 1 to half the
width, masked n x n, 1 x 1 back, with the gate tanh(a) * sigmoid(b) of the second paper's equation
2 after the masked convolution where `gated`.

Deviations:
- Mask B, which includes the centre, throughout. The objective gives the images already shifted by
  one pixel: position t holds pixel t - 1, so the centre is a pixel that is known. A first layer of
  mask A on unshifted images sees the same pixels.
- One stack, as in the first paper, so pixels up and to the right beyond a slope of (n - 1) / 2
  columns a row are never seen (the blind spot that the second paper's two stacks remove).
- The class arrives with the input of the first layer rather than in every layer; layer norms.
- Only the taps inside the mask are stored, as a matrix. No weight is masked, so all of them count,
  and less than two thirds of the full convolution's work is done.

Shapes: B batch, T pixels, D width, d inner width, H and W image sides, n kernel, K taps inside the
mask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.linear import Linear, linear
from models.backbones.sizes import check_sizes


class MaskedConv2d(nn.Module):
    """n x n convolution under mask B, channels last: the rows above, and the centre's row up to it.

    Tap k is columns k * d_in to (k + 1) * d_in of the matrix, in raster order.
    """

    def __init__(self, *, d_in: int, d_out: int, kernel: int) -> None:
        super().__init__()
        self.side = kernel // 2
        rows = [(i, j) for i in range(self.side) for j in range(kernel)]
        # Where each tap looks, from the corner of the kernel.
        self.taps = rows + [(self.side, j) for j in range(self.side + 1)]
        self.weight = nn.Parameter(torch.empty(d_out, len(self.taps) * d_in))
        nn.init.normal_(self.weight, std=(len(self.taps) * d_in) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, d_in) -> (B, H, W, d_out)."""
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, self.side, self.side, self.side, 0))
        taps = [padded[:, i : i + height, j : j + width] for i, j in self.taps]
        return linear(torch.cat(taps, -1), self.weight)

    def at(self, padded: Tensor, index: Tensor) -> Tensor:
        """Outputs at some pixels: padded map (B, cells, d_in), the cells (T, K) of their taps."""
        taps = padded[:, index].flatten(2)  # (B, T, K * d_in)
        return linear(taps, self.weight)


class Block(nn.Module):
    """x + W_2 act(norm(conv(relu(norm(W_1 norm(x))))))."""

    def __init__(
        self, *, d_model: int, d_inner: int, kernel: int, gated: bool, norm_eps: float
    ) -> None:
        super().__init__()
        self.gated = gated
        d_conv = 2 * d_inner if gated else d_inner
        self.norm_in = nn.LayerNorm(d_model, norm_eps)
        self.reduce = Linear(d_model, d_inner, bias=False)
        self.norm_conv = nn.LayerNorm(d_inner, norm_eps)
        self.conv = MaskedConv2d(d_in=d_inner, d_out=d_conv, kernel=kernel)
        self.norm_out = nn.LayerNorm(d_conv, norm_eps)
        self.expand = Linear(d_inner, d_model, bias=False)
        nn.init.normal_(self.reduce.weight, std=d_model**-0.5)
        # Every block starts as the identity.
        nn.init.zeros_(self.expand.weight)

    def enter(self, x: Tensor) -> Tensor:
        """What the convolution reads, (..., D) -> (..., d)."""
        return F.relu(self.norm_conv(self.reduce(self.norm_in(x))))

    def leave(self, x: Tensor, convolved: Tensor) -> Tensor:
        """The residual sum, (..., D) and the convolution's output -> (..., D)."""
        h = self.norm_out(convolved)
        if self.gated:
            a, b = h.chunk(2, -1)  # (..., d) each
            h = a.tanh() * b.sigmoid()
        else:
            h = F.relu(h)
        return x + self.expand(h)


@dataclass
class PixelCNNState:
    """What every convolution has read, as padded maps (B, cells, d), and the pixels so far.

    A cell that is not reached yet is zero and lies outside the mask of all that are.
    """

    maps: list[Tensor]
    position: int


class PixelCNN(nn.Module):
    """Residual blocks of masked convolutions over images of `height` x `width`, and a norm."""

    index: Tensor

    def __init__(
        self,
        *,
        d_model: int,
        d_inner: int,
        n_layers: int,
        kernel: int,
        gated: bool,
        height: int,
        width: int,
        norm_eps: float,
    ) -> None:
        super().__init__()
        check_sizes(d_inner=d_inner, n_layers=n_layers)
        if kernel < 3 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; a masked convolution needs an odd one from 3 on")
        self.d_model, self.d_inner = d_model, d_inner
        self.height, self.width = height, width
        self.blocks = nn.ModuleList(
            Block(d_model=d_model, d_inner=d_inner, kernel=kernel, gated=gated, norm_eps=norm_eps)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model, norm_eps)
        self.side = kernel // 2
        # The padded map has `side` rows above and columns on both sides, its cells in one line.
        row = width + 2 * self.side
        self.cells = (height + self.side) * row
        taps = self._blocks[0].conv.taps
        index = [
            [(i + y) * row + j + x for i, j in taps] for y in range(height) for x in range(width)
        ]
        self.register_buffer("index", torch.tensor(index), persistent=False)  # (H W, K)

    @property
    def _blocks(self) -> list[Block]:
        return cast(list[Block], self.blocks)

    def sees(self, row: int, column: int) -> bool:
        """Whether an output sees the input `row` rows above it and `column` columns to its right.

        With L layers and m = (n - 1) / 2: up to L m rows above and L m columns to the left, and
        min(rows, L) m to the right.
        """
        layers, side = len(self._blocks), self.side
        return 0 <= row <= layers * side and -layers * side <= column <= min(row, layers) * side

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) of the first T pixels -> (B, T, D), and no auxiliary loss."""
        length = x.shape[1]
        self._check(length)
        rows = -(-length // self.width)
        # Begun rows are filled up; nothing that is returned sees the filling.
        x = F.pad(x, (0, 0, 0, rows * self.width - length))
        x = x.unflatten(1, (rows, self.width))  # (B, H, W, D)
        for block in self._blocks:
            x = block.leave(x, block.conv(block.enter(x)))
        return self.norm(x.flatten(1, 2)[:, :length]), {}  # (B, T, D)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> PixelCNNState:
        """Maps of zeros: what the parallel form pads with."""
        maps = [
            torch.zeros(batch, self.cells, self.d_inner, device=device, dtype=dtype)
            for _ in self._blocks
        ]
        return PixelCNNState(maps=maps, position=0)

    def prefill(self, x: Tensor, state: PixelCNNState) -> tuple[Tensor, PixelCNNState]:
        """Continue over (B, T, D), computing these pixels alone."""
        end = state.position + x.shape[1]
        self._check(end)
        index = self.index[state.position : end]  # (T, K)
        maps = []
        for block, seen in zip(self._blocks, state.maps, strict=True):
            # The last tap of the mask is the centre itself.
            full = seen.index_copy(1, index[:, -1], block.enter(x))
            x = block.leave(x, block.conv.at(full, index))
            maps.append(full)
        return self.norm(x), PixelCNNState(maps=maps, position=end)

    def step(self, x: Tensor, state: PixelCNNState) -> tuple[Tensor, PixelCNNState]:
        """One pixel, (B, D) -> (B, D), at a cost that does not depend on those before it."""
        self._check(state.position + 1)
        index = self.index[state.position]  # (K,)
        for block, seen in zip(self._blocks, state.maps, strict=True):
            # In place, as the state that was passed in is consumed. Autocast shortens what enters.
            entered = block.enter(x).to(seen.dtype)  # (B, d)
            seen.index_copy_(1, index[-1:], entered.unsqueeze(1))
            x = block.leave(x, block.conv.at(seen, index.unsqueeze(0)).squeeze(1))
        return self.norm(x), PixelCNNState(maps=state.maps, position=state.position + 1)

    def crop(self, state: PixelCNNState, length: int) -> PixelCNNState:
        """The identity: the maps hold one image and do not grow."""
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the maps, whatever the context."""
        return batch * len(self._blocks) * self.cells * self.d_inner * dtype.itemsize

    def flops(self, batch: int, length: int) -> int:
        """Two 1 x 1 matrices and the masked convolution in every block; full rows only."""
        per_pixel = sum(
            2
            * (
                block.reduce.weight.numel()
                + block.conv.weight.numel()
                + block.expand.weight.numel()
            )
            for block in self._blocks
        )
        return batch * length * per_pixel

    def _check(self, length: int) -> None:
        if length > self.height * self.width:
            raise ValueError(
                f"{length} pixels were given; images of height {self.height} and width "
                f"{self.width} have at most {self.height * self.width}"
            )
