"""The `rwkv` package behind `prefill` and `step`: inference on a CPU in fp32.

The package takes no batch: several sequences are run one after the other, each with a state of its
own, a list of tensors. Of versions 4 to 6 its `forward` puts the new tensors into the list that it
is given, so it is given a copy of the list: a state that went in is as it was. No version writes
into the tensors.

Shapes: B batch, T time, D width, V vocabulary.
"""

import functools
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints.checkpoint import first_line

STRATEGY = "cpu fp32"
# What the package reads of the environment: which versions it has, as it is imported, and whether
# it builds CUDA kernels, then and for each model.
VERSION_7, KERNELS = "RWKV_V7_ON", "RWKV_CUDA_ON"


def installed() -> bool:
    """Whether there is such a package."""
    return importlib.util.find_spec("rwkv") is not None


def version() -> str:
    """Of the package, as it was installed."""
    return importlib.metadata.version("rwkv")


def problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it cannot run there, or None."""
    if device.type != "cpu" or dtype != torch.float32:
        kind = str(dtype).removeprefix("torch.")
        return f"it runs here on a CPU in float32, not on {device.type} in {kind}"
    return None


def opened(weights: Mapping[str, Tensor], *, seven: bool) -> tuple[Any, dict[str, Tensor]]:
    """The package's model of `weights` under BlinkDL's names, and the tensors that it holds.

    The package takes a path alone, so it reads a file that was written here, of tensors alone,
    whatever the user's file was. The temporary folder needs room for it.
    """
    module = imported(seven=seven)
    with tempfile.TemporaryDirectory() as folder, _settings(seven=seven):
        path = Path(folder) / "model.pth"
        torch.save(dict(weights), path)
        if seven:
            model = module.RWKV_x070(str(path.with_suffix("")), STRATEGY)
            return model, model.z
        model = module.RWKV(str(path), STRATEGY, verbose=False)
        return model, model.w


@functools.cache
def imported(*, seven: bool) -> ModuleType:
    """The package's module, with version 7 or with versions 4 to 6.

    Which it has is decided as it is imported, so each is imported under a name of its own.
    `ValueError` where that fails.
    """
    name = f"rwkv_model_{7 if seven else 6}"
    try:
        spec = importlib.util.find_spec("rwkv.model")
        if spec is None or spec.origin is None:
            raise ImportError("it has no rwkv.model")
        own = importlib.util.spec_from_file_location(name, spec.origin)
        assert own is not None
        assert own.loader is not None
        module = importlib.util.module_from_spec(own)
        sys.modules[name] = module  # where TorchScript looks for what it compiles
        with _settings(seven=seven):
            own.loader.exec_module(module)
    except Exception as error:  # a broken package may raise whatever it likes
        sys.modules.pop(name, None)
        raise ValueError(
            f"the rwkv package cannot be imported ({type(error).__name__}: {first_line(error)}); "
            "pip install --force-reinstall --no-deps rwkv"
        ) from error
    return module


@contextmanager
def _settings(*, seven: bool) -> Iterator[None]:
    """The environment that the package needs here; after it the user's own.

    Where the user's has no KERNELS, that stays at "0": `forward` of versions 4 to 6 reads it too.
    """
    before = {name: os.environ.get(name) for name in (VERSION_7, KERNELS)}
    os.environ.update({VERSION_7: "1" if seven else "0", KERNELS: "0"})
    try:
        yield
    finally:
        if before[VERSION_7] is None:
            del os.environ[VERSION_7]
        os.environ.update({name: value for name, value in before.items() if value is not None})


class Sequences(nn.Module):
    """What scenarios ask of a recurrent language model, by the package's own `forward`.

    Without a state the symbol `start` is read first.
    """

    def run_by(self, package: Any, start: int) -> None:
        """Give the package's model; a method of it, which torch takes for no part of this one."""
        self._forward, self.start = package.forward, start

    def read(self, symbols: list[int], state: Any) -> tuple[Tensor, list[Tensor]]:
        """Logits after each symbol of one sequence (T, V), and the state; None is the empty one.

        The state that is given stays as it is.
        """
        state = None if state is None else list(state)
        logits, state = self._forward(symbols, state, full_output=True)
        return logits.view(len(symbols), -1), [_alone(part) for part in state]

    def prefill(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, list[Any]]:
        """(B, T) -> logits of the next symbol (B, T, V), and a state for each sequence."""
        logits, states = [], []
        for row, before in zip(tokens.tolist(), state or [None] * len(tokens), strict=True):
            if before is None:
                _, before = self.read([self.start], None)
            out, after = self.read(row, before)
            logits.append(out)
            states.append(after)
        return torch.stack(logits), states

    def step(self, token: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """(B,) -> (B, V)."""
        done = [
            self.read([symbol], before)
            for symbol, before in zip(token.tolist(), state, strict=True)
        ]
        return torch.cat([logits for logits, _ in done]), [after for _, after in done]

    def crop(self, state: list[Any], length: int) -> list[Any]:
        """The state does not grow."""
        return state


def _alone(part: Tensor) -> Tensor:
    """A copy of a view: the package's last position would keep a whole context's inputs alive."""
    return part.clone() if part.untyped_storage().nbytes() > part.nbytes else part
