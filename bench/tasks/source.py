"""Text from a seeded source whose probabilities are known, scored in excess bits over the truth.

A document has one of a few topics, which it never names. A topic is a chain of words: what follows
a word is drawn from its successors in that topic, or now and then from all words. Words are spelled
with letters and end with a space, or with a full stop where a sentence ends, after which the
topic's chain begins anew. So a model can gain by learning letters, words, successors and, within a
document, the topic; how much there is to gain is known exactly, on every machine alike:

    p(x) = sum_t 1/K prod_i p_t(w_i | w_{i-1}) p(end_i)

Every item is the beginning of a document: a model that computes p(x) has an excess of zero.

Shapes: N documents, T bytes, W words, K topics.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bench.tasks.base import (
    SPLITS,
    Baseline,
    Batch,
    DataId,
    Quality,
    check_positive,
    check_split,
    check_train,
    digest,
    pick,
    quality,
    scoring,
    stream_of,
)
from bench.tasks.baselines import text_baselines
from bench.tasks.language import as_batch, nats_of

LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
SPACE, STOP = ord(" "), ord(".")
SHORTEST, LONGEST = 2, 8  # letters of a word
SUCCESSORS = 12  # of a word in a topic
ANY = 0.1  # how likely the next word is one of all, by their frequency
ENDS = 0.15  # how likely a sentence ends after a word
DRAWN = 512  # documents drawn at a time
MOST_WORDS = 4096
UNIT = 1 << 24  # parts of a probability
FITTED = 1_000_000  # bytes that the plain rivals are fitted on


class Chain:
    """The source: its words, and of each topic what follows what.

    `following` (K, W + 1, W) has row W for the beginning of a sentence. Words are in lexical order,
    so that those with one beginning stand side by side.
    """

    def __init__(self, seed: int, words: int, topics: int) -> None:
        rng = np.random.default_rng([seed, words, topics])
        self.words = _lexicon(rng, words)
        zipf = 1 / np.arange(1, words + 1)
        frequency = rng.permutation(zipf / zipf.sum())
        counts = np.empty((topics, words + 1, words), np.int64)
        for topic in range(topics):
            for word in range(words + 1):
                row = ANY * frequency
                chosen = rng.choice(words, min(SUCCESSORS, words), replace=False, p=frequency)
                row[chosen] += (1 - ANY) * rng.dirichlet(np.ones(len(chosen)))
                counts[topic, word] = _rounded(row)
        self.following = counts / UNIT
        self.cumulative = counts.cumsum(2)
        self.index = {word: n for n, word in enumerate(self.words)}
        self.lengths = np.array([len(word) for word in self.words])
        self.spelled = np.zeros((words, LONGEST), np.uint8)
        for spelling, letters in zip(self.spelled, self.words, strict=True):
            spelling[: len(letters)] = np.frombuffer(letters, np.uint8)

    def draw(self, rng: np.random.Generator, count: int, length: int) -> np.ndarray:
        """The first `length` bytes of `count` documents, (N, T) uint8."""
        topics, words, _ = self.following.shape
        topic = rng.integers(topics, size=count)
        last = np.full(count, words - 1)
        begin = np.zeros(count, np.int64)
        text = np.zeros((count, length + LONGEST + 1), np.uint8)
        letter = np.arange(LONGEST)
        while begin.min() < length:
            u = rng.integers(UNIT, size=(count, 1))
            word = (self.cumulative[topic, last] <= u).sum(1)  # the first that reaches beyond u
            ends = rng.random(count) < ENDS
            going = np.flatnonzero(begin < length)
            at = begin[going, None] + letter
            spelled = letter < self.lengths[word[going], None]
            where = np.broadcast_to(going[:, None], at.shape)
            text[where[spelled], at[spelled]] = self.spelled[word[going]][spelled]
            stop = begin[going] + self.lengths[word[going]]
            text[going, stop] = np.where(ends[going], STOP, SPACE)
            begin[going] = stop + 1
            last = np.where(ends, words - 1, word)
        return text[:, :length]

    def nats(self, documents: np.ndarray) -> np.ndarray:
        """log p of each, nats, (N, T) uint8 -> (N,)."""
        return np.array([self._nats(document.tobytes()) for document in documents])

    def _nats(self, document: bytes) -> float:
        start = len(self.words)
        total = np.zeros(len(self.following))  # of each topic
        last, word = start, b""
        for byte in document:
            if byte not in (SPACE, STOP):
                word += bytes([byte])
                continue
            n = self.index[word]
            ends = byte == STOP
            total += np.log(self.following[:, last, n]) + math.log(ENDS if ends else 1 - ENDS)
            last, word = (start if ends else n), b""
        if word:
            low, high = _spelled_from(self.words, word)
            total += np.log(self.following[:, last, low:high].sum(1))
        return float(np.logaddexp.reduce(total) - math.log(len(total)))

    def rate(self) -> float:
        """Bits per byte that a document has on average once its topic is known."""
        bits, sizes = [], []
        for following in self.following:
            # Before a word stands the beginning of a sentence or the word before it.
            chain = np.zeros((len(following), len(following)))
            chain[:, :-1], chain[:, -1] = (1 - ENDS) * following, ENDS
            # The shares that a step leaves as they are; one of these equations follows from the
            # others, and gives way to that of their sum.
            system = chain.T - np.eye(len(chain))
            system[-1] = 1
            share = np.linalg.solve(system, np.eye(len(chain))[-1])
            choice = -(following * np.log2(following)).sum(1)
            end = -ENDS * math.log2(ENDS) - (1 - ENDS) * math.log2(1 - ENDS)
            bits.append(share @ choice + end)
            sizes.append(share @ following @ (self.lengths + 1))
        return float(np.mean(np.array(bits) / np.array(sizes)))


def _rounded(probabilities: np.ndarray) -> np.ndarray:
    """In parts of UNIT, none of them zero: what is drawn then hangs on no machine's rounding."""
    counts = np.maximum(np.floor(probabilities * UNIT).astype(np.int64), 1)
    counts[counts.argmax()] += UNIT - counts.sum()
    return counts


def _lexicon(rng: np.random.Generator, count: int) -> list[bytes]:
    """Different words in lexical order."""
    found: set[bytes] = set()
    while len(found) < count:
        length = rng.integers(SHORTEST, LONGEST + 1)
        found.add(rng.choice(LETTERS, length).tobytes())
    return sorted(found)


def _spelled_from(words: list[bytes], beginning: bytes) -> tuple[int, int]:
    """Which words begin like that: from the first to before the second."""
    matching = [n for n, word in enumerate(words) if word.startswith(beginning)]
    return matching[0], matching[-1] + 1


class SourceTask:
    """Documents of `context` bytes; `sequences` is how many there are of validation and test."""

    kind = "language"
    unit = "tokens"

    def __init__(
        self,
        *,
        seed: int,
        words: int,
        topics: int,
        context: int,
        vocab_size: int,
        sequences: Mapping[str, int],
    ) -> None:
        for name, value in {"words": words, "topics": topics, "context": context}.items():
            check_positive(f"task.{name}", value)
        for split in SPLITS[1:]:
            check_positive(f"task.sequences.{split}", sequences.get(split))
        if words > MOST_WORDS:
            raise ValueError(f"task.words={words} is too many; allowed are 1 to {MOST_WORDS}")
        if vocab_size != 256:
            raise ValueError(f"task.vocab_size={vocab_size} is not that of bytes; allowed is 256")
        self.chain = Chain(seed, words, topics)
        self.vocab_size = vocab_size
        self.context = self.symbols_per_item = context
        self.parts = {
            split: self.chain.draw(stream_of(split, seed), count, context)
            for split, count in ((split, sequences[split]) for split in SPLITS[1:])
        }
        # Of the truth a float's last digits may differ between machines; the texts do not.
        self.data = DataId(
            id=f"source-seed{seed}-words{words}-topics{topics}",
            sha256=digest(self.parts),
            sizes={split: part.size for split, part in self.parts.items()},
            notes={
                "items": f"the first {context} bytes of documents",
                "rate": f"{self.chain.rate():.6f} bits per byte where the topic is known",
            },
        )

    def batches(self, split: str, batch_size: int, seed: int) -> Iterator[Batch]:
        """Fresh documents without end."""
        check_train(split)
        check_positive("batch_size", batch_size)
        return self._batches(batch_size, stream_of(split, seed))

    def _batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
        count = max(1, DRAWN // batch_size)
        while True:
            drawn = self.chain.draw(rng, count * batch_size, self.context)
            for part in np.split(drawn, count):
                yield as_batch(part)

    def example(self, batch_size: int, length: int | None = None) -> Batch:
        """The beginning of documents of any length."""
        length = self.context if length is None else length
        check_positive("batch_size", batch_size)
        check_positive("length", length)
        return as_batch(self.chain.draw(np.random.default_rng(0), batch_size, length))

    def evaluate(
        self,
        model: Any,
        split: str,
        device: torch.device | str,
        max_items: int | None = None,
        full: bool = False,
    ) -> Quality:
        """What the model needs more than the truth, bits per byte."""
        check_split(split)
        documents = self.parts[split]
        documents = documents[pick(len(documents), max_items)]
        with scoring(model, device) as device:
            nats, bound = nats_of(model, documents, device)
        return self._excess(nats, documents, bound=bound)

    def _excess(self, nats: np.ndarray, documents: np.ndarray, *, bound: bool) -> Quality:
        """From -log p of each document by a model."""
        per_byte = math.log(2) * self.context
        truth = -self.chain.nats(documents)
        return quality(
            "excess_bits",
            (nats - truth) / per_byte,
            better="lower",
            bound=bound,
            secondary={
                "bits_per_byte": float(nats.mean() / per_byte),
                "true_bits_per_byte": float(truth.mean() / per_byte),
            },
        )

    def _rival(self, bits: np.ndarray, documents: np.ndarray) -> Quality:
        """From a rival's bits per byte of each document, or of all of them together."""
        if len(bits) == len(documents):
            return self._excess(bits * math.log(2) * self.context, documents, bound=False)
        truth = -self.chain.nats(documents).mean() / (math.log(2) * self.context)
        return quality("excess_bits", bits - truth, better="lower", bound=False)

    def baselines(self) -> list[Baseline]:
        """The plain rivals of a text, fitted on as many documents as fit into a megabyte."""
        train = self.chain.draw(stream_of("train", 0), FITTED // self.context + 1, self.context)
        test = self.parts["test"]
        return [
            replace(rival, quality=self._rival(rival.quality.items, test))
            for rival in text_baselines(train.ravel(), test)
        ]
