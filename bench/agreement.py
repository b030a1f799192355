"""Whether two implementations of the same weights give the same logits.

Before another backend is timed: what computes something else is no rival. Both read the same
symbols; a recurrent model also goes on symbol by symbol from its state.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.protocol import Recurrent

STEPS = 4  # symbols that follow the prompt one by one
SLACK = {torch.float32: 1e-3, torch.float64: 1e-8}  # of the largest logit; 16 bits have 3 digits
SHORT = 5e-2


@dataclass(frozen=True)
class Agreement:
    """Largest difference between logits, and the largest that is allowed."""

    difference: float
    allowed: float
    compared: int

    @property
    def holds(self) -> bool:
        """Whether they are equal up to rounding; a NaN is not."""
        return self.difference <= self.allowed


def awake(model: nn.Module) -> nn.Module:
    """`model` with noise where its parameters are zero, which would hide what comes before."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.05 * noise.to(parameter))
    return model


@torch.no_grad()
def agreement(
    ours: nn.Module, theirs: nn.Module, batch: Mapping[str, Tensor], dtype: torch.dtype
) -> Agreement:
    """Compare the logits of both over `batch`."""
    pairs = list(zip(_logits(ours, theirs, batch), _logits(theirs, ours, batch), strict=True))
    differences = [float((a.double() - b.double()).abs().max()) for a, b in pairs]
    largest = max(float(a.abs().max()) for a, _ in pairs)
    # max() would pass over a NaN.
    difference = sum(differences) if any(d != d for d in differences) else max(differences)
    allowed = SLACK.get(dtype, SHORT) * max(largest, 1.0)
    return Agreement(difference, allowed, sum(a.numel() for a, _ in pairs))


def _logits(model: nn.Module, other: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """What both models offer: forward, and reading with a state."""
    given = {name: value for name, value in batch.items() if name != "labels"}
    if _has_forward(model) and _has_forward(other):
        with torch.random.fork_rng():
            torch.manual_seed(0)  # a model that draws noise draws the same
            logits = model(**given).logits
        yield logits
    if isinstance(model, Recurrent) and isinstance(other, Recurrent):
        tokens = given["tokens"]
        logits, state = model.prefill(tokens[:, :-STEPS])
        yield logits
        for token in tokens[:, -STEPS:].unbind(1):
            logits, state = model.step(token, state)
            yield logits


def _has_forward(model: nn.Module) -> bool:
    return type(model).forward is not nn.Module.forward
