"""What all probes share: small synthetic tasks that ask for one ability each.

A probe draws its sequences from a seed, as many as training wants, and asks at some positions for a
symbol that what came before determines. A language model is trained on these positions alone and
scored by how often its most probable symbol is the right one. Each file of `bench/tasks/probes`
says where its probes were published.

Shapes: N sequences, T time, V vocabulary.
"""

import abc
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from bench.protocol import Filling
from bench.tasks.answers import answers
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
    shuffled,
    stream_of,
)
from bench.tasks.patience import Patience

IGNORED = -100  # a label where nothing is asked, which torch's cross-entropy leaves out
DRAWN = 1 << 16  # symbols that are drawn at a time for training
# A longer test has as many sequences as make this number of symbols, but not fewer than that.
TESTED, FEWEST = 1 << 20, 8
# A model has learned something where it is better than the best guesser by this share of what is
# left to 1, beyond its standard error.
LEARNED = 0.1


@dataclass(frozen=True)
class Samples:
    """Sequences and what is asked of them, both (N, T) int64.

    labels[:, t] is the symbol that follows from tokens[:, :t], or IGNORED; a probe that brings an
    objective of its own along says what it follows from.
    """

    tokens: np.ndarray
    labels: np.ndarray

    @property
    def asked(self) -> np.ndarray:
        """Where something is, (N, T)."""
        return self.labels != IGNORED

    def picked(self, most: int | None) -> "Samples":
        """At most so many of them."""
        chosen = pick(len(self.tokens), most)
        return Samples(self.tokens[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Guesser:
    """A rival that knows what could be asked and not what came before.

    `hits` (N) is how likely each of its answers is to be right, by sequence.
    """

    name: str
    description: str
    hits: np.ndarray


class Probe(abc.ABC):
    """Sequences of one length, on which models train, and of `longer` ones to test them on.

    `sequences` is how many there are of each split; None of train are fresh ones without end.
    Validation and test are the same for every seed, and none of train's by more than chance.
    """

    kind = "language"
    unit = "tokens"
    scored_by = ("forward",)  # answers are compared, not likelihoods
    metric: ClassVar[str] = "accuracy"

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        longer: Sequence[int],
        sequences: Mapping[str, int | None],
        settings: Mapping[str, object],
    ) -> None:
        check_positive("task.length", length)
        for split in SPLITS:
            if split != "train" or sequences.get(split) is not None:
                check_positive(f"task.sequences.{split}", sequences.get(split))
        for value in longer:
            check_positive("task.longer", value)
            if value <= length:
                raise ValueError(
                    f"task.longer={list(longer)} holds {value}, and training has "
                    f"task.length={length}; allowed are lengths above it"
                )
        for value in (length, *longer):
            self.check(value)
        self.vocab_size, self.length, self.longer = vocab_size, length, tuple(longer)
        self.sequences = dict(sequences)
        parts = {split: self.samples(split) for split in SPLITS[1:]}
        self.symbols_per_item = parts["test"].tokens.shape[1]
        name = type(self).__name__.lower()
        said = "-".join(f"{key}{value}" for key, value in settings.items())
        self.data = DataId(
            id="-".join(filter(None, (name, f"length{length}", said))),
            sha256=digest({
                f"{split} {what}": getattr(part, what)
                for split, part in parts.items() for what in ("tokens", "labels")
            }),
            sizes={split: part.tokens.size for split, part in parts.items()},
            notes={"items": f"sequences of {self.symbols_per_item} symbols"},
        )  # fmt: skip

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, count: int, length: int, *, training: bool) -> Samples:
        """`count` sequences of that length, for training or for a test."""

    def check(self, length: int) -> None:  # noqa: B027 (most lengths are as good as others)
        """ValueError for a length that the probe cannot have."""

    def guessers(self, samples: Samples) -> list[Guesser]:
        """Rivals beside the one that draws any symbol."""
        return []

    def score(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Of each sequence, from which answers are right and where one is asked, both (N, T)."""
        found: np.ndarray = (hits & asked).sum(1) / asked.sum(1)
        return found

    def expected(self, hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """The expected score of answers that are right with a probability of `hits` (N)."""
        return hits

    def samples(self, split: str, length: int | None = None) -> Samples:
        """Validation or test, at training's length or another; of very long ones there are few."""
        length = self.length if length is None else length
        count = self.sequences[split]
        assert count is not None  # but for train, which is none of these
        if length > self.length:
            count = min(count, max(FEWEST, TESTED // length))
        return self.draw(stream_of(split, length), count, length, training=False)

    def batches(self, split: str, batch_size: int, seed: int) -> Iterator[Batch]:
        """Endless batches of train; the other splits are there to be scored."""
        check_train(split)
        check_positive("batch_size", batch_size)
        return self._batches(batch_size, stream_of(split, seed))

    def _batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
        total = self.sequences["train"]
        if total is not None:
            # The set is the same for every seed, as a published one is; its order is not.
            fixed = stream_of("train")
            drawn = self.draw(fixed, total, self.length, training=True)
            for rows in shuffled(total, batch_size, rng):
                yield _batch(drawn, rows)
        count = max(1, DRAWN // (self.symbols_per_item * batch_size))
        while True:
            drawn = self.draw(rng, count * batch_size, self.length, training=True)
            for rows in np.arange(count * batch_size).reshape(count, batch_size):
                yield _batch(drawn, rows)

    def example(self, batch_size: int, length: int | None = None) -> Batch:
        """One batch for timing; for another `length` sequences are cut or repeated."""
        check_positive("batch_size", batch_size)
        drawn = self.draw(np.random.default_rng(0), batch_size, self.length, training=True)
        length = self.symbols_per_item if length is None else length
        check_positive("length", length)
        columns = np.arange(length) % self.symbols_per_item
        tokens, labels = drawn.tokens[:, columns], drawn.labels[:, columns]
        if (labels == IGNORED).all():  # cut before the first question
            labels = tokens
        return {"tokens": torch.from_numpy(tokens), "labels": torch.from_numpy(labels)}

    def evaluate(
        self,
        model: Any,
        split: str,
        device: torch.device | str,
        max_items: int | None = None,
        full: bool = False,
    ) -> Quality:
        """The score at training's length; `full` adds those at longer ones, as `at_LENGTH`.

        A longer one that cannot be tested here is left out, and the notes say why; they also say of
        how many sequences a score is where it is of fewer.
        """
        check_split(split)
        samples = self.samples(split).picked(max_items)
        patience = Patience(model)
        with scoring(model, device) as device:
            score = functools.partial(self._scores, model, device)
            items = patience.timed(samples.tokens, functools.partial(score, samples))
            longer = {
                length: patience.within(others.tokens, functools.partial(score, others))
                for length in (sorted(self.longer) if full else ())
                for others in (self.samples(split, length).picked(max_items),)
            }
        secondary, notes = _of_lengths(longer, len(items))
        best, guessed = max(self._guesses(self.samples(split)), key=lambda guess: guess[1].mean())
        secondary["guess"] = guess = float(guessed.mean())
        reads = "from both sides" if isinstance(model, Filling) else "the past"
        notes |= {"guess": best.description, "reads": reads}
        found = quality(
            self.metric, items, better="higher", bound=False, secondary=secondary, notes=notes
        )
        margin = 0.0 if len(items) < 2 else 2 * found.stderr
        learned = found.value - margin > guess + LEARNED * (1 - guess)
        notes["learned"] = "learned" if learned else "not learned in the budget"
        return found

    def _scores(self, model: Any, device: torch.device, samples: Samples) -> np.ndarray:
        given = answers(model, samples.tokens, samples.asked, device)
        return self.score(given == samples.labels, samples.asked)

    def _guesses(self, samples: Samples) -> list[tuple[Guesser, np.ndarray]]:
        """Every guesser with its expected score of each sequence."""
        any_symbol = np.full(len(samples.tokens), 1 / self.vocab_size)
        uniform = Guesser("uniform", "any symbol of the vocabulary", any_symbol)
        return [
            (guesser, self.expected(guesser.hits, samples.asked))
            for guesser in (uniform, *self.guessers(samples))
        ]

    def baselines(self) -> list[Baseline]:
        """The guessers' expected scores on test."""
        return [
            Baseline(
                name=guesser.name,
                description=guesser.description,
                quality=quality(self.metric, scores, better="higher", bound=False),
                seconds=0.0,
            )
            for guesser, scores in self._guesses(self.samples("test"))
        ]


def _of_lengths(
    found: Mapping[int, np.ndarray | str], usual: int
) -> tuple[dict[str, float], dict[str, str]]:
    """The scores at longer lengths, and what is to be said where sequences were fewer or none."""
    scores: dict[str, float] = {}
    notes: dict[str, str] = {}
    for length, items in found.items():
        name = f"at_{length}"
        if isinstance(items, str):
            notes[name] = f"left out: {items}"
            continue
        scores[name] = float(items.mean())
        if len(items) < usual:
            notes[name] = f"of {len(items)} sequences"
    return scores, notes


def _batch(drawn: Samples, rows: np.ndarray) -> Batch:
    return {
        "tokens": torch.from_numpy(drawn.tokens[rows]),
        "labels": torch.from_numpy(drawn.labels[rows]),
    }
