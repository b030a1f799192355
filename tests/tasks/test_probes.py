"""Probes: each against its definition, read symbol by symbol; floors, seeds, lengths, bad input."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from bench.tasks import answers as answers_module
from bench.tasks.probe import IGNORED, Probe, Samples
from bench.tasks.probes import drawing
from bench.tasks.probes.tracking import products
from models.backbones.transformer import Transformer
from models.objectives.autoregressive import LanguageModel
from tests.tasks.oracles import Row, oracle
from tests.tasks.test_configs import FOLDER, target

ALL = sorted(
    path.stem for path in FOLDER.glob("*.yaml") if "bench.tasks.probes." in path.read_text()
)
# Without those that are another one at its published size, as recall_64 is recall.
PROBES = [name for name in ALL if not any(name.startswith(f"{other}_") for other in ALL)]
FEW = {"train": None, "validation": 40, "test": 40}
probes = pytest.mark.parametrize("name", PROBES)


def make(name: str, **changes: Any) -> Probe:
    tree = OmegaConf.create({"task": OmegaConf.load(FOLDER / f"{name}.yaml")})
    for key, value in changes.items():
        assert key in tree.task, key
        tree.task[key] = value
    config: Any = OmegaConf.to_container(tree.task, resolve=True)
    made = target(config)(**{k: v for k, v in config["task"].items() if k != "_target_"})
    assert isinstance(made, Probe)
    return made


@probes
def test_an_oracle_is_always_right(name: str) -> None:
    length = 40 if name in ("selective_copying", "mad_selective_copying", "induction") else None
    changes = {"length": length} if length else {}
    probe = make(name, sequences=FEW, longer=[], **changes)
    found = probe.evaluate(oracle(probe, name), "test", "cpu")
    assert found.value == 1.0
    assert found.n_items == 40
    assert found.notes["learned"] == "learned"
    # In training too, where more may be asked.
    batch = next(probe.batches("train", 8, seed=1))
    answers = oracle(probe, name)(tokens=batch["tokens"]).logits.argmax(-1)
    asked = batch["labels"] != IGNORED
    assert asked.any(1).all()
    assert torch.equal(answers[asked], batch["labels"][asked])


class Guessing:
    """Any symbol, or any of a few, as likely as one another."""

    def __init__(self, symbols: Callable[[Row], list[int]], vocab_size: int) -> None:
        self.symbols, self.vocab_size = symbols, vocab_size
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, *, tokens: Tensor, labels: Tensor | None = None) -> Any:
        logits = torch.full((*tokens.shape, self.vocab_size), -9.0)
        for n, row in enumerate(tokens.tolist()):
            likely = self.symbols(row)
            drawn = torch.rand(tokens.shape[1], len(likely), generator=self.generator)
            logits[n][:, likely] = drawn
        return SimpleNamespace(logits=logits)


@probes
def test_guessers_score_what_is_stated(name: str) -> None:
    """The expected scores, by drawing; the values of recall are guessed from each sequence."""
    probe = make(name, longer=[], sequences={"train": None, "validation": 1, "test": 600})
    stated = {b.name: b.quality.value for b in probe.baselines()}
    uniform = Guessing(lambda _: list(range(probe.vocab_size)), probe.vocab_size)
    found = probe.evaluate(uniform, "test", "cpu")
    assert abs(found.value - stated["uniform"]) <= 4 * found.stderr + 1e-3
    assert found.notes["learned"] == "not learned in the budget"
    assert found.secondary["guess"] == pytest.approx(max(stated.values()))
    sets: dict[tuple[str, str], Callable[[Row], list[int]]] = {
        ("recall", "value set"): lambda row: row[1:8:2],
        ("mad_recall", "values"): lambda _: list(range(8, 16)),
        ("mad_memorization", "values"): lambda _: [int(x) for x in probe.facts],  # type: ignore[attr-defined]
        ("group_words", "answer set"): lambda _: list(range(60)),
    }
    for (of, guesser), symbols in sets.items():
        if of == name:
            found = probe.evaluate(Guessing(symbols, probe.vocab_size), "test", "cpu")
            assert abs(found.value - stated[guesser]) <= 4 * found.stderr


@probes
def test_seeds_change_training_alone(name: str) -> None:
    first, again = make(name), make(name)
    assert first.data == again.data
    for split in ("validation", "test"):
        one, other = first.samples(split), again.samples(split)
        assert np.array_equal(one.tokens, other.tokens)
        assert np.array_equal(one.labels, other.labels)
    batches = [next(first.batches("train", 16, seed)) for seed in (0, 0, 1)]
    assert all(torch.equal(batches[0][k], batches[1][k]) for k in ("tokens", "labels"))
    assert not torch.equal(batches[0]["tokens"], batches[2]["tokens"])
    assert batches[0]["tokens"].shape == (16, first.symbols_per_item)
    assert {t.dtype for t in batches[0].values()} == {torch.int64}
    rows = [
        {tuple(row) for row in first.samples(split).tokens.tolist()}
        for split in ("validation", "test")
    ]
    assert len(rows[0] & rows[1]) <= 0.02 * len(rows[0])


@probes
def test_symbols_are_of_the_vocabulary(name: str) -> None:
    probe = make(name, sequences=FEW)
    for length in (probe.length, *probe.longer):
        samples = probe.samples("test", length)
        assert 0 <= samples.tokens.min() <= samples.tokens.max() < probe.vocab_size
        labels = samples.labels[samples.asked]
        assert 0 <= labels.min() <= labels.max() < probe.vocab_size
        assert samples.tokens.shape == samples.labels.shape
        if name != "mad_compression":  # which is asked when all is read
            assert not samples.asked[:, 0].any()  # from nothing nothing follows


@probes
def test_longer_tests_are_scored_as_well(name: str) -> None:
    longer = {"modular_arithmetic": [43], "list_operations": [70]}.get(name)
    probe = make(name, sequences=FEW | {"test": 6})
    probe = make(name, sequences=FEW | {"test": 6}, longer=longer or [probe.length + 2])
    found = probe.evaluate(oracle(probe, name), "test", "cpu", full=True)
    assert {k: v for k, v in found.secondary.items() if k != "guess"} == {
        f"at_{probe.longer[0]}": 1.0
    }


def test_a_finite_set_comes_round_in_another_order() -> None:
    probe = make("mad_recall", sequences={"train": 12, "validation": 1, "test": 1})
    batches = probe.batches("train", 4, seed=0)
    epochs = [
        [tuple(row) for _ in range(3) for row in next(batches)["tokens"].tolist()] for _ in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    assert len(set(epochs[0])) == 12


def test_recall_is_that_of_its_reference() -> None:
    """The description of zoology's `multiquery_ar`, whose labels stand at queries themselves."""
    probe = make("recall", vocab_size=12, pairs=2, length=16, sequences=FEW)
    rows = probe.samples("test")
    for tokens, labels in zip(rows.tokens, rows.labels, strict=True):
        keys, values = tokens[0:4:2], tokens[1:4:2]
        assert ((keys >= 1) & (keys < 6)).all()
        assert ((values >= 6) & (values < 12)).all()
        assert len(set(keys)) == len(set(values)) == 2
        at = np.flatnonzero(labels != IGNORED)
        assert sorted(tokens[at - 1]) == sorted(keys)
        assert all((q - 5) % 2 == 0 for q in at)  # queries are at even places
        rest = np.delete(tokens, [0, 1, 2, 3, *(at - 1)])
        assert not rest.any()
    random = make("recall", vocab_size=12, pairs=2, length=16, random_non_queries=True)
    assert (random.samples("test").tokens == 0).mean() < 0.15


def test_gaps_follow_the_power_law() -> None:
    """Of the key that is drawn first, whose gap has the density a t^(a - 1) exactly."""
    probe = make("recall", pairs=1, length=66, power=0.5)
    samples = probe.draw(np.random.default_rng(0), 40_000, 66, training=True)
    gaps = (samples.asked.argmax(1) - 3) // 2
    room = np.arange(1, 33)
    density = 0.5 * room**-0.5
    expected = density / density.sum()
    found = np.bincount(gaps, minlength=32) / len(gaps)
    error = np.sqrt(expected * (1 - expected) / len(gaps))
    assert (np.abs(found - expected) < 5 * error).all()


@pytest.mark.parametrize(("count", "pool"), [(3, 4), (2, 40), (5, 5), (1, 1)])
def test_numbers_are_distinct_and_all_as_likely(count: int, pool: int) -> None:
    rows = drawing.distinct(np.random.default_rng(0), 20_000, count, pool)
    assert all(len(set(row)) == count for row in rows.tolist())
    for column in rows.T:
        found = np.bincount(column, minlength=pool)
        expected = len(rows) / pool
        assert (np.abs(found - expected) <= 5 * math.sqrt(expected)).all()


@pytest.mark.parametrize(("group", "order", "commutes"), [("Z60", 60, True), ("A5", 60, False),
                                                          ("S5", 120, False)])  # fmt: skip
def test_groups_are_groups(group: str, order: int, commutes: bool) -> None:
    table = products(group)
    assert table.shape == (order, order)
    everything = np.arange(order)
    assert (np.sort(table, 0) == everything[:, None]).all()
    assert (np.sort(table, 1) == everything).all()
    assert (table[0] == everything).all()  # the first element changes nothing
    a, b, c = np.random.default_rng(0).integers(order, size=(3, 500))
    assert (table[table[a, b], c] == table[a, table[b, c]]).all()
    assert np.array_equal(table, table.T) == commutes


def test_long_sequences_are_read_in_parts() -> None:
    """A model's answers are the same, whether it reads a sequence at once or from its state."""
    torch.manual_seed(0)
    backbone = Transformer(
        d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=32, attention="sdpa", causal=True,
        qk_norm=True, mlp="swiglu", rope_theta=1e4, norm_eps=1e-5, residual_init=1.0,
    )  # fmt: skip
    model = LanguageModel(backbone=backbone, vocab_size=20, init="backbone")
    probe = make("selective_copying", vocab_size=20, length=90, longer=[], sequences=FEW)
    whole = probe.evaluate(model, "test", "cpu").items
    with (
        mock.patch.object(answers_module, "SCORED", 25),
        mock.patch.object(model, "prefill", side_effect=model.prefill) as read,
    ):
        parts = probe.evaluate(model, "test", "cpu").items
    assert np.array_equal(whole, parts)
    assert read.call_count == 40 * math.ceil((90 + 16) / 25)
    assert whole.any()


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("recall", {"pairs": 17}, "task.length=64 does not hold task.pairs=17"),
    ("recall", {"vocab_size": 8}, "task.vocab_size=8 has 3 keys, and task.pairs=4 are needed"),
    ("recall", {"length": 63}, "task.length=63 does not hold"),
    ("recall", {"power": 0}, "task.power=0"),
    ("recall", {"longer": [32]}, r"task.longer=\[32\] holds 32, and training has task.length=64"),
    ("recall", {"sequences": {"train": 0, "validation": 1, "test": 1}}, "task.sequences.train=0"),
    ("recall", {"sequences": {"train": None, "test": 1}}, "task.sequences.validation=None"),
    ("selective_copying", {"copied": 300}, "task.copied=300 does not fit into 256"),
    ("selective_copying", {"vocab_size": 3}, "task.vocab_size=3 is too small"),
    ("induction", {"length": 2}, "task.length=2 is too short"),
    ("copying", {"letters": 1}, "task.letters=1"),
    ("modular_arithmetic", {"length": 40}, "task.length=40 is even"),
    ("modular_arithmetic", {"modulus": 1}, "task.modulus=1"),
    ("group_words", {"group": "S4"}, "task.group='S4' is unknown; allowed are Z60, A5, S5"),
    ("passkey", {"needles": 60}, "task.length=256 does not hold task.needles=60"),
    ("passkey", {"digits": 0}, "task.digits=0"),
    ("list_operations", {"depth": 1}, "task.length=64 cannot be with task.depth=1"),
    ("list_operations", {"arguments": 1}, "task.arguments=1 make no list"),
    ("mad_recall", {"noise": 0.5}, "task.noise=0.5 cannot be with task.noise_symbols=0"),
    ("mad_noisy_recall", {"vocab_size": 17}, "task.vocab_size=17 leaves no keys"),
    ("mad_fuzzy_recall", {"motif": 9}, "task.motif=9 cannot be"),
    ("mad_fuzzy_recall", {"length": 8}, "task.length=8 does not hold a pair"),
    ("mad_memorization", {"length": 7}, "task.length=7 is odd"),
]


@pytest.mark.parametrize(("name", "changes", "message"), BAD)
def test_bad_input_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message if "\\" in message else re.escape(message)):
        make(name, **({"longer": []} | changes))


def test_no_more_is_trained_on_than_train() -> None:
    with pytest.raises(ValueError, match="split='test' is no split to train on"):
        make("parity").batches("test", 4, 0)


def test_an_example_of_any_length(tmp_path: Path) -> None:
    probe = make("selective_copying")
    for length in (5, 273, 1000):
        batch = probe.example(3, length)
        assert batch["tokens"].shape == batch["labels"].shape == (3, length)
        assert (batch["labels"] != IGNORED).any()
    assert isinstance(probe.samples("test"), Samples)
