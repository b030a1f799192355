"""BatchedMuon against torch.optim.Muon and against the polynomial on singular values."""

import pytest
import torch
from torch import Tensor, nn

from bench import muon
from bench.muon import BatchedMuon, orthogonalised

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = [(6, 6), (6, 9), (9, 6), (12, 3), (6, 9), (3, 12), (6, 6)]


def polynomial(matrix: Tensor, iterations: int) -> Tensor:
    """What the iteration does, by way of an SVD in float64."""
    a, b, c = COEFFICIENTS
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    for _ in range(iterations):
        values = a * values + b * values**3 + c * values**5
    return left @ values.diag() @ right


@pytest.mark.parametrize("shape", [(5, 5), (5, 20), (2, 96)])
def test_iteration_is_the_polynomial_on_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    batch = torch.randn(4, *shape) * torch.tensor([1e-3, 1.0, 10.0, 1e4])[:, None, None]
    ours = orthogonalised(
        batch, dtype=torch.float32, coefficients=COEFFICIENTS, iterations=5, eps=1e-7
    )
    for one, matrix in zip(ours, batch, strict=True):
        torch.testing.assert_close(one.double(), polynomial(matrix, 5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("limit", [2**22, 100, 1])
def test_updates_are_those_of_torch(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "BATCH_ELEMENTS", limit)
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in SHAPES]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    rivals = (
        BatchedMuon(ours, lr=0.1, weight_decay=0.3),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=0.3),
    )
    for step in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours[step].grad = theirs[step].grad = None  # left alone, decay included
        for optimizer in rivals:
            optimizer.step()
    for p, q, before in zip(ours, theirs, start, strict=True):
        # torch iterates in bfloat16, eight bits; the distance travelled is of the order of one.
        assert (q - before).norm() > 0.5
        assert (p - q).norm() < 0.02 * (q - before).norm()


def test_gradient_of_zero_moves_nothing() -> None:
    matrix = nn.Parameter(torch.ones(3, 4))
    matrix.grad = torch.zeros(3, 4)
    BatchedMuon([matrix], lr=1.0, weight_decay=0.0).step()
    assert torch.equal(matrix, torch.ones(3, 4))


def test_vectors_and_closures_are_refused() -> None:
    with pytest.raises(ValueError, match="2D"):
        BatchedMuon([nn.Parameter(torch.ones(3))], lr=1.0, weight_decay=0.0)
    optimizer = BatchedMuon([nn.Parameter(torch.ones(3, 3))], lr=1.0, weight_decay=0.0)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
