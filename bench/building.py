"""Builds what a cell's configuration names: the only file that instantiates YAML."""

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from torch import nn

from bench.agreement import agreement, awake
from bench.errors import OUT_OF_MEMORY, BadInput, describe, one_line
from bench.matching import shape_of
from bench.parameters import count
from bench.pretrained import Formats, Pretrained
from bench.protocol import Backend, Placed
from bench.scenarios.base import Unsupported
from bench.sizes import NoRule, fit

AGREE_ITEMS, AGREE_LENGTH = 2, 96  # on what two backends are compared


def make_task(config: Mapping[str, Any]) -> Any:
    """The task; data that cannot be read or used is the user's to mend."""
    try:
        return instantiate(config["task"], _convert_="all")
    except InstantiationException as error:
        if not isinstance(error.__cause__, ValueError | OSError):
            raise
        text = _sentence(error)
        where = "" if text.startswith("task") else f"task={config['name']}: "
        raise BadInput(where + text) from error


def formats(model: Mapping[str, Any]) -> Formats:
    """How the family of a model's configuration reads and writes checkpoints."""
    found: Formats = instantiate(model["checkpoints"])
    return found


def filled(shape: dict[str, Any], weights: Path) -> nn.Module:
    """The model of a record, by its `shape`, with the weights that it left.

    ValueError where this version builds none of that shape, or another one.
    """
    try:
        model = _module(shape)
    except InstantiationException as error:
        raise ValueError(f"its model cannot be built: {_sentence(error)}") from error
    try:
        with safe_open(weights, "pt") as file:
            notes = file.metadata() or {}
        _tie(model, {name: kept for name, kept in notes.items() if name != "format"})
        load_model(model, str(weights))
    except (SafetensorError, RuntimeError, AttributeError) as error:
        raise ValueError(f"its weights are not those of its model: {error}") from error
    return model


def _tie(model: nn.Module, shared: Mapping[str, str]) -> None:
    """Let one tensor stand for another, as the embedding for a tied checkpoint's read-out."""
    for name, kept in shared.items():
        (owner, own), (other, theirs) = name.rsplit(".", 1), kept.rsplit(".", 1)
        setattr(model.get_submodule(owner), own, getattr(model.get_submodule(other), theirs))


def checkpoint_of(model: Mapping[str, Any]) -> Pretrained | None:
    """The checkpoint that a model is read from, where one is named."""
    if not model.get("pretrained"):
        return None
    return Pretrained.of(str(model["pretrained"]), formats(model))


def kernel_of(model: nn.Module) -> str | None:
    """The kernels that modules say they used, in the order of first mention."""
    used = [getattr(module, "kernel_used", None) for module in model.modules()]
    return "+".join(dict.fromkeys(k for k in used if k)) or None


class Models:
    """The models of one cell: `build` gives a fresh one, initialised from the cell's seed.

    BadInput where the user set what the model refuses; ValueError where the model's own YAML does.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        task: Any,
        device: torch.device,
        *,
        checkpoint: Pretrained | None,
        overrides: tuple[str, ...],
    ) -> None:
        self.config, self.task, self.device, self.checkpoint = config, task, device, checkpoint
        # Where the user set values inside the model or its size, its refusal is his to read.
        theirs = ("model.", "size.")
        self._inside = any(key.lstrip("+~").startswith(theirs) for key in overrides)
        self._inside |= config["match"]["name"] != "params" or config["match"]["target"] is not None
        self.model: dict[str, Any] = copy.deepcopy(config.get("model") or {})
        self.aim = shape_of(config, task.symbols_per_item)
        with self._refusals():
            self.node = self._node(overrides)
        entry = (self.model.get("backends") or {}).get(config.get("backend"))
        self.backend: Backend | None = None if entry is None else instantiate(entry["adopt"])

    def build(self) -> nn.Module:
        """By the backend of the cell."""
        model = self._adopted(self._ours())
        if compiled := self.config["compile"]:
            try:
                model.compile(mode=compiled if isinstance(compiled, str) else None)
            except ValueError as error:
                raise Unsupported(f"compile={str(compiled).lower()}: {error}") from error
        return model

    def facts(self) -> dict[str, Any]:
        """What a record says of the model, from one that is built for it."""
        ours = self._ours()
        if problem := self._problem(ours):
            raise Unsupported(problem)
        numbers = count(ours)
        target = None if self.checkpoint else self.aim.parameters
        found: dict[str, Any] = {
            "parameters": {**dataclasses.asdict(numbers), "target": target},
            "shape": self.node,
            "kernel": kernel_of(ours) or self.model.get("kernel"),
        }
        notes = [getattr(module, "kernel_fallback", None) for module in ours.modules()]
        if note := next(filter(None, notes), None):
            found["fallback"] = note
        if self.checkpoint is not None:
            found["checkpoint"] = {"name": self.checkpoint.name, "sha256": self.checkpoint.sha256}
        return found

    def agree(self) -> tuple[dict[str, Any], str | None]:
        """Of another backend: how far its logits are from ours, and why it is not to be timed."""
        if self.backend is None:
            return {}, None
        name, dtype = self.config["backend"], getattr(torch, self.config["dtype"])
        if problem := self.backend.problem(self.device, dtype):
            raise Unsupported(f"backend={name}: {problem}")
        ours = awake(self._ours()).to(dtype).eval()
        theirs = self._adopted(copy.deepcopy(ours)).to(dtype).eval()
        length = min(AGREE_LENGTH, self.task.symbols_per_item)
        size = (AGREE_ITEMS, length) if self.task.kind == "language" else (AGREE_ITEMS,)
        batch = {key: value.to(self.device) for key, value in self.task.example(*size).items()}
        seen = agreement(ours, theirs, batch, dtype)
        found = {"agreement": dataclasses.asdict(seen), "kernel": kernel_of(theirs)}
        if seen.holds:
            return found, None
        if math.isnan(seen.difference):
            return found, f"backend={name}: its logits or ours are not finite; it is not timed"
        return found, (
            f"backend={name}: its logits differ by {seen.difference:.2g} from those of our own "
            f"form, where {seen.allowed:.2g} is rounding; it is not timed"
        )

    def _node(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        """The configuration to instantiate, with all sizes set."""
        symbols, kind, size = (
            getattr(self.task, "vocab_size", None),
            self.task.kind,
            self.config["size"],
        )
        if self.checkpoint is not None:
            self.checkpoint.check(int(symbols or 0))
            return self.checkpoint.node(self.model, kind, overrides)
        if symbols is not None and kind == "language":
            self.model["kinds"][kind]["model"]["vocab_size"] = symbols
        aim = self.aim
        try:
            return fit(
                self.model, kind, size["name"], aim.target, _module, aim.quantity, aim.parameters
            )
        except NoRule as error:
            raise Unsupported(str(error)) from error

    def _ours(self) -> nn.Module:
        """By our own implementation."""
        torch.manual_seed(int(self.config["seed"]))
        make = functools.partial(_module, self.node)
        with self._refusals():
            model = self.checkpoint.filled(make) if self.checkpoint else make()
        if name := _not_finite(model):
            source = f"model={self.model['name']}: its network"
            if self.checkpoint:
                source = f"model.pretrained: {self.checkpoint.name}"
            raise BadInput(
                f"{source} holds numbers in {name} that are not finite; "
                "needed are weights of a training that did not diverge"
            )
        dtype = getattr(torch, self.config["dtype"])
        if isinstance(model, Placed) and (problem := model.problem(self.device, dtype)):
            raise Unsupported(f"model={self.model['name']}: {problem}")
        return model.to(self.device)

    def _problem(self, model: nn.Module) -> str | None:
        """Why a kernel that was asked for cannot run on this device in this type, or None."""
        dtype = getattr(torch, self.config["dtype"])
        asked = (getattr(module, "kernel_problem", None) for module in model.modules())
        return next(filter(None, (ask(self.device, dtype) for ask in asked if ask)), None)

    def _adopted(self, model: nn.Module) -> nn.Module:
        if self.backend is None:
            return model
        try:
            return self.backend.adopt(model).to(self.device)
        except ValueError as error:
            raise Unsupported(f"backend={self.config['backend']}: {error}") from error

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Within it, what a constructor says of values that the user set is his to read."""
        try:
            yield
        except (ValueError, InstantiationException) as error:
            no_memory = describe(error).startswith(OUT_OF_MEMORY)
            if not self._inside or no_memory or isinstance(error, BadInput):
                raise
            raise BadInput(f"model={self.model['name']}: {_sentence(error)}") from error


def _module(node: dict[str, Any]) -> nn.Module:
    return instantiate(node, _convert_="all")


def _not_finite(model: nn.Module) -> str | None:
    """The first parameter that holds an infinity or a NaN, or None."""
    return next((name for name, p in model.named_parameters() if not p.isfinite().all()), None)


def _sentence(error: Exception) -> str:
    """What a constructor said, without Hydra's words around it."""
    cause = error.__cause__ or error
    plain = isinstance(cause, ValueError | TypeError | OSError)
    return one_line(str(cause)) if plain else describe(cause)
