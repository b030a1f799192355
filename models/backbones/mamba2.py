"""Mamba-2: a state space model with a scalar decay a head, computed as matrix products.

"Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality", arXiv:2405.21060, figure 6. Reference: `mamba_ssm.modules.mamba2.Mamba2`, whose parameter
names and shapes these are, and whose logits ours equal (tested against Mamba2ForCausalLM of
transformers).

Glossary (ours -> paper): nheads -> H, headdim -> P, d_inner = H P, ngroups -> G (heads that share B
and C), d_state -> N, chunk_size -> Q, delta -> Δ, A = -exp(A_log) -> A, z -> the gate's branch.

Option: with `negative_eigenvalues` a decay is 2 exp(delta A) - 1, in (-1, 1) instead of (0, 1)
(arXiv:2411.12537).

Deviations: heads times headdim is free instead of twice the model's width, and no part of the
width is an MLP (`d_ssm` of the reference). The scan stands in ssd.py, and fused for a CPU in
models/kernels/ssd.py; `kernel` chooses.

Shapes: B batch, T time, D width, E d_inner, H, P, G, N as above, K d_conv.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.causal_conv import CausalConv
from models.backbones.elementwise import softplus, swiglu
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
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.backbones.ssd import ssd_chunked, ssd_step
from models.kernels.available import check_kernel
from models.kernels.views import Array, Views

__all__ = ["CHECKPOINT_NAMES", "Mamba2", "Mamba2Mixer"]


class GatedNorm(RMSNorm):
    """RMSNorm of y silu(z), over each group of channels by itself (`norm_before_gate=False`)."""

    def __init__(self, *, width: int, groups: int, eps: float, kernel: str) -> None:
        super().__init__(width, eps)
        self.groups, self.kernel = groups, kernel

    def forward(self, y: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        """(..., E), (..., E) -> (..., E)."""
        y = swiglu(z, y, self.kernel)
        if self.groups == 1:
            return super().forward(y)
        parts = y.unflatten(-1, (self.groups, -1))  # (..., G, E / G)
        return F.rms_norm(parts, parts.shape[-1:], eps=self.eps).flatten(-2) * self.weight


class Mamba2Mixer(StepMixer):
    """One in-projection for everything, convolution over x, B and C, SSD, gated norm."""

    def __init__(
        self,
        *,
        d_model: int,
        nheads: int,
        headdim: int,
        d_state: int,
        ngroups: int,
        d_conv: int,
        chunk_size: int,
        negative_eigenvalues: bool,
        norm_eps: float,
        kernel: str,
        residual_init: str,
        n_layers: int,
    ) -> None:
        super().__init__()
        check_sizes(nheads=nheads, headdim=headdim, d_state=d_state, ngroups=ngroups,
                    chunk_size=chunk_size)  # fmt: skip
        if nheads % ngroups:
            raise ValueError(f"nheads is {nheads}; it has to be a multiple of ngroups, {ngroups}")
        check_kernel(kernel)
        self.nheads, self.headdim, self.kernel = nheads, headdim, kernel
        self.d_state, self.ngroups, self.chunk_size = d_state, ngroups, chunk_size
        self.negative_eigenvalues = negative_eigenvalues
        d_inner = nheads * headdim
        self.d_inner, self.d_shared = d_inner, ngroups * d_state
        self.in_proj = Linear(d_model, 2 * d_inner + 2 * self.d_shared + nheads, bias=False)
        channels = d_inner + 2 * self.d_shared
        self.conv1d = CausalConv(channels=channels, width=d_conv, bias=True, kernel=kernel)
        self.dt_bias = nn.Parameter(inverse_softplus_steps(nheads))
        # Decay rates start uniform in [1, 16], as in mamba_ssm (`A_init_range`).
        self.A_log = nn.Parameter(torch.empty(nheads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(nheads))
        self.norm = GatedNorm(width=d_inner, groups=ngroups, eps=norm_eps, kernel=kernel)
        self.out_proj = Linear(d_inner, d_model, bias=False)
        for parameter in (self.dt_bias, self.A_log, self.D):
            cast(Any, parameter)._no_weight_decay = True
        init_residual(self.out_proj, residual_init, n_layers)
        self._views = Views(self, self._weights_of_step)

    def forward(self, x: Tensor, state: MixerState | None) -> tuple[Tensor, MixerState | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""
        z, xBC, dt = self._project(x)
        window = None if state is None else self.conv1d.next_window(xBC, state.window)
        xBC = self.conv1d(xBC, None if state is None else state.window)
        y, last = self._scan(xBC, dt, None if state is None else state.ssm)
        out = self.out_proj(self.norm(y.flatten(-2).to(x.dtype), z))  # (B, T, D)
        return out, None if window is None else MixerState(window, last)

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One symbol, (B, D) -> (B, D)."""
        if (fused := self.fused_step(x, state)) is not None:
            return fused
        z, xBC, dt = self._project(x)
        xBC, window = self.conv1d.step(xBC, state.window)
        wide = state.ssm.dtype
        u, B, C, delta, A, D = self._select(xBC.to(wide), dt.to(wide))
        with without_autocast(x.device):
            h, y = ssd_step(
                u, delta, A, B, C, D, state.ssm, self.nheads // self.ngroups,
                self.negative_eigenvalues,
            )  # fmt: skip
        return self.out_proj(self.norm(y.flatten(-2).to(x.dtype), z)), MixerState(window, h)

    def run_kernel(self, weights: tuple[Any, ...], x: Array, *written: Array) -> None:
        """x (D) in; the window, the scan's state and the output (D) are written."""
        from models.kernels.mamba_step import mamba2_step

        mamba2_step(weights, self.norm.eps, self.negative_eigenvalues, x, *written)

    def _weights_of_step(self) -> tuple[Any, ...]:
        tensors = (self.in_proj.weight, self.conv1d.weight[:, 0], self.conv1d.bias, self.dt_bias,
                   self.A_log, self.D, self.norm.weight, self.out_proj.weight)  # fmt: skip
        return tuple(t.detach().numpy() for t in tensors)

    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the convolution's window and the matrix states."""
        window = (batch, self.conv1d.width - 1, self.d_inner + 2 * self.d_shared)
        return window, (batch, self.nheads, self.headdim, self.d_state)

    def flops_per_symbol(self, length: int) -> int:
        """Projections 2·D(3E + 2GN + H), convolution 2K(E + 2GN), SSD, the rest 9E.

        SSD as a recurrence: a state decays, takes delta x B and is read by C, 5EN. In chunks of Q:
        scores 2QGN, decays and mask 4QH, their product with X 2QE, chunk states 2EN and their
        read-out 2EN, the recurrence over chunks 2EN / Q.
        """
        E, N, H, shared = self.d_inner, self.d_state, self.nheads, self.d_shared
        D, Q = self.out_proj.out_features, min(self.chunk_size, length)
        projections = 2 * D * (3 * E + 2 * shared + H)
        convolution = 2 * self.conv1d.width * (E + 2 * shared)
        ssd = 2 * Q * shared + 4 * Q * H + 2 * Q * E + 4 * E * N + 2 * E * N // Q
        if length == 1 or self.kernel_on(self.D.device, self.D.dtype) == "numba":
            ssd = 5 * E * N
        return projections + convolution + ssd + 9 * E

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes = [self.d_inner, self.d_inner + 2 * self.d_shared, self.nheads]
        z, xBC, dt = self.in_proj(x).split(sizes, dim=-1)
        return z, xBC, dt

    def _scan(self, xBC: Tensor, dt: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, E + 2GN), (B, T, H) -> (B, T, H, P) and the last state (B, H, P, N)."""
        wide = scan_dtype(xBC.dtype)
        u, B, C, delta, A, D = self._select(xBC.to(wide), dt.to(wide))
        negative = self.negative_eigenvalues
        with without_autocast(xBC.device):
            if self.kernel_on(xBC.device, xBC.dtype) == "numba":
                from models.kernels.ssd import ssd_fused

                return ssd_fused(u, delta, A, B, C, D, state, negative=negative)
            return ssd_chunked(u, delta, A, B, C, D, state, self.chunk_size, negative)

    def _split(self, xBC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (..., H, P), B and C (..., G, N)."""
        x, B, C = xBC.split([self.d_inner, self.d_shared, self.d_shared], dim=-1)
        B, C = (t.unflatten(-1, (self.ngroups, self.d_state)) for t in (B, C))
        return x.unflatten(-1, (self.nheads, self.headdim)), B, C

    def _select(self, xBC: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
        """x (..., H, P), B and C (..., G, N), delta (..., H), A and D (H)."""
        delta = softplus(dt + self.dt_bias.to(dt.dtype), self.kernel)
        A, D = -torch.exp(self.A_log.to(dt.dtype)), self.D.to(dt.dtype)
        return *self._split(xBC), delta, A, D


class Mamba2(MambaStack):
    """A stack of Mamba-2 mixers, of the options that `Mamba2Mixer` takes."""

    mixer_class = Mamba2Mixer
