"""What each probe asks, computed from the symbols before a question alone.

An oracle is told row[:t] and says the answer at position t.
"""

import itertools
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench.tasks.probe import IGNORED, Probe

Row = list[int]


def recall(row: Row, probe: Any) -> int:
    """The symbol after the first place of the last one."""
    return row[row.index(row[-1]) + 1]


def selective_copying(row: Row, probe: Any) -> int:
    mark = probe.vocab_size - 1
    data = [x for x in row if x not in (0, mark)]
    return data[row.count(mark) - 1]


def mad_selective_copying(row: Row, probe: Any) -> int:
    """By how many empty symbols stand behind the one mark."""
    mark = row.index(probe.vocab_size - 1)
    assert row[mark - 1] != 0  # the last of the symbols stands before the mark
    return [x for x in row[:mark] if x][len(row[mark + 1 :]) - 1]


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
        return int(statistics.median(x))

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
    "mad_fuzzy_recall": mad_fuzzy_recall, "mad_selective_copying": mad_selective_copying,
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


class Whole(Knowing):
    """Answers from whole sequences: what an autoencoder says that loses nothing."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(lambda row, _: row[-1], probe)

    def __call__(self, *, tokens: Tensor, labels: Tensor | None = None) -> Any:
        assert labels is None
        return SimpleNamespace(logits=one_hot(tokens, self.probe.vocab_size))


class Facts(Knowing):
    """What a model of `memorization` has to learn by heart, counted from training."""

    def __init__(self, probe: Probe) -> None:
        batch = next(probe.batches("train", 512, seed=0))
        asked = batch["labels"][:, 1:] != IGNORED
        keys, values = batch["tokens"][:, :-1][asked], batch["labels"][:, 1:][asked]
        self.facts = dict(zip(keys.tolist(), values.tolist(), strict=True))
        super().__init__(lambda row, _: self.facts.get(row[-1], 0), probe)


def oracle(probe: Probe, name: str) -> Knowing:
    special: dict[str, type[Knowing]] = {"mad_memorization": Facts, "mad_compression": Whole}  # type: ignore[dict-item]
    return special[name](probe) if name in special else Knowing(ORACLES[name], probe)
