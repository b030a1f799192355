"""Greedy writing of symbols from a state."""

import torch
from torch import Tensor

from bench.protocol import Recurrent

STATELESS = "the model has no prefill and step, so it does not decode from a state"
START = 1  # symbols that a model reads before its prompt


class Writer:
    """Writes symbol after symbol; reads its prompt again after `length` of them.

    `prompt` (B, T) is read by `ready`, which is to be called before each `write`.
    """

    def __init__(self, model: Recurrent, prompt: Tensor, length: int) -> None:
        self.model, self.prompt, self.length = model, prompt, length
        self.written = length

    @torch.no_grad()
    def read(self) -> None:
        """Read the prompt from an empty state and choose the first symbol."""
        logits, self.state = self.model.prefill(self.prompt)
        self.token = logits[:, -1].argmax(-1)
        self.written = 0

    def ready(self) -> None:
        """Read where nothing was read yet, or where enough was written."""
        if self.written >= self.length:
            self.read()

    @torch.no_grad()
    def write(self) -> None:
        """One symbol."""
        logits, self.state = self.model.step(self.token, self.state)
        self.token = logits.argmax(-1)
        self.written += 1
