"""Mixture of experts, 2 of 8, against the dense model of its active parameters: a training step.

    python -m benchmarks.moe

A ratio of theirs to ours of 2/3 means 1.5 times the dense model's time.
"""

import torch

from benchmarks.ab import THREADS, compare, train_step
from benchmarks.transformer import (
    BATCH,
    D_FF,
    D_MODEL,
    HEADS,
    LAYERS,
    LENGTH,
    VOCAB,
    Model,
    cross_entropy,
    ours,
)
from models.backbones.moe import MoE

SECONDS = 20.0


def sparse() -> Model:
    """Eight experts, two of them as wide together as the dense MLP."""
    return Model(
        MoE(
            d_model=D_MODEL,
            n_layers=LAYERS,
            n_heads=HEADS,
            n_kv_heads=HEADS,
            d_expert=D_FF // 2,
            n_experts=8,
            top_k=2,
            d_shared=0,
            balance_weight=0.01,
            z_weight=0.001,
            attention="sdpa",
            causal=True,
            qk_norm=False,
            rope_theta=10000.0,
            norm_eps=1e-6,
            residual_init=1.0,
        )
    )


def main() -> None:
    """Print the ratio."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    tokens = torch.randint(VOCAB, (BATCH, LENGTH))
    labels = torch.randint(VOCAB, (BATCH, LENGTH))
    moe, dense = sparse(), ours()

    def loss() -> torch.Tensor:
        hidden, losses = moe.backbone(moe.embedding(tokens))
        return cross_entropy(moe.lm_head(hidden), labels) + sum(losses.values())

    compare(
        "moe 8x2 train step against the dense Transformer",
        train_step(loss, moe.parameters()),
        train_step(lambda: cross_entropy(dense(tokens), labels), dense.parameters()),
        seconds=SECONDS,
        target=1 / 1.5,
    )


if __name__ == "__main__":
    main()
