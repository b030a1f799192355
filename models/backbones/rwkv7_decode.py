"""RWKV-7 one token at a time, on packed weights.

The arithmetic of `models.backbones.rwkv7.Block` for T = 1 and without gradients, of several
sequences, or of one where no kernel runs. A step of a few is bound by the number of operators and
by reading the weights, so the six token shifts, the three projections and the low-rank networks are
stacked, and each stack is one operator.

Shapes: B batch, D width, H heads, N head size, R the largest rank; J low-rank networks (3 in block
0, else 4), in the order value, decay, rate, gate.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones.rwkv7_time_mix import LN_X_EPS, LOG_DECAY


class PackedBlock(NamedTuple):
    """One block's weights; matrices multiply from the right."""

    ln1: tuple[Tensor, Tensor]
    ln2: tuple[Tensor, Tensor]
    ln_x: tuple[Tensor, Tensor]
    mu: Tensor  # (6, 1, D): r k v w a g
    projections: Tensor  # (3, D, D): r k v
    low_in: Tensor  # (J, D, R), padded with zeros
    low_out: Tensor  # (J, R, D)
    low_bias: Tensor  # (J, 1, D)
    k_k: Tensor  # (1, D)
    k_a: Tensor  # (1, D)
    one_minus_k_a: Tensor  # (1, D)
    r_k: Tensor  # (H, N)
    output: Tensor  # (D, D)
    ffn_mu: Tensor  # (1, D)
    ffn_key: Tensor  # (F, D), as F.linear wants it
    ffn_value: Tensor  # (F, D)
    reach: float  # of `TimeMix`


def pack(weights: dict[str, Tensor], reach: float) -> PackedBlock:
    """Stack one block's weights, by their official names."""
    names = [n for n in "vwag" if f"att.{n}1" in weights]
    first = [weights[f"att.{n}1"] for n in names]
    second = [weights[f"att.{n}2"] for n in names]
    rank = max(w.shape[1] for w in first)
    bias = [weights.get(f"att.{n}0", torch.zeros_like(weights["att.a0"])) for n in names]
    return PackedBlock(
        ln1=(weights["ln1.weight"], weights["ln1.bias"]),
        ln2=(weights["ln2.weight"], weights["ln2.bias"]),
        ln_x=(weights["att.ln_x.weight"], weights["att.ln_x.bias"]),
        mu=torch.cat([weights[f"att.x_{n}"] for n in "rkvwag"]),
        projections=torch.stack(
            [weights[f"att.{n}.weight"].t() for n in ("receptance", "key", "value")]
        ),
        low_in=torch.stack([F.pad(w, (0, rank - w.shape[1])) for w in first]),
        low_out=torch.stack([F.pad(w, (0, 0, 0, rank - w.shape[0])) for w in second]),
        low_bias=torch.cat(bias),
        k_k=weights["att.k_k"][0],
        k_a=weights["att.k_a"][0],
        one_minus_k_a=1 - weights["att.k_a"][0],
        r_k=weights["att.r_k"],
        output=weights["att.output.weight"].t(),
        ffn_mu=weights["ffn.x_k"][0],
        ffn_key=weights["ffn.key.weight"],
        ffn_value=weights["ffn.value.weight"].t(),
        reach=reach,
    )


def block_step(
    p: PackedBlock,
    x: Tensor,
    v_first: Tensor | None,
    att_last: Tensor,
    S: Tensor,
    ffn_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(B, D) -> the block's output, block 0's values, and the three parts of the new state."""
    B, D = x.shape
    H, N = p.r_k.shape
    h = F.layer_norm(x, (D,), *p.ln1)
    mixed = torch.lerp(h, att_last, p.mu)  # (6, B, D)
    r, k, v = torch.bmm(mixed[:3], p.projections).unbind(0)  # (B, D) each
    low = torch.bmm(mixed[-p.low_in.shape[0] :], p.low_in)  # (J, B, R)
    low[-3].tanh_()
    low[-1].sigmoid_()
    low = torch.baddbmm(p.low_bias, low, p.low_out)  # (J, B, D)
    low[:-1].sigmoid_()
    w, a, g = low[-3:].unbind(0)
    if v_first is None:
        v_first = v
    else:
        v = torch.lerp(v, v_first, low[0])
    # w_t = exp(-exp(-1/2) sigmoid(...)), kappa-hat, k-tilde = k lerp(1, a, alpha)
    w = w.to(S.dtype).mul(LOG_DECAY).exp_().view(B, H, 1, N)
    kk = F.normalize((k * p.k_k).view(B * H, N, 1), dim=1)  # (B H, N, 1)
    k = k * torch.addcmul(p.one_minus_k_a, a, p.k_a)
    # S_t = S_{t-1} (diag(w_t) - kappa-hat (kappa-hat a)^T) + v_t k_t^T
    removed = torch.bmm(S.view(B * H, N, N), kk.to(S.dtype)).view(B, H, N, 1)
    written = (kk.view(B, D) * a).view(B, H, 1, N)
    if p.reach:
        written = written * (1 + p.reach * w)
    v_heads = v.view(B, H, N, 1)
    S = torch.addcmul(S * w, removed, written.to(S.dtype), value=-1)
    S.addcmul_(v_heads.to(S.dtype), k.view(B, H, 1, N).to(S.dtype))  # (B, H, N, N)
    o = torch.bmm(S.view(B * H, N, N), r.view(B * H, N, 1).to(S.dtype)).view(B, D).to(x.dtype)
    o = F.group_norm(o, H, *p.ln_x, LN_X_EPS).view(B, H, N)
    bonus = (r * k).view(B, H, N).mul_(p.r_k).sum(-1, keepdim=True)  # (B, H, 1)
    o = torch.addcmul(o, bonus, v.view(B, H, N)).view(B, D).mul_(g)
    x = torch.addmm(x, o, p.output)
    hidden = F.layer_norm(x, (D,), *p.ln2)
    f = F.linear(torch.lerp(hidden, ffn_last, p.ffn_mu), p.ffn_key).relu_().square_()
    return torch.addmm(x, f, p.ffn_value), v_first, h, S, hidden
