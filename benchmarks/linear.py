"""The products of a linear layer, oneDNN's against torch's own: forward and backward in fp32.

    python -m benchmarks.linear

The shapes are those of the Transformer of the speed table: batch 4, length 512, width 256.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ab import compare
from models.backbones.linear import linear, onednn_problem, product

Form = Callable[[Tensor, Tensor], Tensor]
ROWS = 4 * 512
SHAPES = ((256, 256), (256, 688), (688, 256), (256, 1024))  # inputs, outputs
SECONDS, TARGET = 4.0, 1.4


def step(form: Form, inputs: int, outputs: int) -> Callable[[], object]:
    """Forward and backward of a layer of that size."""
    torch.manual_seed(0)
    given = (torch.randn(ROWS, inputs).requires_grad_(), torch.randn(outputs, inputs))
    given[1].requires_grad_()
    grad = torch.randn(ROWS, outputs)
    return lambda: torch.autograd.grad(form(*given), given, grad)


def main() -> None:
    """Compare where oneDNN is taken; elsewhere say why it is not."""
    if product() == "torch":
        print(f"torch's product is taken: {onednn_problem() or 'oneDNN is switched off'}")
        return
    for sizes in SHAPES:
        ours, theirs = step(linear, *sizes), step(F.linear, *sizes)
        compare(f"{sizes[0]} to {sizes[1]}", ours, theirs, seconds=SECONDS, target=TARGET)


if __name__ == "__main__":
    main()
