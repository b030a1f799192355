"""softplus, which makes step sizes of state-space models positive, and which form of it runs."""

import torch.nn.functional as F
from torch import Tensor

from models.kernels.available import fuses


def softplus(x: Tensor, kernel: str = "auto") -> Tensor:
    """log(1 + e^x). In training on a CPU fused, which keeps the output instead of the input.

    With `kernel` "torch" it is torch's there too.
    """
    if kernel != "torch" and fuses(x):
        from models.kernels.softplus import softplus_fused

        return softplus_fused(x)
    return F.softplus(x)
