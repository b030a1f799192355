"""What a CUDA device alone can show; skipped, with the reason, where there is none."""

import pytest
import torch

DEVICE = torch.device("cuda")
ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
