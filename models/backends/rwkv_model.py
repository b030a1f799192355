"""RWKV-4, 5, 6 and 7 by the `rwkv` package, from a checkpoint: read and scored, never trained.

RWKV-4: arXiv:2305.13048. RWKV-5 "Eagle" and RWKV-6 "Finch": arXiv:2404.05892. RWKV-7 "Goose":
arXiv:2503.14456, of which models/backbones/rwkv7.py is our own form. Nothing of the network is
computed here; the package holds the weights and the equations.

Shapes: B batch, T time, V vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.backends.rwkv_library import STRATEGY, Sequences, opened, problem
from models.output import LogProb, Output, exact_log_prob, scored

NO_WEIGHTS = "it has no weights of its own; give model.pretrained=FILE.pth"


class RWKVModel(Sequences):
    """A language model of the package. `backbone` tells what a checkpoint is of, see `RWKVFiles`.

    It has no weights until `fill` brings those of the checkpoint: there is nothing to draw anew.
    """

    kernel_used = f"rwkv package, {STRATEGY}"

    def __init__(self, *, vocab_size: int, backbone: Mapping[str, Any]) -> None:
        super().__init__()
        if backbone["version"] is None:
            raise ValueError(NO_WEIGHTS)
        self.vocab_size, self.version = vocab_size, str(backbone["version"])

    def fill(self, weights: Mapping[str, Tensor], start: int) -> None:
        """Hand the package the weights of a file; `start` is read before a text."""
        package, held = opened(weights, seven=self.version == "7")
        self.run_by(package, start)
        # The tensors that the package computes with, so that meters see what it holds.
        self.embedding = nn.Embedding.from_pretrained(held["emb.weight"], freeze=True)
        self.lm_head = nn.ParameterList([_fixed(held["head.weight"])])
        self.lm_head.unembedding = True  # type: ignore[assignment]
        tables = ("emb.weight", "head.weight")
        rest = (value for name, value in held.items() if name not in tables)
        self.blocks = nn.ParameterList(_fixed(value) for value in rest)
        # Measured once: the state does not grow. That the network runs is seen here too.
        with torch.no_grad():
            _, state = self.read([start], None)
        self._state_bytes = sum(part.nbytes for part in state)

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there, or None."""
        return problem(device, dtype) if hasattr(self, "start") else NO_WEIGHTS

    def forward(self, *, tokens: Tensor, labels: Tensor | None = None) -> Output:
        """logits[:, t] predicts tokens[:, t] from those before it, (B, T) -> (B, T, V)."""
        rows = [self.read([self.start, *row[:-1]], None)[0] for row in tokens.tolist()]
        return scored(torch.stack(rows), labels, {})

    def log_prob(self, tokens: Tensor, counted: Tensor | None = None) -> LogProb:
        """Exact log p(tokens), nats, (B, T) -> (B,); with `counted` (B, T) of those alone."""
        return exact_log_prob(self(tokens=tokens).logits, tokens, counted)

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the package's state, which is in fp32 and of one size, whatever was read."""
        return batch * self._state_bytes

    def flops(self, batch: int, length: int) -> int | None:
        """None is stated: the counter sees the package's matrix products."""
        return None

    def compile(self, *args: Any, **options: Any) -> None:
        """Refused: it would not reach into the package's TorchScript, and not deserve its label."""
        raise ValueError("the rwkv package runs TorchScript, which torch.compile does not compile")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The weights stay where the package has them, so nothing may ask for another place."""
        probe = fn(torch.zeros(1))
        if reason := problem(probe.device, probe.dtype):
            raise ValueError(f"the rwkv package: {reason}")
        return self


def _fixed(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
