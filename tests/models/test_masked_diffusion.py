"""The masked diffusion bound against enumeration of sequences and of unmasking orders."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.transformer import Transformer
from models.objectives.masked_diffusion import MaskedDiffusion, masked_counts, masked_sets

VOCAB, LENGTH = 3, 4
SEQUENCES = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))  # (81, 4)


def build(
    draws: int = 8,
    seed: int = 0,
    causal: bool = False,
    count_floor: float = 0.0,
    train_draws: int = 1,
) -> MaskedDiffusion:
    torch.manual_seed(seed)
    backbone = Transformer(
        d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=32, attention="sdpa", causal=causal,
        qk_norm=True, mlp="relu2", rope_theta=10_000.0, norm_eps=1e-5, residual_init=1.0,
    )  # fmt: skip
    model = MaskedDiffusion(
        backbone=backbone,
        vocab_size=VOCAB,
        train_draws=train_draws,
        count_floor=count_floor,
        draws=draws,
        eval_seed=0,
        sampling_steps=LENGTH,
    )
    nn.init.normal_(model.lm_head.weight, std=0.5)  # at zero every order gives the same
    return model.eval()


def log_p_by_order(model: MaskedDiffusion, tokens: Tensor) -> Tensor:
    """Exact log p of every sequence in each order of unmasking, (T!, B), in plain loops."""
    rows = []
    for order in itertools.permutations(range(LENGTH)):
        total = torch.zeros(len(tokens))
        masked = torch.ones_like(tokens, dtype=torch.bool)
        for position in order:
            with torch.no_grad():
                logits, _ = model.denoise(tokens, masked)
            picked = logits[:, position].log_softmax(-1)
            total = total + picked.gather(-1, tokens[:, position, None])[:, 0]
            masked = masked.clone()
            masked[:, position] = False
        rows.append(total)
    return torch.stack(rows)


def exact_bound(model: MaskedDiffusion, tokens: Tensor) -> Tensor:
    """The bound over all counts and all sets, nats (B,)."""
    total = torch.zeros(len(tokens))
    for n in range(1, LENGTH + 1):
        sets = list(itertools.combinations(range(LENGTH), n))
        for chosen in sets:
            masked = torch.zeros_like(tokens, dtype=torch.bool)
            masked[:, list(chosen)] = True
            with torch.no_grad():
                counts = torch.full((len(tokens),), n)
                terms = model.terms(tokens, masked, counts)
            total = total + terms / len(sets) / LENGTH
    return total


def train(model: MaskedDiffusion, steps: int) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        first = torch.randint(0, VOCAB, (64, 1))
        tokens = (first + torch.arange(LENGTH)) % VOCAB  # three sequences, entropy log 3
        optimizer.zero_grad()
        loss = model(tokens=tokens, labels=tokens).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("steps", [0, 60])
def test_bound_is_the_mean_over_orders_and_at_least_the_exact_nll(steps: int) -> None:
    model = build()
    train(model, steps)
    orders = log_p_by_order(model, SEQUENCES)
    # The model that draws an order and then uncovers: p(x) is the mean over orders.
    exact = orders.logsumexp(0) - math.log(len(orders))
    assert float(exact.logsumexp(0)) == pytest.approx(0, abs=1e-4)  # sums to one
    bound = exact_bound(model, SEQUENCES)
    torch.testing.assert_close(bound, -orders.mean(0), rtol=1e-4, atol=1e-4)
    assert bool((bound >= -exact - 1e-5).all())
    assert float((bound + exact).max()) > 1e-4  # orders differ: the inequality is not empty


def test_drawn_bound_is_unbiased_and_repeatable() -> None:
    model = build(draws=16)
    expected = exact_bound(model, SEQUENCES[:5])
    score = model.log_prob(SEQUENCES[:5].repeat(400, 1))
    assert score.bound
    assert score.forwards == 16
    drawn = -score.nats.view(400, 5)
    error = drawn.std(0) / math.sqrt(400)
    assert bool(((drawn.mean(0) - expected).abs() < 4 * error).all())
    again = model.log_prob(SEQUENCES[:5].repeat(400, 1)).nats
    torch.testing.assert_close(again, score.nats, rtol=0, atol=0)


def test_training_loss_has_the_expectation_of_the_bound_and_of_mdlm() -> None:
    model = build()
    tokens = SEQUENCES[7].repeat(4000, 1)
    expected = float(exact_bound(model, tokens[:1])) / LENGTH
    with torch.no_grad():
        got = model(tokens=tokens, labels=tokens).nll
        assert got is not None
        assert float(got) == pytest.approx(expected, abs=0.03)
        several = build(train_draws=3)
        again = several(tokens=tokens, labels=tokens).nll
        assert again is not None
        assert float(again) == pytest.approx(expected, abs=0.02)
        # MDLM eq. 10 with a log-linear schedule: every symbol masked with rate t, weight 1 / t.
        many = tokens[:1].expand(64_000, -1)
        rate = (torch.arange(64_000) + 0.5)[:, None] / 64_000
        masked = torch.rand(64_000, LENGTH) < rate
        logits, _ = model.denoise(many, masked)
        nll = F.cross_entropy(logits.transpose(1, 2), many, reduction="none")
        mdlm = float((nll * masked / rate).mean())
    assert mdlm == pytest.approx(expected, abs=0.06)  # its standard deviation is 0.016


def test_a_capped_weight_changes_the_loss_and_never_the_bound() -> None:
    plain, capped = build(), build(count_floor=0.75)
    tokens = SEQUENCES[7:8].repeat(4, 1)  # the grid of four rows holds every count once
    results = []
    for model in (plain, capped):
        torch.manual_seed(5)
        with torch.no_grad():
            results.append(model(tokens=tokens, labels=tokens))
    assert results[0].loss == results[0].nll == results[1].nll
    assert float(results[1].loss) < float(results[1].nll) - 0.05
    torch.testing.assert_close(
        capped.log_prob(SEQUENCES).nats, plain.log_prob(SEQUENCES).nats, rtol=0, atol=0
    )
    # By hand: 1/n becomes 1/3 for one and two masked symbols.
    torch.manual_seed(5)
    counts = masked_counts((torch.arange(4) + torch.rand(())) / 4, LENGTH)
    assert counts.tolist() == [1, 2, 3, 4]
    masked = masked_sets(counts, torch.rand(4, LENGTH))
    with torch.no_grad():
        nats = plain.terms(tokens, masked, counts) * counts / LENGTH
    expected = (nats / torch.tensor([3.0, 3.0, 3.0, 4.0])).mean()
    torch.testing.assert_close(results[1].loss, expected)


def test_logits_are_whole_or_none() -> None:
    """A training step reads out masked positions alone and says that it has no logits to show."""
    model = build()
    with_labels = model(tokens=SEQUENCES, labels=SEQUENCES)
    assert with_labels.logits is None
    assert with_labels.loss is not None
    assert model(tokens=SEQUENCES).logits.shape == (len(SEQUENCES), LENGTH, VOCAB)


@pytest.mark.parametrize("count_floor", [0.0, 0.25])
def test_training_reaches_the_entropy(count_floor: float) -> None:
    model = build(count_floor=count_floor)
    losses = train(model, 150)
    assert losses[0] > 0.9
    entropy = math.log(3)
    tokens = (torch.arange(3)[:, None] + torch.arange(LENGTH)) % VOCAB
    bound = float(exact_bound(model, tokens).mean())
    assert entropy - 1e-4 <= bound < entropy + 0.1
    drawn = model.sample(200, length=LENGTH, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (200, LENGTH)
    hits = (drawn == tokens[drawn[:, 0]]).all(-1).float().mean()
    assert float(hits) > 0.9


def test_sample_fills_every_position_whatever_the_number_of_steps() -> None:
    model = build()
    for steps in (1, 3, 100):
        model.sampling_steps = steps
        drawn = model.sample(5, length=7, generator=torch.Generator().manual_seed(1))
        assert drawn.shape == (5, 7)
        assert int(drawn.min()) >= 0
        assert int(drawn.max()) < VOCAB


def test_counts_and_sets() -> None:
    counts = masked_counts((torch.arange(8) + 0.5) / 8, 4)
    assert counts.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert masked_sets(counts, torch.rand(8, 4)).sum(-1).tolist() == counts.tolist()


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="causal"):
        build(causal=True)
    with pytest.raises(ValueError, match="draws"):
        build(draws=0)
    with pytest.raises(ValueError, match="count_floor"):
        build(count_floor=1.5)
    with pytest.raises(ValueError, match="length"):
        build().sample(2)


def test_questions_are_filled_from_both_sides() -> None:
    """Labels of which some are negative: the rest is masked, all of it and nothing else."""
    model = build()
    tokens, asked = SEQUENCES[40:44], torch.tensor([[False, True, False, True]]).expand(4, -1)
    labels = torch.where(asked, (tokens + 1) % VOCAB, -100)
    output = model(tokens=tokens, labels=labels)
    masked = tokens.masked_fill(asked, model.mask)
    hidden, _ = model.backbone(model.embedding(masked))
    expected = F.cross_entropy(model.lm_head(hidden)[asked], labels[asked])
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.nll, expected)
    # What stands there is not read.
    other = torch.where(asked, (tokens + 2) % VOCAB, tokens)
    assert torch.equal(model.fill(tokens, asked), model.fill(other, asked))
    assert not torch.equal(model.fill(tokens, asked), model.fill((tokens + 1) % VOCAB, asked))
