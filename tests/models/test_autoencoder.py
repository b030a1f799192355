"""MAD's autoencoder: all symbols from one vector, by every causal family."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor, nn
from transformers.models.speech_to_text.modeling_speech_to_text import (
    Speech2TextSinusoidalPositionalEmbedding as Sinusoids,
)

from bench.constants import TOLERANCE
from bench.parameters import by_role, count
from models.objectives.autoencoder import AutoEncoder, sinusoids
from tests.zoo import FREE, GROUPS, MODELS, SIZES, node, randomise

CAUSAL = [
    name
    for name in MODELS
    if GROUPS[name]["kinds"].get("language", {"causal": False}).get("causal", True)
]


@pytest.mark.parametrize(("length", "width"), [(32, 64), (5, 4), (7, 9)])
def test_positions_are_those_of_fairseq(length: int, width: int) -> None:
    torch.testing.assert_close(sinusoids(length, width), Sinusoids.get_embedding(length, width))


class Given(nn.Module):
    """A backbone whose hidden vectors are what the test says."""

    d_model = 6
    hidden: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        assert x.shape == self.hidden.shape
        return self.hidden, {"own": torch.tensor(0.25)}

    def flops(self, batch: int, length: int) -> int:
        return 1000


def test_it_is_the_published_decoder() -> None:
    """`AutoEncoder` of mad-lab, written out: pooled at the end, three norms, two GELUs."""
    torch.manual_seed(0)
    model = randomise(AutoEncoder(backbone=Given(), vocab_size=5))  # type: ignore[arg-type]
    parts: Any = model.decoder
    tokens = torch.randint(5, (3, 4))
    hidden = model.backbone.hidden = torch.randn(3, 4, 6, requires_grad=True)
    logits = model(tokens=tokens).logits
    for t in range(4):
        x = hidden[:, -1] + Sinusoids.get_embedding(4, 6)[t]
        for n in (0, 3):
            x = F.rms_norm(x, (6,), parts[n].weight, 1e-5)
            x = F.gelu(x @ parts[n + 1].weight.T + parts[n + 1].bias)
        x = F.rms_norm(x, (6,), parts[6].weight, 1e-5) @ parts[7].weight.T + parts[7].bias
        torch.testing.assert_close(logits[:, t], x)
    logits.sum().backward()
    assert hidden.grad is not None
    assert not hidden.grad[:, :-1].any()
    assert hidden.grad[:, -1].all()
    labels = tokens.where(tokens < 4, -100)
    found = model(tokens=tokens, labels=labels)
    torch.testing.assert_close(found.nll, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    torch.testing.assert_close(found.loss, found.nll + 0.25)
    assert model.flops(3, 4) == 1000 + 2 * 12 * (2 * 36 + 30)


@pytest.mark.parametrize("name", CAUSAL)
def test_every_causal_family_reads_into_its_last_vector(name: str) -> None:
    backbone = copy.deepcopy(node(name, "language", "micro")["backbone"])
    torch.manual_seed(0)
    model = AutoEncoder(backbone=instantiate(backbone, _convert_="all"), vocab_size=16)
    if name not in FREE:  # the decoder is not counted: the backbone is as large as elsewhere
        assert abs(count(model).matched - SIZES["micro"]) <= TOLERANCE * SIZES["micro"]
    matrices, rest = by_role(model)
    assert {id(p) for p in model.decoder.parameters()} <= {id(p) for p in rest}
    randomise(model)
    tokens = torch.randint(15, (2, 12))
    other = tokens.clone()
    other[:, 3] = (tokens[:, 3] + 1) % 15
    logits, changed = (model(tokens=x).logits for x in (tokens, other))
    assert logits.shape == (2, 12, 16)
    assert (logits != changed).any(-1).all()  # what stood anywhere is seen everywhere
    model(tokens=tokens, labels=tokens).loss.backward()
    assert all(p.grad is not None for p in matrices)


def test_a_backbone_of_both_sides_is_refused() -> None:
    backbone: Any = SimpleNamespace(d_model=4, causal=False)
    with pytest.raises(ValueError, match="an autoencoder needs causal=True"):
        AutoEncoder(backbone=backbone, vocab_size=4)
