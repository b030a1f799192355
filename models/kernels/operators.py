"""How the kernels' operators of torch are differentiated."""

from collections.abc import Callable
from typing import Any

import torch


def register_gradient(
    library: torch.library.Library,
    name: str,
    gradients: Callable[..., Any],
    setup_context: Callable[..., None],
) -> None:
    """Register the gradient of `archbench::name`.

    Its own derivative is refused: nobody wrote it, and torch would take it for zero.
    """

    def first(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"archbench::{name} has no second derivative; models built with kernel=torch, or "
                "attention=eager, have"
            )
        return gradients(ctx, *grads)

    torch.library.register_autograd(
        f"archbench::{name}", first, setup_context=setup_context, lib=library
    )
