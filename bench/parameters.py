"""Counting parameters and sorting them by their role.

What is matched between families (`matched`) is what computes: look-up tables (token, position,
class) and the un-embedding are left out, masked convolutions count their unmasked weights, and a
mixture of experts counts the parameters that one symbol uses. The conventions by which a module
says so are in `bench.protocol`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Count:
    """Numbers of parameters: all, those that one symbol uses, and those that sizes match."""

    total: int
    active: int
    matched: int


def count(model: nn.Module) -> Count:
    """Count the parameters of `model`, each shared tensor once. Works on the meta device."""
    parameters = {id(p): p.numel() for p in model.parameters()}
    total = sum(parameters.values())
    inactive = masked = 0
    uncounted: dict[int, int] = {}
    for module in model.modules():
        if _is_table(module):
            uncounted.update((id(p), p.numel()) for p in module.parameters(recurse=False))
        mask = getattr(module, "weight_mask", None)
        if mask is not None and not mask.is_meta:
            masked += int(mask.numel() - mask.count_nonzero())
        unused = getattr(module, "inactive_parameters", None)
        if callable(unused):
            inactive += int(unused())
    matched = total - sum(uncounted.values()) - inactive - masked
    return Count(total=total, active=total - inactive, matched=matched)


def _is_table(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding) or getattr(module, "unembedding", False)


def by_role(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters as (matrices, rest).

    Matrices are the two-dimensional weights inside the network: what an orthogonalising optimizer
    is made for. Look-up tables, un-embeddings, heads, vectors and convolutions are the rest.
    """
    excluded = set(_excluded(model))
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim == 2 and id(parameter) not in excluded
            # A "matrix" with a side of one is a vector in disguise.
            is_matrix = is_matrix and min(parameter.shape) > 1
            (matrices if is_matrix else rest).append(parameter)
    return matrices, rest


def _excluded(model: nn.Module) -> Iterator[int]:
    for name, module in model.named_modules():
        if _is_table(module) or name == "head" or getattr(module, "no_orthogonal", False):
            yield from (id(p) for p in module.parameters(recurse=False))
    for parameter in model.parameters():
        if getattr(parameter, "no_orthogonal", False):
            yield id(parameter)
