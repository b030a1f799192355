"""Greedy decoding at batch 1: ours step by step against transformers' own `generate`."""

import torch
from torch import Tensor, nn
from transformers import GenerationMixin

from bench.meters.memory import tensors_of
from benchmarks.rows.row import Pair, Side
from benchmarks.rows.training import VOCABULARY, alike
from models.objectives.autoregressive import LanguageModel

PROMPT, DECODED = 16, 64


@torch.no_grad()
def decode(model: LanguageModel, prompt: Tensor, count: int) -> Tensor:
    """`count` symbols after `prompt` (1, T), without our start symbol: (count,)."""
    weight = model.embedding.weight
    state = model.backbone.init_state(1, device=weight.device, dtype=weight.dtype)
    logits, state = model.prefill(prompt, state)
    tokens = [logits[:, -1].argmax(-1)]
    for _ in range(count - 1):
        logits, state = model.step(tokens[-1], state)
        tokens.append(logits.argmax(-1))
    return torch.cat(tokens)


def decoding(ours: LanguageModel, theirs: nn.Module) -> Pair:
    """Both continue one prompt on the same weights; that they write the same is shown here."""
    assert isinstance(theirs, GenerationMixin)
    ours.eval(), theirs.eval()
    prompt = torch.randint(VOCABULARY, (1, PROMPT))

    @torch.no_grad()
    def generate() -> Tensor:
        return theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=DECODED,
            min_new_tokens=DECODED,
            do_sample=False,
            pad_token_id=0,
        )

    with torch.no_grad():
        note = alike("logits", ours.next_logits(prompt), theirs(prompt).logits)
    same = bool((decode(ours, prompt, DECODED) == generate()[0, PROMPT:]).all())
    return Pair(
        Side(lambda: decode(ours, prompt, DECODED), list(tensors_of(ours))),
        Side(generate, list(tensors_of(theirs))),
        f"{note}, {'the same' if same else 'NOT the same'} {DECODED} symbols",
    )
