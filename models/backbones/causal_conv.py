"""Depthwise causal convolution followed by SiLU, shared by the Mambas and Gated DeltaNet.

Reference implementations: `causal_conv1d_fn` of causal-conv1d and `nn.Conv1d(groups=channels)` of
mamba_ssm, whose parameter names and shapes are kept. Deviation: on a CPU the convolution is a sum
of shifted products over (B, T, C), which spares the two transpositions of the channels-first form
and needs no padded copy of the output; or, by `kernel`, the fused one of
models/kernels/causal_conv.py.

Shapes: B batch, T time, C channels, K kernel width.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.available import choose_kernel


def causal_conv_reference(x: Tensor, weight: Tensor, bias: Tensor, window: Tensor) -> Tensor:
    """SiLU of the depthwise causal convolution, as mamba_ssm writes it.

    (B, T, C) with the K - 1 inputs before it, (B, K - 1, C) -> (B, T, C).
    """
    padded = torch.cat([window, x], dim=1).transpose(1, 2)  # (B, C, K - 1 + T)
    out = F.conv1d(padded, weight, bias, groups=weight.shape[0])
    return F.silu(out).transpose(1, 2)  # (B, T, C)


class _CausalConvSilu(torch.autograd.Function):
    """y_t = silu(b + sum_k w_k x_{t-K+1+k}), one node, so that the gradients add up in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, window: Tensor | None) -> Tensor:
        taps = weight[:, 0].T  # (K, C)
        width, length = taps.shape[0], x.shape[1]
        out = torch.addcmul(bias, x, taps[-1])
        for k in range(1, width):
            if k < length:
                out[:, k:].addcmul_(x[:, : length - k], taps[width - 1 - k])
            if window is not None:
                # Output t < k still looks at the window's entry K - 1 - k + t.
                reach = min(k, length)
                start = width - 1 - k
                out[:, :reach].addcmul_(window[:, start : start + reach], taps[start])
        ctx.save_for_backward(x, weight, window, out)
        return F.silu(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, window, out = ctx.saved_tensors
        dout = torch.ops.aten.silu_backward(grads[0], out)
        taps = weight[:, 0].T  # (K, C)
        width, length = taps.shape[0], x.shape[1]
        dx = dout * taps[-1]
        dtaps = torch.empty_like(taps)
        dtaps[-1] = (dout * x).sum((0, 1))
        dwindow = None if window is None else torch.zeros_like(window)
        for k in range(1, width):
            start = width - 1 - k
            tap = dout.new_zeros(taps.shape[1])
            if k < length:
                dx[:, : length - k].addcmul_(dout[:, k:], taps[start])
                tap = (dout[:, k:] * x[:, : length - k]).sum((0, 1))
            if dwindow is not None:
                reach = min(k, length)
                seen = slice(start, start + reach)
                dwindow[:, seen].addcmul_(dout[:, :reach], taps[start])
                tap = tap + (dout[:, :reach] * window[:, seen]).sum((0, 1))
            dtaps[start] = tap
        return dx, dtaps.T.unsqueeze(1), dout.sum((0, 1)), dwindow  # weight: (C, 1, K)


class CausalConv(nn.Module):
    """Depthwise causal convolution with SiLU; parameters as in `nn.Conv1d(C, C, K, groups=C)`."""

    bias: Tensor

    def __init__(self, *, channels: int, width: int, bias: bool, kernel: str) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"d_conv is {width}; a convolution needs a width of at least 2")
        self.width, self.kernel = width, kernel
        like = nn.Conv1d(channels, channels, width, groups=channels)
        self.weight = like.weight  # (C, 1, K)
        if bias:
            self.bias = cast(nn.Parameter, like.bias)
        else:  # zeros that no checkpoint holds, so that one convolution serves both
            self.register_buffer("bias", torch.zeros(channels), persistent=False)

    def forward(self, x: Tensor, window: Tensor | None = None) -> Tensor:
        """(B, T, C), and the inputs before it or zeros, (B, K - 1, C) -> (B, T, C)."""
        if x.dtype == self.weight.dtype and self.kernel_on(x.device, x.dtype) == "numba":
            from models.kernels.causal_conv import causal_conv_fused

            return causal_conv_fused(x, self.weight, self.bias, window)
        return cast(Tensor, _CausalConvSilu.apply(x, self.weight, self.bias, window))

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes the parallel form there, for inputs of that type."""
        asked = "torch" if dtype.itemsize < 4 else self.kernel  # 16 bits are left to torch
        return choose_kernel(asked, device, dtype, fits=True)

    def step(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """One symbol, (B, C) -> (B, C), and the window for the next."""
        full = torch.cat([window, x.unsqueeze(1)], dim=1)  # (B, K, C)
        out = (full * self.weight[:, 0].T).sum(1) + self.bias
        return F.silu(out), full[:, 1:]

    def next_window(self, x: Tensor, window: Tensor) -> Tensor:
        """The last K - 1 inputs after (B, T, C), a copy that keeps nothing else alive."""
        keep = self.width - 1
        if x.shape[1] >= keep:
            return x[:, -keep:].clone()
        return torch.cat([window[:, x.shape[1] :], x], dim=1)
