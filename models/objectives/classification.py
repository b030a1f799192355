"""Classification: p(label | pixels) read from a head.

A sequence backbone reads the grey levels in raster order, and the class is read from the mean of
its outputs over all pixels, as in Long Range Arena (arXiv:2011.04006). An image backbone sees the
plane.

Shapes: B batch, T pixels, D width, C classes, L grey levels, H and W image sides.
"""

import math

import torch
from torch import Tensor, nn

from models.backbones.interface import SequenceBackbone
from models.backbones.linear import Linear
from models.objectives.pixels import check_pixels
from models.output import Output, scored


def ordinal(levels: int, width: int) -> Tensor:
    """Rows that start out near each other where their grey levels are, (L, D), variance one.

    Waves over the grey scale from a quarter of a period to four, each with a phase of its own. A
    few thousand images are too few to learn from independent rows that grey is ordered.
    """
    # Not torch.linspace, which transformers replaces while it loads a model: torch notes once in a
    # process, at the first use of `torch.device`, which functions that redirects. Where this falls
    # into a load the real one is not noted, and makes no meta tensor under `torch.device("meta")`.
    grey = (torch.arange(levels) / max(levels - 1, 1))[:, None]  # (L, 1)
    periods = torch.exp2(4 * torch.arange(width) / max(width - 1, 1) - 2)  # (D,)
    return math.sqrt(2) * torch.cos(2 * math.pi * (grey * periods + torch.rand(width)))


class SequenceClassifier(nn.Module):
    """Pixels as a sequence, class read from the mean over it."""

    readout = "head"
    view = "sequence"
    forwards_per_image = 1

    def __init__(
        self, *, backbone: SequenceBackbone, levels: int, n_classes: int, height: int, width: int
    ) -> None:
        super().__init__()
        d_model = backbone.d_model
        self.embedding = nn.Embedding(levels, d_model)
        self.position = nn.Embedding(height * width, d_model)
        self.backbone = backbone
        self.head = Linear(d_model, n_classes)
        # The two parts of an input vector have a variance of one together.
        with torch.no_grad():
            self.embedding.weight.copy_(0.5**0.5 * ordinal(levels, d_model))
        nn.init.normal_(self.position.weight, std=0.5**0.5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, *, pixels: Tensor, labels: Tensor | None = None) -> Output:
        """(B, H, W) -> logits (B, C)."""
        x = self.embedding(pixels.flatten(1)) + self.position.weight  # (B, T, D)
        hidden, losses = self.backbone(x)
        return scored(self.head(hidden.mean(1)), labels, dict(losses))

    def classify(self, pixels: Tensor) -> Tensor:
        """Unnormalised log-probabilities, (B, H, W) -> (B, C)."""
        return self(pixels=pixels).logits

    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of one forward pass over `batch` images of `length` pixels."""
        backbone = self.backbone.flops(batch, length)
        return None if backbone is None else backbone + 2 * batch * self.head.weight.numel()


class ImageClassifier(nn.Module):
    """A network that sees two dimensions: (B, 1, H, W) in [-1, 1] -> (B, C)."""

    readout = "head"
    view = "2-D"
    forwards_per_image = 1
    scale: Tensor

    def __init__(
        self, *, backbone: nn.Module, levels: int, channels: int, height: int, width: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels
        self.height, self.width = height, width
        # A buffer follows the weights to their dtype and device, and so do the planes it scales.
        self.register_buffer("scale", torch.tensor(2 / (levels - 1)), persistent=False)

    def forward(self, *, pixels: Tensor, labels: Tensor | None = None) -> Output:
        """(B, H, W) -> logits (B, C)."""
        planes = pixels.unsqueeze(1).expand(-1, self.channels, -1, -1)  # (B, channels, H, W)
        return scored(self.backbone(planes * self.scale - 1), labels, {})

    def classify(self, pixels: Tensor) -> Tensor:
        """Unnormalised log-probabilities, (B, H, W) -> (B, C)."""
        return self(pixels=pixels).logits

    def flops(self, batch: int, length: int) -> int:
        """FLOPs of one forward pass over `batch` images of `length` pixels, counted by torch."""
        from models.backbones.timm_image import flops  # only here: sequences need no timm

        check_pixels(length, self.height, self.width)
        return flops(
            self.backbone,
            batch=batch,
            in_chans=self.channels,
            height=self.height,
            width=self.width,
        )
