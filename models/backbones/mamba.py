"""Mamba-1: a state space model whose step size and projections depend on the input.

"Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752.
Reference: `mamba_ssm.modules.mamba_simple.Mamba`, whose parameter names and shapes these are, and
whose logits ours equal (tested against transformers' MambaForCausalLM).

Glossary (ours -> paper): d_inner -> E D (expanded width), d_state -> N, dt_rank -> R, d_conv ->
width of the causal convolution, delta -> Δ, A = -exp(A_log) -> A, B, C, D, z -> the gate's branch.

Options: with `negative_eigenvalues` the state's factor is 2 exp(delta A) - 1, in (-1, 1) instead of
(0, 1) (arXiv:2411.12537); without `selective` delta, B and C are parameters that do not see the
input, the S4 of algorithm 1 (the last rows of tables 1 and 6), which is a convolution
(time_invariant.py).

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
from models.backbones.selective_scan import decay, recurrence_chunked, selective_scan_torch
from models.backbones.sizes import check_sizes
from models.backbones.time_invariant import fft_flops, time_invariant_scan
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
        selective: bool,
        negative_eigenvalues: bool,
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
        if kernel == "numba" and not selective:
            raise ValueError(
                "kernel=numba: selective is false, which is a convolution by torch's FFT; set "
                "kernel=auto or kernel=torch"
            )
        dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.d_inner, self.d_state, self.dt_rank = d_inner, d_state, dt_rank
        self.kernel = kernel
        self.selective, self.negative_eigenvalues = selective, negative_eigenvalues
        self.in_proj = Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = CausalConv(channels=d_inner, width=d_conv, bias=True, kernel=kernel)
        if selective:
            self.x_proj = Linear(d_inner, dt_rank + 2 * d_state, bias=False)
            self.dt_proj = Linear(dt_rank, d_inner)
        else:
            # S4D (arXiv:2206.11893): B begins at one, C normal.
            self.dt_bias = nn.Parameter(inverse_softplus_steps(d_inner))
            self.B = nn.Parameter(torch.ones(d_inner, d_state))
            self.C = nn.Parameter(torch.randn(d_inner, d_state))
        # Section 3.6: S4D-Real, A_n = -(n + 1) in every channel.
        rows = torch.arange(1, d_state + 1, dtype=torch.float32).repeat(d_inner, 1)  # (E, N)
        self.A_log = nn.Parameter(rows.log())
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = Linear(d_inner, d_model, bias=False)
        for parameter in self.parameters(recurse=False):
            cast(Any, parameter)._no_weight_decay = True
            # One number a channel and state: no matrix, so not for an optimizer that
            # orthogonalises.
            cast(Any, parameter).no_orthogonal = True
        if selective:
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
        if window is None or last is None:
            return out, None
        return out, MixerState(window, last)

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One symbol, (B, D) -> (B, D)."""
        if (fused := self.fused_step(x, state)) is not None:
            return fused
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, E) each
        u, window = self.conv1d.step(u, state.window)
        delta, B, C = self._select(u)
        wide = state.ssm.dtype
        log = delta.to(wide).unsqueeze(-1) * -torch.exp(self.A_log.to(wide))  # (B, E, N)
        B = B.to(wide).unsqueeze(1) if self.selective else B.to(wide)  # (B, 1, N) or (E, N)
        h = torch.addcmul(
            decay(log, self.negative_eigenvalues) * state.ssm, (delta * u).to(wide).unsqueeze(-1), B
        )
        with without_autocast(x.device):
            if self.selective:
                y = torch.matmul(h, C.to(wide).unsqueeze(-1)).squeeze(-1)  # (B, E)
            else:
                y = (h * C.to(wide)).sum(-1)  # (B, E)
        y = torch.addcmul(y, self.D, u) * F.silu(z)
        return self.out_proj(y.to(x.dtype)), MixerState(window, h)

    def run_kernel(self, weights: tuple[Any, ...], x: Array, *written: Array) -> None:
        """x (D) in; the window, the scan's state and the output (D) are written."""
        from models.kernels.mamba_step import mamba_step

        mamba_step(weights, self.negative_eigenvalues, x, *written)

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

        A state costs exp(delta A) 2, delta B u 1, the recurrence 2 and C h 2; with negative
        eigenvalues 2 more. Without selection there are the projections 6DE alone.
        """
        E, N, R = self.d_inner, self.d_state, self.dt_rank
        projections = 6 * self.out_proj.out_features * E
        if self.selective:
            projections += 2 * (E * (R + 2 * N) + R * E)
        state = 9 if self.negative_eigenvalues else 7
        return projections + 2 * self.conv1d.width * E + state * E * N + 8 * E

    def flops(self, batch: int, length: int) -> int:
        """Of all symbols; in a convolution the transforms take the place of the scan."""
        total = super().flops(batch, length)
        if self.selective or length == 1:
            return total
        E, N = self.d_inner, self.d_state
        scan = batch * length * E * N * (9 if self.negative_eigenvalues else 7)
        return total - scan + fft_flops(batch, length, E, N)

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes the recurrence there, for a model of that type."""
        return super().kernel_on(device, dtype) if self.selective else "torch"

    @property
    def kernel_fallback(self) -> str | None:
        """Why kernel=auto takes the slower form here; a convolution is none."""
        return super().kernel_fallback if self.selective else None

    def _select(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Section 3.2: delta, B and C as functions of the input, (..., E) -> E, N and N values.

        Without selection parameters: (E), (E, N) and (E, N).
        """
        if not self.selective:
            return softplus(self.dt_bias, self.kernel), self.B, self.C
        sizes = [self.dt_rank, self.d_state, self.d_state]
        dt, B, C = self.x_proj(u).split(sizes, dim=-1)
        return softplus(self.dt_proj(dt), self.kernel), B, C

    def _scan(
        self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Gated output (B, T, E) and the last state (B, E, N)."""
        wide, negative = scan_dtype(u.dtype), self.negative_eigenvalues
        u, delta, B, C, z = (t.to(wide) for t in (u, delta, B, C, z))
        A, D = -torch.exp(self.A_log.to(wide)), self.D.to(wide)
        with without_autocast(u.device):
            if not self.selective:
                return time_invariant_scan(u, delta, A, B, C, D, z, state, negative)
            if self.kernel_on(u.device, u.dtype) == "numba":
                from models.kernels.selective_scan import selective_scan_fused

                return selective_scan_fused(u, delta, A, B, C, D, z, state, negative)
            return selective_scan_torch(
                u, delta, A, B, C, D, z, state, recurrence_chunked, negative
            )


class Mamba(MambaStack):
    """A stack of Mamba-1 mixers, of the options that `MambaMixer` takes."""

    mixer_class = MambaMixer
