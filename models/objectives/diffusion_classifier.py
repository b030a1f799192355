"""Diffusion classifier: the class whose conditional bound is largest.

Your Diffusion Model is Secretly a Zero-Shot Classifier (arXiv:2303.16203), algorithm 1: all
classes are scored with the same (t, eps), so that the noise of the bound cancels in their
differences. Here the model is trained on the labelled images themselves, the weights over t are
those of the bound, and times are stratified, so that the scores are unnormalised
log-probabilities: log p(class | x) ~ log p(x | class) under equal priors.

Shapes: B batch, C classes, K draws, H and W image sides.
"""

import torch
from torch import Tensor, nn

from models.backbones.sizes import check_sizes
from models.objectives.diffusion import Diffusion
from models.output import Output


class DiffusionClassifier(nn.Module):
    """`diffusion` scored once for every class at `draws` times."""

    readout = "bound"
    view = "2-D"

    def __init__(self, *, diffusion: Diffusion, draws: int) -> None:
        super().__init__()
        check_sizes(draws=draws)
        self.diffusion = diffusion
        self.draws = draws
        self.forwards_per_image = draws * diffusion.n_classes

    def forward(self, *, pixels: Tensor, labels: Tensor | None = None) -> Output:
        """The bound given the right class; without labels, the scores (B, C) alone."""
        if labels is None:
            return Output(logits=self.classify(pixels))
        return self.diffusion(pixels=pixels, condition=labels, labels=pixels)

    @torch.no_grad()
    def classify(self, pixels: Tensor) -> Tensor:
        """Lower bounds of log p(pixels | class), (B, H, W) -> (B, C)."""
        model, n_classes = self.diffusion, self.diffusion.n_classes
        generator = torch.Generator().manual_seed(model.eval_seed)
        classes = torch.arange(n_classes, device=pixels.device).repeat(len(pixels))  # (B C,)
        repeated = pixels.repeat_interleave(n_classes, 0)  # (B C, H, W)
        total = model.prior_kl(model.values[repeated])
        for k in range(self.draws):
            # One (t, eps) for every image and class: it cancels in the differences of classes, and
            # a verdict does not depend on what else is in the batch.
            u = (k + torch.rand(1, generator=generator)) / self.draws
            t, weight = model.times(u.to(pixels.device))
            noise = torch.randn(1, *pixels.shape[1:], generator=generator).to(pixels.device)
            noise = noise.expand_as(repeated)  # (B C, H, W)
            term = model.terms(repeated, classes, t.expand(len(classes)), noise).bound
            total = total + weight * term / self.draws
        return -total.unflatten(0, (-1, n_classes))  # (B, C)

    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of classifying `batch` images."""
        once = self.diffusion.flops(batch, length)
        return None if once is None else self.forwards_per_image * once

    def train_flops(self, batch: int, length: int) -> int | None:
        """FLOPs of the forward pass of a training step: the right class alone, no scores."""
        return self.diffusion.train_flops(batch, length)
