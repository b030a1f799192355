"""RWKV-7 as the `rwkv` package runs it: inference on a CPU in fp32, one sequence at a time.

The package takes no batch; several sequences are run one after the other. Without a state it
begins with zeros, and our start symbol, which it does not know, becomes one more row of its table.
"""

import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints import blinkdl
from models.objectives.autoregressive import LanguageModel

VERSION = "RWKV_V7_ON"  # read when the package is imported; without it there is no version 7


class RWKVPackage:
    """Backend of language models: `prefill` and `step` alone."""

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there, or None."""
        if device.type != "cpu" or dtype != torch.float32:
            kind = str(dtype).removeprefix("torch.")
            return f"it runs here on a CPU in float32, not on {device.type} in {kind}"
        return None

    def adopt(self, model: nn.Module) -> nn.Module:
        """The package's model on copies of the weights. `ValueError` for another family's."""
        if not isinstance(model, LanguageModel):
            raise ValueError(f"the rwkv package has no {type(model).__name__}; only text")
        return PackageModel(model)


class PackageModel(nn.Module):
    """What scenarios ask of a recurrent language model, by the package's own `forward`."""

    kernel_used = "rwkv"

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.start = model.vocab_size  # the row after all symbols
        table = torch.cat([model.embedding.weight, model.start.weight]).detach()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pth"
            blinkdl.write(model, path)
            weights = torch.load(path, weights_only=True)
            del weights[blinkdl.START]
            torch.save({**weights, "emb.weight": table}, path)
            self._package: Any = _package()(str(path.with_suffix("")), "cpu fp32")
        # Its own tensors, so that meters see what it holds.
        held = (t for t in self._package.z.values() if t.is_floating_point())
        self.weights = nn.ParameterList(nn.Parameter(t, requires_grad=False) for t in held)
        self._costs = (model.state_bytes, model.flops)

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """That of our form: the package holds the same tensors."""
        return self._costs[0](batch, context, dtype)

    def flops(self, batch: int, length: int) -> int | None:
        """That of our form."""
        return self._costs[1](batch, length)

    def prefill(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, list[Any]]:
        """(B, T) -> logits of the next symbol (B, T, V), and a state for each sequence."""
        logits, states = [], []
        for row, before in zip(tokens.tolist(), state or [None] * len(tokens), strict=True):
            if before is None:
                _, before = self._package.forward([self.start], None)
            out, after = self._package.forward(row, before, full_output=True)
            logits.append(out.view(len(row), -1))
            states.append(after)
        return torch.stack(logits), states

    def step(self, token: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """(B,) -> (B, V)."""
        done = [
            self._package.forward([symbol], before)
            for symbol, before in zip(token.tolist(), state, strict=True)
        ]
        return torch.stack([logits for logits, _ in done]), [after for _, after in done]

    def crop(self, state: list[Any], length: int) -> list[Any]:
        """The state does not grow."""
        return state


def _package() -> Any:
    """The package's class of version 7."""
    os.environ[VERSION] = "1"
    return importlib.import_module("rwkv.model").RWKV_x070
