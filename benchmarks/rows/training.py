"""Training steps at the table's shape, forward and backward, without an optimizer's update.

fp32, 4 layers, width 256, batch 4. Both sides see the same tokens and, but for nanoGPT's own, the
same loss. B batch, T time, V vocabulary.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.meters.memory import tensors_of
from benchmarks.ab import seconds_of
from benchmarks.rows.row import Pair, Setting, Side
from models.objectives.autoregressive import LanguageModel

VOCABULARY, WIDTH, LAYERS, BATCH = 256, 256, 4, 4
# Of the largest logit. What is summed in another order differs by as much as this in fp32.
TOLERANCE = 1e-3
Logits = Callable[[Tensor], Tensor]


def tokens_of(setting: Setting) -> Tensor:
    """Random symbols, (B, T)."""
    return torch.randint(VOCABULARY, (BATCH, setting.length))


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean nats, of (B, T, V) and (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def step(loss: Callable[[], Tensor], model: nn.Module) -> Side:
    """Forward and backward; the last call's gradients are freed first."""

    def call() -> None:
        model.zero_grad(set_to_none=True)
        loss().backward()

    return Side(call, list(tensors_of(model)))


def training(
    setting: Setting,
    ours: LanguageModel,
    theirs: nn.Module,
    their_logits: Logits,
    note: str | None = None,
) -> Pair:
    """Steps of both. Without a `note` they hold the same weights, and that is shown here."""
    tokens = tokens_of(setting)
    if note is None:
        with torch.no_grad():
            note = alike("logits", ours.next_logits(tokens), their_logits(tokens))
    return Pair(
        step(lambda: cross_entropy(ours.next_logits(tokens), tokens), ours),
        step(lambda: cross_entropy(their_logits(tokens), tokens), theirs),
        note,
    )


def faster(sides: Mapping[str, Side]) -> str:
    """The name of the side whose call takes the least time: a rival runs as it is best at."""
    seconds = {name: min(seconds_of(side.call) for _ in range(3)) for name, side in sides.items()}
    return min(seconds, key=lambda name: seconds[name])


def renamed(model: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights under a library's names, by prefix; what has no counterpart there is left out."""
    return {
        theirs + key.removeprefix(ours): value
        for key, value in model.state_dict().items()
        for ours, theirs in names.items()
        if key.startswith(ours)
    }


def alike(what: str, ours: Tensor, theirs: Tensor) -> str:
    """How far two results lie apart, in words; a ValueError where that is too far."""
    apart = float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())
    if not apart <= TOLERANCE:
        raise ValueError(f"{what} differ by {apart:.1e} of the largest; at most {TOLERANCE:g}")
    return f"{what} equal within {apart:.0e} of the largest"


def parameters_of(model: nn.Module) -> int:
    """Numbers in all parameters, each shared one once."""
    return sum(parameter.numel() for parameter in model.parameters())
