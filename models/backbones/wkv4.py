"""The WKV operator of RWKV-4, as a plain loop over time and in chunks.

"RWKV: Reinventing RNNs for the Transformer Era", arXiv:2305.13048, section 3.1.2. In every channel

    wkv_t = (sum_{i<t} e^{w (t-1-i) + k_i} v_i + e^{u + k_t} v_t)
          / (sum_{i<t} e^{w (t-1-i) + k_i} + e^{u + k_t})

so that what was seen loses a factor e^w a step, and the present symbol has a weight of its own.

Glossary (ours -> paper): k, v -> k, v; u -> u, `time_first`; w -> -w, the logarithm of the decay,
-exp(time_decay) of the reference; a, b, p -> a', b', p of its appendix on numerical stability: both
sums as multiples of e^p, where p is the largest exponent so far. No exponential is larger than one.
Reference: `WKV` of BlinkDL/RWKV-LM, RWKV-v4neo.

The exponent p is a scale and carries no gradient: of a and b it is taken for a constant, and what
is computed of all three does not depend on it.

Shapes: B batch, T time, D channels, C chunk, n chunks. The state is (B, 3, D): a, b and p.
"""

import torch
from torch import Tensor

EMPTY = -1e38  # the exponent of sums over nothing, as in the reference; no float32 is much less


def wkv4_reference(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The recurrence step by step: k and v (B, T, D), w and u (D) -> outputs (B, T, D), state."""
    a, b, p = state.unbind(1)
    p = p.detach()
    outputs = []
    # Taken apart once: the gradient of an index is as large as all of time, at every step.
    for k_t, v_t in zip(k.unbind(1), v.unbind(1), strict=True):  # (B, D) each
        present = u + k_t
        most = torch.maximum(p, present).detach()
        past, own = torch.exp(p - most), torch.exp(present - most)
        outputs.append((past * a + own * v_t) / (past * b + own))
        most = torch.maximum(p + w, k_t).detach()
        kept, new = torch.exp(p + w - most), torch.exp(k_t - most)
        a, b, p = kept * a + new * v_t, kept * b + new, most
    return torch.stack(outputs, 1), torch.stack([a, b, p], 1)


def wkv4_chunked(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """The same as `wkv4_reference`, `chunk` steps at once; any length.

    It holds `chunk` numbers for every one of the inputs.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it has to be at least 1")
    whole = k.shape[1] // chunk * chunk
    parts = []
    if whole:
        y, state = _chunks(k[:, :whole], v[:, :whole], w, u, state, chunk)
        parts.append(y)
    if rest := k.shape[1] - whole:
        y, state = _chunks(k[:, whole:], v[:, whole:], w, u, state, rest)
        parts.append(y)
    return torch.cat(parts, 1), state


def _chunks(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor, C: int
) -> tuple[Tensor, Tensor]:
    """n chunks side by side, between which the sums are carried on; T = n C."""
    k, v = k.unflatten(1, (-1, C)), v.unflatten(1, (-1, C))  # (B, n, C, D)
    steps = torch.arange(C, device=k.device)

    # Each chunk's own sums at its end, where step j has e^{k_j + w (C-1-j)}.
    exponents = k + w * (C - 1 - steps).unsqueeze(-1)  # (B, n, C, D)
    most = exponents.amax(2).detach()  # (B, n, D)
    weights = torch.exp(exponents - most.unsqueeze(2))
    added = [(weights * v).sum(2), weights.sum(2), most]  # (B, n, D) each

    a, b, p = state.unbind(1)
    p = p.detach()
    before = []
    for a_own, b_own, p_own in zip(*(x.unbind(1) for x in added), strict=True):  # (B, D) each
        before.append(torch.stack([a, b, p], 1))
        most = torch.maximum(p + C * w, p_own).detach()
        kept, new = torch.exp(p + C * w - most), torch.exp(p_own - most)
        a, b, p = kept * a + new * a_own, kept * b + new * b_own, most
    starts = torch.stack(before, 1).unsqueeze(3)  # (B, n, 3, 1, D)

    # Step i sees j < i with e^{k_j + w (i-1-j)}, itself with e^{u + k_i}, and the sums before.
    age = steps.unsqueeze(1) - 1 - steps  # (C, C), -1 of a step itself
    decay = torch.where(age.unsqueeze(-1) < 0, u, w * age.unsqueeze(-1))  # (C, C, D)
    future = (age < -1).unsqueeze(-1)
    exponents = (k.unsqueeze(2) + decay).masked_fill(future, -torch.inf)  # (B, n, C, C, D)
    past = starts[:, :, 2].detach() + w * steps.unsqueeze(-1)  # (B, n, C, D)
    most = torch.maximum(exponents.amax(3), past).detach()
    weights = torch.exp(exponents - most.unsqueeze(3))
    past = torch.exp(past - most)
    numerator = (weights * v.unsqueeze(2)).sum(3) + past * starts[:, :, 0]
    y = numerator / (weights.sum(3) + past * starts[:, :, 1])
    return y.flatten(1, 2), torch.stack([a, b, p], 1)  # (B, T, D), (B, 3, D)
