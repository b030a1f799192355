"""Drawing images with diffusers' schedulers from a model of p(x0 | x_t).

ddpm: Ho et al. (arXiv:2006.11239); ddim: Song et al. (arXiv:2010.02502), run as the first order of
DPM-Solver++, which it is; dpm_solver: DPM-Solver++ 2M (Lu et al., arXiv:2211.01095); flow: Euler
steps of the flow-matching ODE (Lipman et al., arXiv:2210.02747, rectified flow's straight path),
whose velocity follows from the same x0 at equal signal-to-noise. All of them end on the model's own
reconstruction term: grey levels are drawn from p(x0 | x_t) at the last, least noisy time. Samplers
change samples, never the bound.

Shapes: B batch, L grey levels, H and W image sides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.objectives.categorical import draw
from models.objectives.noise import LogSnrSchedule


def expectation(log_p: Tensor, values: Tensor) -> Tensor:
    """Mean of `values` under log-probabilities, (..., L) -> (...).

    A sum and no matrix product: autocast would round the product, and with it the bound.
    """
    return (log_p.exp() * values).sum(-1)


@dataclass(frozen=True)
class Denoiser:
    """The model as a sampler sees it: log p(x0 | x_t) (B, H, W, L) at a scalar time."""

    schedule: LogSnrSchedule
    log_posterior: Callable[[Tensor, Tensor], Tensor]
    values: Tensor

    def mean(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x0 | x_t], (B, H, W)."""
        return expectation(self.log_posterior(x_t, t), self.values)


def times(schedule: LogSnrSchedule, steps: int) -> Tensor:
    """Times at which the model is asked, from the noisiest T-1 down to 0: diffusers' "linspace".

    A single step is taken at T-1, where a sample starts, and not at 0.
    """
    return torch.linspace(schedule.steps - 1, 0, steps, dtype=torch.float64, device="cpu")


def grid(schedule: LogSnrSchedule, steps: int) -> list[int]:
    """The same for schedulers that know whole times alone."""
    return times(schedule, steps).round().long().tolist()


def _gaussian_scheduler(name: str, schedule: LogSnrSchedule, steps: int) -> Any:
    """One of diffusers' variance-preserving schedulers over our betas and times, fed with x0."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    common = {
        "num_train_timesteps": schedule.steps,
        "trained_betas": schedule.betas().numpy(),
        "prediction_type": "sample",
    }
    scheduler: Any
    if name == "ddpm":
        # fixed_small is the variance of q(x_{t-1} | x_t, x0), the one in the bound.
        scheduler = DDPMScheduler(**common, variance_type="fixed_small", clip_sample=False)
    else:
        # DDIM is DPM-Solver++'s first order (arXiv:2211.01095, section 4). diffusers' DDIMScheduler
        # steps by T // steps whatever the distance to its own next time: the sample would be at
        # another noise level than the model is told.
        order = 1 if name == "ddim" else 2
        scheduler = DPMSolverMultistepScheduler(
            **common, algorithm_type="dpmsolver++", solver_order=order
        )
    scheduler.set_timesteps(timesteps=grid(schedule, steps))
    return scheduler


def _gaussian(
    denoiser: Denoiser, x: Tensor, name: str, steps: int, generator: torch.Generator | None
) -> Tensor:
    """Down the grid with the mean of p(x0 | x_t), and levels drawn from it at the last time."""
    scheduler = _gaussian_scheduler(name, denoiser.schedule, steps)
    extra = {"generator": generator} if name == "ddpm" else {}
    asked = scheduler.timesteps.to(x.device, torch.float32)
    for t, time in zip(scheduler.timesteps[:-1], asked[:-1], strict=True):
        x = scheduler.step(denoiser.mean(x, time), t, x, **extra).prev_sample
    return draw(denoiser.log_posterior(x, asked[-1]), generator)


def _flow(denoiser: Denoiser, x: Tensor, steps: int, generator: torch.Generator | None) -> Tensor:
    """x = (1 - s) x0 + s eps has snr ((1 - s) / s)^2, hence s = sigmoid(-log snr / 2)."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    schedule = denoiser.schedule
    asked = times(schedule, steps)
    sigmas = torch.sigmoid(-schedule.log_snr(asked) / 2)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=schedule.steps)
    scheduler.set_timesteps(sigmas=sigmas.tolist(), device=x.device)
    s = scheduler.sigmas[0]
    x = x * (s**2 + (1 - s) ** 2).sqrt()  # the noise of unit variance, on the straight path
    for index, step in enumerate(scheduler.timesteps):
        s, t = scheduler.sigmas[index], asked[index].to(x.device, torch.float32)
        x_t = x / (s**2 + (1 - s) ** 2).sqrt()  # the same point on the variance-preserving path
        log_p = denoiser.log_posterior(x_t, t)
        if index == steps - 1:
            break
        velocity = (x - expectation(log_p, denoiser.values)) / s  # eps - x0
        x = scheduler.step(velocity, step, x).prev_sample
    return draw(log_p, generator)


SAMPLERS = ("ddpm", "ddim", "dpm_solver", "flow")


def draw_pixels(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    sampler: str,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Grey levels of the given shape (B, H, W), `steps` evaluations of the model."""
    values = denoiser.values
    device = generator.device if generator is not None else values.device
    x = torch.randn(shape, generator=generator, device=device).to(values.device)
    if sampler == "flow":
        return _flow(denoiser, x, steps, generator)
    return _gaussian(denoiser, x, sampler, steps, generator)
