"""Mamba-3: a state space model, trapezoidal in time, whose states turn; it has no convolution.

"Mamba-3: Improved Sequence Modeling using State Space Principles", arXiv:2603.15569. Reference:
`mamba_ssm.modules.mamba3.Mamba3`, whose parameter names and shapes these are. Per head, with the
exponential-trapezoidal rule and with R inputs and outputs to one state (R = 1 is SISO, more MIMO):

    h_t = alpha_t h_{t-1} + (1 - lambda_t) delta_t alpha_t sum_r x_{t-1,r} B_{t-1,r}^T
                          + lambda_t delta_t sum_r x_{t,r} B_{t,r}^T,      y_{t,r} = h_t C_{t,r}

where alpha_t = exp(delta_t A_t). States are complex by rotary positions that the data choose: B and
C are turned by theta_t = theta_{t-1} + pi tanh(a_t) delta_t, one angle a pair of channels.

Glossary (ours -> paper): nheads -> H, headdim -> P, d_state -> N, ngroups -> G (heads that share B
and C before their biases), mimo_rank -> R, log_decay -> log alpha, lam -> lambda, delta -> Δ,
z -> the gate's branch, mimo_x, mimo_z and mimo_o -> the projections onto the R inputs and back.

Parallel form: what a symbol adds to later states is one term, x_t B_t^T (lambda_t delta_t +
(1 - lambda_{t+1}) delta_{t+1}), so that the recurrence is that of Mamba-2 in T R steps, of which
the first of every R decays. Outputs then differ from y by what their own symbol adds, which R by R
numbers a head put right.

Deviations: heads times headdim is free instead of twice the model's width; no norm after the scan
(`is_outproj_norm`, off in the reference too); biases do not decay in training. The paper's layers
have an MLP each: that is `model=hybrid model.backbone.pattern=[mamba3]`.

Shapes: B batch, T time, D width, E d_inner, H, P, G, N, R as above, S angles.
"""

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.elementwise import softplus, swiglu
from models.backbones.interface import scan_dtype
from models.backbones.linear import Linear
from models.backbones.mamba_stack import (
    CHECKPOINT_NAMES,
    MambaStack,
    RecurrentMixer,
    init_residual,
    inverse_softplus_steps,
    without_autocast,
)
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.backbones.ssd import decayed_sums
from models.kernels.available import check_kernel

__all__ = ["CHECKPOINT_NAMES", "Mamba3", "Mamba3Mixer"]

A_FLOOR = 1e-4  # no state keeps itself for ever


class Mamba3State(NamedTuple):
    """Of one layer: the last symbol, which the next one still adds, and what adds up over time."""

    B: Tensor  # (B, R, H, N), turned
    x: Tensor  # (B, H, P)
    ssm: Tensor  # (B, H, P, N), at least fp32
    theta: Tensor  # (B, H, S), at least fp32


def trapezoid_reference(
    x: Tensor,
    log_decay: Tensor,
    delta: Tensor,
    lam: Tensor,
    B: Tensor,
    C: Tensor,
    before: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Plain recurrence, symbol by symbol.

    x (B, T, R, H, P), log_decay, delta and lam (B, T, H), B and C (B, T, R, H, N), and the B
    (B, R, H, N), x (B, R, H, P) and state (B, H, P, N) before them or zeros
    -> output (B, T, R, H, P) and the last state (B, H, P, N).
    """
    batch, _, _, heads, width = x.shape
    last_B, last_x, h = before or (
        torch.zeros_like(B[:, 0]),
        torch.zeros_like(x[:, 0]),
        x.new_zeros(batch, heads, width, B.shape[-1]),
    )
    outputs = []
    for t in range(x.shape[1]):
        now = (x[:, t], log_decay[:, t], delta[:, t], lam[:, t], B[:, t], C[:, t])
        h, y = trapezoid_step(*now, last_B, last_x, h)
        last_B, last_x = B[:, t], x[:, t]
        outputs.append(y)
    return torch.stack(outputs, dim=1), h


def trapezoid_step(
    x: Tensor,
    log_decay: Tensor,
    delta: Tensor,
    lam: Tensor,
    B: Tensor,
    C: Tensor,
    last_B: Tensor,
    last_x: Tensor,
    h: Tensor,
) -> tuple[Tensor, Tensor]:
    """One symbol, shapes as in `trapezoid_reference` without time -> the state, y (B, R, H, P)."""
    alpha = torch.exp(log_decay)  # (B, H)
    gamma, beta = lam * delta, (1 - lam) * delta * alpha
    x = torch.cat([x * gamma[:, None, :, None], last_x * beta[:, None, :, None]], 1)
    B = torch.cat([B, last_B], 1).transpose(1, 2)  # (B, H, 2R, N)
    h = alpha[..., None, None] * h + torch.matmul(x.permute(0, 2, 3, 1), B)  # (B, H, P, N)
    y = torch.matmul(h, C.permute(0, 2, 3, 1))  # (B, H, P, R)
    return h, y.permute(0, 3, 1, 2)


def trapezoid_parallel(
    x: Tensor,
    log_decay: Tensor,
    delta: Tensor,
    lam: Tensor,
    B: Tensor,
    C: Tensor,
    before: tuple[Tensor, Tensor, Tensor] | None,
    *,
    chunk: int | None,
) -> tuple[Tensor, Tensor]:
    """As `trapezoid_reference`, in chunks of `chunk` steps, or where None by the fused kernel."""
    rank = x.shape[2]
    gamma, behind = lam * delta, (1 - lam) * delta  # (B, T, H)
    # The other half of the last symbol is yet to come.
    scale = gamma + F.pad(behind[:, 1:], (0, 0, 0, 1))
    state = None
    if before is not None:
        last_B, last_x, h = before
        # The half that the first symbol adds of the one before it decays with the state.
        last_x = last_x * behind[:, 0, None, :, None]
        state = h + torch.matmul(last_x.permute(0, 2, 3, 1), last_B.transpose(1, 2))

    flat_B, flat_C = B.flatten(1, 2), C.flatten(1, 2)  # (B, T R, H, N)
    if chunk is None:
        from models.kernels.ssd import ssd_fused

        assert rank == 1
        decays = torch.ones_like(log_decay[0, 0])  # (H): the exponent is given as it is
        y, h = ssd_fused(
            x[:, :, 0], log_decay, decays, flat_B, flat_C, torch.zeros_like(decays), state, scale
        )
    else:
        inputs = (x * scale[:, :, None, :, None]).flatten(1, 2)  # (B, T R, H, P)
        steps = F.pad(log_decay.unsqueeze(2), (0, 0, 0, rank - 1)).flatten(1, 2)  # (B, T R, H)
        y, h = decayed_sums(inputs, steps, flat_B, flat_C, state, chunk)
    y = y.unflatten(1, (-1, rank))  # (B, T, R, H, P)

    # Of its own symbol output r has seen scale x_s B_s^T for s <= r, and is due gamma for every s.
    if rank == 1:
        own = (gamma - scale).unsqueeze(2) * (B * C).sum(-1)  # (B, T, 1, H)
        return torch.addcmul(y, own.unsqueeze(-1), x), h
    seen = torch.ones(rank, rank, dtype=x.dtype, device=x.device).tril()
    table = torch.matmul(C.transpose(2, 3), B.permute(0, 1, 3, 4, 2))  # (B, T, H, R, R)
    table = table * (gamma[..., None, None] - scale[..., None, None] * seen)
    return y + torch.matmul(table, x.transpose(2, 3)).transpose(2, 3), h


def turn(x: Tensor, cos: Tensor, sin: Tensor, *, halves: bool) -> Tensor:
    """Turn S pairs of channels, (..., N) by angles (..., S); the other channels stay.

    Pairs are neighbours, or with `halves` channel i of both halves, as the MIMO kernels have it.
    """
    count = cos.shape[-1]
    if halves:
        (a, rest_a), (b, rest_b) = (
            half.split([count, half.shape[-1] - count], -1) for half in x.chunk(2, -1)
        )
        return torch.cat([a * cos - b * sin, rest_a, a * sin + b * cos, rest_b], -1)
    pairs, rest = x.split([2 * count, x.shape[-1] - 2 * count], -1)
    a, b = pairs.unflatten(-1, (count, 2)).unbind(-1)
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    return torch.cat([turned, rest], -1)


class Mamba3Mixer(RecurrentMixer):
    """One in-projection for everything, norms and biases of B and C, the scan, a gate."""

    def __init__(
        self,
        *,
        d_model: int,
        nheads: int,
        headdim: int,
        d_state: int,
        ngroups: int,
        rope_fraction: float,
        mimo_rank: int,
        chunk_size: int,
        norm_eps: float,
        kernel: str,
        residual_init: str,
        n_layers: int,
    ) -> None:
        super().__init__()
        check_sizes(nheads=nheads, headdim=headdim, ngroups=ngroups, mimo_rank=mimo_rank,
                    chunk_size=chunk_size)  # fmt: skip
        if nheads % ngroups:
            raise ValueError(f"nheads is {nheads}; it has to be a multiple of ngroups, {ngroups}")
        if rope_fraction not in (0.5, 1.0):
            raise ValueError(f"rope_fraction is {rope_fraction}; allowed are 0.5 and 1.0")
        if d_state < 4 or d_state % 2:
            raise ValueError(f"d_state is {d_state}; it has to be even and at least 4")
        check_kernel(kernel)
        if kernel == "numba" and mimo_rank > 1:
            raise ValueError(
                f"kernel=numba: mimo_rank is {mimo_rank}, and it computes 1 alone, or set "
                "kernel=auto or kernel=torch"
            )
        H, P, N, R = nheads, headdim, d_state, mimo_rank
        self.nheads, self.headdim, self.d_state, self.mimo_rank = H, P, N, R
        self.ngroups, self.chunk_size, self.kernel = ngroups, chunk_size, kernel
        self.d_inner, self.d_shared = H * P, R * ngroups * N
        self.num_rope_angles = int(N * rope_fraction) // 2
        width = 2 * self.d_inner + 2 * self.d_shared + 3 * H + self.num_rope_angles
        self.in_proj = Linear(d_model, width, bias=False)
        self.dt_bias = nn.Parameter(inverse_softplus_steps(H))
        self.B_bias = nn.Parameter(torch.ones(H, R, N))
        self.C_bias = nn.Parameter(torch.ones(H, R, N))
        self.B_norm = RMSNorm(N, norm_eps)
        self.C_norm = RMSNorm(N, norm_eps)
        if R > 1:
            self.mimo_x = nn.Parameter(torch.full((H, R, P), 1 / R))
            self.mimo_z = nn.Parameter(torch.ones(H, R, P))
            self.mimo_o = nn.Parameter(torch.full((H, R, P), 1 / R))
        self.D = nn.Parameter(torch.ones(H))
        self.out_proj = Linear(self.d_inner, d_model, bias=False)
        for parameter in (self.dt_bias, self.B_bias, self.C_bias, self.D):
            cast(Any, parameter)._no_weight_decay = True
        init_residual(self.out_proj, residual_init, n_layers)

    def forward(self, x: Tensor, state: Mamba3State | None) -> tuple[Tensor, Mamba3State | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""
        z, u, B, C, log_decay, delta, lam, turns = self._project(x)
        theta = turns.cumsum(1)  # (B, T, H, S)
        if state is not None:
            theta = theta + state.theta.unsqueeze(1)
        B, C = self._turned(B, C, theta)
        before = None if state is None else self._before(state)
        chunk = None if self.kernel_on(x.device, x.dtype) == "numba" else self.chunk_size
        inputs = self._spread(u)
        with without_autocast(x.device):
            y, h = trapezoid_parallel(inputs, log_decay, delta, lam, B, C, before, chunk=chunk)
        out = self._out(y, inputs, z)
        if state is None:
            return out, None
        # Copies: views of the last position would keep those of the whole context alive.
        last_B, last_x = (t[:, -1].to(x.dtype, copy=True) for t in (B, u))
        return out, Mamba3State(last_B, last_x, h, theta[:, -1].remainder(2 * math.pi))

    def step(self, x: Tensor, state: Mamba3State) -> tuple[Tensor, Mamba3State]:
        """One symbol, (B, D) -> (B, D)."""
        z, u, B, C, log_decay, delta, lam, turns = self._project(x)
        theta = (state.theta + turns).remainder(2 * math.pi)  # (B, H, S)
        B, C = self._turned(B, C, theta)
        inputs = self._spread(u)
        with without_autocast(x.device):
            h, y = trapezoid_step(inputs, log_decay, delta, lam, B, C, *self._before(state))
        return self._out(y, inputs, z), Mamba3State(B.to(x.dtype), u.to(x.dtype), h, theta)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> Mamba3State:
        """Nothing seen: zeros."""
        last, sums = self._state_shapes(batch)
        B, x = (torch.zeros(shape, device=device, dtype=dtype) for shape in last)
        wide = scan_dtype(dtype)
        ssm, theta = (torch.zeros(shape, device=device, dtype=wide) for shape in sums)
        return Mamba3State(B, x, ssm, theta)

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """The last symbol in `dtype`, sums in at least fp32, whatever the context."""
        last, sums = (sum(map(math.prod, shapes)) for shapes in self._state_shapes(batch))
        return last * dtype.itemsize + sums * scan_dtype(dtype).itemsize

    def flops_per_symbol(self, length: int) -> int:
        """Projections 2·D(3E + 2RGN + 3H + S), the recurrence, the rest.

        As a recurrence: a state decays, takes R inputs, and is read by R outputs, (1 + 4R)EN, and
        by `step` takes those of the symbol before it, 2REN more. In chunks of Q as in Mamba-2, R
        times: scores 2QHN, decays and mask 4QH, their product with X 2QE, chunk states 2EN and
        their read-out 2EN, the recurrence over chunks 2EN / Q. What a symbol adds to its own
        outputs is 2R²HN + 2R²E. The rest: norms, biases and turns of B and C 8RGN + 2RHN + 12RHS,
        angles and rates H(S + 15), projections of MIMO 6RE, skip and gate 6RE.
        """
        H, N, R, E = self.nheads, self.d_state, self.mimo_rank, self.d_inner
        S, D, Q = self.num_rope_angles, self.out_proj.out_features, min(self.chunk_size, R * length)
        projections = 2 * D * (3 * E + 2 * self.d_shared + 3 * H + S)
        if length == 1:
            scan = (1 + 6 * R) * E * N
        else:
            scan = R * (2 * Q * H * N + 4 * Q * H + 2 * Q * E + 4 * E * N + 2 * E * N // Q)
            if self.kernel_on(self.D.device, self.D.dtype) == "numba":
                scan = 5 * E * N
            scan += 2 * R * R * (H * N + E)
        rest = 8 * self.d_shared + 2 * R * H * N + 12 * R * H * S + H * (S + 15)
        return projections + scan + rest + (12 if R > 1 else 6) * R * E

    @property
    def fits_kernel(self) -> bool:
        """It is that of Mamba-2, which has one input to each channel."""
        return self.mimo_rank == 1

    def _state_shapes(self, batch: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Of the last B and x, and of what adds up: states and angles."""
        H, P, N, R = self.nheads, self.headdim, self.d_state, self.mimo_rank
        return (
            [(batch, R, H, N), (batch, H, P)],
            [(batch, H, P, N), (batch, H, self.num_rope_angles)],
        )

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """z and x (..., H, P), B and C (..., R, H, N), log_decay, delta and lam (..., H), and the
        angles of this symbol (..., H, S); all but z in the type of the scan.
        """
        z, u, B, C, dt, rate, lam, angle = self._parts(x)
        wide = scan_dtype(x.dtype)
        log_decay, delta = self._rates(dt.to(wide), rate.to(wide))
        lam, angle = lam.to(wide), angle.to(wide)
        # theta_t - theta_{t-1} = pi tanh(a_t) delta_t
        turns = math.pi * torch.tanh(angle).unsqueeze(-2) * delta.unsqueeze(-1)
        B = self._biased(self.B_norm, B, self.B_bias)
        C = self._biased(self.C_norm, C, self.C_bias)
        return z, u.to(wide), B, C, log_decay, delta, torch.sigmoid(lam), turns

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the projection holds: z and x (..., H, P), B and C (..., RGN), step, rate and share
        (..., H), and the angles that all heads share (..., S).
        """
        E, H, shared = self.d_inner, self.nheads, self.d_shared
        sizes = [E, E, shared, shared, H, H, H, self.num_rope_angles]
        z, u, *rest = self.in_proj(x).split(sizes, -1)
        return z.unflatten(-1, (H, self.headdim)), u.unflatten(-1, (H, self.headdim)), *rest

    def _rates(self, dt: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """log alpha and delta, (..., H) each."""
        delta = softplus(dt + self.dt_bias.to(dt.dtype), self.kernel)
        # A_t = -(1 + rate) where rate >= 0, else -1 / (1 - rate): heavy tails on both sides
        A = -(rate.clamp(min=0) + 1 / (1 - rate.clamp(max=0))).clamp(min=A_FLOOR)
        return delta * A, delta

    def _biased(self, norm: RMSNorm, x: Tensor, bias: Tensor) -> Tensor:
        """Norm, and a bias for each head of a group: (..., RGN) -> (..., R, H, N)."""
        x = norm(x.unflatten(-1, (self.mimo_rank, self.ngroups, self.d_state)))
        x = x.to(scan_dtype(x.dtype)).unsqueeze(-2)  # (..., R, G, 1, N)
        bias = bias.to(x.dtype).transpose(0, 1).unflatten(1, (self.ngroups, -1))
        return (x + bias).flatten(-3, -2)

    def _spread(self, x: Tensor) -> Tensor:
        """Onto the inputs of a head, (..., H, P) -> (..., R, H, P)."""
        x = x.unsqueeze(-3)
        return x * self.mimo_x.to(x.dtype).transpose(0, 1) if self.mimo_rank > 1 else x

    def _before(self, state: Mamba3State) -> tuple[Tensor, Tensor, Tensor]:
        """The symbol before and the state, in the type of the scan."""
        wide = state.ssm.dtype
        return state.B.to(wide), self._spread(state.x.to(wide)), state.ssm

    def _turned(self, B: Tensor, C: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """(..., R, H, N) by (..., H, S)."""
        theta = theta.unsqueeze(-3)
        cos, sin, halves = torch.cos(theta), torch.sin(theta), self.mimo_rank > 1
        return turn(B, cos, sin, halves=halves), turn(C, cos, sin, halves=halves)

    def _out(self, y: Tensor, u: Tensor, z: Tensor) -> Tensor:
        """Skip, gate and projections: y and u (..., R, H, P), z (..., H, P) -> (..., D)."""
        y = torch.addcmul(y, self.D.to(u.dtype).unsqueeze(-1), u).to(z.dtype)
        z = z.unsqueeze(-3)  # (..., 1, H, P)
        if self.mimo_rank > 1:
            y = y * F.silu(z * self.mimo_z.transpose(0, 1)) * self.mimo_o.transpose(0, 1)
            return self.out_proj(y.sum(-3).flatten(-2))
        return self.out_proj(swiglu(z, y, self.kernel).flatten(-3))


class Mamba3(MambaStack):
    """A stack of Mamba-3 mixers, of the options that `Mamba3Mixer` takes."""

    mixer_class = Mamba3Mixer
