"""What every model returns.

Shapes: B batch, T time, V vocabulary.
"""

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Output:
    """Result of `forward`.

    `loss` is what training minimises: nats per predicted symbol plus the auxiliary terms. It is
    None when no labels were given. `logits` may be None where labels were given: a training step
    that reads out a part of the symbols alone has none to show. `nll` is the likelihood term
    alone, nats per symbol, so that models with auxiliary losses stay comparable. `losses` names
    the auxiliary terms as added.
    """

    logits: Tensor | None
    loss: Tensor | None = None
    nll: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LogProb:
    """Log-likelihood of a batch of items.

    `nats` has shape (B,): log p(item), or a lower bound of it when `bound` is true.
    `forwards` counts the network evaluations spent on each item.
    """

    nats: Tensor
    bound: bool
    forwards: int


def scored(logits: Tensor, labels: Tensor | None, losses: dict[str, Tensor]) -> Output:
    """The output of logits (..., V) against labels (...): cross-entropy and auxiliary losses."""
    if labels is None:
        return Output(logits=logits, losses=losses)
    nll = F.cross_entropy(logits.flatten(0, -2), labels.flatten())
    loss = nll
    for term in losses.values():
        loss = loss + term
    return Output(logits=logits, loss=loss, nll=nll, losses=losses)


def exact_log_prob(logits: Tensor, tokens: Tensor, counted: Tensor | None = None) -> LogProb:
    """Of tokens (B, T) that logits (B, T, V) predict; with `counted` (B, T) of those alone."""
    flat = logits.flatten(0, 1).float()  # (B * T, V)
    nats = -F.cross_entropy(flat, tokens.flatten(), reduction="none").view(tokens.shape)
    if counted is not None:
        nats = nats * counted
    return LogProb(nats=nats.sum(-1), bound=False, forwards=1)
