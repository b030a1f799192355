"""What the fused recurrences have in common as operators of torch.

Each is `archbench::NAME(*tensors, state, *options, save) -> output, last state, bounds`, where
`bounds` holds the state at the start of every chunk if `save` asks for it, and
`NAME_backward(*tensors, bounds, d_output, d_last, *options)` returns the gradients of the tensors
and of the first state. Options are no tensors; most have none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.kernels.operators import register_gradient


def channels_last(state: Tensor) -> Tensor:
    """(..., E, N) -> a copy as (..., N, E), so that inner loops run over channels."""
    return state.mT.clone(memory_format=torch.contiguous_format)


def differentiate(library: torch.library.Library, name: str, *, options: int = 0) -> None:
    """Register the gradient of `archbench::name` by its backward operator."""
    backward = getattr(torch.ops.archbench, f"{name}_backward")

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *given, save = inputs
        *tensors, state = given[: len(given) - options]
        if not save:
            raise RuntimeError(f"archbench::{name} has a gradient only if called with save=True")
        _, last, bounds = output
        ctx.save_for_backward(*tensors, bounds)
        ctx.has_state, ctx.state_shape = state is not None, last.shape
        ctx.options = given[len(given) - options :]
        ctx.set_materialize_grads(False)  # zeros for `bounds` would be as large as all else

    def gradients(
        ctx: Any, d_output: Tensor | None, d_last: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        first = saved[0]  # of the output's shape
        d_output = torch.zeros_like(first) if d_output is None else d_output
        d_last = first.new_zeros(ctx.state_shape) if d_last is None else d_last
        *grads, d_state = backward(*saved, d_output, d_last, *ctx.options)
        return (*grads, d_state if ctx.has_state else None, *(None for _ in ctx.options), None)

    register_gradient(library, name, gradients, setup_context)


def recur(
    operator: Any, tensors: Sequence[Tensor], state: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    """Output and last state; states are kept for a backward pass only where one can follow."""
    # Copied here and not in the operator, so that what is kept is contiguous.
    inputs = [x.contiguous() for x in tensors]
    given = [*inputs, *([] if state is None else [state])]
    save = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    output, last, _ = operator(*inputs, state, *options, save)
    return output, last
