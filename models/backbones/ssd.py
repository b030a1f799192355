"""State space duality (SSD): the recurrence of Mamba-2, plain and as chunked matrix products.

"Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality", arXiv:2405.21060; the chunked form is section 6, listing 1. Per head, with a scalar decay,

    h_t = exp(delta_t A) h_{t-1} + delta_t x_t B_t^T,   y_t = h_t C_t + D x_t

With eigenvalues in [-1, 1] a decay is 2 exp(delta_t A) - 1 (arXiv:2411.12537), here `negative`.
Then L holds products of decays, as those of either sign have no logarithm.

Symbols: x, delta, A, B, C, D, L (the mask of decays) and h are the paper's.
Reference implementation: `ssd_minimal_discrete` of mamba_ssm. Deviations: the mask and its product
with C B^T are one node of the graph, which keeps two large tensors instead of six; heads of a
group share one product where B and C are all they need; lengths are padded with delta = 0, which
neither decays nor feeds the state.

Shapes: B batch, T time, H heads, P headdim, G groups, N d_state, Q chunk, K = T / Q chunks.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.backbones.selective_scan import decay


def ssd_reference(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor | None,
    negative: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Plain recurrence, symbol by symbol.

    x (B, T, H, P), delta (B, T, H), A and D (H), B and C (B, T, G, N), state (B, H, P, N) or zeros
    -> output (B, T, H, P) and the last state (B, H, P, N).
    """
    heads = x.shape[2] // B.shape[2]
    h = x.new_zeros(x.shape[0], *x.shape[2:], B.shape[-1]) if state is None else state
    outputs = []
    for t in range(x.shape[1]):
        h, y = ssd_step(x[:, t], delta[:, t], A, B[:, t], C[:, t], D, h, heads, negative)
        outputs.append(y)
    return torch.stack(outputs, dim=1), h


def ssd_step(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    h: Tensor,
    heads_per_group: int,
    negative: bool = False,
) -> tuple[Tensor, Tensor]:
    """One symbol: x (B, H, P), delta (B, H), B and C (B, G, N) -> the state and y (B, H, P)."""
    B = B.repeat_interleave(heads_per_group, 1)  # (B, H, N)
    C = C.repeat_interleave(heads_per_group, 1)  # (B, H, N)
    kept = decay(delta * A, negative)[..., None, None]  # (B, H, 1, 1)
    h = torch.addcmul(kept * h, (delta.unsqueeze(-1) * x).unsqueeze(-1), B.unsqueeze(2))
    y = torch.matmul(h, C.unsqueeze(-1)).squeeze(-1)  # (B, H, P)
    return h, torch.addcmul(y, D.unsqueeze(-1), x)


class _DecayedScores(torch.autograd.Function):
    """M_ij = (C_i B_j^T) exp(s_i - s_j) for i >= j, else 0; s is the cumulative sum of delta A.

    scores (..., G, 1, Q, Q), s (..., G, R, Q) with R heads a group -> (..., G, R, Q, Q).
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, s: Tensor) -> Tensor:
        size = s.shape[-1]
        # -inf before the exponential: above the diagonal s_i - s_j is positive and could overflow.
        future = torch.full((size, size), -torch.inf, dtype=s.dtype, device=s.device).triu_(1)
        L = (s.unsqueeze(-1) - s.unsqueeze(-2)).add_(future).exp_()
        M = scores * L
        ctx.save_for_backward(L, M)
        return M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dM: Tensor) -> tuple[Tensor, Tensor]:
        L, M = ctx.saved_tensors
        dscores = (dM * L).sum(-3, keepdim=True)
        through = dM * M
        return dscores, through.sum(-1) - through.sum(-2)


def _products(decays: Tensor) -> tuple[Tensor, Tensor]:
    """L_ij = a_{j+1} ... a_i for i >= j, else 0, and a_1 ... a_i, of decays of either sign.

    (..., Q) -> (..., Q, Q), (..., Q).
    """
    size = decays.shape[-1]
    below = torch.ones(size, size, dtype=torch.bool, device=decays.device).tril_(-1)
    # Row i of column j is a_i below the diagonal and 1 on and above it.
    factors = torch.where(below, decays.unsqueeze(-1), 1.0)
    return factors.cumprod(-2).tril(), decays.cumprod(-1)


def ssd_chunked(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor | None,
    chunk: int,
    negative: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `ssd_reference`, in chunks of `chunk` symbols by matrix products."""
    y, h = decayed_sums(x * delta.unsqueeze(-1), delta * A, B, C, state, chunk, negative)
    return torch.addcmul(y, D.unsqueeze(-1), x), h


def decayed_sums(
    inputs: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None, chunk: int,
    negative: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """h_t = exp(log_decay_t) h_{t-1} + inputs_t B_t^T and y_t = h_t C_t, in chunks.

    inputs (B, T, H, P), log_decay (B, T, H), B and C (B, T, G, N), state (B, H, P, N) or zeros
    -> y (B, T, H, P) and the last state (B, H, P, N).
    """
    batch, length, heads, width = inputs.shape
    groups, size = B.shape[2:]
    per_group = heads // groups
    chunk = min(chunk, length)
    count = -(-length // chunk)
    pad = count * chunk - length
    if pad:
        inputs = F.pad(inputs, (0, 0, 0, 0, 0, pad))
        log_decay = F.pad(log_decay, (0, 0, 0, pad))
        B, C = F.pad(B, (0, 0, 0, 0, 0, pad)), F.pad(C, (0, 0, 0, 0, 0, pad))
    split = (batch, count, chunk, groups)
    X = inputs.view(*split, per_group, width).permute(0, 1, 3, 4, 2, 5)  # (B, K, G, R, Q, P)
    B, C = (t.view(*split, size).transpose(2, 3) for t in (B, C))  # (B, K, G, Q, N)
    log_decay = log_decay.view(*split, per_group).permute(0, 1, 3, 4, 2)  # (B, K, G, R, Q)

    # 1. Within chunks: Y_diag = (L ∘ C B^T) X.
    scores = torch.matmul(C, B.transpose(-1, -2)).unsqueeze(3)  # (B, K, G, 1, Q, Q)
    if negative:
        L, to_start = _products(decay(log_decay, negative))
        M, to_end, through = scores * L, L[..., -1, :], to_start[..., -1]
    else:
        s = log_decay.cumsum(-1)  # (B, K, G, R, Q)
        M = cast(Tensor, _DecayedScores.apply(scores, s))
        to_end, through = torch.exp(s[..., -1:] - s), torch.exp(s[..., -1])
    Y = torch.matmul(M, X)  # (B, K, G, R, Q, P)

    # 2. What every chunk adds to the state by its end: sum_j exp(s_Q - s_j) X_j B_j^T.
    weighted = X * to_end.unsqueeze(-1)  # (B, K, G, R, Q, P)
    flat = weighted.transpose(-1, -2).flatten(3, 4)  # (B, K, G, R P, Q)
    added = torch.matmul(flat, B).unflatten(3, (per_group, width))  # (B, K, G, R, P, N)

    # 3. Between chunks: the recurrence over K, whose decay is that of a whole chunk.
    through = through[..., None, None]  # (B, K, G, R, 1, 1)
    h = None if state is None else state.unflatten(1, (groups, per_group))
    starts = []
    for contribution, keep in zip(added.unbind(1), through.unbind(1), strict=True):
        if h is None:
            h = contribution
            starts.append(torch.zeros_like(contribution))
        else:
            starts.append(h)
            h = torch.addcmul(contribution, keep, h)
    assert h is not None

    # 4. The state at a chunk's start, seen from within it: exp(s_i) C_i h.
    if state is not None or count > 1:
        before = torch.stack(starts, 1).flatten(3, 4)  # (B, K, G, R P, N)
        seen = torch.matmul(C, before.transpose(-1, -2))  # (B, K, G, Q, R P)
        seen = seen.unflatten(-1, (per_group, width)).transpose(3, 4)  # (B, K, G, R, Q, P)
        to_start = to_start if negative else torch.exp(s)
        Y = torch.addcmul(Y, to_start.unsqueeze(-1), seen)
    Y = Y.permute(0, 1, 4, 2, 3, 5).reshape(batch, count * chunk, heads, width)[:, :length]
    return Y, h.flatten(1, 2)  # (B, T, H, P), (B, H, P, N)
