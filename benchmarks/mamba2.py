"""Mamba-2 against transformers' torch path and the listing of its paper.

    python -m benchmarks.mamba2 [--rows ROW ...] [--length 512 2048] [--seconds 15]
                                [--mamba-ssm PATH]

Four layers, width 256, batch 4, fp32, two threads; a training step is forward and backward.
transformers' chunk is 256 by default, and ours 64: the row is against whichever of the two is the
faster there. The official minimal SSD (listing 1 of arXiv:2405.21060) stands in our model in the
place of our recurrence, so that all else is equal; beside the table's rows the recurrence of one
layer alone is compared.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor
from transformers import Mamba2Config, Mamba2ForCausalLM

from benchmarks.mamba import NAMES
from benchmarks.rows.command import main
from benchmarks.rows.decoding import DECODED, decoding
from benchmarks.rows.rivals import MAMBA_SSM
from benchmarks.rows.row import Pair, Row, Setting, Side
from benchmarks.rows.training import (
    BATCH,
    LAYERS,
    VOCABULARY,
    WIDTH,
    alike,
    cross_entropy,
    faster,
    renamed,
    step,
    tokens_of,
    training,
)
from models.backbones.mamba2 import Mamba2
from models.objectives.autoregressive import LanguageModel

Form = Callable[..., tuple[Tensor, Tensor]]
HEADS, HEAD_WIDTH, STATES, CHUNK = 8, 64, 64, 64
CHUNKS = (64, 256)
LISTING = "mamba_ssm/modules/ssd_minimal.py"
TRITON = ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.ops.triton.ssd_combined")


def mamba2() -> LanguageModel:
    """Ours."""
    backbone = Mamba2(
        d_model=WIDTH,
        n_layers=LAYERS,
        nheads=HEADS,
        headdim=HEAD_WIDTH,
        d_state=STATES,
        ngroups=1,
        d_conv=4,
        chunk_size=CHUNK,
        negative_eigenvalues=False,
        norm_eps=1e-5,
        kernel="auto",
        residual_init="scaled",
    )
    return LanguageModel(backbone=backbone, vocab_size=VOCABULARY, init="backbone")


def library(ours: LanguageModel, chunk: int) -> Mamba2ForCausalLM:
    """transformers' Mamba-2 on its torch path, with the weights of ours."""
    theirs = Mamba2ForCausalLM(
        Mamba2Config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_heads=HEADS,
            head_dim=HEAD_WIDTH,
            state_size=STATES,
            n_groups=1,
            chunk_size=chunk,
            tie_word_embeddings=False,
        )
    )
    theirs.load_state_dict(renamed(ours, NAMES))
    return theirs.train()


def torch_path(setting: Setting) -> Pair:
    """A training step against transformers, at the chunk that is the faster one for it."""
    ours = mamba2()
    tokens = tokens_of(setting)

    def logits(theirs: Mamba2ForCausalLM, tokens: Tensor) -> Tensor:
        return theirs(input_ids=tokens, use_cache=False).logits

    def side(theirs: Mamba2ForCausalLM) -> Side:
        return step(lambda: cross_entropy(logits(theirs, tokens), tokens), theirs)

    rivals = {str(chunk): library(ours, chunk) for chunk in CHUNKS}
    chunk = faster({chunk: side(theirs) for chunk, theirs in rivals.items()})
    pair = training(setting, ours, rivals[chunk], partial(logits, rivals[chunk]))
    return replace(pair, note=f"{pair.note}; their chunk is {chunk}")


def listing(
    module: ModuleType, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    state: Tensor | None, *_: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The listing with the signature of `models.backbones.ssd.ssd_reference`, no first state."""
    assert state is None
    B, C = (t.expand(-1, -1, x.shape[2], -1) for t in (B, C))  # (B, T, H, N)
    y, last = module.ssd_minimal_discrete(x * delta.unsqueeze(-1), delta * A, B, C, CHUNK)
    return torch.addcmul(y, D.unsqueeze(-1), x), last


def minimal(setting: Setting) -> Pair:
    """A training step of our model against that with the listing as its recurrence."""
    theirs_ssd = partial(listing, MAMBA_SSM.load(setting, LISTING, TRITON))
    ours, theirs = mamba2(), mamba2()
    theirs.load_state_dict(ours.state_dict())

    def logits(tokens: Tensor) -> Tensor:
        with (
            mock.patch("models.kernels.ssd.ssd_fused", theirs_ssd),
            mock.patch("models.backbones.mamba2.ssd_chunked", theirs_ssd),
        ):
            return theirs.next_logits(tokens)

    return training(setting, ours, theirs, logits)


def recurrence(setting: Setting) -> Pair:
    """Forward and backward of the recurrence of one layer, fused against the listing."""
    from models.kernels.ssd import ssd_fused

    shape = (BATCH, setting.length)
    given = (
        torch.randn(*shape, HEADS, HEAD_WIDTH),
        torch.rand(*shape, HEADS) * 0.1,
        -torch.arange(1.0, HEADS + 1),
        torch.randn(*shape, 1, STATES),
        torch.randn(*shape, 1, STATES),
        torch.randn(HEADS),
    )
    inputs = [x.requires_grad_() for x in given]

    def output(form: Form) -> Tensor:
        return form(*inputs, None)[0]

    def side(form: Form) -> Side:
        return Side(lambda: torch.autograd.grad(output(form).sum(), inputs), inputs)

    theirs = partial(listing, MAMBA_SSM.load(setting, LISTING, TRITON))
    note = alike("outputs", output(ssd_fused), output(theirs))
    return Pair(side(ssd_fused), side(theirs), note)


def decode(setting: Setting) -> Pair:
    """Greedy decoding against transformers' `generate`."""
    ours = mamba2()
    return decoding(ours, library(ours, CHUNKS[-1]))


ROWS = (
    Row("mamba2-torch-path", "Mamba-2 against transformers' torch path", 1.3, torch_path),
    Row("mamba2-minimal", "Mamba-2 against the official minimal SSD", 1.3, minimal),
    Row("mamba2-decode", "Mamba-2 decoding against generate", 3.0, decode, DECODED),
)
# Not in the table.
MORE = (Row("ssd-minimal", "SSD alone against the official minimal SSD", 1.3, recurrence),)


if __name__ == "__main__":
    main(__doc__, (*ROWS, *MORE))
