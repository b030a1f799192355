"""Time mix and channel mix of RWKV-4 (arXiv:2305.13048); the glossary stands in `rwkv4`.

Shapes: B batch, T time, D width, F hidden width.
"""

import math

import torch
from torch import Tensor, nn

from models.backbones.elementwise import squared_relu
from models.backbones.interface import scan_dtype
from models.backbones.linear import Linear
from models.backbones.token_shift import token_shift
from models.backbones.wkv4 import wkv4_chunked, wkv4_reference
from models.kernels.available import choose_kernel, fallback


def _shares(d_model: int, power: float, plus: float = 0.0) -> nn.Parameter:
    """Shares of the present input in a token shift, which grow over the channels; (1, 1, D)."""
    channel = torch.arange(d_model) / d_model
    return nn.Parameter((channel**power + plus).view(1, 1, d_model))


def _started(d_in: int, d_out: int, *, zero: bool) -> Linear:
    """At zero, or orthogonal with entries of the same size whatever the shape (`RWKV_Init`)."""
    layer = Linear(d_in, d_out, bias=False)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.orthogonal_(layer.weight, gain=max(1, d_out / d_in) ** 0.5)
    return layer


class TimeMix(nn.Module):
    """The recurrent half of a block: section 3.1.2 of the paper."""

    def __init__(self, *, d_model: int, layer: int, n_layers: int, chunk: int, kernel: str) -> None:
        super().__init__()
        self.chunk, self.kernel = chunk, kernel
        D = d_model
        # The authors' initial values: decay and mixing run from slow to fast over the channels.
        depth = layer / max(n_layers - 1, 1)
        remaining = 1 - layer / n_layers
        ramp = torch.arange(D) / max(D - 1, 1)
        zigzag = 0.5 * ((torch.arange(D) + 1) % 3 - 1)
        self.time_decay = nn.Parameter(-5 + 8 * ramp ** (0.7 + 1.3 * depth))
        self.time_first = nn.Parameter(math.log(0.3) + zigzag)
        self.time_mix_k = _shares(D, remaining)
        self.time_mix_v = _shares(D, remaining, 0.3 * depth)
        self.time_mix_r = _shares(D, 0.5 * remaining)
        self.key = _started(D, D, zero=True)
        self.value = _started(D, D, zero=False)
        self.receptance = _started(D, D, zero=True)
        self.output = _started(D, D, zero=True)
        for name, parameter in self.named_parameters(recurse=False):
            assert name.startswith("time_")
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor, last: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), the new sums."""
        past = (1 - share for share in (self.time_mix_k, self.time_mix_v, self.time_mix_r))
        x_k, x_v, x_r = token_shift(x, last, *past)
        k, v = self.key(x_k), self.value(x_v)
        wkv, state = self._recur(k, v, state)
        # o_t = W_o (sigmoid(r_t) wkv_t)
        return self.output(torch.sigmoid(self.receptance(x_r)) * wkv.to(x.dtype)), state

    def _recur(self, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, D) and the last sums (B, 3, D), in the type of the state.

        One step goes through the plain recurrence, more through the fused kernel or the chunks.
        """
        device, dtype = k.device, k.dtype
        k, v, decay, u = (t.to(state.dtype) for t in (k, v, self.time_decay, self.time_first))
        w = -torch.exp(decay)
        with torch.autocast(device.type, enabled=False):
            if k.shape[1] == 1:
                return wkv4_reference(k, v, w, u, state)
            if self.kernel_on(device, dtype) == "numba":
                from models.kernels.wkv4 import wkv4_fused

                return wkv4_fused(k, v, w, u, state)
            return wkv4_chunked(k, v, w, u, state, chunk=self.chunk)

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes the recurrence there, for a model of that type."""
        return choose_kernel(self.kernel, device, scan_dtype(dtype), fits=True)

    @property
    def kernel_fallback(self) -> str | None:
        """Why kernel=auto takes the slower form here, where it does."""
        wide = scan_dtype(self.time_decay.dtype)
        return fallback(self.kernel, self.time_decay.device, wide, fits=True)

    def flops(self, batch: int, length: int) -> int:
        """Matrix products, and in every channel what the recurrence takes.

        Step by step, as the fused kernel and a single symbol go, that is: of the output u + k, a
        maximum, two differences, two exponentials, two sums of two products (5) and a quotient, 12;
        of the state the same but for the quotient, 11. In chunks of C: for every pair of steps an
        exponent, a maximum, a difference, an exponential, a product and two sums (7 C), the same
        for what a chunk adds to the state (7), for the state at its start (9) and the quotient.
        """
        D = self.key.in_features
        symbols, products = batch * length, 2 * 4 * D * D
        if length == 1 or self.kernel_on(self.key.weight.device, self.key.weight.dtype) == "numba":
            return symbols * (products + 23 * D)
        return symbols * (products + (7 * min(self.chunk, length) + 17) * D)


class ChannelMix(nn.Module):
    """The feed-forward half of a block: a gated squared ReLU after a token shift."""

    def __init__(self, *, d_model: int, d_ff: int, layer: int, n_layers: int, kernel: str) -> None:
        super().__init__()
        self.kernel = kernel
        remaining = 1 - layer / n_layers
        self.time_mix_k = _shares(d_model, remaining)
        self.time_mix_r = _shares(d_model, remaining)
        self.key = _started(d_model, d_ff, zero=False)
        self.receptance = _started(d_model, d_model, zero=True)
        self.value = _started(d_ff, d_model, zero=True)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x_k, x_r = token_shift(x, last, 1 - self.time_mix_k, 1 - self.time_mix_r)
        hidden = squared_relu(self.key(x_k), self.kernel)
        return torch.sigmoid(self.receptance(x_r)) * self.value(hidden)

    def flops(self, batch: int, length: int) -> int:
        """The matrix products."""
        matrices = (self.key, self.receptance, self.value)
        return 2 * batch * length * sum(layer.weight.numel() for layer in matrices)
