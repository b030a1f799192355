"""Memory against tensors of known size."""

import pytest
import torch
from torch import nn

from bench.meters.memory import nbytes, peak_of

CPU = torch.device("cpu")
MEGA = 250_000  # float32 values of a megabyte


def test_peak_counts_what_is_alive_at_once() -> None:
    model = nn.Linear(500, 500, bias=False)  # 1 MB

    def call() -> None:
        for _ in range(5):
            torch.ones(2 * MEGA)  # dies at once
        first = torch.ones(3 * MEGA)
        second = first + 1
        del first
        second.mul_(2)

    peak = peak_of(call, model, CPU)
    assert peak["peak_bytes"] == pytest.approx(7e6, rel=0.02)
    assert peak["parameters_bytes"] == 1_000_000
    assert peak["method"] == "CPU allocator events"


def test_views_are_counted_once() -> None:
    def call() -> None:
        base = torch.zeros(4 * MEGA)
        _ = [base.view(2, -1).t() for _ in range(10)]

    assert peak_of(call, nn.Identity(), CPU)["peak_bytes"] == pytest.approx(4e6, rel=0.02)


def test_activations_kept_for_backward_are_seen() -> None:
    class Squares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                x = (x * self.scale).sin()  # each keeps its input and its product
            return x.sum()

    model = Squares()
    x = torch.ones(MEGA)
    kept = peak_of(lambda: model(x), model, CPU)["peak_bytes"]
    with torch.no_grad():
        free = peak_of(lambda: model(x), model, CPU)["peak_bytes"]
    assert kept == pytest.approx(8e6, rel=0.05)
    assert free < 4e6


def test_bytes_of_shared_storage() -> None:
    base = torch.zeros(10)
    assert nbytes([base, base[:5], None]) == 40


def test_a_training_step_counts_gradients_and_moments_once() -> None:
    """Weights, gradients and two moments of 1 MB each last; the step itself needs little."""
    model = nn.Linear(500, 500, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.ones(1, 500)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x).sum().backward()
        optimizer.step()

    step()
    moments = [v for s in optimizer.state.values() for v in s.values() if v.ndim]
    peak = peak_of(step, model, CPU, others=moments)["peak_bytes"]
    assert nbytes(moments) == 2_000_000
    assert peak == pytest.approx(4e6, rel=0.02)
