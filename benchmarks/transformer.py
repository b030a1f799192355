"""Transformer against transformers' Llama and nanoGPT's model: training step and decoding.

    python -m benchmarks.transformer [--rows ROW ...] [--length 512 2048] [--seconds 15]
                                     [--nanogpt PATH]

Four layers, width 256, batch 4, fp32, two threads; a training step is forward and backward. Llama
holds the same weights. nanoGPT's blocks are cheaper (LayerNorm and GELU instead of RMSNorm and
SwiGLU, a table of positions instead of RoPE) and as large.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bench.sizes import Solve, solve
from benchmarks.rows.command import main
from benchmarks.rows.decoding import DECODED, decoding
from benchmarks.rows.rivals import NANOGPT
from benchmarks.rows.row import Pair, Row, Setting, Side
from benchmarks.rows.training import (
    BATCH,
    LAYERS,
    VOCABULARY,
    WIDTH,
    cross_entropy,
    parameters_of,
    renamed,
    step,
    tokens_of,
    training,
)
from models.backbones.attention import attend
from models.backbones.norm import RMSNorm
from models.backbones.transformer import CHECKPOINT_NAMES, Transformer
from models.objectives.autoregressive import LanguageModel

HEADS = 4
# 3 x 688 is 2 x 4 x 256 of the GELU MLP, to the 16 numbers of a cache line: products of 684 columns
# take 6 % longer.
D_FF = 688


def transformer(layers: int = LAYERS, d_ff: int = D_FF) -> LanguageModel:
    """Ours."""
    backbone = Transformer(
        d_model=WIDTH,
        n_layers=layers,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        d_ff=d_ff,
        attention="sdpa",
        causal=True,
        qk_norm=False,
        mlp="swiglu",
        rope_theta=10000.0,
        norm_eps=1e-6,
        residual_init=1.0,
    )
    return LanguageModel(backbone=backbone, vocab_size=VOCABULARY, init="backbone")


def library(ours: LanguageModel) -> LlamaForCausalLM:
    """transformers' Llama with the weights of ours."""
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=D_FF,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=2048,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )
    theirs.load_state_dict(renamed(ours, CHECKPOINT_NAMES))
    return theirs.train()


def llama(setting: Setting) -> Pair:
    """A training step against transformers."""
    ours = transformer()
    theirs = library(ours)
    pair = training(setting, ours, theirs, lambda x: theirs(x, use_cache=False).logits)
    return replace(pair, flops=flops_of_step(ours, setting))


def nanogpt(setting: Setting) -> Pair:
    """A training step against nanoGPT's model, whose own loss it is."""
    module = NANOGPT.load(setting, "model.py")
    ours = transformer()
    config = module.GPTConfig(
        block_size=setting.length,
        vocab_size=VOCABULARY,
        n_layer=LAYERS,
        n_head=HEADS,
        n_embd=WIDTH,
        dropout=0.0,
        bias=False,  # its own words: "a bit better and faster"
    )
    theirs = module.GPT(config)
    tokens = tokens_of(setting)
    return Pair(
        step(lambda: cross_entropy(ours.next_logits(tokens), tokens), ours),
        step(lambda: theirs(tokens, tokens)[1], theirs),
        sizes(ours, theirs),
        flops_of_step(ours, setting),
    )


def flops_of_step(model: LanguageModel, setting: Setting) -> int | None:
    """The backward's matrix products are twice as many as the forward's."""
    forward = model.flops(BATCH, setting.length)
    return None if forward is None else 3 * forward


def sizes(ours: torch.nn.Module, theirs: torch.nn.Module) -> str:
    """Parameters of both, in words."""
    return f"{parameters_of(ours):,} parameters, theirs {parameters_of(theirs):,}"


def as_large_as(model: LanguageModel, layers: int) -> LanguageModel:
    """A Transformer of that many layers and parameters; its feed-forward width is solved for."""

    def count(d_ff: int) -> int:
        with torch.device("meta"):
            return parameters_of(transformer(layers, d_ff))

    rule = Solve("d_ff", low=16, high=16384, step=16)
    return transformer(layers, solve(count, parameters_of(model), rule))


def against_transformer(setting: Setting, ours: LanguageModel, layers: int) -> Pair:
    """A training step of another family against the Transformer of its parameters and width."""
    theirs = as_large_as(ours, layers)
    return training(setting, ours, theirs, theirs.next_logits, sizes(ours, theirs))


def decode(setting: Setting) -> Pair:
    """Greedy decoding with a cache against transformers' `generate`."""
    ours = transformer()
    return decoding(ours, library(ours))


def attention(setting: Setting) -> Pair:
    """Our fused causal attention against torch's, forward and backward."""
    shape = (BATCH, setting.length, HEADS, WIDTH // HEADS)
    q, k, v, grad = (torch.randn(shape).transpose(1, 2) for _ in range(4))
    given = tuple(x.requires_grad_() for x in (q, k, v))

    def side(output: Tensor) -> None:
        torch.autograd.grad(output, given, grad)

    def library() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def ours() -> Tensor:
        return attend(q, k, v, kernel="sdpa", causal=True)

    resident = (*given, grad)
    return Pair(Side(lambda: side(ours()), resident), Side(lambda: side(library()), resident), "")


def norm(setting: Setting) -> Pair:
    """Our RMSNorm against torch's, forward and backward, to keep the reason for it in sight."""
    layer = RMSNorm(WIDTH, 1e-6)
    x = torch.randn(BATCH, setting.length, WIDTH, requires_grad=True)
    grad = torch.randn_like(x)

    def library() -> Tensor:
        return F.rms_norm(x, (WIDTH,), layer.weight, 1e-6)

    def side(output: Tensor) -> None:
        torch.autograd.grad(output, (x, layer.weight), grad)

    resident = (x, grad, layer.weight)
    return Pair(Side(lambda: side(layer(x)), resident), Side(lambda: side(library()), resident), "")


ROWS = (
    Row("transformer-llama", "Transformer against transformers' Llama", 1.1, llama, ceiling=0.85),
    Row("transformer-nanogpt", "Transformer against nanoGPT's model", 1.1, nanogpt, ceiling=0.85),
    Row("transformer-decode", "Transformer decoding against generate", 3.0, decode, DECODED),
)
# Not in the table.
MORE = (
    Row("attention", "Causal attention against one call of torch's", 1.0, attention),
    Row("norm", "RMSNorm against torch's", 1.0, norm),
)


if __name__ == "__main__":
    main(__doc__, (*ROWS, *MORE))
