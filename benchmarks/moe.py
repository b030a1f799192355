"""Mixture of experts, 2 of 8, against transformers' Mixtral: a training step.

    python -m benchmarks.moe [--rows ROW ...] [--length 512 2048] [--seconds 15]

Four layers, width 256, batch 4, fp32, two threads; a training step is forward and backward, the
loss that balances the experts included on both sides (and our z-loss on ours). Mixtral holds the
same weights and runs its experts in the faster of its ways. Beside the table: against the dense
Transformer of the active parameters, where a ratio of 2/3 means 1.5 times its time.
"""

from functools import partial

import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from benchmarks.rows.command import main
from benchmarks.rows.row import Pair, Row, Setting
from benchmarks.rows.training import (
    LAYERS,
    VOCABULARY,
    WIDTH,
    alike,
    cross_entropy,
    faster,
    renamed,
    step,
    tokens_of,
)
from benchmarks.transformer import HEADS, sizes, transformer
from models.backbones.moe import CHECKPOINT_NAMES, MoE
from models.objectives.autoregressive import LanguageModel

EXPERTS, ACTIVE = 8, 2
D_EXPERT = 344  # two are as wide together as the dense MLP
EXPERTS_RUN_AS = ("grouped_mm", "eager")  # batched_mm copies the weights for each token
BALANCE = 0.01


def moe() -> LanguageModel:
    """Ours."""
    backbone = MoE(
        d_model=WIDTH,
        n_layers=LAYERS,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        d_expert=D_EXPERT,
        n_experts=EXPERTS,
        top_k=ACTIVE,
        d_shared=0,
        balance_weight=BALANCE,
        z_weight=0.001,
        attention="sdpa",
        causal=True,
        qk_norm=False,
        rope_theta=10000.0,
        norm_eps=1e-6,
        residual_init=1.0,
    )
    return LanguageModel(backbone=backbone, vocab_size=VOCABULARY, init="backbone")


def loss(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Cross-entropy and the router's losses."""
    hidden, losses = model.backbone(model.embedding(tokens))
    return cross_entropy(model.lm_head(hidden), tokens) + sum(losses.values())


def library(ours: LanguageModel) -> MixtralForCausalLM:
    """transformers' Mixtral with the weights of ours."""
    theirs = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=D_EXPERT,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            num_local_experts=EXPERTS,
            num_experts_per_tok=ACTIVE,
            router_aux_loss_coef=BALANCE,
            output_router_logits=True,
            max_position_embeddings=2048,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False,
            sliding_window=None,
        )
    )
    state = renamed(ours, CHECKPOINT_NAMES)
    for key in [key for key in state if key.endswith("experts.gate_proj")]:
        base = key.removesuffix("gate_proj")
        gate, up, down = (
            state.pop(base + name).unflatten(0, (EXPERTS, -1))  # (E, F, D)
            for name in ("gate_proj", "up_proj", "down_proj")
        )
        state[base + "gate_up_proj"] = torch.cat((gate, up), 1)  # (E, 2F, D)
        state[base + "down_proj"] = down.transpose(1, 2)  # (E, D, F)
    theirs.load_state_dict(state)
    return theirs.train()


def mixtral(setting: Setting) -> Pair:
    """A training step against transformers."""
    tokens = tokens_of(setting)
    ours = moe()
    theirs = library(ours)

    def their_loss() -> Tensor:
        out = theirs(tokens, use_cache=False)
        return cross_entropy(out.logits, tokens) + BALANCE * out.aux_loss

    def run_as(experts: str) -> Tensor:
        theirs.set_experts_implementation(experts)
        return their_loss()

    best = faster({name: step(partial(run_as, name), theirs) for name in EXPERTS_RUN_AS})
    theirs.set_experts_implementation(best)
    with torch.no_grad():
        note = alike("logits", ours.next_logits(tokens), theirs(tokens, use_cache=False).logits)
    note = f"{note}; their experts run as {best}"
    return Pair(step(lambda: loss(ours, tokens), ours), step(their_loss, theirs), note)


def dense(setting: Setting) -> Pair:
    """A training step against the dense model of the active parameters."""
    tokens = tokens_of(setting)
    ours, theirs = moe(), transformer()
    return Pair(
        step(lambda: loss(ours, tokens), ours),
        step(lambda: cross_entropy(theirs.next_logits(tokens), tokens), theirs),
        sizes(ours, theirs),
    )


ROWS = (Row("moe-mixtral", "MoE against transformers' Mixtral", 1.5, mixtral),)
# Not in the table.
MORE = (Row("moe-dense", "MoE against the dense Transformer", 1 / 1.5, dense),)


if __name__ == "__main__":
    main(__doc__, (*ROWS, *MORE))
