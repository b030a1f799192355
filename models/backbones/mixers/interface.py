"""What a layer asks of its mixer, whichever stack it stands in.

Shapes: B batch, T time, D width.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.branches import Losses, Run


class Mixer(nn.Module, ABC):
    """The part between norm and residual sum; it carries a state of its own kind."""

    ordered = True  # whether a symbol sees those before it alone

    @property
    @abstractmethod
    def output(self) -> Tensor:
        """The matrix onto the residual stream."""

    @abstractmethod
    def forward(self, x: Tensor, state: Any | None) -> tuple[Tensor, Any | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One symbol, (B, D) -> (B, D)."""

    @abstractmethod
    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """The state before the first symbol."""

    @abstractmethod
    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the state after `context` symbols."""

    @abstractmethod
    def flops(self, batch: int, length: int) -> int:
        """FLOPs over `batch` sequences of `length`."""

    @abstractmethod
    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes it there, for a model of that type."""

    def crop(self, state: Any, length: int) -> Any:
        """Forget all but the last `length` symbols; the identity where the state does not grow."""
        return state


def mixed(mixer: Mixer) -> Run:
    """A mixer as a branch, from the beginning of a sequence."""

    def run(x: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor | None, Losses]:
        return mixer(x, None)[0], kept, {}

    return run
