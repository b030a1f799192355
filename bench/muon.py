"""Muon (Jordan et al. 2024) with the matrices of one shape orthogonalised together.

torch.optim.Muon walks over its matrices one by one. In a network of many small ones that loop takes
longer than the forward pass, and a training step then tells of the optimizer, not of the
architecture. Here matrices that share a shape, transposed or not, are one batch of the same
iteration. `python -m benchmarks.muon` prints what it brings.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Elements of one batch: beyond this a product fills the machine by itself, and copies only cost.
BATCH_ELEMENTS = 2**22

Pair = tuple[Tensor, Tensor]  # a matrix and its gradient


class BatchedMuon(torch.optim.Muon):
    """torch.optim.Muon with its defaults (Nesterov momentum 0.95, five iterations), batched.

    The iteration runs in bfloat16, as its authors do, where the device multiplies it in hardware,
    else in float32: emulated, bfloat16 is many times slower.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
    ) -> None:
        """Takes parameters, or groups of them with values of their own, as torch's optimizers do.

        Raises `ValueError` for a parameter that is not two-dimensional.
        """
        super().__init__(matrices, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(  # type: ignore[override]  # the base has overloads for closures
        self, closure: Callable[[], float] | None = None
    ) -> None:
        """Update every matrix that has a gradient. Raises `ValueError` for a closure."""
        if closure is not None:
            raise ValueError("BatchedMuon takes no closure")
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            for alike in _batches(pairs):
                self._update(alike, group)

    def _update(self, pairs: list[Pair], group: dict[str, Any]) -> None:
        momentum, rate = group["momentum"], group["lr"]
        matrices, gradients = ([pair[i] for pair in pairs] for i in (0, 1))
        averages = [self._average(p) for p in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, averages, momentum)
        wide = torch.stack([d.mT if _tall(d) else d for d in directions])
        steps = orthogonalised(
            wide,
            dtype=torch.bfloat16 if multiplies_bfloat16(wide.device) else torch.float32,
            coefficients=group["ns_coefficients"],
            iterations=group["ns_steps"],
            eps=group["eps"],
        )
        for matrix, step in zip(matrices, steps, strict=True):
            rows, columns = matrix.shape
            matrix.mul_(1 - rate * group["weight_decay"])
            scale = max(1.0, rows / columns) ** 0.5
            matrix.add_(step.mT if _tall(matrix) else step, alpha=-rate * scale)

    def _average(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]


def orthogonalised(
    matrices: Tensor,
    *,
    dtype: torch.dtype,
    coefficients: tuple[float, float, float],
    iterations: int,
    eps: float,
) -> Tensor:
    """The Newton-Schulz iteration X <- aX + b(XX')X + c(XX')^2 X on each of a batch of matrices.

    `matrices` is [batch, rows, columns] with rows <= columns. Each singular value s of a matrix
    divided by its Frobenius norm becomes p(p(...p(s))), p(s) = as + bs^3 + cs^5: near one.
    """
    a, b, c = coefficients
    x = matrices.to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(iterations):
        gram = x @ x.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, update, x, beta=a)
    return x.to(matrices.dtype)


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions that multiply matrices in bfloat16."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks for the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return any(has.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return False


def _tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _batches(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Lists of what can be one tensor, as many as `BATCH_ELEMENTS` holds, one at least.

    That is the same sides, device and dtype. A matrix without elements has nothing to update.
    """
    alike: dict[tuple[Any, ...], list[Pair]] = defaultdict(list)
    for matrix, gradient in pairs:
        if matrix.numel():
            sides = tuple(sorted(matrix.shape))
            alike[sides, matrix.device, matrix.dtype].append((matrix, gradient))
    for members in alike.values():
        length = max(1, BATCH_ELEMENTS // members[0][0].numel())
        for first in range(0, len(members), length):
            yield members[first : first + length]
