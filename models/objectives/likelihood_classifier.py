"""Classification by likelihood: the class under which the pixels are likeliest.

An autoregressive model of the pixels given their class is a classifier by Bayes' rule, log p(class
| x) = log p(x | class) + log p(class) - log p(x), as a generative classifier always was (Ng and
Jordan 2001); the classes have equal priors here. It is to the autoregressive objective what the
diffusion classifier is to diffusion, but its likelihoods are exact.

Shapes: B batch, C classes, H and W image sides.
"""

import torch
from torch import Tensor, nn

from models.objectives.autoregressive import PixelLanguageModel
from models.output import Output


class LikelihoodClassifier(nn.Module):
    """`generator` scored once for every class."""

    readout = "log p(x|y)"
    view = "sequence"

    def __init__(self, *, generator: PixelLanguageModel) -> None:
        super().__init__()
        self.generator = generator
        self.n_classes = generator.condition.num_embeddings
        self.forwards_per_image = self.n_classes

    def forward(self, *, pixels: Tensor, labels: Tensor | None = None) -> Output:
        """The likelihood given the right class; without labels, the scores (B, C) alone."""
        if labels is None:
            return Output(logits=self.classify(pixels))
        return self.generator(pixels=pixels, condition=labels, labels=pixels)

    @torch.no_grad()
    def classify(self, pixels: Tensor) -> Tensor:
        """log p(pixels | class), nats, (B, H, W) -> (B, C)."""
        classes = torch.arange(self.n_classes, device=pixels.device).repeat(len(pixels))  # (B C,)
        repeated = pixels.repeat_interleave(self.n_classes, 0)  # (B C, H, W)
        nats = self.generator.log_prob(repeated, classes).nats
        return nats.unflatten(0, (-1, self.n_classes))  # (B, C)

    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of classifying `batch` images."""
        once = self.generator.flops(batch, length)
        return None if once is None else self.forwards_per_image * once

    def train_flops(self, batch: int, length: int) -> int | None:
        """FLOPs of the forward pass of a training step: the right class alone, no scores."""
        return self.generator.flops(batch, length)
