"""Folders of transformers, as `save_pretrained` writes them: a config.json and safetensors.

The library itself reads and writes them, so that its conversions between versions apply. Code that
comes with a model is never run.
"""

import contextlib
import copy
import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

from models.backbones.transformers_decoder import NO_SYMBOLS, TransformersDecoder
from models.checkpoints.checkpoint import (
    START,
    START_FILE,
    Checkpoint,
    readable,
    some,
    start_of,
    tensors,
    writable,
)
from models.checkpoints.counterparts import (
    TYPES,
    arguments_of,
    check_sizes,
    config_of,
    experts_of,
    from_library,
    to_library,
)
from models.objectives.autoregressive import LanguageModel

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
ANY = "hf"  # the family that takes every causal decoder of the library
FILES = ("model.safetensors", "pytorch_model.bin")  # of weights, whole or by an index
PROBE = 16  # symbols on which what was read is compared with the library's own model


def read(folder: Path, family: str) -> Checkpoint:
    """The checkpoint in `folder`. `ValueError` says what was found and what is needed."""
    with readable(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    allowed = TYPES.get(family, ())
    if family != ANY and config.model_type not in allowed:
        raise ValueError(_foreign(folder, config.model_type, family))
    with readable(folder / "config.json"):
        check_sizes(config.get_text_config())
    if getattr(config, "quantization_config", None):
        raise ValueError(
            f"{folder}: its config.json says that weights are quantised; needed are floats"
        )
    if family != ANY:
        try:
            arguments = arguments_of(config)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}; model=hf runs the library's own class") from error
    model = _whole(folder, config)
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
        arguments = {"name": config.model_type, "options": _options(config), "small": {}}
        _check(model, lambda tokens: _logits(model, weights, tokens), str(folder))
    else:
        weights |= {f"backbone.{name}": value for name, value in from_library(inside).items()}
    weights |= start_of(folder)
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
    """Write `model` into `folder`. `ValueError` where the library has no class that computes it.

    What was written is held against `model`: some classes do more than its parts.
    """
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
    theirs = AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
    base = theirs.base_model
    table = theirs.get_input_embeddings()
    with torch.no_grad():
        nn.init.ones_(table.weight)
        factor = table(torch.zeros(1, dtype=torch.long))  # some classes scale what they look up
        table.weight.copy_(model.embedding.weight / factor)
        theirs.get_output_embeddings().weight.copy_(model.lm_head.weight)
    own = {name for name in base.state_dict() if not _is(base, name, table)}
    if own != weights.keys():
        raise ValueError(
            f"{some(sorted(own ^ weights.keys()))} has no place in {config.model_type}"
        )
    base.load_state_dict(weights, strict=False)
    with _evaluated(model):
        _check(theirs, model.next_logits, f"a folder of {config.model_type} cannot hold it")
    with writable(folder), _quiet():
        theirs.save_pretrained(folder)
        save_file({START: model.start.weight.detach().contiguous()}, folder / START_FILE)


def _foreign(folder: Path, found: str, family: str) -> str:
    fitting = [name for name, types in TYPES.items() if found in types]
    if found in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys():
        fitting.append(ANY)
    needed = ", ".join(TYPES.get(family, ())) or "another format"
    cures = " or ".join(f"model={name}" for name in fitting)
    cure = f"set {cures}" if cures else "no model here reads it"
    return f"{folder} holds a checkpoint of type {found}; model={family} needs {needed}; {cure}"


def _options(config: PretrainedConfig) -> dict[str, Any]:
    """What makes `config` of the defaults of its type; embedding and read-out are ours."""
    own, shared = (
        inspect.signature(kind.__init__).parameters.keys()
        for kind in (type(config), PretrainedConfig)
    )
    taken = own - shared - NO_SYMBOLS.keys() - {"tie_word_embeddings"}
    mine, default = config.to_dict(), AutoConfig.for_model(config.model_type).to_dict()
    names = {name: config.attribute_map.get(name, name) for name in sorted(taken)}
    return {
        name: mine[key] for name, key in names.items()
        if key in mine and mine[key] != default.get(key)
    }  # fmt: skip


def _whole(folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    """The library's own model, every tensor of it from the files and every one of them in it."""
    held: dict[str, Tensor] = {}
    for path in _files(folder):  # their sizes and types alone, so that no second copy is held
        held |= {name: value.to("meta") for name, value in tensors(path).items()}
    _hold(folder, config, held)
    with readable(folder), _quiet():
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the sizes
        )
    # The library itself draws what it does not find anew, leaves out what it has no place for, and
    # only warns.
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder} lacks {some(missing)}")
    if unknown := sorted(info["unexpected_keys"]):
        raise ValueError(f"{folder} holds {some(unknown)}, which its config.json has no place for")
    if wrong := sorted(info["mismatched_keys"]):
        name, found, needed = wrong[0]
        raise ValueError(f"{folder}: {name} is of shape {tuple(found)}; needed is {tuple(needed)}")
    unread = model._keys_to_ignore_on_load_unexpected or ()  # masks of old versions
    for name, value in held.items():
        if not value.is_floating_point() and not any(re.search(key, name) for key in unread):
            raise ValueError(f"{folder}: {name} is of {value.dtype}; needed are floats")
    return model.eval()


def _files(folder: Path) -> list[Path]:
    """Those that the library reads."""
    for name in FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            with readable(index):
                parts = json.loads(index.read_text())["weight_map"].values()
                return sorted({folder / part for part in parts})
    raise ValueError(f"{folder} holds neither {' nor '.join(FILES)}")


def _hold(folder: Path, config: PretrainedConfig, held: dict[str, Tensor]) -> None:
    """Refuse a model far larger than its files before memory is taken for it.

    Tensors that are missing of one of about that size are told by their names later.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if layers > len(held):
        raise ValueError(
            f"{folder}: its config.json has {layers} layers, and its files hold {len(held)} tensors"
        )
    with readable(folder / "config.json"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)
    needed = sum(parameter.numel() for parameter in model.parameters())
    there = sum(value.numel() for value in held.values())
    if needed > 2 * there:
        raise ValueError(
            f"{folder}: its config.json needs {needed} numbers, and its files hold {there}"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars, and its own report of missing tensors, which is an error here."""
    logger = logging.getLogger("transformers")
    level, bars = logger.level, is_progress_bar_enabled()
    logger.setLevel(logging.CRITICAL)
    disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bar()


def _is(base: nn.Module, name: str, table: nn.Module) -> bool:
    """Whether a tensor of the base model belongs to the embedding."""
    return base.get_submodule(name.rpartition(".")[0]) is table


@contextlib.contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _logits(model: PreTrainedModel, weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    hidden = model.base_model(inputs_embeds=weights["embedding.weight"][tokens]).last_hidden_state
    return hidden @ weights["lm_head.weight"].T


@torch.no_grad()
def _check(theirs: PreTrainedModel, ours: Callable[[Tensor], Tensor], where: str) -> None:
    """Refuse a class that is more than embedding, decoder and a linear read-out, by its logits.

    Some cap or scale their logits, or have a bias there.
    """
    rows = theirs.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(PROBE)[None] % rows
    expected = theirs(tokens).logits
    difference = float((ours(tokens) - expected).abs().max())
    if difference > 1e-3 * max(1.0, float(expected.abs().max())):
        raise ValueError(
            f"{where}: {type(theirs).__name__} is more than embedding, decoder and linear "
            f"read-out: logits differ by {difference:.2g}"
        )
