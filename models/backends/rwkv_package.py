"""RWKV-7 as the `rwkv` package runs it: inference on a CPU in fp32, one sequence at a time.

Without a state the package begins with zeros, and our start symbol, which it does not know, becomes
one more row of its table.
"""

import torch
from torch import nn

from models.backends.rwkv_library import Sequences, opened, problem
from models.checkpoints import blinkdl
from models.checkpoints.checkpoint import START
from models.objectives.autoregressive import LanguageModel


class RWKVPackage:
    """Backend of language models: `prefill` and `step` alone."""

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there, or None."""
        return problem(device, dtype)

    def adopt(self, model: nn.Module) -> nn.Module:
        """The package's model on copies of the weights. `ValueError` for another family's."""
        if not isinstance(model, LanguageModel):
            raise ValueError(f"the rwkv package has no {type(model).__name__}; only text")
        return PackageModel(model)


class PackageModel(Sequences):
    """Our weights, run by the package."""

    kernel_used = "rwkv"

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        weights = blinkdl.named(model)
        table = torch.cat([weights["emb.weight"], weights.pop(START)])
        package, held = opened({**weights, "emb.weight": table}, seven=True)
        self.run_by(package, start=model.vocab_size)  # the row after all symbols
        # Its own tensors, so that meters see what it holds.
        own = (t for t in held.values() if t.is_floating_point())
        self.weights = nn.ParameterList(nn.Parameter(t, requires_grad=False) for t in own)
        self._costs = (model.state_bytes, model.flops)

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """That of our form: the package holds the same tensors."""
        return self._costs[0](batch, context, dtype)

    def flops(self, batch: int, length: int) -> int | None:
        """That of our form."""
        return self._costs[1](batch, length)
