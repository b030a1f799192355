"""Any causal decoder of the transformers library as a backbone, by its model type or a folder.

The objectives give it embedded symbols and read its last hidden vectors: embedding, start symbol
and read-out are ours, so that it runs on every task. Its weights are drawn anew by the library's
own rule; of a folder the configuration is read. Code that comes with a model is never run.

State: the library's `Cache`, which is the full attention layers' keys and values, a window of them,
or a state of constant size. Keys that were cropped stay rotated at their absolute positions.

Shapes: B batch, T time, D width.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.import_utils import is_mamba_2_ssm_available

from models.checkpoints.checkpoint import readable

# Of the symbols that the library would embed: none are, and a table of theirs would count.
NO_SYMBOLS = {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
CACHES = ("cache", "past_key_values", "cache_params")  # its name, from the newest on
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # their number, by its names
PROBE = 4  # symbols from which the growth of a cache is read


@dataclass
class CacheState:
    """The library's cache, None before the first symbol, and the position of the next one."""

    cache: Any = None
    position: int = 0


class TransformersDecoder(nn.Module):
    """`name` is a model type such as "qwen3" or "gpt2", or a folder with a config.json.

    `options` are values of its configuration. Those of `small` take the place of the library's
    defaults, which are of billions of parameters, where the type knows them and no folder says
    more. `ValueError` for a type that does not exist, for an option that its configuration does not
    know, and for a model that is not causal or keeps no cache.
    """

    def __init__(self, *, name: str, options: Mapping[str, Any], small: Mapping[str, Any]) -> None:
        super().__init__()
        config = read_config(name, options, small)
        if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ValueError(
                f"name is {name!r}, of type {config.model_type}, which is no causal decoder; "
                "allowed are types such as qwen3, llama or gpt2"
            )
        self._take(config, f"name is {name!r}, whose")

    @classmethod
    def of(cls, config: PretrainedConfig, weights: Mapping[str, Tensor]) -> Self:
        """The library's model of `config` with `weights` under its own names, embedding aside."""
        decoder = cls.__new__(cls)
        nn.Module.__init__(decoder)
        decoder._take(copy.copy(config), f"{config.model_type} is a type whose")
        decoder.model.load_state_dict(weights)
        return decoder

    def _take(self, config: PretrainedConfig, whose: str) -> None:
        """Build the library's model without an embedding."""
        for key, value in NO_SYMBOLS.items():
            setattr(config.get_text_config(), key, value)
        if hasattr(config, "is_decoder"):
            config.is_decoder = True  # what is an encoder by default sees the past alone
        self.model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
        self.model.set_input_embeddings(nn.Identity())
        parameters = inspect.signature(self.model.forward).parameters
        caches = [word for word in CACHES if word in parameters]
        if not caches or "inputs_embeds" not in parameters:
            raise ValueError(
                f"{whose} {type(self.model).__name__} takes no embedded symbols or keeps no "
                "cache; allowed are causal decoders, such as qwen3, llama or gpt2"
            )
        self._cache_word, self._positioned = caches[0], "position_ids" in parameters
        self._continues: bool | None = None  # whether several symbols may follow a state
        self.d_model = int(config.get_text_config().hidden_size)
        self._experts = Experts.of(self.model)
        self.longest = _positions(self.model)

    def _check_positions(self, count: int) -> None:
        if self.longest is not None and count > self.longest:
            raise ValueError(
                f"{self.model.config.model_type} has {self.longest} positions, the start symbol's "
                f"among them, and {count} are asked for; give it shorter texts, by task.context=N"
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> hidden vectors (B, T, D), and a mixture's weighted balancing loss.

        `ValueError` for more symbols than there are positions; so do `prefill` and `step`.
        """
        self._check_positions(x.shape[1])
        if self._experts is None or not torch.is_grad_enabled():
            return self.model(inputs_embeds=x, use_cache=False).last_hidden_state, {}
        out = self.model(inputs_embeds=x, use_cache=False, output_router_logits=True)
        return out.last_hidden_state, self._experts.losses(out)

    def inactive_parameters(self) -> int:
        """Weights of the experts that one symbol does not choose."""
        return 0 if self._experts is None else self._experts.inactive

    @property
    def kernel_used(self) -> str:
        """What computes attention, or "slow path" where a symbol passes torch's plain operators."""
        attends = any("Attention" in type(module).__name__ for module in self.model.modules())
        parts = [str(self.model.config.get_text_config()._attn_implementation)] if attends else []
        if any("Mixer" in type(module).__name__ for module in self.model.modules()):
            parts.append("slow path" if self._slow() else "fast path")
        if self._continues is False:
            parts.append("steps for pieces")
        return "+".join(parts) or "torch"

    def _slow(self) -> bool:
        """Whether the library's Mamba runs without its CUDA kernels, as on every CPU."""
        weight = next(self.parameters())
        return weight.device.type != "cuda" or not is_mamba_2_ssm_available()

    def config(self, vocab_size: int) -> PretrainedConfig:
        """The configuration with an embedding of `vocab_size` symbols."""
        config = copy.copy(self.model.config)
        config.vocab_size = vocab_size
        return config

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> CacheState:
        """No cache: the library makes it of the kind that the model needs."""
        return CacheState()

    def prefill(self, x: Tensor, state: CacheState) -> tuple[Tensor, CacheState]:
        """Continue from `state`, (B, T, D) -> (B, T, D)."""
        if x.shape[1] > 1 and state.cache is not None and not self._can_continue():
            hidden = []
            for symbol in x.unbind(1):
                y, state = self.step(symbol, state)
                hidden.append(y)
            return torch.stack(hidden, 1), state
        return self._read(x, state)

    def _read(self, x: Tensor, state: CacheState) -> tuple[Tensor, CacheState]:
        given: dict[str, Any] = {self._cache_word: state.cache}
        stop = state.position + x.shape[1]
        self._check_positions(stop)
        if self._positioned:
            given["position_ids"] = torch.arange(state.position, stop, device=x.device)[None]
        out = self.model(inputs_embeds=x, use_cache=True, **given)
        return out.last_hidden_state, CacheState(out[self._cache_word], stop)

    def step(self, x: Tensor, state: CacheState) -> tuple[Tensor, CacheState]:
        """One symbol, (B, D) -> (B, D)."""
        hidden, state = self._read(x[:, None], state)
        return hidden[:, 0], state

    @torch.no_grad()
    def _can_continue(self) -> bool:
        """Whether two pieces give what the whole gives: the library's Mamba drops its state."""
        if self._continues is None:
            probe = copy.deepcopy(self).float().eval()  # what is lost may be below bf16's rounding
            device = next(probe.parameters()).device
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(1, 2 * PROBE, self.d_model, generator=generator).to(device)
            whole, _ = probe.forward(x)
            _, state = probe._read(x[:, :PROBE], CacheState())
            rest, _ = probe._read(x[:, PROBE:], state)
            slack = 1e-4 * float(whole.abs().max())
            self._continues = bool((rest - whole[:, PROBE:]).abs().max() <= slack)
        return self._continues

    def crop(self, state: CacheState, length: int) -> CacheState:
        """Forget all but the last `length` keys where all are kept; a window forgets by itself."""
        for layer in _growing(state.cache):
            first = max(layer.keys.shape[2] - length, 0)
            layer.keys = layer.keys[:, :, first:].contiguous()
            layer.values = layer.values[:, :, first:].contiguous()
        return state

    @torch.no_grad()
    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the cache, from what a few symbols put into it: layers grow or they do not."""
        weight = next(self.parameters())
        few = torch.zeros(1, PROBE, self.d_model, device=weight.device, dtype=weight.dtype)
        _, state = self._read(few, CacheState())
        total = sum(t.numel() for t in _tensors(state.cache))
        for layer in getattr(state.cache, "layers", ()):
            if isinstance(getattr(layer, "keys", None), Tensor):
                most = (getattr(layer, "sliding_window", None) or context + 1) - 1
                a_symbol = (layer.keys.numel() + layer.values.numel()) // PROBE
                total += a_symbol * (min(context, most) - PROBE)
        return batch * total * dtype.itemsize

    def flops(self, batch: int, length: int) -> None:
        """The library states no formula: the counter of torch's operators is alone."""
        return None


@dataclass(frozen=True)
class Experts:
    """A mixture inside a model of the library: how many of its weights a symbol leaves unused.

    `balance` is the library's own balancing loss of the router's logits, None where it has none.
    """

    inactive: int
    count: int
    chosen: int
    weight: float
    balance: Callable[..., Tensor] | None

    @classmethod
    def of(cls, model: nn.Module) -> "Experts | None":
        """The mixture of `model`, or None. `ValueError` for one whose weights are not understood.

        The library keeps the experts of a layer in tensors whose first side counts them.
        """
        config = cast(PretrainedConfig, model.config).get_text_config()
        count = next((getattr(config, key, None) for key in EXPERTS if hasattr(config, key)), None)
        if not count or count == 1:
            return None
        chosen = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_topk", None)
        tensors = [
            p for name, p in model.named_parameters()
            if ".experts." in name and p.ndim == 3 and p.shape[0] == count
        ]  # fmt: skip
        if not isinstance(chosen, int) or not tensors:
            raise ValueError(
                f"{type(model).__name__} is a mixture of experts of a form that is not known here; "
                "allowed are those like mixtral, qwen3_moe and olmoe"
            )
        unused = sum(p.numel() for p in tensors) // count * (count - chosen)
        balance = getattr(inspect.getmodule(type(model)), "load_balancing_loss_func", None)
        weight = float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0)
        return cls(unused, count, chosen, weight, balance if weight else None)

    def losses(self, out: Any) -> dict[str, Tensor]:
        """The weighted balancing loss, as the library's own model for causal language has it."""
        logits = getattr(out, "router_logits", None)
        if self.balance is None or not logits:
            return {}
        return {"load_balancing": self.weight * self.balance(logits, self.count, self.chosen)}


def read_config(
    name: str, options: Mapping[str, Any], small: Mapping[str, Any]
) -> PretrainedConfig:
    """The configuration of a type or a folder with `options`; `ValueError` where there is none."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        with readable(folder / "config.json"):
            config = AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        _check_options(config, options)
        for key, value in options.items():
            setattr(config.get_text_config(), key, value)
        return config
    try:
        default = AutoConfig.for_model(name)
    except ValueError as error:
        raise ValueError(
            f"name is {name!r}, neither a folder with a config.json nor a model type of "
            "transformers, such as qwen3, llama or gpt2"
        ) from error
    _check_options(default, options)
    asked = {default.attribute_map.get(key, key) for key in options}
    fitting = {
        key: value for key, value in small.items()
        if _knows(default, key) and default.attribute_map.get(key, key) not in asked
    }  # fmt: skip
    return AutoConfig.for_model(name, **{**fitting, **options})


def _check_options(config: PretrainedConfig, options: Mapping[str, Any]) -> None:
    for key in options:
        if not _knows(config, key):
            raise ValueError(
                f"options.{key} is no option of {type(config).__name__}; see its documentation"
            )


def _knows(config: PretrainedConfig, key: str) -> bool:
    """Whether a configuration takes `key`, by that name or as the library maps it to its own."""
    taken = inspect.signature(type(config).__init__).parameters
    return key in taken or config.attribute_map.get(key, key) in taken


def _positions(model: nn.Module) -> int | None:
    """Rows of a learned table of positions; None where any length goes."""
    config = cast(PretrainedConfig, model.config).get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    # OPT's has two rows more.
    return most if most and any(most <= rows <= most + 2 for rows in tables) else None


def _growing(cache: Any) -> Iterator[Any]:
    """Layers that keep the keys of all symbols."""
    return (layer for layer in getattr(cache, "layers", ()) if type(layer) is DynamicLayer)


def _tensors(cache: Any) -> Iterator[Tensor]:
    """The tensors of all layers of a cache."""
    for layer in getattr(cache, "layers", ()):
        for value in vars(layer).values():
            yield from (t for t in _flat(value))


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _flat(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
