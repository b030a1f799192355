"""What a model answers at every position of sequences, which may be too long to be read at once.

A model with a state reads a long one in parts. Where the state grows with what was read, each part
is compared with all of it: parts are then the shorter the longer the sequence is.

Shapes: N sequences, T time.
"""

from typing import Any

import numpy as np
import torch

from bench.protocol import Filling, LanguageModel, Recurrent, Stateful

SCORED = 1 << 15  # symbols that a model reads at a time
COMPARED = 1 << 28  # symbols of a part times symbols of the sequence, where the state grows


def answers(
    model: LanguageModel, tokens: np.ndarray, asked: np.ndarray, device: torch.device
) -> np.ndarray:
    """The most probable symbol at each position of (N, T) given those before it, (N, T).

    Of a model that reads from both sides, given all that are not asked.
    """
    size = max(1, SCORED // tokens.shape[1])
    found = []
    for n in range(0, len(tokens), size):
        part = (torch.from_numpy(x[n : n + size]).to(device) for x in (tokens, asked))
        found.append(_answers(model, *part).cpu().numpy())
    return np.concatenate(found)


def _answers(model: LanguageModel, tokens: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    if isinstance(model, Filling):
        return model.fill(tokens, asked).argmax(-1)
    if tokens.numel() <= SCORED or not isinstance(model, Recurrent):
        logits = model(tokens=tokens).logits
        assert logits is not None  # no labels were given
        return logits.argmax(-1)
    # One sequence, in parts from the state that the last one left. What comes first of all is asked
    # by no probe of a model that reads forwards.
    part = min(SCORED, max(1, COMPARED // tokens.numel())) if grows(model) else SCORED
    found, state = [tokens[:, :1]], None
    for symbols in tokens[:, :-1].split(part, dim=1):
        logits, state = model.prefill(symbols, state)
        found.append(logits.argmax(-1))
    return torch.cat(found, 1)


def grows(model: Any) -> bool:
    """Whether each symbol is compared with all others, and so costs more in a longer sequence."""
    if not isinstance(model, Stateful):
        return True
    short, long = (model.state_bytes(1, length, torch.float32) for length in (1 << 16, 1 << 17))
    return long > short
