"""The residual branches of a backbone one by one: x + run(norm(x)), again and again.

A backbone's own `forward` sums them up as its paper does. What walks them itself may do more: read
every other layer from the end (`bidirectional`), or shift, scale and gate each branch by a
condition (`denoiser`). A backbone that offers its branches can be under every objective.

Shapes: B batch, T time, D width, E width of what a branch keeps for later ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from models.backbones.interface import SequenceBackbone

Losses: TypeAlias = Mapping[str, Tensor]
# What a branch reads, (B, T, D), and what an earlier one kept (B, T, E) or None; what it adds
# (B, T, D), what later ones get, and auxiliary losses, weighted.
Run: TypeAlias = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None, Losses]]


@dataclass(frozen=True)
class Branch:
    """One branch of layer `layer`.

    `ordered` says whether a symbol sees those before it alone: a recurrence, a causal convolution,
    a token shift. Attention without its mask and what is taken symbol by symbol are not.
    `outputs` are the matrices onto the residual stream.
    """

    layer: int
    norm: Callable[[Tensor], Tensor]
    run: Run
    ordered: bool
    outputs: tuple[Tensor, ...]


def keeping(function: Callable[[Tensor], Tensor]) -> Run:
    """A branch that reads nothing of earlier ones, hands on what they kept, and has no losses."""

    def run(x: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None, Losses]:
        return function(x), kept, {}

    return run


@runtime_checkable
class BranchedBackbone(SequenceBackbone, Protocol):
    """A sequence backbone that shows its branches: leave(x + all of them), x = enter(...)."""

    def enter(self, x: Tensor) -> Tensor:
        """What is done before the first layer, (B, T, D) -> (B, T, D)."""
        ...

    def branches(self, length: int) -> Sequence[Branch]:
        """In order, for sequences of `length`."""
        ...

    def leave(self, x: Tensor) -> Tensor:
        """The final norm, (B, T, D) -> (B, T, D)."""
        ...
