"""Our models by the libraries' own classes: logits, gradients, and what has no counterpart."""

import copy

import pytest
import torch
from torch import nn

from bench.agreement import agreement, awake
from bench.protocol import Recurrent
from models.backends.rwkv_package import RWKVPackage
from models.backends.transformers import Transformers
from tests.zoo import GROUPS, build

NAMES = ("transformer", "moe", "mamba", "mamba2")


def ours_of(name: str, kind: str = "language") -> nn.Module:
    """A model with random weights everywhere, a mixture without the shared expert."""
    if name == "moe":
        GROUPS["moe"]["backbone"]["d_shared"] = 0
    try:
        return build(name, kind).eval()
    finally:
        if name == "moe":
            GROUPS["moe"]["backbone"]["d_shared"] = "${model.backbone.d_model}"


def batch(kind: str) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    if kind == "language":
        return {"tokens": torch.randint(256, (2, 40), generator=g)}
    pixels = torch.randint(17, (2, 8, 8), generator=g)
    labels = torch.tensor([3, 5])
    return {"pixels": pixels} | ({"condition": labels} if kind == "generate" else {})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["language", "classify", "generate"])
def test_transformers_computes_our_weights(name: str, kind: str) -> None:
    ours = ours_of(name, kind)
    theirs = Transformers(types=["float32"]).adopt(copy.deepcopy(ours)).eval()
    seen = agreement(ours, theirs, batch(kind), torch.float32)
    assert seen.holds
    assert seen.difference < 1e-4
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    logits = []
    for model in (ours, theirs):
        model(**batch(kind)).logits.square().mean().backward()
        logits.append({name: p.grad for name, p in model.named_parameters()})
    for key in ("lm_head.weight", "head.weight", "embedding.weight"):
        if key in logits[0]:
            torch.testing.assert_close(logits[0][key], logits[1][key], rtol=1e-3, atol=1e-5)


def test_marks_for_the_optimizer_go_over() -> None:
    ours = ours_of("mamba")
    decaying = {n for n, p in ours.named_parameters() if not hasattr(p, "_no_weight_decay")}
    theirs = Transformers(types=["float32"]).adopt(ours)
    for name, parameter in theirs.named_parameters():
        ours_name = name.replace("backbone.model.", "backbone.")
        assert hasattr(parameter, "_no_weight_decay") == (ours_name not in decaying), name


def test_the_rwkv_package_computes_our_weights() -> None:
    ours = ours_of("rwkv")
    theirs = RWKVPackage().adopt(copy.deepcopy(ours))
    assert isinstance(theirs, Recurrent)
    seen = agreement(ours, theirs, batch("language"), torch.float32)
    assert seen.holds
    assert seen.compared > 2 * 40 * 256 - 1
    assert not hasattr(theirs, "log_prob")
    assert sum(p.numel() for p in theirs.parameters()) >= 0.9 * sum(
        p.numel() for p in ours.parameters()
    )
    assert RWKVPackage().problem(torch.device("cpu"), torch.bfloat16) == (
        "it runs here on a CPU in float32, not on cpu in bfloat16"
    )


def test_a_model_that_computes_something_else_is_found() -> None:
    ours = ours_of("transformer")
    theirs = Transformers(types=["float32"]).adopt(copy.deepcopy(ours)).eval()
    with torch.no_grad():
        next(p for n, p in theirs.named_parameters() if "o_proj" in n).mul_(1.02)
    assert not agreement(ours, theirs, batch("language"), torch.float32).holds
    with torch.no_grad():
        theirs.lm_head.weight[3] = float("nan")  # type: ignore[index]
    assert not agreement(ours, theirs, batch("language"), torch.float32).holds


def test_zeros_hide_nothing() -> None:
    """A fresh model's read-out is zero, and so would be every difference."""
    fresh = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    nn.init.zeros_(fresh[1].weight)  # type: ignore[arg-type]
    before = copy.deepcopy(fresh[0].weight)
    assert awake(fresh)[1].weight.abs().min() > 0  # type: ignore[index]
    assert torch.equal(before, fresh[0].weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("moe", "language", r"a shared expert has no counterpart.*d_shared=0"),
        ("rwkv", "language", "no class that computes our RWKV7"),
        ("diffusion", "language", "has no counterpart"),
    ],
)
def test_what_transformers_has_no_class_for(name: str, kind: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Transformers(types=["float32"]).adopt(build(name, kind))


def test_the_rwkv_package_is_of_text_alone() -> None:
    with pytest.raises(ValueError, match="only text"):
        RWKVPackage().adopt(ours_of("rwkv", "classify"))
