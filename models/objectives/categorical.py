"""Drawing symbols from logits, the same way for every objective.

Shapes: V symbols; `...` whatever stands before them.
"""

import torch
from torch import Tensor


def draw(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """One symbol from each row, (..., V) -> (...), by inverse transform on the generator's device.

    Log-probabilities are logits as well.
    """
    cumulative = logits.float().softmax(-1).cumsum(-1)  # (..., V)
    device = generator.device if generator is not None else logits.device
    u = torch.rand(*logits.shape[:-1], 1, generator=generator, device=device).to(logits.device)
    # The last cumulative sum can fall short of one by rounding.
    return (u > cumulative).sum(-1).clamp_max(logits.shape[-1] - 1)  # (...)
