"""Mamba-1: a state space model whose step size and projections depend on the input.

"Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752.
Reference: `mamba_ssm.modules.mamba_simple.Mamba`, whose parameter names and shapes these are, and
whose logits ours equal (tested against transformers' MambaForCausalLM).

Glossary (ours -> paper): d_inner -> E D (expanded width), d_state -> N, dt_rank -> R, d_conv ->
width of the causal convolution, delta -> Δ, A = -exp(A_log) -> A, B, C, D, z -> the gate's branch.

Deviations: the expanded width is free instead of twice the model's; the scan is computed by one of
two portable forms (see `kernel`), both held to `selective_scan_reference`:
- "torch": all states in one buffer, chunks side by side (selective_scan.py), any device and dtype;
- "numba": fused kernels (models/kernels, also for the convolution), CPU alone;
- "auto": numba where it is installed and applies, else torch. `kernel_used` says which.

Shapes: B batch, T time, D width, E d_inner, N d_state, R dt_rank, K d_conv.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.causal_conv import CausalConv
from models.backbones.elementwise import softplus
from models.backbones.interface import scan_dtype
from models.backbones.linear import Linear
from models.backbones.mamba_stack import (
    CHECKPOINT_NAMES,
    MambaStack,
    MixerState,
    StepMixer,
    init_residual,
    inverse_softplus_steps,
    without_autocast,
)
from models.backbones.selective_scan import recurrence_chunked, selective_scan_torch
from models.backbones.sizes import check_sizes
from models.kernels.available import check_kernel
from models.kernels.views import Array, Views

__all__ = ["CHECKPOINT_NAMES", "Mamba", "MambaMixer"]


class MambaMixer(StepMixer):
    """Section 3.4, figure 3: in-projection, convolution, selective scan, gate, out-projection."""

    def __init__(
        self,
        *,
        d_model: int,
        d_inner: int,
        d_state: int,
        d_conv: int,
        dt_rank: int | None,
        norm_eps: float,  # as every mixer takes; this one has no norm
        kernel: str,
        residual_init: str,
        n_layers: int,
    ) -> None:
        super().__init__()
        check_sizes(d_inner=d_inner, d_state=d_state)
        if dt_rank is not None and dt_rank < 1:
            raise ValueError(f"dt_rank is {dt_rank}; it has to be at least 1, or null for D / 16")
        check_kernel(kernel)
        dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.d_inner, self.d_state, self.dt_rank = d_inner, d_state, dt_rank
        self.kernel = kernel
        self.in_proj = Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = CausalConv(channels=d_inner, width=d_conv, bias=True, kernel=kernel)
        self.x_proj = Linear(d_inner, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = Linear(dt_rank, d_inner)
        # Section 3.6: S4D-Real, A_n = -(n + 1) in every channel.
        rows = torch.arange(1, d_state + 1, dtype=torch.float32).repeat(d_inner, 1)  # (E, N)
        self.A_log = nn.Parameter(rows.log())
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = Linear(d_inner, d_model, bias=False)
        for parameter in (self.A_log, self.D):
            cast(Any, parameter)._no_weight_decay = True
        # One rate a channel and state: no matrix, so not for an optimizer that orthogonalises.
        cast(Any, self.A_log).no_orthogonal = True
        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(inverse_softplus_steps(d_inner))
        init_residual(self.out_proj, residual_init, n_layers)
        self._views = Views(self, self._weights_of_step)

    def forward(self, x: Tensor, state: MixerState | None) -> tuple[Tensor, MixerState | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, T, E) each
        window = None
        if state is not None:
            window = self.conv1d.next_window(u, state.window)
        u = self.conv1d(u, None if state is None else state.window)
        delta, B, C = self._select(u)
        y, last = self._scan(u, delta, B, C, z, None if state is None else state.ssm)
        out = self.out_proj(y.to(x.dtype))
        return out, None if window is None else MixerState(window, last)

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One symbol, (B, D) -> (B, D)."""
        if (fused := self.fused_step(x, state)) is not None:
            return fused
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, E) each
        u, window = self.conv1d.step(u, state.window)
        delta, B, C = self._select(u)
        wide = state.ssm.dtype
        a = torch.exp(delta.to(wide).unsqueeze(-1) * -torch.exp(self.A_log.to(wide)))  # (B, E, N)
        h = torch.addcmul(
            a * state.ssm, (delta * u).to(wide).unsqueeze(-1), B.to(wide).unsqueeze(1)
        )
        with without_autocast(x.device):
            y = torch.matmul(h, C.to(wide).unsqueeze(-1)).squeeze(-1)  # (B, E)
        y = torch.addcmul(y, self.D, u) * F.silu(z)
        return self.out_proj(y.to(x.dtype)), MixerState(window, h)

    def run_kernel(self, weights: tuple[Any, ...], x: Array, *written: Array) -> None:
        """x (D) in; the window, the scan's state and the output (D) are written."""
        from models.kernels.mamba_step import mamba_step

        mamba_step(weights, x, *written)

    def _weights_of_step(self) -> tuple[Any, ...]:
        tensors = (self.in_proj.weight, self.conv1d.weight[:, 0], self.conv1d.bias,
                   self.x_proj.weight, self.dt_proj.weight, self.dt_proj.bias, self.A_log, self.D,
                   self.out_proj.weight)  # fmt: skip
        return tuple(t.detach().numpy() for t in tensors)

    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the convolution's window and the scan's state."""
        window = (batch, self.conv1d.width - 1, self.d_inner)
        return window, (batch, self.d_inner, self.d_state)

    def flops_per_symbol(self, length: int) -> int:
        """Projections 2·(3DE + E(R + 2N) + RE), convolution 2KE, scan 7EN, skip and gate 8E.

        A state costs exp(delta A) 2, delta B u 1, the recurrence 2 and C h 2.
        """
        E, N, R = self.d_inner, self.d_state, self.dt_rank
        D = self.out_proj.out_features
        projections = 2 * (3 * D * E + E * (R + 2 * N) + R * E)
        return projections + 2 * self.conv1d.width * E + 7 * E * N + 8 * E

    def _select(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Section 3.2: delta, B and C as functions of the input, (..., E) -> E, N and N values."""
        sizes = [self.dt_rank, self.d_state, self.d_state]
        dt, B, C = self.x_proj(u).split(sizes, dim=-1)
        return softplus(self.dt_proj(dt), self.kernel), B, C

    def _scan(
        self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        wide = scan_dtype(u.dtype)
        u, delta, B, C, z = (t.to(wide) for t in (u, delta, B, C, z))
        A, D = -torch.exp(self.A_log.to(wide)), self.D.to(wide)
        with without_autocast(u.device):
            if self.kernel_on(u.device, u.dtype) == "numba":
                from models.kernels.selective_scan import selective_scan_fused

                return selective_scan_fused(u, delta, A, B, C, D, z, state)
            return selective_scan_torch(u, delta, A, B, C, D, z, state, recurrence_chunked)


class Mamba(MambaStack):
    """A stack of Mamba-1 mixers, of the options that `MambaMixer` takes."""

    mixer_class = MambaMixer
