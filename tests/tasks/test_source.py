"""The known source: its probabilities against enumeration, drawing and its entropy rate."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.tasks.source import SPACE, STOP, Chain, SourceTask


def source(**changes: Any) -> SourceTask:
    keys = {
        "seed": 0, "words": 256, "topics": 4, "context": 256, "vocab_size": 256,
        "sequences": {"validation": 8, "test": 64},
    }  # fmt: skip
    return SourceTask(**(keys | changes))


def every(chain: Chain, length: int) -> np.ndarray:
    """All beginnings of documents with that many bytes, each once."""
    found = {b""}
    while any(len(text) < length for text in found):
        found = {
            text if len(text) >= length else text + word + bytes([end])
            for text, word, end in itertools.product(found, chain.words, (SPACE, STOP))
        }
    texts = sorted({text[:length] for text in found})
    return np.array([list(text) for text in texts], np.uint8)


@pytest.mark.parametrize("length", [1, 5, 9])
def test_probabilities_of_all_documents_are_one_together(length: int) -> None:
    chain = Chain(seed=3, words=4, topics=2)
    documents = every(chain, length)
    assert np.exp(chain.nats(documents)).sum() == pytest.approx(1, abs=1e-12)


def test_documents_are_drawn_as_often_as_is_said() -> None:
    chain = Chain(seed=3, words=4, topics=2)
    documents = every(chain, 9)
    drawn = chain.draw(np.random.default_rng(0), 100_000, 9)
    where = {document.tobytes(): n for n, document in enumerate(documents)}
    counts = np.bincount([where[d.tobytes()] for d in drawn], minlength=len(documents))
    expected = len(drawn) * np.exp(chain.nats(documents))
    often = expected > 20
    assert expected[often].sum() > 0.95 * len(drawn)
    chi = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = often.sum()
    assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom)


def test_the_rate_is_that_of_long_documents() -> None:
    chain = Chain(seed=1, words=50, topics=3)
    drawn = chain.draw(np.random.default_rng(0), 200, 4000)
    bits = -chain.nats(drawn) / math.log(2) / 4000
    # The topic costs log2 3 bits a document, and the first words less than later ones.
    assert bits.mean() == pytest.approx(chain.rate(), abs=5 * bits.std() / 14 + 3 / 4000)


class Truth:
    """A model that knows the source, one that has half its probability, and one without any."""

    def __init__(self, chain: Chain, loss: float = 0.0) -> None:
        self.chain, self.loss = chain, loss

    def log_prob(self, tokens: Tensor) -> Any:
        nats = torch.from_numpy(self.chain.nats(tokens.numpy().astype(np.uint8)))
        return SimpleNamespace(nats=nats - self.loss, bound=False, forwards=1)


def test_excess_is_what_a_model_needs_more() -> None:
    task = source()
    assert np.abs(task.evaluate(Truth(task.chain), "test", "cpu").items).max() < 1e-12
    found = task.evaluate(Truth(task.chain, math.log(2)), "test", "cpu")
    assert found.value == pytest.approx(1 / 256)
    secondary = found.secondary
    assert secondary["bits_per_byte"] - secondary["true_bits_per_byte"] == pytest.approx(1 / 256)


def test_it_is_the_same_everywhere_and_its_parts_are_not() -> None:
    first, again, other = source(), source(), source(seed=1)
    assert first.data == again.data
    # Of the texts themselves, so that a machine that draws others is found out.
    assert first.data.sha256.startswith(SHA)
    assert first.data.sha256 != other.data.sha256
    assert first.data.sizes == {"validation": 8 * 256, "test": 64 * 256}
    rows = [{row.tobytes() for row in part} for part in first.parts.values()]
    assert not rows[0] & rows[1]
    batches = [next(first.batches("train", 4, seed))["tokens"] for seed in (0, 0, 1)]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
    assert first.example(2, 300)["tokens"].shape == (2, 300)


SHA = "b17b5c0fcce06c91"


def test_rivals_are_worse_than_the_truth_and_better_than_nothing() -> None:
    values = {b.name: b.quality for b in source().baselines()}
    truth = values["uniform"].secondary["true_bits_per_byte"]
    assert values["uniform"].value == pytest.approx(8 - truth)
    assert 0.05 < values["5-gram"].value < values["bigram"].value < values["uniform"].value
    assert 0 < values["lzma"].value < values["uniform"].value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": 0}, "task.words=0"),
        ({"words": 5000}, "task.words=5000 is too many; allowed are 1 to 4096"),
        ({"topics": 0}, "task.topics=0"),
        ({"context": 0}, "task.context=0"),
        ({"vocab_size": 100}, "task.vocab_size=100"),
        ({"sequences": {"test": 1}}, "task.sequences.validation=None"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(**changes)


def test_no_more_is_trained_on_than_train() -> None:
    with pytest.raises(ValueError, match="split='test' is no split to train on"):
        source().batches("test", 4, 0)
