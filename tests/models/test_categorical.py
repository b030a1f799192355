"""One way of drawing symbols, whatever the shape, every symbol as often as it should."""

import torch

from models.objectives import autoregressive, diffusion_sampling, masked_diffusion
from models.objectives.categorical import draw


def test_frequencies_follow_the_logits_in_any_shape() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, -torch.inf]])
    rows = logits.expand(20_000, 4, 2, 3)
    drawn = draw(rows, torch.Generator().manual_seed(0))  # (20000, 4, 2)
    assert drawn.shape == (20_000, 4, 2)
    share = torch.stack([(drawn == v).float().mean((0, 1)) for v in range(3)], -1)  # (2, 3)
    torch.testing.assert_close(share, logits.softmax(-1), atol=0.006, rtol=0)
    assert not (drawn[..., 1] == 2).any()


def test_log_probabilities_and_a_flat_batch_draw_the_same() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    draws = [
        draw(x, torch.Generator().manual_seed(2)).flatten()
        for x in (logits, logits.log_softmax(-1), logits.view(2, 3, 5))
    ]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])


def test_every_objective_draws_by_it() -> None:
    for module in (autoregressive, diffusion_sampling, masked_diffusion):
        assert module.draw is draw
