"""Folders of transformers, as `save_pretrained` writes them: a config.json and safetensors.

The library itself reads and writes them, so that its conversions between versions apply. Code that
comes with a model is never run.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from models.backbones.transformers_decoder import TransformersDecoder
from models.checkpoints.checkpoint import START_FILE, Checkpoint, readable, some
from models.checkpoints.counterparts import (
    TYPES,
    arguments_of,
    config_of,
    experts_of,
    from_library,
    to_library,
)
from models.objectives.autoregressive import LanguageModel

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
ANY = "hf"  # the family that takes every causal decoder of the library
PROBE = 16  # symbols on which what was read is compared with the library's own model


def read(folder: Path, family: str) -> Checkpoint:
    """The checkpoint in `folder`. `ValueError` says what was found and what is needed."""
    with readable(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    allowed = TYPES.get(family, ())
    if family != ANY and config.model_type not in allowed:
        raise ValueError(_foreign(folder, config.model_type, family))
    if family != ANY:
        try:
            arguments = arguments_of(config)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}; model=hf runs the library's own class") from error
    model = _whole(folder)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding is None or head is None:
        raise ValueError(f"{folder} holds a {type(model).__name__}, which is no language model")
    rows = torch.arange(embedding.weight.shape[0])
    base = model.base_model
    inside = {
        name: value
        for name, value in base.state_dict().items()
        if value is not embedding.weight and not _is(base, name, embedding)
    }
    weights = {
        "embedding.weight": embedding(rows).detach(),  # some classes scale what they look up
        "lm_head.weight": head.weight.detach(),
    }
    if family == ANY:
        weights |= {f"backbone.model.{name}": value for name, value in inside.items()}
        arguments = {"name": str(folder), "options": {}, "small": {}}
        _check(model, weights, folder)
    else:
        weights |= {f"backbone.{name}": value for name, value in from_library(inside).items()}
    if (folder / START_FILE).is_file():
        with readable(folder / START_FILE):
            weights |= load_file(folder / START_FILE)
    given = [config.bos_token_id, config.eos_token_id, 0]
    start = next(token for token in given if isinstance(token, int) and 0 <= token < len(rows))
    has_tokenizer = any((folder / name).is_file() for name in TOKENIZERS)
    return Checkpoint(
        path=folder,
        arguments=arguments,
        weights=weights,
        start=start,
        tied=torch.equal(weights["embedding.weight"], weights["lm_head.weight"]),
        tokenizer=str(folder) if has_tokenizer else None,
    )


def write(model: LanguageModel, folder: Path) -> None:
    """Write `model` into `folder`. `ValueError` where the library has no class that computes it."""
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    if isinstance(backbone, TransformersDecoder):
        config = backbone.config(model.vocab_size)
        weights = {
            name.removeprefix("model."): value for name, value in backbone.state_dict().items()
        }
    else:
        config = config_of(backbone, vocab_size=model.vocab_size)
        if config.model_type == "mamba2" and not float(config.expand).is_integer():
            raise ValueError(
                f"nheads * headdim is {config.num_heads * config.head_dim}; a folder of "
                f"transformers holds whole multiples of d_model, {config.hidden_size}"
            )
        if config.model_type == "mamba2":
            config.expand = int(config.expand)
        weights = to_library(backbone.state_dict(), experts_of(backbone))
    config.tie_word_embeddings = model.lm_head.weight is model.embedding.weight
    theirs = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    base = theirs.base_model
    table = theirs.get_input_embeddings()
    with torch.no_grad():
        table.weight.copy_(model.embedding.weight)
        theirs.get_output_embeddings().weight.copy_(model.lm_head.weight)
    own = {name for name in base.state_dict() if not _is(base, name, table)}
    if own != weights.keys():
        raise ValueError(
            f"{some(sorted(own ^ weights.keys()))} has no place in {config.model_type}"
        )
    base.load_state_dict(weights, strict=False)
    theirs.save_pretrained(folder)
    save_file({"start.weight": model.start.weight.detach().contiguous()}, folder / START_FILE)


def _foreign(folder: Path, found: str, family: str) -> str:
    fitting = [name for name, types in TYPES.items() if found in types] + [ANY]
    needed = ", ".join(TYPES.get(family, ())) or "another format"
    cures = " or ".join(f"model={name}" for name in fitting)
    return (
        f"{folder} holds a checkpoint of type {found}; model={family} needs {needed}; set {cures}"
    )


def _whole(folder: Path) -> PreTrainedModel:
    """The library's own model, every tensor of it from the files."""
    with readable(folder), _quiet():
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the sizes
        )
    # The library itself draws what it does not find anew, and only warns.
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder} lacks {some(missing)}")
    if wrong := sorted(info["mismatched_keys"]):
        name, found, needed = wrong[0]
        raise ValueError(f"{folder}: {name} is of shape {tuple(found)}; needed is {tuple(needed)}")
    return model.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own report of missing tensors, which is an error here."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _is(base: nn.Module, name: str, table: nn.Module) -> bool:
    """Whether a tensor of the base model belongs to the embedding."""
    return base.get_submodule(name.rpartition(".")[0]) is table


@torch.no_grad()
def _check(model: PreTrainedModel, weights: dict[str, Tensor], folder: Path) -> None:
    """Refuse a model that is more than embedding, decoder and a linear read-out.

    Some cap or scale their logits, or have a bias there.
    """
    table = weights["embedding.weight"]
    tokens = torch.arange(PROBE)[None] % len(table)
    expected = model(tokens).logits
    hidden = model.base_model(inputs_embeds=table[tokens]).last_hidden_state
    difference = float((hidden @ weights["lm_head.weight"].T - expected).abs().max())
    if difference > 1e-3 * max(1.0, float(expected.abs().max())):
        raise ValueError(
            f"{folder}: {type(model).__name__} is more than embedding, decoder and linear "
            f"read-out: logits differ by {difference:.2g}"
        )
