"""The noise schedule of a variance-preserving Gaussian diffusion, linear in log-SNR.

Variational Diffusion Models (arXiv:2107.00630), section 3: only the ends of the schedule change
the continuous bound, so the simplest curve between them is taken.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogSnrSchedule:
    """log snr(t) falls linearly from `maximum` at t = 0 to `minimum` at t = `steps` - 1."""

    steps: int
    maximum: float
    minimum: float

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps={self.steps} must be at least 2")
        if self.minimum >= self.maximum:
            raise ValueError(
                f"log_snr_min={self.minimum} must lie below log_snr_max={self.maximum}"
            )

    @property
    def slope(self) -> float:
        """Fall of log snr from one step to the next."""
        return (self.maximum - self.minimum) / (self.steps - 1)

    def log_snr(self, t: Tensor) -> Tensor:
        return self.maximum - self.slope * t

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of `log_snr`, clamped to the trained range [0, T-1]."""
        return ((self.maximum - log_snr) / self.slope).clamp(0, self.steps - 1)

    @staticmethod
    def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha^2 = sigmoid(log snr), sigma^2 = sigmoid(-log snr)."""
        return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()

    def snr_drop(self, t: Tensor) -> Tensor:
        """snr(t-1) - snr(t)."""
        return self.log_snr(t - 1).exp() - self.log_snr(t).exp()

    def betas(self) -> Tensor:
        """beta_t = 1 - alpha_t^2 / alpha_{t-1}^2 as diffusers wants them, (T,), float64."""
        t = torch.arange(self.steps, dtype=torch.float64, device="cpu")
        alpha2 = torch.sigmoid(self.log_snr(t))
        return 1 - alpha2 / torch.cat([torch.ones(1, dtype=torch.float64), alpha2[:-1]])
