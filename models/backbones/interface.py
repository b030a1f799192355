"""What an objective asks of a sequence backbone.

A backbone maps embedded symbols to hidden vectors; embedding, start symbol, positions and the
read-out belong to the objective. B batch, T time, D width.

Which form runs, where a family has more than one, is said under three names:
- `kernel_used`, a property of the backbone: what computes it where its parameters are, in their
  type; joined by "+" where it is more than one;
- `kernel_on(device, dtype)`, of the part that chooses: what computes it there, for a model of that
  type;
- `kernel_fallback`, a property of that part: why kernel=auto takes the slower form, or None.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

# A state is whatever the family carries between calls: a KV cache, a convolution window, a matrix.
# It is passed in and returned; the state that was passed in is consumed and must not be used again.
State = Any


def scan_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of a recurrence's state: fp32, or wider where the model is; errors add up over time."""
    return torch.promote_types(dtype, torch.float32)


@runtime_checkable
class SequenceBackbone(Protocol):
    """Parallel form, used in training."""

    d_model: int

    def __call__(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Hidden vectors after the final norm, (B, T, D) -> (B, T, D), and named auxiliary losses.

        Auxiliary losses are scalars that are already weighted; most families have none.
        """
        ...

    def flops(self, batch: int, length: int) -> int | None:
        """Multiply-adds times two of one forward pass, without embedding and read-out.

        None where the family states no formula.
        """
        ...


@runtime_checkable
class RecurrentBackbone(SequenceBackbone, Protocol):
    """A causal backbone that can also run symbol by symbol."""

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> State:
        """The state before the first symbol."""
        ...

    def prefill(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Continue from `state` over (B, T, D) in parallel; any T >= 1."""
        ...

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One symbol, (B, D) -> (B, D)."""
        ...

    def crop(self, state: State, length: int) -> State:
        """Forget all but the last `length` symbols; the identity where the state does not grow."""
        ...

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the state after `context` symbols."""
        ...
