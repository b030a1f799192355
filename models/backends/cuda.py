"""What the backends of CUDA kernels share: where they run, how a library's function is found."""

import importlib
from collections.abc import Callable
from typing import Any

import torch

TYPES = ("float32", "bfloat16", "float16")


def cuda_problem(
    device: torch.device, dtype: torch.dtype, types: tuple[str, ...] = TYPES
) -> str | None:
    """Why kernels that know CUDA and `types` cannot run there, or None."""
    kind = str(dtype).removeprefix("torch.")
    if device.type == "cuda" and kind in types:
        return None
    return f"it runs on CUDA in {' or '.join(types)}, not on {device.type} in {kind}"


def function(module: str, name: str) -> Callable[..., Any]:
    """A library's function; ValueError where the library is there and cannot be imported."""
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        library = module.partition(".")[0]
        raise ValueError(
            f"{module}.{name} cannot be imported ({error}); install a {library} that was built "
            f"for torch {torch.__version__}"
        ) from error
    return found
