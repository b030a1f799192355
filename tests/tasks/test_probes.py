"""Probes: each against its definition, read symbol by symbol; floors, seeds, lengths, bad input."""

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from bench.tasks.probe import IGNORED, Probe, Samples
from bench.tasks.probes import drawing
from bench.tasks.probes.tracking import products
from tests.tasks.test_configs import FOLDER, target

PROBES = sorted(
    path.stem for path in FOLDER.glob("*.yaml") if "bench.tasks.probes." in path.read_text()
)
FEW = {"train": None, "validation": 40, "test": 40}
probes = pytest.mark.parametrize("name", PROBES)
Row = list[int]


def make(name: str, **changes: Any) -> Probe:
    tree = OmegaConf.create({"task": OmegaConf.load(FOLDER / f"{name}.yaml")})
    for key, value in changes.items():
        assert key in tree.task, key
        tree.task[key] = value
    config: Any = OmegaConf.to_container(tree.task, resolve=True)
    made = target(config)(**{k: v for k, v in config["task"].items() if k != "_target_"})
    assert isinstance(made, Probe)
    return made


# What each probe asks, computed from the symbols before a question alone: the answer at position t
# of a row, of which row[:t] may be read.


def recall(row: Row, probe: Any) -> int:
    """The symbol after the first place of the last one."""
    return row[row.index(row[-1]) + 1]


def selective_copying(row: Row, probe: Any) -> int:
    mark = probe.vocab_size - 1
    data = [x for x in row if x not in (0, mark)]
    return data[row.count(mark) - 1]


def induction(row: Row, probe: Any) -> int:
    assert row[-1] == probe.vocab_size - 1
    assert row.count(row[-1]) == 2
    return recall(row, probe)


def copying(row: Row, probe: Any) -> int:
    bar = row.index(2)
    string, so_far = row[1:bar], row[bar + 1 :]
    assert row[0] == 1
    assert min(string) >= 4
    return string[len(so_far)] if len(so_far) < len(string) else 3


def parity(row: Row, probe: Any) -> int:
    return sum(row) % 2


def modular_arithmetic(row: Row, probe: Any) -> int:
    m = probe.modulus
    words = [str(x) if x < m else "+-*"[x - m] for x in row]
    return int(eval(" ".join(words))) % m  # of digits and operators that were just written


def group_words(row: Row, probe: Any) -> int:
    """By products of matrices that permute the corners of a simplex."""
    corners = np.eye(5)
    elements = [p for p in itertools.permutations(range(5)) if np.linalg.det(corners[list(p)]) > 0]
    total = corners
    for x in row:
        total = corners[list(elements[x])].T @ total
    return elements.index(tuple(total.argmax(0)))


def passkey(row: Row, probe: Any) -> int:
    names = [i for i, x in enumerate(row) if x >= 10 + probe.filler]
    asked, given = names[-1], len(row) - names[-1] - 1
    [place] = [i for i in names[:-1] if row[i] == row[asked]]
    assert max(row[place + 1 : place + 1 + probe.digits]) < 10
    return row[place + 1 + given]


def list_operations(row: Row, probe: Any) -> int:
    def median(x: Row) -> int:
        return sorted(x)[(len(x) - 1) // 2]

    functions: list[Callable[[Row], int]] = [max, min, median, lambda x: sum(x) % 10]
    stack: list[Any] = []
    for x in (x for x in row if x != 15):
        if x == 14:
            opened = max(i for i, y in enumerate(stack) if callable(y))
            function, *arguments = stack[opened:]
            assert 2 <= len(arguments) <= probe.arguments
            stack[opened:] = [function(arguments)]
        else:
            stack.append(functions[x - 10] if x >= 10 else x)
    [value] = stack
    assert isinstance(value, int)
    return value


def mad_recall(row: Row, probe: Any) -> int:
    """The value of the last key where it was a key before: keys stand at even places."""
    *before, key = row[0::2]
    return row[2 * before.index(key) + 1]


def mad_fuzzy_recall(row: Row, probe: Any) -> int:
    """Read as runs of symbols of keys and of values."""
    kinds = [x < probe.keys for x in row]
    row = [x for x in row if x != probe.vocab_size - 1]
    runs = [list(g) for _, g in itertools.groupby(row, lambda x: x < probe.keys)]
    assert kinds.index(True) == len(kinds) - len(row)
    if kinds[-1]:
        keys, values, so_far = runs[0::2], runs[1::2], []
    else:
        keys, values, so_far = runs[0::2], runs[1:-1:2], runs[-1]
    return values[keys[:-1].index(keys[-1])][len(so_far)]


ORACLES: dict[str, Callable[[Row, Any], int]] = {
    "recall": recall, "selective_copying": selective_copying, "induction": induction,
    "copying": copying, "parity": parity, "modular_arithmetic": modular_arithmetic,
    "group_words": group_words, "passkey": passkey, "list_operations": list_operations,
    "mad_recall": mad_recall, "mad_noisy_recall": mad_recall,
    "mad_fuzzy_recall": mad_fuzzy_recall, "mad_selective_copying": selective_copying,
}  # fmt: skip


class Knowing:
    """Answers by an oracle, where it finds an answer."""

    def __init__(self, oracle: Callable[[Row, Any], int], probe: Probe) -> None:
        self.oracle, self.probe = oracle, probe

    def __call__(self, *, tokens: Tensor, labels: Tensor | None = None) -> Any:
        assert labels is None
        logits = torch.zeros(*tokens.shape, self.probe.vocab_size)
        for n, row in enumerate(tokens.tolist()):
            for t in range(1, len(row)):
                try:
                    logits[n, t, self.oracle(row[:t], self.probe)] = 1
                except (ValueError, IndexError, AssertionError, SyntaxError):
                    continue  # nothing is asked here
        return SimpleNamespace(logits=logits)

    def log_prob(self, tokens: Tensor) -> Any:
        raise NotImplementedError


class Facts(Knowing):
    """What a model of `memorization` has to learn by heart, counted from training."""

    def __init__(self, probe: Probe) -> None:
        batch = next(probe.batches("train", 512, seed=0))
        asked = batch["labels"][:, 1:] != IGNORED
        keys, values = batch["tokens"][:, :-1][asked], batch["labels"][:, 1:][asked]
        self.facts = dict(zip(keys.tolist(), values.tolist(), strict=True))
        super().__init__(lambda row, _: self.facts.get(row[-1], 0), probe)


def oracle(probe: Probe, name: str) -> Knowing:
    return Facts(probe) if name == "mad_memorization" else Knowing(ORACLES[name], probe)


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
    """A bigram's answers, whether it reads a sequence at once or from its state."""

    class Bigram:
        table = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))

        def __call__(self, *, tokens: Tensor, labels: Tensor | None = None) -> Any:
            logits = torch.zeros(*tokens.shape, 16)
            logits[:, 1:] = self.table[tokens[:, :-1]]
            return SimpleNamespace(logits=logits)

        def log_prob(self, tokens: Tensor) -> Any:
            raise NotImplementedError

    class Stepping(Bigram):
        parts = 0

        def prefill(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
            assert state is None or state == self.parts
            self.parts += 1
            return self.table[tokens], self.parts

        def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
            raise NotImplementedError

        def crop(self, state: Any, length: int) -> Any:
            raise NotImplementedError

        def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
            return 0

    probe = make("induction", length=70_000, longer=[], sequences=FEW | {"test": 30})
    whole, stepped = Bigram(), Stepping()
    scores = [probe.evaluate(m, "test", "cpu").items for m in (whole, stepped)]
    assert np.array_equal(*scores)
    assert stepped.parts > 1
    assert scores[0].any()


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
