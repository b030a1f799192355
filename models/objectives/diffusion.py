"""Class-conditional Gaussian diffusion on grey levels: p(pixels | class) through noise.

Variational Diffusion Models (arXiv:2107.00630) for the bound and its low-discrepancy times;
Structured Denoising Diffusion Models in Discrete State-Spaces (D3PM, arXiv:2107.03006) for
predicting a distribution over the levels, p(x0 | x_t), in place of the noise.

Glossary: `x0` = pixels as values in [-1, 1]; `x_t` = alpha_t x0 + sigma_t eps with alpha_t^2 +
sigma_t^2 = 1; `snr` = alpha_t^2 / sigma_t^2, `log_snr` its logarithm (-gamma in VDM), linear in t;
`t` = 0 .. T-1 from little noise to almost nothing but noise, diffusers' numbering.

The network's logits are added to what is known without it, the Gaussian log-likelihood of x_t
under each level: the network learns only what the other pixels and the class say. With little
noise that likelihood alone decides, so a network that says nothing is right there.

    -log p(x0) <= KL(q(x_{T-1} | x0) || N(0, 1))                               prior
                + sum_{t=1}^{T-1} KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t))   diffusion
                - log p(x0 | x_{t=0})                                          reconstruction

The reverse step is the Gaussian q(x_{t-1} | x_t, x0 = mean of p(x0 | x_t)), the one of diffusers'
schedulers with `prediction_type="sample"`, so that the middle term is (VDM eq. 13)

    KL = (snr(t-1) - snr(t)) / 2 * |x0 - mean|^2

Deviations: the least noise is more than VDM's, since a categorical reconstruction takes
over where neighbouring pixels have no more to say; times are drawn from `reconstruction_share` for
t = 0 and uniformly for the rest, and weighted back, so the bound stays unbiased.

Shapes: B batch, K draws, L grey levels, H and W image sides.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.backbones.sizes import check_sizes
from models.objectives.diffusion_sampling import SAMPLERS, Denoiser, draw_pixels, expectation
from models.objectives.noise import LogSnrSchedule
from models.objectives.pixels import check_pixels
from models.output import LogProb, Output


class ImageDenoiser(Protocol):
    """What this objective asks of an image backbone; the last layer sets `unembedding = True`."""

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Noisy images (B, 1, H, W), times (B,), classes (B,) -> logits (B, H, W, L).

        `x_t` has unit variance or less; `t` is a float in [0, T-1].
        """
        ...

    def flops(self, batch: int, height: int, width: int) -> int | None: ...


@runtime_checkable
class RegularisedDenoiser(Protocol):
    """One with losses of its own, as of routers that are to be balanced."""

    def denoise(
        self, x_t: Tensor, t: Tensor, condition: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The logits, and named auxiliary losses that are already weighted."""
        ...


class Terms(NamedTuple):
    """Of a batch of images at one time each."""

    bound: Tensor  # (B,), nats: the bound's term at that time
    nll: Tensor  # (B, H, W), nats: -log p(x0 | x_t)
    log_p: Tensor  # (B, H, W, L)
    losses: Mapping[str, Tensor]  # of the network itself


class Diffusion(nn.Module):
    """p(pixels | condition), bounded from below.

    `steps` is T. `draws` times are evaluated per image for `log_prob`, with noise from
    `eval_seed`: the same bound comes out twice. In training `train_draws` times are drawn an image
    and `cross_entropy` is the weight of -log p(x0 | x_t) beside the bound.
    """

    def __init__(
        self,
        *,
        network: ImageDenoiser,
        levels: int,
        n_classes: int,
        height: int,
        width: int,
        steps: int,
        log_snr_max: float,
        log_snr_min: float,
        reconstruction_share: float,
        cross_entropy: float,
        train_draws: int,
        draws: int,
        eval_seed: int,
        sampler: str,
        sampling_steps: int,
    ) -> None:
        super().__init__()
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler={sampler!r} is unknown; allowed: {', '.join(SAMPLERS)}")
        if not 1 <= sampling_steps <= steps:
            raise ValueError(f"sampling_steps={sampling_steps} must lie in 1..{steps} (steps)")
        if not 0 < reconstruction_share < 1:
            raise ValueError(f"reconstruction_share={reconstruction_share} must lie in (0, 1)")
        check_sizes(draws=draws, train_draws=train_draws)
        if levels < 2:
            raise ValueError(f"levels={levels} must be at least 2")
        self.network = network
        self.levels, self.n_classes = levels, n_classes
        self.height, self.width = height, width
        self.schedule = LogSnrSchedule(steps=steps, maximum=log_snr_max, minimum=log_snr_min)
        self.reconstruction_share, self.cross_entropy = reconstruction_share, cross_entropy
        self.draws, self.train_draws, self.eval_seed = draws, train_draws, eval_seed
        self.sampler, self.sampling_steps = sampler, sampling_steps
        self.register_buffer("grey", torch.arange(levels), persistent=False)
        self.grey: Tensor

    # ---- the model: p(x0 | x_t)

    @property
    def values(self) -> Tensor:
        """The levels in [-1, 1], (L,), in float32 whatever the dtype of the network."""
        return self.grey * (2 / (self.levels - 1)) - 1

    def log_posterior(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """log p(x0 = level | x_t) per pixel, (B, H, W) -> (B, H, W, L)."""
        return self._posterior(x_t, t, condition)[0]

    def _posterior(
        self, x_t: Tensor, t: Tensor, condition: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The same with the network's own losses.

        The network computes in the dtype of its weights, everything around it in float32.
        """
        weight = next(self.parameters(), self.values)
        x = x_t[:, None].to(weight.dtype)
        if isinstance(self.network, RegularisedDenoiser):
            logits, losses = self.network.denoise(x, t, condition)  # (B, H, W, L)
        else:
            logits, losses = self.network(x, t, condition), {}
        log_snr = self.schedule.log_snr(t)[:, None, None]  # (B, 1, 1)
        alpha, sigma = self.schedule.alpha_sigma(log_snr)
        # log N(x_t; alpha v, sigma^2) up to a constant: (alpha / sigma^2) x_t v - snr v^2 / 2
        likelihood = (alpha / sigma**2 * x_t)[..., None] * self.values
        likelihood = likelihood - (log_snr.exp() / 2)[..., None] * self.values**2
        return (logits.float() + likelihood).log_softmax(-1), losses

    def mean(self, log_posterior: Tensor) -> Tensor:
        """E[x0 | x_t], (B, H, W, L) -> (B, H, W)."""
        return expectation(log_posterior, self.values)

    # ---- the bound

    def prior_kl(self, x0: Tensor) -> Tensor:
        """KL(q(x_{T-1} | x0) || N(0, 1)), nats, (B, H, W) -> (B,)."""
        last = torch.full((1,), self.schedule.steps - 1.0, device=x0.device)
        alpha, sigma = self.schedule.alpha_sigma(self.schedule.log_snr(last))
        # KL(N(m, s^2) || N(0, 1)) = (s^2 + m^2 - 1 - log s^2) / 2
        kl = 0.5 * (sigma**2 + (alpha * x0) ** 2 - 1) - sigma.log()
        return kl.flatten(1).sum(-1)

    def terms(self, pixels: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Terms:
        """What the images (B, H, W) and their classes (B,) say at times t (B,) under a noise."""
        x0 = self.values[pixels]  # (B, H, W)
        log_snr = self.schedule.log_snr(t)[:, None, None]
        alpha, sigma = self.schedule.alpha_sigma(log_snr)
        log_p, losses = self._posterior(alpha * x0 + sigma * noise, t, condition)
        nll = -log_p.gather(-1, pixels[..., None])[..., 0]  # (B, H, W)
        error = (x0 - self.mean(log_p)).square().flatten(1).sum(-1)  # (B,)
        diffusion = 0.5 * self.schedule.snr_drop(t) * error
        reconstruction = nll.flatten(1).sum(-1)
        return Terms(torch.where(t > 0, diffusion, reconstruction), nll, log_p, losses)

    def times(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers in [0, 1) -> times and 1 / probability of each, by inverse transform."""
        share, rest = self.reconstruction_share, self.schedule.steps - 1
        t = 1 + ((u - share) / (1 - share) * rest).floor().clamp(0, rest - 1)
        first = u < share
        weight = torch.where(first, 1 / share, rest / (1 - share))
        return torch.where(first, 0.0, t), weight

    def forward(self, *, pixels: Tensor, condition: Tensor, labels: Tensor | None = None) -> Output:
        """One draw of the bound, nats a pixel; logits of p(x0 | x_t) (B, H, W, L).

        Times are one shifted grid over the batch (VDM, appendix I.1). Without labels the network
        is evaluated once an image, at one draw.
        """
        draws = self.train_draws if labels is not None else 1
        x, y = pixels.repeat(draws, 1, 1), condition.repeat(draws)  # (K B, H, W)
        count, device = x.shape[0], pixels.device
        u = (torch.arange(count, device=device) + torch.rand((), device=device)) / count
        # Neighbours on the grid lie in different draws of one image, hence the transposition.
        u = u.view(-1, draws).T.flatten()
        t, weight = self.times(u)
        noise = torch.randn(x.shape, device=device, dtype=self.values.dtype)
        terms = self.terms(x, y, t, noise)
        if labels is None:
            return Output(logits=terms.log_p)
        size = pixels[0].numel()
        prior = self.prior_kl(self.values[pixels]).mean()
        bound = ((weight * terms.bound).mean() + prior) / size
        losses = {"cross_entropy": self.cross_entropy * terms.nll.mean(), **terms.losses}
        loss = bound
        for term in losses.values():
            loss = loss + term
        return Output(logits=terms.log_p[: len(pixels)], loss=loss, nll=bound, losses=losses)

    @torch.no_grad()
    def log_prob(self, pixels: Tensor, condition: Tensor) -> LogProb:
        """Lower bound of log p(pixels | condition), nats (B,), from `draws` stratified times."""
        generator, count = torch.Generator().manual_seed(self.eval_seed), len(pixels)
        total = self.prior_kl(self.values[pixels])
        for k in range(self.draws):
            # The images share a grid too, dealt out anew each time: their mean varies less.
            row = torch.randperm(count, generator=generator).float()
            row = row + torch.rand(count, generator=generator)
            u = (k + row / count) / self.draws
            t, weight = self.times(u.to(pixels.device))
            noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
            total = total + weight * self.terms(pixels, condition, t, noise).bound / self.draws
        return LogProb(nats=-total, bound=True, forwards=self.draws)

    # ---- sampling

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n images given their classes, (n, H, W), by the configured sampler."""
        if condition is None:
            raise ValueError("condition is None; give the class of each image")
        check_pixels(length, self.height, self.width)
        given = condition

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return self.log_posterior(x_t, t.expand(n), given)

        denoiser = Denoiser(schedule=self.schedule, log_posterior=denoise, values=self.values)
        shape = (n, self.height, self.width)
        return draw_pixels(denoiser, shape, self.sampler, self.sampling_steps, generator)

    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of one evaluation of the network on `batch` images."""
        check_pixels(length, self.height, self.width)
        return self.network.flops(batch, self.height, self.width)

    def train_flops(self, batch: int, length: int) -> int | None:
        """FLOPs of the forward pass of a training step, which draws several times an image."""
        once = self.flops(batch, length)
        return None if once is None else self.train_draws * once
