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


def test_matrices_of_different_dtypes_are_not_stacked() -> None:
    torch.manual_seed(0)
    single, double = (
        nn.Parameter(torch.randn(4, 6, dtype=d)) for d in (torch.float32, torch.float64)
    )
    alone = nn.Parameter(single.detach().clone())
    for matrix in (single, double, alone):
        matrix.grad = torch.linspace(-1, 1, 24, dtype=matrix.dtype).view(4, 6)
    BatchedMuon([single, double], lr=0.1, weight_decay=0.0).step()
    BatchedMuon([alone], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(single, alone)
    assert double.dtype == torch.float64


def test_matrices_of_different_devices_are_not_one_batch() -> None:
    shapes = {"cpu": (4, 6), "meta": (6, 4)}
    pairs = [(torch.ones(shape, device=name), torch.ones(())) for name, shape in shapes.items()]
    assert [[m.device.type for m, _ in batch] for batch in muon._batches(pairs)] == [
        ["cpu"],
        ["meta"],
    ]


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_an_empty_matrix_is_left_alone(shape: tuple[int, int]) -> None:
    empty, full = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(2, 2))
    for matrix in (empty, full):
        matrix.grad = torch.ones_like(matrix)
    BatchedMuon([empty, full], lr=1.0, weight_decay=0.0).step()
    assert empty.shape == shape
    assert not torch.equal(full, torch.ones(2, 2))


def test_groups_have_decays_of_their_own() -> None:
    free, kept = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    groups = [{"params": [free], "weight_decay": 0.5}, {"params": [kept], "weight_decay": 0.0}]
    for matrix in (free, kept):
        matrix.grad = torch.zeros(2, 2)
    BatchedMuon(groups, lr=0.1, weight_decay=1.0).step()
    assert torch.equal(free, torch.full((2, 2), 0.95))
    assert torch.equal(kept, torch.ones(2, 2))


def test_bfloat16_is_asked_of_the_device_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cards, of which the second alone has the instructions."""
    current = [0]

    class Entered:
        def __init__(self, device: torch.device) -> None:
            self.index = device.index

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *_: object) -> None:
            current.pop()

    monkeypatch.setattr(torch.cuda, "device", Entered)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1] == 1
    )
    ask = muon.multiplies_bfloat16.__wrapped__  # nothing of this is to be remembered
    assert [ask(torch.device("cuda", index)) for index in (0, 1)] == [False, True]
