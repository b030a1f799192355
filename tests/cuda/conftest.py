"""Settings of every test on a GPU: float32 is float32 in what torch computes itself."""

import pytest
import torch


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions round to TF32 (11 bits) unless told otherwise; products do where it is asked."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
