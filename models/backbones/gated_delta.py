"""Gated DeltaNet: a linear RNN whose matrix state decays and follows the delta rule.

"Gated Delta Networks: Improving Mamba2 with Delta Rule", arXiv:2412.06464. Per head, eq. 10:

    S_t = S_{t-1} (alpha_t (I - beta_t k_t k_t^T)) + beta_t v_t k_t^T,   o_t = S_t q_t

Reference: `Qwen3NextGatedDeltaNet` of transformers, whose parameter names and shapes these are, and
whose outputs and gradients ours equal.

Glossary (ours -> paper): g -> log alpha, the decay; beta -> beta, how much of what the state holds
at k is replaced; q, k, v, S -> q, k, v, S; num_v_heads -> heads, of which as many as num_v_heads /
num_k_heads share q and k; head_k_dim -> d_k, head_v_dim -> d_v; z -> the gate's branch.

Option: with `negative_eigenvalues` beta is twice a sigmoid, so that the state's component at k may
change its sign (arXiv:2411.12537, `allow_neg_eigval` of flash-linear-attention).

Chunked form (section 3.3, after arXiv:2406.06484): within a chunk, with s the cumulative sum of g
and Gamma_ij = exp(s_i - s_j), the values that are written are rows of U - W S, where

    (I + tril(beta_i Gamma_ij k_i k_j^T, -1)) [U, W] = [beta v, beta exp(s) k]

so that chunks are solved at once and the time loop is two products a chunk. Deviations: heads that
share keys share their products, and no inverse is formed. On a CPU the fused kernel of RWKV-7 runs
it, whose generalised delta rule has this one as a special case; `kernel` chooses.

Shapes: B batch, T time, D width, H value heads, G key heads, R = H / G, K head_k_dim, V head_v_dim,
C chunk, n chunks.
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
    ConvMixer,
    MixerState,
    init_residual,
    without_autocast,
)
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.kernels.available import MAX_HEAD, check_kernel

NORM_EPS = 1e-6  # of q and k, as in flash-linear-attention
DECAYS = (0.01, 16.0)  # exp(A_log) starts uniform in this range, as in transformers


def gated_delta_reference(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Plain recurrence, symbol by symbol.

    q and k (B, T, G, K), v (B, T, H, V), g and beta (B, T, H), state (B, H, V, K) or zeros
    -> output (B, T, H, V) and the last state (B, H, V, K).
    """
    S = v.new_zeros(v.shape[0], *v.shape[2:], k.shape[-1]) if state is None else state
    outputs = []
    for t in range(v.shape[1]):
        S, o = gated_delta_step(q[:, t], k[:, t], v[:, t], g[:, t], beta[:, t], S)
        outputs.append(o)
    return torch.stack(outputs, dim=1), S


def gated_delta_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, S: Tensor
) -> tuple[Tensor, Tensor]:
    """One symbol: q and k (B, G, K), v (B, H, V), g and beta (B, H) -> the state, o (B, H, V)."""
    per_group = v.shape[1] // k.shape[1]
    q, k = (t.repeat_interleave(per_group, 1).unsqueeze(-1) for t in (q, k))  # (B, H, K, 1)
    S = torch.exp(g)[..., None, None] * S
    # S_t = S + beta_t (v_t - S k_t) k_t^T, with S decayed before
    written = beta.unsqueeze(-1) * (v - torch.matmul(S, k).squeeze(-1))  # (B, H, V)
    S = torch.addcmul(S, written.unsqueeze(-1), k.mT)
    return S, torch.matmul(S, q).squeeze(-1)


def gated_delta_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """As `gated_delta_reference`, in chunks of `chunk` symbols by matrix products."""
    batch, length, heads, width = v.shape
    groups, size = k.shape[2:]
    C = min(chunk, length)
    n = -(-length // C)
    pad = n * C - length
    if pad:  # a padded symbol neither decays nor writes
        q, k, v = (F.pad(t, (0, 0, 0, 0, 0, pad)) for t in (q, k, v))
        g, beta = (F.pad(t, (0, 0, 0, pad)) for t in (g, beta))
    split = (batch, n, C, groups)
    q, k = (t.reshape(*split, 1, size).permute(1, 0, 3, 4, 2, 5) for t in (q, k))
    v = v.reshape(*split, -1, width).permute(1, 0, 3, 4, 2, 5)  # (n, B, G, R, C, V)
    g, beta = (t.reshape(*split, -1).permute(1, 0, 3, 4, 2) for t in (g, beta))
    s = g.cumsum(-1).unsqueeze(-1)  # (n, B, G, R, C, 1)
    beta = beta.unsqueeze(-1)

    # -inf before the exponential: above the diagonal s_i - s_j is positive and could overflow.
    future = torch.full((C, C), -torch.inf, dtype=s.dtype, device=s.device).triu_(1)
    Gamma = torch.exp(s - s.mT + future)  # (n, B, G, R, C, C)
    from_start, to_end = torch.exp(s), torch.exp(s[..., -1:, :] - s)

    # (I + tril(beta_i Gamma_ij k_i k_j^T, -1)) [U, W] = [beta v, beta exp(s) k]; the solver takes
    # the diagonal for ones and looks at nothing above it.
    system = torch.matmul(k, k.mT) * Gamma * beta
    right = torch.cat([v, from_start * k], -1) * beta  # (n, B, G, R, C, V + K)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    U, W = solved.split([width, size], -1)

    scores = torch.matmul(q, k.mT) * Gamma
    q, k = q * from_start, k * to_end  # (n, B, G, R, C, K)
    if state is None:
        state = v.new_zeros(batch, heads, width, size)
    S = state.unflatten(1, (groups, -1)).mT  # (B, G, R, K, V)
    outputs = []
    for i in range(n):
        written = U[i] - torch.matmul(W[i], S)  # (B, G, R, C, V)
        # o_i = exp(s_i) S q_i + sum_j Gamma_ij (q_i^T k_j) written_j
        outputs.append(torch.matmul(q[i], S) + torch.matmul(scores[i], written))
        # S' = exp(s_C) S + sum_j exp(s_C - s_j) written_j k_j^T
        S = from_start[i, ..., -1:, :] * S + torch.matmul(k[i].mT, written)
    o = torch.stack(outputs, 1).permute(0, 1, 4, 2, 3, 5)  # (B, n, C, G, R, V)
    o = o.reshape(batch, n * C, heads, width)[:, :length]
    return o, S.mT.flatten(1, 2)  # (B, T, H, V), (B, H, V, K)


def gated_delta_fused(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `gated_delta_reference`, by the CPU kernel of RWKV-7; K = V.

    There S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T, here with w_t = alpha_t in every
    channel, a_t = k_t, b_t = -alpha_t beta_t k_t, and beta_t k_t in place of its k_t.
    """
    from models.kernels.wkv7 import wkv7_fused

    per_group = v.shape[2] // k.shape[2]
    q, k = (t.repeat_interleave(per_group, 2) for t in (q, k))  # (B, T, H, K)
    g, beta = g.unsqueeze(-1), beta.unsqueeze(-1)
    if state is None:
        state = v.new_zeros(v.shape[0], *v.shape[2:], k.shape[-1])
    written = beta * k
    return wkv7_fused(q, g.expand_as(k), written, v, k, -torch.exp(g) * written, state)


def unit(x: Tensor) -> Tensor:
    """Of length one over the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + NORM_EPS)


class GatedDeltaMixer(ConvMixer):
    """Projections, convolution over q, k and v, the gated delta rule, gated norm."""

    def __init__(
        self,
        *,
        d_model: int,
        num_k_heads: int,
        num_v_heads: int,
        head_k_dim: int,
        head_v_dim: int,
        conv_kernel_size: int,
        chunk_size: int,
        negative_eigenvalues: bool,
        norm_eps: float,
        kernel: str,
        residual_init: str,
        n_layers: int,
    ) -> None:
        super().__init__()
        check_sizes(num_k_heads=num_k_heads, num_v_heads=num_v_heads, head_k_dim=head_k_dim,
                    head_v_dim=head_v_dim, chunk_size=chunk_size)  # fmt: skip
        if num_v_heads % num_k_heads:
            raise ValueError(
                f"num_v_heads is {num_v_heads}; it has to be a multiple of num_k_heads, "
                f"{num_k_heads}"
            )
        check_kernel(kernel, "head_v_dim", head_v_dim, MAX_HEAD)
        if kernel == "numba" and head_k_dim != head_v_dim:
            raise ValueError(
                f"kernel=numba: head_k_dim is {head_k_dim} and head_v_dim {head_v_dim}, and it "
                "needs them equal, or set kernel=auto or kernel=torch"
            )
        self.num_k_heads, self.num_v_heads, self.kernel = num_k_heads, num_v_heads, kernel
        self.head_k_dim, self.head_v_dim, self.chunk_size = head_k_dim, head_v_dim, chunk_size
        self.negative_eigenvalues = negative_eigenvalues
        self.key_dim, self.value_dim = num_k_heads * head_k_dim, num_v_heads * head_v_dim
        self.in_proj_qkvz = Linear(d_model, 2 * self.key_dim + 2 * self.value_dim, bias=False)
        self.in_proj_ba = Linear(d_model, 2 * num_v_heads, bias=False)
        channels = 2 * self.key_dim + self.value_dim
        self.conv1d = CausalConv(
            channels=channels, width=conv_kernel_size, bias=False, kernel=kernel
        )
        self.dt_bias = nn.Parameter(torch.ones(num_v_heads))
        self.A_log = nn.Parameter(torch.empty(num_v_heads).uniform_(*DECAYS).log())
        self.norm = RMSNorm(head_v_dim, norm_eps)
        self.out_proj = Linear(self.value_dim, d_model, bias=False)
        for parameter in (self.dt_bias, self.A_log):
            cast(Any, parameter)._no_weight_decay = True
        init_residual(self.out_proj, residual_init, n_layers)

    def forward(self, x: Tensor, state: MixerState | None) -> tuple[Tensor, MixerState | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""
        qkv, z, b, a = self._project(x)
        window = None if state is None else self.conv1d.next_window(qkv, state.window)
        qkv = self.conv1d(qkv, None if state is None else state.window)
        o, last = self._rule(qkv, b, a, None if state is None else state.ssm)
        return self._out(o, z), None if window is None else MixerState(window, last)

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One symbol, (B, D) -> (B, D)."""
        qkv, z, b, a = self._project(x)
        qkv, window = self.conv1d.step(qkv, state.window)
        q, k, v, g, beta = self._select(qkv, b, a, state.ssm.dtype)
        with without_autocast(x.device):
            S, o = gated_delta_step(q, k, v, g, beta, state.ssm)
        return self._out(o, z), MixerState(window, S)

    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the convolution's window and the matrix states."""
        window = (batch, self.conv1d.width - 1, 2 * self.key_dim + self.value_dim)
        return window, (batch, self.num_v_heads, self.head_v_dim, self.head_k_dim)

    def flops_per_symbol(self, length: int) -> int:
        """Projections 2·D(2GK + 3HV + 2H), convolution 2W(2GK + HV), the rule, the rest.

        Symbol by symbol a state decays, is read at k and at q and takes v k^T: 7HKV. In chunks of
        C: two tables of scores 4CGK, their decays and rates 5CH, the solve CH(V + K), its right
        side 2H(V + K), the decayed q and k 2HK, products with the state 6HKV, the sum over the
        chunk 2CHV, and the state's own decay 2HKV / C. The rest is two norms 6GK, and the norm and
        the gate of the output 9HV.
        """
        H, GK, HV = self.num_v_heads, self.key_dim, self.value_dim
        K, V, C = self.head_k_dim, self.head_v_dim, min(self.chunk_size, length)
        projections = 2 * self.out_proj.out_features * (2 * GK + 3 * HV + 2 * H)
        convolution = 2 * self.conv1d.width * (2 * GK + HV)
        rule = 4 * C * GK + H * (5 * C + C * (V + K) + 2 * V + 4 * K + 6 * K * V + 2 * C * V)
        rule += 2 * K * HV // C
        if length == 1 or self.kernel_on(self.A_log.device, self.A_log.dtype) == "numba":
            rule = 7 * K * HV
        return projections + convolution + rule + 6 * GK + 9 * HV

    @property
    def fits_kernel(self) -> bool:
        """It is that of RWKV-7: a head's state is square, of at most MAX_HEAD channels a side."""
        return self.head_k_dim == self.head_v_dim <= MAX_HEAD

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k and v side by side (..., 2GK + HV), z (..., H, V), b and a (..., H)."""
        per_group = self.num_v_heads // self.num_k_heads
        values = per_group * self.head_v_dim
        # Projections lie by key head: its q and k, then v and z of the value heads it serves.
        qkvz = self.in_proj_qkvz(x).unflatten(-1, (self.num_k_heads, -1))
        *qkv, z = qkvz.split([self.head_k_dim, self.head_k_dim, values, values], -1)
        b, a = self.in_proj_ba(x).unflatten(-1, (self.num_k_heads, -1)).chunk(2, -1)
        z = z.reshape(*x.shape[:-1], self.num_v_heads, self.head_v_dim)
        return torch.cat([t.flatten(-2) for t in qkv], -1), z, b.flatten(-2), a.flatten(-2)

    def _rule(
        self, qkv: Tensor, b: Tensor, a: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The output (B, T, H, V) and the last state (B, H, V, K)."""
        q, k, v, g, beta = self._select(qkv, b, a, scan_dtype(qkv.dtype))
        with without_autocast(qkv.device):
            if self.kernel_on(qkv.device, qkv.dtype) == "numba":
                return gated_delta_fused(q, k, v, g, beta, state)
            return gated_delta_chunked(q, k, v, g, beta, state, self.chunk_size)

    def _select(self, qkv: Tensor, b: Tensor, a: Tensor, wide: torch.dtype) -> tuple[Tensor, ...]:
        """q and k (..., G, K), v (..., H, V), g and beta (..., H), all in `wide`."""
        parts = qkv.to(wide).split([self.key_dim, self.key_dim, self.value_dim], -1)
        q, k = (unit(t.unflatten(-1, (self.num_k_heads, -1))) for t in parts[:2])
        # g_t = -exp(A_log) softplus(a_t + dt_bias), beta_t = sigmoid(b_t)
        g = -torch.exp(self.A_log.to(wide)) * softplus(
            a.to(wide) + self.dt_bias.to(wide), self.kernel
        )
        v = parts[2].unflatten(-1, (self.num_v_heads, -1))
        beta = torch.sigmoid(b.to(wide))
        if self.negative_eigenvalues:
            beta = 2 * beta
        return q * self.head_k_dim**-0.5, k, v, g, beta

    def _out(self, o: Tensor, z: Tensor) -> Tensor:
        """Norm over every head by itself, then the gate: (..., H, V) -> (..., D)."""
        return self.out_proj(swiglu(z, self.norm(o.to(z.dtype)), self.kernel).flatten(-2))
