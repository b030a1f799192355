"""What every model of the registry must satisfy; a new YAML is tested without a new test."""

import inspect
import itertools
from typing import Any

import pytest
import torch
from hydra.utils import get_class, get_object
from torch import nn

from bench import protocol
from bench.constants import TOLERANCE
from bench.parameters import count
from bench.sizes import count_on_meta
from tests.zoo import CROSSED_PAIRS, FREE, GROUPS, KINDS, MODELS, PAIRS, SIZED, SIZES, build, node

EXACT = [name for name in MODELS if name not in ("diffusion", "dit", "diffusers", "timm")]
VERBS = {
    "language": protocol.LanguageModel,
    "classify": protocol.Classifier,
    "generate": protocol.Generator,
}


def instantiate(tree: dict) -> nn.Module:
    from hydra.utils import instantiate as hydra_instantiate

    return hydra_instantiate(tree, _convert_="all")


def test_every_family_has_a_form_for_every_kind() -> None:
    """Not every model has: DiT leaves text to the masked diffusion of its family.

    Networks of other libraries do what these are made for.
    """
    families: dict[str, set[str]] = {}
    for model in (group for name, group in GROUPS.items() if name not in FREE):
        families.setdefault(model["family"], set()).update(model["kinds"])
    assert all(kinds == set(KINDS) for kinds in families.values()), families


def sized() -> list[tuple[str, str, str]]:
    """Every model, kind and size; those called micro are for probes, which are sequences."""
    return [
        (name, kind, size)
        for name, kind in SIZED
        for size in SIZES
        if kind == "language" or not size.startswith("micro")
    ]


@pytest.mark.parametrize(("name", "kind", "size"), sized())
def test_sizes_are_matched(name: str, kind: str, size: str) -> None:
    solved = node(name, kind, size)
    numbers = count_on_meta(lambda: instantiate(solved))
    assert abs(numbers.matched - SIZES[size]) <= TOLERANCE * SIZES[size]
    assert numbers.matched <= numbers.active <= numbers.total


def crossed() -> list[tuple[str, str, str]]:
    """Models under other objectives; a generator is the network of a classifier."""
    return [
        (name, kind, size)
        for name, kind in CROSSED_PAIRS
        for size in ("micro", "nano", "tiny")
        if (name, size) != ("resnet under autoregressive", "micro")
        if kind != "generate" and (size == "nano" or "autoregressive" not in name)
    ]


@pytest.mark.parametrize(("name", "kind", "size"), crossed())
def test_sizes_are_matched_under_other_objectives(name: str, kind: str, size: str) -> None:
    test_sizes_are_matched(name, kind, size)


def arguments(target: Any) -> set[str]:
    """Names of a constructor's arguments; those of a mixer too where a stack hands them on."""
    taken = dict(inspect.signature(target).parameters)
    mixer_class = getattr(target, "mixer_class", None)
    if mixer_class is not None:
        options = taken.pop("options")
        assert options.kind is options.VAR_KEYWORD
        taken |= inspect.signature(mixer_class).parameters
    assert all(p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) for p in taken.values()), target
    return set(taken)


@pytest.mark.parametrize(("name", "kind"), [*PAIRS, *CROSSED_PAIRS])
def test_yaml_names_every_argument_of_the_constructor(name: str, kind: str) -> None:
    def check(tree: dict) -> None:
        given = {key for key in tree if not key.startswith("_")}
        target = get_object(tree["_target_"])
        assert given == arguments(target), tree["_target_"]
        for value in tree.values():
            if isinstance(value, dict) and "_target_" in value:
                check(value)

    check(node(name, kind))


@pytest.mark.parametrize(("name", "kind"), [*PAIRS, *CROSSED_PAIRS])
def test_model_offers_the_verbs_of_its_kind(name: str, kind: str) -> None:
    assert isinstance(build(name, kind), VERBS[kind])


@pytest.mark.parametrize(("name", "kind"), [*SIZED, *CROSSED_PAIRS])
def test_model_states_its_flops(name: str, kind: str) -> None:
    model = build(name, kind)
    assert isinstance(model, protocol.Costed)
    one, four = (model.flops(batch, 64) for batch in (1, 4))
    assert four == 4 * one > 2 * count(model).matched  # each weight is used once a symbol at least


@pytest.mark.parametrize("name", EXACT)
def test_later_tokens_change_no_earlier_logit(name: str) -> None:
    model = build(name, "language").eval()
    tokens = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 25:] = (changed[:, 25:] + 7) % 256
    with torch.no_grad():
        before = model(tokens=tokens).logits
        after = model(tokens=changed).logits
    # logits[:, 25] predict token 25 and so have not seen it.
    torch.testing.assert_close(after[:, :26], before[:, :26], atol=1e-5, rtol=1e-5)
    assert (after[:, 26:] - before[:, 26:]).abs().max() > 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_later_pixels_change_no_earlier_logit(name: str) -> None:
    model = build(name, "generate").eval()
    pixels = torch.randint(17, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    changed = pixels.clone().flatten(1)
    changed[:, 29:] = (changed[:, 29:] + 3) % 17
    condition = torch.tensor([3, 7])
    with torch.no_grad():
        before = model(pixels=pixels, condition=condition).logits.flatten(1, 2)
        after = model(pixels=changed.view(2, 8, 8), condition=condition).logits.flatten(1, 2)
    torch.testing.assert_close(after[:, :30], before[:, :30], atol=1e-5, rtol=1e-5)
    assert (after[:, 30:] - before[:, 30:]).abs().max() > 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_step_and_prefill_in_pieces_equal_the_parallel_form(name: str) -> None:
    model = build(name, "language").eval()
    tokens = torch.randint(256, (2, 37), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        parallel = model(tokens=tokens).logits
        pieces, state = [], None
        for piece in tokens.split([1, 17, 5, 14], 1):
            logits, state = model.prefill(piece, state)
            pieces.append(logits)
        torch.testing.assert_close(
            torch.cat(pieces, 1)[:, :-1], parallel[:, 1:], atol=1e-4, rtol=1e-4
        )
        logits, state = model.prefill(tokens[:, :10])
        for t in range(10, 37):
            torch.testing.assert_close(logits[:, -1:], parallel[:, t : t + 1], atol=1e-4, rtol=1e-4)
            one, state = model.step(tokens[:, t], state)
            logits = one[:, None]


@pytest.mark.parametrize("name", EXACT)
def test_batch_of_one_equals_batch_of_many(name: str) -> None:
    model = build(name, "language").double().eval()
    tokens = torch.randint(256, (3, 21), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        many = model.log_prob(tokens).nats
        one = torch.cat([model.log_prob(row[None]).nats for row in tokens])
    # The likelihood is taken in float32 whatever the dtype of the network.
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("name", EXACT)
def test_likelihood_of_texts_sums_to_one(name: str) -> None:
    model = build(name, "language", task={"vocab_size": 3}).eval()
    texts = torch.tensor(list(itertools.product(range(3), repeat=4)))
    with torch.no_grad():
        result = model.log_prob(texts)
    assert not result.bound
    assert result.nats.shape == (81,)
    assert result.nats.exp().sum().item() == pytest.approx(1, abs=1e-4)
    assert result.nats.std() > 1e-3


@pytest.mark.parametrize("name", EXACT)
def test_likelihood_of_images_sums_to_one(name: str) -> None:
    task = {"levels": 3, "height": 2, "width": 2, "n_classes": 2}
    model = build(name, "generate", task=task).eval()
    images = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    for label in range(2):
        with torch.no_grad():
            result = model.log_prob(images, torch.full((81,), label))
        assert not result.bound
        assert result.nats.exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", EXACT)
def test_samples_follow_the_likelihood(name: str) -> None:
    """Frequencies of drawn images against the model's own probabilities (chi-square, 99.9 %)."""
    from scipy.stats import chisquare

    task = {"levels": 2, "height": 1, "width": 3, "n_classes": 2}
    model = build(name, "generate", task=task).eval()
    n = 2000
    drawn = model.sample(
        n, condition=torch.ones(n, dtype=torch.long), generator=torch.Generator().manual_seed(0)
    )
    code = (drawn.flatten(1) * torch.tensor([4, 2, 1])).sum(1)
    images = torch.tensor(list(itertools.product(range(2), repeat=3))).view(-1, 1, 3)
    with torch.no_grad():
        expected = model.log_prob(images, torch.ones(8, dtype=torch.long)).nats.double().exp()
    observed = torch.bincount(code, minlength=8).double()
    expected = expected / expected.sum() * n
    assert chisquare(observed.numpy(), expected.numpy()).pvalue > 0.001


DENOISERS = [pair for pair in CROSSED_PAIRS if pair[1] == "generate" or "resnet" in pair[0]]


@pytest.mark.parametrize(("name", "kind"), [*SIZED, *DENOISERS])
def test_a_few_steps_lower_the_loss(name: str, kind: str) -> None:
    from bench.training import Recipe, Trainer

    torch.manual_seed(0)
    model = instantiate(node(name, kind)).train()
    generator = torch.Generator().manual_seed(4)
    if kind == "language":
        text = torch.tensor(list(b"the quick brown fox jumps over the lazy dog. " * 3))
        tokens = torch.stack([text[i : i + 64] for i in range(0, 32, 4)])
        batch = {"tokens": tokens, "labels": tokens}
    else:
        pixels = torch.randint(17, (16, 8, 8), generator=generator)
        label = torch.arange(16) % 10
        pixels[:, :, :4] = label[:, None, None]
        if kind == "classify":
            batch = {"pixels": pixels, "labels": label}
        else:
            batch = {"pixels": pixels, "condition": label, "labels": pixels}
    recipe = Recipe(lr=0.02, adam_ratio=0.2, weight_decay=0.0, cooldown=0.0, clip=1.0)
    trainer = Trainer(model, recipe, steps=40)
    losses = torch.stack([trainer.step(batch) for _ in range(40)])
    assert losses.isfinite().all()
    assert losses[-8:].mean() < 0.9 * losses[:3].mean()


def test_count_leaves_out_tables_and_readout() -> None:
    model = build("transformer", "language")
    numbers = count(model)
    tables = 256 * model.embedding.embedding_dim
    tables += model.start.weight.numel() + model.lm_head.weight.numel()
    assert numbers.total - numbers.matched == tables
    assert get_class("models.objectives.autoregressive.LanguageModel") is type(model)
