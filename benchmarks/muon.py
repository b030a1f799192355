"""BatchedMuon against torch.optim.Muon: one update of the matrices of three networks.

    python -m benchmarks.muon

The shapes are those of the Transformer and the mixture of experts at size nano, where many small
matrices make the loop slow, and of a Transformer of 12 layers of width 768, where they do not:
there the batched form must not lose.
"""

import torch
from torch import nn

from bench.muon import BatchedMuon
from benchmarks.ab import compare

Shapes = list[tuple[int, int]]
NETWORKS: dict[str, Shapes] = {
    "Transformer nano": 3 * ([(96, 96), (32, 96)] * 2 + [(204, 96)] * 2 + [(96, 204)]),
    "MoE nano": 3 * ([(96, 96), (32, 96)] * 2 + [(8, 96)] + [(416, 96)] * 3 + [(96, 96)] * 3),
    "Transformer of 75 M": 12 * ([(768, 768), (256, 768)] * 2 + [(2048, 768)] * 2 + [(768, 2048)]),
}
TARGET = 0.97
SECONDS = 8.0


def matrices(shapes: Shapes) -> list[nn.Parameter]:
    """Parameters of these shapes, each with a gradient."""
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    return made


def main() -> None:
    """Compare on every network."""
    for name, shapes in NETWORKS.items():
        ours = BatchedMuon(matrices(shapes), lr=0.02, weight_decay=0.01)
        theirs = torch.optim.Muon(matrices(shapes), lr=0.02, weight_decay=0.01)
        compare(f"update of {name}", ours.step, theirs.step, seconds=SECONDS, target=TARGET)


if __name__ == "__main__":
    main()
