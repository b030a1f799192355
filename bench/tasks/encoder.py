"""The small frozen classifier whose features judge samples of digits.

Its weights are committed as safetensors and are part of the definition of the scores; they were
trained on the train split by `scripts/train_encoder.py`. B batch, 32 features, 10 classes.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 17
WEIGHTS = Path(__file__).resolve().parent / "data" / "digits_encoder.safetensors"


class DigitsEncoder(nn.Module):
    """Three convolutions, averaged over the image, and a linear read-out of the class.

    The average is what is compared: it keeps strokes and texture, where features further up keep
    little but the class (they told blurred class means from digits less than half as well).
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.conv3 = nn.Conv2d(64, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)
        # Statistics of the train split, so that every feature weighs alike in all distances.
        self.register_buffer("mean", torch.zeros(32))
        self.register_buffer("std", torch.ones(32))

    def pooled(self, pixels: Tensor) -> Tensor:
        """Grey levels (B, 8, 8) -> averages (B, 32)."""
        x = pixels[:, None].float() / ((LEVELS - 1) / 2) - 1  # (B, 1, 8, 8) in [-1, 1]
        x = F.gelu(self.conv1(x))
        x = F.gelu(self.conv2(x))  # (B, 64, 4, 4)
        x = F.gelu(self.conv3(x))
        return x.mean((2, 3))  # (B, 32)

    def features(self, pixels: Tensor) -> Tensor:
        """Averages of mean 0 and variance 1 over train, (B, 8, 8) -> (B, 32)."""
        return (self.pooled(pixels) - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        """Class logits (B, 10)."""
        return self.head(self.pooled(pixels))


@lru_cache(maxsize=1)
def load_encoder() -> DigitsEncoder:
    """The encoder with its committed weights."""
    from safetensors.torch import load_file

    encoder = DigitsEncoder()
    encoder.load_state_dict(load_file(WEIGHTS))
    return encoder.eval()


def weights_sha256() -> str:
    """Hash of the committed weights, for the record."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def features(pixels: np.ndarray) -> np.ndarray:
    """Features of images (N, 8, 8) in float64 (N, 32), on the CPU whatever the model ran on."""
    # One measure for all: it does not follow the dtype in which a model is evaluated.
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        found = load_encoder().features(torch.from_numpy(pixels.astype(np.int64)))
    return found.double().numpy()
