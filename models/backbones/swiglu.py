"""The gate of SwiGLU (arXiv:2002.05202), silu(gate) up, and which form of it runs.

It is also the gate that Mamba-2, Mamba-3 and Gated DeltaNet put on their outputs.

Shapes: F hidden width.
"""

import torch.nn.functional as F
from torch import Tensor

from models.kernels.available import fuses


def swiglu(gate: Tensor, up: Tensor, kernel: str = "auto") -> Tensor:
    """silu(gate) up, (..., F) each. In training on a CPU fused, which keeps half as much.

    With `kernel` "torch" it is torch's there too.
    """
    if kernel != "torch" and fuses(gate) and gate.dtype == up.dtype:
        from models.kernels.swiglu import swiglu_fused

        return swiglu_fused(gate, up)
    return F.silu(gate) * up
