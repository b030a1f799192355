"""Classification: p(label | pixels) read from a head.

A sequence backbone reads the grey levels in raster order and the class is read at the last pixel,
the only one that a causal model lets see all others. An image backbone sees the plane.

Shapes: B batch, T pixels, D width, C classes, H and W image sides.
"""

from torch import Tensor, nn

from models.backbones.interface import SequenceBackbone
from models.output import Output, scored


class SequenceClassifier(nn.Module):
    """Pixels as a sequence, class read at its end."""

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
        self.head = nn.Linear(d_model, n_classes)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.5**0.5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, *, pixels: Tensor, labels: Tensor | None = None) -> Output:
        """(B, H, W) -> logits (B, C)."""
        x = self.embedding(pixels.flatten(1)) + self.position.weight  # (B, T, D)
        hidden, losses = self.backbone(x)
        return scored(self.head(hidden[:, -1]), labels, dict(losses))

    def classify(self, pixels: Tensor) -> Tensor:
        """Unnormalised log-probabilities, (B, H, W) -> (B, C)."""
        return self(pixels=pixels).logits

    def flops(self, batch: int, length: int) -> int:
        """FLOPs of one forward pass over `batch` images of `length` pixels."""
        return self.backbone.flops(batch, length) + 2 * batch * self.head.weight.numel()


class ImageClassifier(nn.Module):
    """A network that sees two dimensions: (B, 1, H, W) in [-1, 1] -> (B, C)."""

    readout = "head"
    view = "2-D"
    forwards_per_image = 1

    def __init__(
        self, *, backbone: nn.Module, levels: int, channels: int, height: int, width: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.levels = levels
        self.channels = channels
        self.height, self.width = height, width

    def forward(self, *, pixels: Tensor, labels: Tensor | None = None) -> Output:
        """(B, H, W) -> logits (B, C)."""
        planes = pixels.unsqueeze(1).expand(-1, self.channels, -1, -1)  # (B, channels, H, W)
        scaled = planes.to(next(self.parameters()).dtype) * (2 / (self.levels - 1)) - 1
        return scored(self.backbone(scaled), labels, {})

    def classify(self, pixels: Tensor) -> Tensor:
        """Unnormalised log-probabilities, (B, H, W) -> (B, C)."""
        return self(pixels=pixels).logits

    def flops(self, batch: int, length: int) -> int:
        """FLOPs of one forward pass over `batch` images of `length` pixels, counted by torch."""
        from models.backbones.timm_image import flops  # only here: sequences need no timm

        if length != self.height * self.width:
            raise ValueError(f"length is {length}; images have {self.height * self.width} pixels")
        return flops(
            self.backbone,
            batch=batch,
            in_chans=self.channels,
            height=self.height,
            width=self.width,
        )
