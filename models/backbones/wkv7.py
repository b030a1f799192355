"""The recurrence of RWKV-7, as a plain loop over time and in chunks.

"RWKV-7 'Goose' with Expressive Dynamic State Evolution", arXiv:2503.14456, eq. 15-17: per head, a
matrix state S (value by key) forgets with a decay per channel, replaces what it holds at one key
(the generalised delta rule), and adds a new pair of key and value.

Glossary (ours -> paper): r -> r receptance; log_w -> log w, the decay, in (-exp(-1/2), 0];
k -> k-tilde, the replacement key; v -> v; a -> -kappa-hat, the removal key; b -> kappa-hat * a, the
removal key times the in-context learning rate; S -> wkv.

Chunked form: the product of transitions is never formed. Inside a chunk the rows u_t = S_{t-1} a_t
solve a unit lower triangular system (the UT transform of the delta rule, arXiv:2406.06484, here
with a decay per channel); all chunks do this at once, and what is left of the time loop is one
N by N product a chunk. Forward and backward are written out, since what autograd would keep is
several times larger and slower.

Shapes: B batch, T time, H heads, N head size, C chunk, n chunks; batches of matrices are laid out
(n, B, H, ...) so that the loop over chunks reads contiguous memory.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# exp(-cumulated log_w) reaches exp(0.607 * chunk): 7e16 at 64, far inside fp32 and bf16's range.
MAX_CHUNK = 64


def wkv7_reference(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The recurrence step by step: (B, T, H, N) each, state (B, H, N, N) -> outputs, state."""
    outputs = []
    # Taken apart once: the gradient of an index is as large as all of time, at every step.
    steps = (x.unbind(1) for x in (r, log_w.exp(), k, v, a, b))
    for r_t, w_t, k_t, v_t, a_t, b_t in zip(*steps, strict=True):  # (B, H, N) each
        removed = state @ a_t[..., None]  # (B, H, N, 1)
        # S_t = S_{t-1} (diag(w_t) + a_t b_t^T) + v_t k_t^T
        state = (
            state * w_t[:, :, None] + removed * b_t[:, :, None] + v_t[..., None] * k_t[:, :, None]
        )  # (B, H, N, N)
        # o_t = S_t r_t
        outputs.append((state @ r_t[..., None]).squeeze(-1))
    return torch.stack(outputs, dim=1), state  # (B, T, H, N)


def wkv7_chunked(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    *,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """The same as `wkv7_reference`, `chunk` steps at once; any length."""
    if not 1 <= chunk <= MAX_CHUNK:
        raise ValueError(f"chunk is {chunk}; allowed are 1 to {MAX_CHUNK}")
    outputs, state = _ChunkedWKV7.apply(r, log_w, k, v, a, b, state, min(chunk, r.shape[1]))
    return outputs, state


def _lower(size: int, like: Tensor) -> Tensor:
    """Lower triangle of ones."""
    return torch.ones(size, size, dtype=like.dtype, device=like.device).tril_()


def _mask(size: int, like: Tensor) -> Tensor:
    """Which (query, key) pairs a chunk may use, (2C, 2C).

    Queries are a then r, keys are b then k. a_t reads S_{t-1}, so strictly earlier steps; r_t reads
    S_t, so the present one as well.
    """
    strict = _lower(size, like).tril_(-1)
    return torch.cat((strict.repeat(1, 2), _lower(size, like).repeat(1, 2)))


class _ChunkedWKV7(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        r: Tensor,
        log_w: Tensor,
        k: Tensor,
        v: Tensor,
        a: Tensor,
        b: Tensor,
        state: Tensor,
        C: int,
    ) -> tuple[Tensor, Tensor]:
        B, T, H, N = r.shape
        n = -(-T // C)
        G = n * B * H

        def chunks(x: Tensor) -> Tensor:
            if n * C != T:  # a padded step neither decays nor writes
                x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, n * C - T))
            return x.unflatten(1, (n, C)).permute(1, 0, 3, 2, 4)  # (n, B, H, C, N)

        new = r.new_empty
        a, log_w = chunks(a), chunks(log_w)
        # Decay from the start of the chunk up to and including each step.
        cumulated = torch.matmul(_lower(C, r), log_w)
        decay = cumulated.exp_()  # (n, B, H, C, N)
        inverse = decay.reciprocal()
        # Queries carry the decay since the start of the chunk, keys undo it: their product is the
        # decay between the two.
        Q = new(n, B, H, 2 * C, N)
        Q[..., 0, :] = a[..., 0, :]
        torch.mul(a[..., 1:, :], decay[..., :-1, :], out=Q[..., 1:C, :])
        torch.mul(chunks(r), decay, out=Q[..., C:, :])
        K = new(n, B, H, 2 * C, N)
        torch.mul(chunks(b), inverse, out=K[..., :C, :])
        torch.mul(chunks(k), inverse, out=K[..., C:, :])
        XV = new(n, B, H, 2 * C, N)
        XV[..., C:, :] = chunks(v)
        Q, K, XV = (x.view(G, 2 * C, N) for x in (Q, K, XV))
        V = XV[:, C:]

        A = torch.bmm(Q, K.mT).mul_(_mask(C, r))  # (G, 2C, 2C)
        eye = torch.eye(C, dtype=r.dtype, device=r.device)
        # (I - A_ab) U = a S + A_ak V, so U = W S + X with both solved before S is known.
        inv = torch.linalg.solve_triangular(
            eye - A[:, :C, :C], eye.expand(G, C, C), upper=False, unitriangular=True
        )
        W = torch.bmm(inv, Q[:, :C])  # (G, C, N)
        XV[:, :C] = torch.bmm(inv, torch.bmm(A[:, :C, C:], V))
        # S' = E (S + b^T U + k^T V) = M S + Z, with keys down the rows here
        E = decay[..., -1, :].reshape(G, N, 1)
        M = torch.bmm(K[:, :C].mT, W)  # (G, N, N)
        M.diagonal(dim1=1, dim2=2).add_(1)
        M.mul_(E)
        Z = torch.bmm(K.mT, XV).mul_(E)  # (G, N, N)
        S = new(n + 1, B * H, N, N)
        S[0] = state.mT.reshape(B * H, N, N)
        M, Z = M.view(n, B * H, N, N), Z.view(n, B * H, N, N)
        for i in range(n):
            torch.baddbmm(Z[i], M[i], S[i], out=S[i + 1])
        # o = r S + A_rb U + A_rk V = (r + A_rb W) S + A_r [X; V]
        R = torch.baddbmm(Q[:, C:], A[:, C:, :C], W)  # (G, C, N)
        o = torch.bmm(A[:, C:], XV).baddbmm_(R, S[:n].view(G, N, N))  # (G, C, N)

        ctx.save_for_backward(decay, inverse, Q, K, XV, A, inv, W, M, S, R)
        ctx.shape = (B, T, H, N, n, C)
        out = o.view(n, B, H, C, N).permute(1, 0, 3, 2, 4).reshape(B, n * C, H, N)[:, :T]
        return out, S[n].view(B, H, N, N).mT.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_state: Tensor) -> tuple[Tensor | None, ...]:
        decay, inverse, Q, K, XV, A, inv, W, M, S, R = ctx.saved_tensors
        B, T, H, N, n, C = ctx.shape
        G = n * B * H
        new = Q.new_empty
        DY = new(n, B, H, 2 * C, N)
        if n * C != T:
            d_out = torch.nn.functional.pad(d_out, (0, 0, 0, 0, 0, n * C - T))
        DY[..., C:, :] = d_out.unflatten(1, (n, C)).permute(1, 0, 3, 2, 4)
        DY = DY.view(G, 2 * C, N)
        d_o = DY[:, C:]
        S_in = S[:n].view(G, N, N)

        # dS = M^T dS' + R^T do, from the last chunk to the first
        D = new(n + 1, B * H, N, N)
        D[n] = d_state.mT.reshape(B * H, N, N)
        local = torch.bmm(R.mT, d_o).view(n, B * H, N, N)
        for i in range(n - 1, -1, -1):
            torch.baddbmm(local[i], M[i].mT, D[i + 1], out=D[i])
        D_out = D[1:].view(G, N, N)
        # dE E, summed over values: the decay over the whole chunk
        d_total = (D_out * S[1:].view(G, N, N)).sum(-1).view(n, B, H, 1, N)
        D_out = D_out * decay[..., -1, :].reshape(G, N, 1)  # gradient of the bracket in S'

        # U = W S + X; not U but W and X were needed forward
        UV = torch.cat((torch.baddbmm(XV[:, :C], W, S_in), XV[:, C:]), dim=1)  # (G, 2C, N)
        # [dU; dV] = A_r^T do + [b; k] D; dY is the gradient of the right side of the solve
        d_UV = torch.bmm(A[:, C:].mT, d_o).baddbmm_(K, D_out)  # (G, 2C, N)
        DY[:, :C] = torch.bmm(inv.mT, d_UV[:, :C])
        d_v = torch.baddbmm(d_UV[:, C:], A[:, :C, C:].mT, DY[:, :C])  # (G, C, N)
        d_A = torch.bmm(DY, UV.mT).mul_(_mask(C, Q))  # (G, 2C, 2C)
        d_Q = torch.bmm(DY, S_in.mT).baddbmm_(d_A, K)  # (G, 2C, N)
        d_K = torch.bmm(UV, D_out.mT).baddbmm_(d_A.mT, Q)  # (G, 2C, N)

        shape = (n, B, H, 2 * C, N)
        q, key = (Q * d_Q).view(shape), (K * d_K).view(shape)
        q_a = q[..., :C, :]
        # Step t decays every later query and undoes every later key; a_t reads before its decay.
        per_step = q_a + q[..., C:, :] - key[..., :C, :] - key[..., C:, :]
        d_log_w = torch.matmul(_lower(C, Q).mT, per_step).sub_(q_a).add_(d_total)
        d_Q, d_K = d_Q.view(shape), d_K.view(shape)
        d_r = d_Q[..., C:, :].mul_(decay)
        d_Q[..., 1:C, :].mul_(decay[..., :-1, :])
        d_b = d_K[..., :C, :].mul_(inverse)
        d_k = d_K[..., C:, :].mul_(inverse)

        def whole(x: Tensor) -> Tensor:
            x = x.view(n, B, H, C, N).permute(1, 0, 3, 2, 4)
            return x.reshape(B, n * C, H, N)[:, :T]  # (B, T, H, N)

        grads = (whole(x) for x in (d_r, d_log_w, d_k, d_v, d_Q[..., :C, :], d_b))
        return (*grads, D[0].view(B, H, N, N).mT, None)
