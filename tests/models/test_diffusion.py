"""The Gaussian diffusion bound against exact quantities, its classifier and its samplers."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from models.objectives.diffusion import Diffusion
from models.objectives.diffusion_classifier import DiffusionClassifier
from models.objectives.diffusion_sampling import SAMPLERS, Denoiser, draw_pixels, grid
from models.objectives.noise import LogSnrSchedule


class TinyNet(nn.Module):
    """A small denoiser that sees all pixels, the time and the class."""

    def __init__(self, levels: int, n_classes: int, pixels: int, last: float = 1.0) -> None:
        super().__init__()
        self.levels = levels
        self.table = nn.Embedding(n_classes, 16)
        self.inner = nn.Linear(pixels + 1, 16)
        self.outer = nn.Linear(16, pixels * levels)
        nn.init.normal_(self.outer.weight, std=last)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        x = torch.cat([x_t.flatten(1), t[:, None] / 10], -1)
        hidden = torch.tanh(self.inner(x) + self.table(condition))
        return self.outer(hidden).view(*x_t.shape[:1], *x_t.shape[2:], self.levels)

    def flops(self, batch: int, height: int, width: int) -> int:
        return batch * height * width


def build(**changes: object) -> Diffusion:
    given: dict = {
        "levels": 3, "n_classes": 2, "height": 1, "width": 2, "steps": 8, "log_snr_max": 3.0,
        "log_snr_min": -5.0, "reconstruction_share": 0.2, "cross_entropy": 0.0, "train_draws": 1,
        "draws": 16, "eval_seed": 0, "sampler": "ddim", "sampling_steps": 4,
    }  # fmt: skip
    given |= changes
    if "network" not in given:
        pixels = given["height"] * given["width"]
        given["network"] = TinyNet(given["levels"], given["n_classes"], pixels)
    return Diffusion(**given)


# All nine images of two pixels at three levels, and probabilities with a dependence between them.
IMAGES = torch.tensor(list(itertools.product(range(3), repeat=2))).view(-1, 1, 2)
WEIGHTS = torch.tensor([8.0, 1, 1, 1, 6, 1, 1, 1, 4])
DATA = WEIGHTS / WEIGHTS.sum()
ENTROPY = float(-(DATA * DATA.log()).sum())


def bound_over_all(model: Diffusion, draws: int) -> tuple[float, float]:
    """Bound averaged over the data, at all t, over `draws` noises; and its standard error."""
    generator = torch.Generator().manual_seed(1)
    x = IMAGES.repeat(draws, 1, 1)
    total = model.prior_kl(model.values[x])
    with torch.no_grad():
        for t in range(model.schedule.steps):
            noise = torch.randn(x.shape, generator=generator)
            times = torch.full((len(x),), float(t))
            total = total + model.terms(x, torch.zeros(len(x), dtype=torch.long), times, noise)[0]
    means = (total.view(draws, -1) * DATA).sum(-1)
    return float(means.mean()), float(means.std() / math.sqrt(draws))


def train(model: Diffusion, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        x = IMAGES[torch.multinomial(DATA, 256, replacement=True)]
        optimizer.zero_grad()
        loss = model(pixels=x, condition=torch.zeros(256, dtype=torch.long), labels=x).loss
        assert loss is not None
        loss.backward()
        optimizer.step()


def test_bound_is_at_least_the_entropy_untrained_and_trained() -> None:
    torch.manual_seed(0)
    model = build(train_draws=2)
    before, error_before = bound_over_all(model, 400)
    train(model, 400)
    after, error_after = bound_over_all(model, 4000)
    assert before >= ENTROPY - 3 * error_before
    assert after >= ENTROPY - 3 * error_after
    assert error_after < 0.02
    # The check would also pass for a bound that is far off: training comes close to what the exact
    # posterior gives in as few as eight steps.
    best, error_best = bound_over_all(build(network=ExactNet(model.schedule)), 4000)
    assert best - 4 * (error_best + error_after) < after < best + 0.2
    assert after < before - 0.2


class ExactNet(nn.Module):
    """Bayes' rule for DATA: logits that complete the likelihood of a pixel to its posterior."""

    def __init__(self, schedule: LogSnrSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        values = torch.linspace(-1, 1, 3)
        alpha, sigma = self.schedule.alpha_sigma(self.schedule.log_snr(t)[:, None, None])
        x0 = values[IMAGES[:, 0]]  # (9, 2)
        own = -((x_t[:, 0] - alpha * values[:, None]) ** 2) / (2 * sigma**2)  # (B, 3, 2)
        square = (x_t[:, 0] - alpha * x0).square().sum(-1)  # (B, 9)
        joint = DATA.log() - square / (2 * sigma[..., 0] ** 2)
        per_level = [
            torch.stack([joint[:, IMAGES[:, 0, i] == v].logsumexp(-1) for v in range(3)], -1)
            for i in range(2)
        ]
        return (torch.stack(per_level, 1) - own.transpose(1, 2))[:, None]  # (B, 1, 2, 3)

    def flops(self, batch: int, height: int, width: int) -> int:
        return 0


def exact(**changes: object) -> Diffusion:
    schedule = LogSnrSchedule(steps=1000, maximum=5.0, minimum=-6.0)
    ends = {"steps": 1000, "log_snr_max": 5.0, "log_snr_min": -6.0}
    return build(network=ExactNet(schedule), **(ends | changes))


def test_bound_of_the_exact_posterior_is_the_entropy() -> None:
    model = exact(draws=64)
    images = IMAGES[:, None].expand(-1, 200, 1, 2)  # (9, 200, 1, 2)
    nats = model.log_prob(images.flatten(0, 1), torch.zeros(1800, dtype=torch.long)).nats
    per_image = -nats.view(9, 200)
    bound = float((DATA * per_image.mean(1)).sum())
    error = float((DATA**2 * per_image.var(1) / 200).sum().sqrt())
    assert bound >= ENTROPY - 3 * error
    assert bound == pytest.approx(ENTROPY, abs=3 * error + 0.02)


def test_terms_equal_gaussian_kl_divergences() -> None:
    torch.manual_seed(0)
    model = build()
    x, y = IMAGES[:4], torch.zeros(4, dtype=torch.long)
    x0 = model.values[x].double()
    noise = torch.randn(4, 1, 2)
    betas = model.schedule.betas()
    kept = torch.cumprod(1 - betas, 0)
    for t in range(1, 8):
        a, previous, beta = kept[t], kept[t - 1], betas[t]
        x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
        times = torch.full((4,), float(t))
        with torch.no_grad():
            guess = model.mean(model.log_posterior(x_t.float(), times, y)).double()
            got = model.terms(x, y, times, noise)[0]
        # DDPM eq. 7: q(x_{t-1} | x_t, x0)
        std = (beta * (1 - previous) / (1 - a)).sqrt()
        ours, theirs = (
            Normal(
                previous.sqrt() * beta / (1 - a) * z
                + (1 - beta).sqrt() * (1 - previous) / (1 - a) * x_t,
                std,
            )
            for z in (x0, guess)
        )
        torch.testing.assert_close(
            got.double(), kl_divergence(ours, theirs).flatten(1).sum(-1), rtol=1e-4, atol=1e-5
        )
    last = Normal(kept[-1].sqrt() * x0, (1 - kept[-1]).sqrt())
    expected = kl_divergence(last, Normal(torch.zeros(()).double(), 1.0)).flatten(1).sum(-1)
    torch.testing.assert_close(
        model.prior_kl(model.values[x]).double(), expected, rtol=1e-4, atol=1e-6
    )


def test_stratified_bound_is_unbiased_and_repeatable() -> None:
    torch.manual_seed(0)
    model = build(draws=32)
    expected, error = bound_over_all(model, 2000)
    x = IMAGES.repeat(300, 1, 1)
    y = torch.zeros(len(x), dtype=torch.long)
    score = model.log_prob(x, y)
    assert score.bound
    assert score.forwards == 32
    means = -(score.nats.view(300, -1) * DATA).sum(-1)
    assert float(means.mean()) == pytest.approx(
        expected, abs=4 * (error + float(means.std()) / math.sqrt(300))
    )
    torch.testing.assert_close(model.log_prob(x, y).nats, score.nats, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_draw_from_the_data_and_leave_the_bound_alone(sampler: str) -> None:
    # Ancestral sampling is the model itself only at all T steps; the others converge sooner.
    steps, n = (1000, 1000) if sampler == "ddpm" else (50, 4000)
    model = exact(sampler=sampler, sampling_steps=steps)
    y = torch.zeros(n, dtype=torch.long)
    drawn = model.sample(n, condition=y, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (n, 1, 2)
    assert drawn.dtype == torch.long
    share = torch.stack([(drawn == image).all(-1).all(-1).float().mean() for image in IMAGES])
    # The exact posterior must give back the data: total variation within sampling error and steps.
    assert float((share - DATA).abs().sum() / 2) < 0.07
    reference = exact()
    few = y[: len(IMAGES)]
    torch.testing.assert_close(
        model.log_prob(IMAGES, few).nats, reference.log_prob(IMAGES, few).nats, rtol=0, atol=0
    )
    model.sampling_steps = 4
    drawn = model.sample(n, condition=y, generator=torch.Generator().manual_seed(0))
    again = model.sample(n, condition=y, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def walk(
    sampler: str, steps: int, net: Callable[[Tensor, Tensor], Tensor], schedule: LogSnrSchedule
) -> list[tuple[float, Tensor]]:
    """Every time and noisy image that a sampler asks the model about."""
    asked: list[tuple[float, Tensor]] = []

    def log_posterior(x: Tensor, t: Tensor) -> Tensor:
        asked.append((float(t), x.clone()))
        return net(x, t)

    denoiser = Denoiser(schedule, log_posterior, torch.linspace(-1, 1, 3))
    draw_pixels(denoiser, (5, 2, 2), sampler, steps, torch.Generator().manual_seed(3))
    return asked


SCHEDULE = LogSnrSchedule(steps=1000, maximum=5.0, minimum=-6.0)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 30, 50, 333, 1000])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_samples_are_as_noisy_as_the_model_is_told(sampler: str, steps: int) -> None:
    """With x0 known, x_t must have the mean (and for the ODEs the noise) that diffusers adds."""
    from diffusers import DDIMScheduler

    reference = DDIMScheduler(
        num_train_timesteps=1000, trained_betas=SCHEDULE.betas().numpy(),
        timestep_spacing="linspace",
    )  # fmt: skip
    certain = torch.tensor([-math.inf, -math.inf, 0.0]).expand(5, 2, 2, 3)  # x0 = 1
    asked = walk(sampler, steps, lambda x, t: certain, SCHEDULE)
    times = [int(t) for t, _ in asked]
    if steps > 1:  # for one step diffusers' linspace asks at t = 0 about pure noise
        reference.set_timesteps(steps)
        assert times == reference.timesteps.tolist()
    assert times == grid(SCHEDULE, steps)
    x0, start = torch.ones(5, 2, 2), asked[0][1]
    # The walk begins in pure noise, not in x_{T-1}: what diffusers would have added to reach it.
    kept = reference.alphas_cumprod[999]
    noise = (start - kept.sqrt() * x0) / (1 - kept).sqrt()
    if sampler == "ddpm":
        return  # draws fresh noise at every step: the times are all that can be compared
    for t, x in asked:
        expected = reference.add_noise(x0, noise, torch.tensor([int(t)]))
        torch.testing.assert_close(x, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("steps", [2, 4, 7, 30, 50])
def test_ddim_is_diffusers_euler_in_other_coordinates(steps: int) -> None:
    """x / alpha moves along Euler's steps in sigma / alpha (DDIM, arXiv:2010.02502, eq. 14)."""
    from diffusers import EulerDiscreteScheduler

    torch.manual_seed(0)
    weight = torch.randn(3) * 3

    def net(x: Tensor, t: Tensor) -> Tensor:
        return (torch.tanh(x + t / 1000)[..., None] * weight).log_softmax(-1)

    euler = EulerDiscreteScheduler(
        num_train_timesteps=1000, trained_betas=SCHEDULE.betas().numpy(), prediction_type="sample"
    )
    euler.set_timesteps(timesteps=grid(SCHEDULE, steps))
    asked = walk("ddim", steps, net, SCHEDULE)
    scale = (euler.sigmas[0] ** 2 + 1).sqrt()  # 1 / alpha
    y = asked[0][1] * scale
    for index, t in enumerate(euler.timesteps):
        x = euler.scale_model_input(y, t)
        assert asked[index][0] == float(t)
        torch.testing.assert_close(asked[index][1], x, rtol=1e-3, atol=1e-3)
        y = euler.step(net(x, t).exp() @ torch.linspace(-1, 1, 3), t, y).prev_sample


def test_ddim_at_all_steps_is_that_of_diffusers() -> None:
    """Where diffusers' DDIMScheduler keeps to its own times, at every one of T, both agree."""
    from diffusers import DDIMScheduler

    schedule = LogSnrSchedule(steps=40, maximum=5.0, minimum=-6.0)
    weight = torch.tensor([2.0, -1.0, 0.5])

    def net(x: Tensor, t: Tensor) -> Tensor:
        return (torch.tanh(x + t / 40)[..., None] * weight).log_softmax(-1)

    reference = DDIMScheduler(
        num_train_timesteps=40, trained_betas=schedule.betas().numpy(), prediction_type="sample",
        timestep_spacing="linspace", clip_sample=False,
    )  # fmt: skip
    reference.set_timesteps(40)
    asked = walk("ddim", 40, net, schedule)
    x = asked[0][1]
    for index, t in enumerate(reference.timesteps):
        torch.testing.assert_close(asked[index][1], x, rtol=1e-3, atol=1e-4)
        x = reference.step(net(x, t.float()).exp() @ torch.linspace(-1, 1, 3), t, x).prev_sample


def test_a_verdict_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    model = build()
    classifier = DiffusionClassifier(diffusion=model, draws=4)
    scores = classifier.classify(IMAGES)
    assert float((scores[:, 0] - scores[:, 1]).abs().min()) > 1e-3
    order = torch.randperm(len(IMAGES))
    torch.testing.assert_close(classifier.classify(IMAGES[order]), scores[order])
    torch.testing.assert_close(
        torch.cat([classifier.classify(part) for part in IMAGES.split([1, 3, 5])]), scores
    )


def test_classifier_shares_noise_and_finds_the_class() -> None:
    torch.manual_seed(0)
    model = build(train_draws=4)
    classifier = DiffusionClassifier(diffusion=model, draws=16)
    assert classifier.forwards_per_image == 32
    # Class 0 is dark, class 1 is bright, with one image in common.
    dark, bright = torch.tensor([[0, 0], [0, 1], [1, 1]]), torch.tensor([[2, 2], [2, 1], [1, 1]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        y = torch.randint(0, 2, (64,))
        pick = torch.randint(0, 3, (64,))
        x = torch.where(y[:, None] == 0, dark[pick], bright[pick])[:, None]
        optimizer.zero_grad()
        loss = classifier(pixels=x, labels=y).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < sum(losses[:20])
    scores = classifier.classify(torch.cat([dark[:2], bright[:2]])[:, None])
    assert scores.shape == (4, 2)
    assert scores.argmax(-1).tolist() == [0, 0, 1, 1]
    assert float(scores.softmax(-1).max(-1).values.min()) > 0.9
    # Two classes that the network cannot tell apart score the same to the last bit.
    with torch.no_grad():
        model.network.table.weight[1] = model.network.table.weight[0]  # type: ignore[attr-defined]
    same = classifier.classify(IMAGES)
    torch.testing.assert_close(same[:, 0], same[:, 1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"sampler": "euler"}, "sampler"),
        ({"sampling_steps": 9}, "sampling_steps"),
        ({"draws": 0}, "draws"),
        ({"log_snr_min": 4.0}, "log_snr_min"),
        ({"reconstruction_share": 0.0}, "reconstruction_share"),
        ({"levels": 1}, "levels"),
    ],
)
def test_bad_values_are_named(changes: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        build(**changes)


def test_sampling_needs_a_class() -> None:
    with pytest.raises(ValueError, match="condition"):
        build().sample(2)
