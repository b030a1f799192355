"""Small checkpoints that the official classes make, and our models of them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from models.backbones.mamba import Mamba
from models.backbones.mamba2 import Mamba2
from models.backbones.moe import MoE
from models.backbones.rwkv7 import RWKV7
from models.backbones.transformer import Transformer
from models.backbones.transformers_decoder import TransformersDecoder
from models.checkpoints.checkpoint import Checkpoint
from models.checkpoints.formats import Formats
from models.objectives.autoregressive import LanguageModel

VOCAB = 41
ATTENTION = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 3,
    "eos_token_id": 4, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip
SSM = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8,
    "bos_token_id": 3, "eos_token_id": 4, "pad_token_id": None,
}  # fmt: skip
# Family of ours, type of the library, its configuration.
OFFICIAL: list[tuple[str, str, dict[str, Any]]] = [
    ("transformer", "llama", ATTENTION),
    ("transformer", "llama", {**ATTENTION, "tie_word_embeddings": True}),
    ("transformer", "mistral", {**ATTENTION, "sliding_window": None}),
    ("transformer", "qwen3", ATTENTION),
    ("moe", "mixtral", {**ATTENTION, "sliding_window": None, "num_local_experts": 4}),
    (
        "moe",
        "qwen3_moe",
        {
            **ATTENTION, "num_local_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True,
            "moe_intermediate_size": 12,
        },
    ),
    ("mamba", "mamba", {**SSM, "tie_word_embeddings": True}),
    ("mamba2", "mamba2", {**SSM, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 16}),
    ("hf", "gpt2", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 2,
                    "bos_token_id": 3, "eos_token_id": 4}),
    ("hf", "gemma", {**ATTENTION, "tie_word_embeddings": True}),  # scales its embedding
    ("hf", "mamba", SSM),
]  # fmt: skip
FORMS = dict.fromkeys(("transformer", "moe", "hf"), "huggingface") | {
    "mamba": "state_spaces", "mamba2": "state_spaces", "rwkv": "blinkdl",
}  # fmt: skip
PLAIN = {"negative_eigenvalues": False}
OURS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "transformer": (Transformer, {"attention": "sdpa", "causal": True, "residual_init": 1.0}),
    "moe": (MoE, {"attention": "sdpa", "causal": True, "residual_init": 1.0,
                  "balance_weight": 0.0, "z_weight": 0.0}),
    "mamba": (Mamba, {"kernel": "auto", "residual_init": "scaled", "selective": True, **PLAIN}),
    "mamba2": (Mamba2, {"kernel": "auto", "residual_init": "scaled", **PLAIN}),
    "rwkv": (RWKV7, {"kernel": "auto", "chunk": 32, **PLAIN}),
    "hf": (TransformersDecoder, {}),
}  # fmt: skip


def formats(family: str) -> Formats:
    return Formats(family=family, default=FORMS[family])


def official(kind: str, options: dict[str, Any]) -> Any:
    """A small model of the library whose every tensor is off its special initial value."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).eval()
    scattered(model)
    return model


def scattered(model: nn.Module) -> None:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))


def built(family: str, checkpoint: Checkpoint) -> LanguageModel:
    """Our model with what was read."""
    constructor, rest = OURS[family]
    backbone: Any = constructor(**{**rest, **checkpoint.arguments})
    model = LanguageModel(backbone=backbone, vocab_size=checkpoint.vocab_size, init="backbone")
    checkpoint.load(model)
    return model.eval()


def tokens(length: int = 33) -> Tensor:
    return torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def greedy(model: LanguageModel, prompt: Tensor, count: int) -> Tensor:
    """What the model itself goes on with after `prompt`, no start symbol, by its state."""
    state = model.backbone.init_state(len(prompt), device=prompt.device, dtype=torch.float32)
    logits, state = model.prefill(prompt, state)
    written = [logits[:, -1].argmax(-1)]
    while len(written) < count:
        step, state = model.step(written[-1], state)
        written.append(step.argmax(-1))
    return torch.stack(written, 1)


def rwkv(folder: Path, layers: int = 2) -> tuple[LanguageModel, Path]:
    torch.manual_seed(0)
    backbone = RWKV7(d_model=32, n_layers=layers, head_size=16, d_ff=80, decay_rank=4, rate_rank=5,
                     value_rank=3, gate_rank=6, negative_eigenvalues=False, chunk=16,
                     kernel="auto")  # fmt: skip
    model = LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone").eval()
    scattered(model)
    formats("rwkv").write(model, folder / "rwkv.pth")
    return model, folder / "rwkv.pth"


def refused(family: str, path: Path, words: str) -> None:
    """Reading, or loading what was read, ends in one sentence."""
    with pytest.raises(ValueError, match=words) as caught:
        built(family, formats(family).read(str(path)))
    assert len(str(caught.value).splitlines()) == 1


def llama(folder: Path, **changes: Any) -> Path:
    official("llama", {**ATTENTION, **changes}).save_pretrained(folder)
    return folder


def small_mamba(layers: int = 2) -> LanguageModel:
    backbone = Mamba(d_model=32, n_layers=layers, d_state=8, d_conv=4, norm_eps=1e-5, d_inner=64,
                     dt_rank=2, selective=True, negative_eigenvalues=False, kernel="auto",
                     residual_init="scaled")  # fmt: skip
    return LanguageModel(backbone=backbone, vocab_size=VOCAB, init="backbone")


def with_config(folder: Path, changes: dict[str, Any]) -> None:
    """Change values of a folder's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class Command:
    """Leaves a file at `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)
