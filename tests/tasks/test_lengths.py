"""Tests beyond the training length: read in parts, and left out where the machine cannot."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.tasks import answers as answers_module
from bench.tasks import patience as patience_module
from bench.tasks import probe as probe_module
from bench.tasks.answers import answers
from bench.tasks.patience import Patience
from tests.tasks.test_probes import make

CPU = torch.device("cpu")


class Running:
    """A causal model that answers the sum of what it has read modulo V; its state may grow."""

    def __init__(self, *, grows: bool, vocab_size: int = 7) -> None:
        self.per_symbol, self.vocab_size = int(grows), vocab_size
        self.parts: list[int] = []

    def __call__(self, *, tokens: Tensor, labels: Tensor | None = None) -> Any:
        before = torch.cat([torch.zeros(len(tokens), 1, dtype=torch.long), tokens[:, :-1]], 1)
        return SimpleNamespace(logits=self._logits(before.cumsum(1)))

    def prefill(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.parts.append(tokens.shape[1])
        total = tokens.cumsum(1) + (0 if state is None else state)
        return self._logits(total), total[:, -1:]

    def _logits(self, total: Tensor) -> Tensor:
        return nn.functional.one_hot(total % self.vocab_size, self.vocab_size).float()

    def step(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("not symbol by symbol")

    def crop(self, state: Tensor, length: int) -> Tensor:
        raise AssertionError("nothing is forgotten")

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        return batch * (8 + self.per_symbol * context)


@pytest.mark.parametrize(("grows", "parts"), [(False, [50, 50, 19]), (True, [20] * 5 + [19])])
def test_long_sequences_are_read_in_parts_that_fit(grows: bool, parts: list[int]) -> None:
    model = Running(grows=grows)
    tokens = np.random.default_rng(0).integers(7, size=(2, 120))
    with (
        mock.patch.object(answers_module, "SCORED", 50),
        mock.patch.object(answers_module, "COMPARED", 20 * 120),
    ):
        found = answers(model, tokens, np.ones_like(tokens, bool), CPU)  # type: ignore[arg-type]
    assert model.parts == 2 * parts
    assert np.array_equal(found[:, 1:], tokens.cumsum(1)[:, :-1] % 7)


@pytest.fixture
def clock() -> Iterator[list[float]]:
    """Seconds that tests add to."""
    now = [0.0]
    with mock.patch.object(patience_module.time, "perf_counter", side_effect=lambda: now[0]):
        yield now


@pytest.mark.parametrize(("grows", "expected"), [(False, 40), (True, 160)])
def test_seconds_are_predicted_from_the_test_before(
    clock: list[float], grows: bool, expected: int
) -> None:
    """Four times the symbols in sequences of four times the length."""
    patience = Patience(Running(grows=grows))

    def test() -> str:
        clock[0] += 10
        return "score"

    assert patience.timed(np.zeros((2, 100)), test) == "score"
    with mock.patch.object(patience, "left", expected - 1.0):
        assert patience.within(np.zeros((2, 400)), test) == (
            f"it would take about {expected} s here, and of the 300 s for longer tests "
            f"{expected - 1} s are left"
        )
    assert patience.within(np.zeros((2, 400)), test) == "score"
    assert patience.left == 290


def test_want_of_memory_and_of_positions_are_reasons_and_faults_are_faults() -> None:
    patience = Patience(nn.Linear(1, 1))

    def raising(error: Exception) -> Any:
        def test() -> None:
            raise error

        return patience.within(np.zeros((1, 8)), test)

    said = raising(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"))
    assert said.startswith("out of memory: RuntimeError: DefaultCPUAllocator")
    with pytest.raises(RuntimeError, match="shapes"):
        raising(RuntimeError("shapes do not fit"))
    short = nn.Linear(1, 1)
    short.longest = 8  # type: ignore[assignment]
    assert (
        Patience(short).within(np.zeros((1, 8)), lambda: 1)
        == "the model has positions for 8 symbols"
    )
    assert Patience(short).within(np.zeros((1, 7)), lambda: 1) == 1


def test_what_was_left_out_or_is_of_few_sequences_is_said() -> None:
    probe = make("induction", length=8, longer=[32, 16, 64],
                 sequences={"train": None, "validation": 4, "test": 16})  # fmt: skip
    model = Running(grows=False, vocab_size=16)
    with (
        mock.patch.multiple(probe_module, TESTED=64, FEWEST=2),
        mock.patch.object(Patience, "_expected", lambda self, t: 1e3 * (t.shape[1] > 40)),
    ):
        found = probe.evaluate(model, "test", "cpu", full=True)
        few = probe.evaluate(model, "test", "cpu", full=True, max_items=3)
    assert set(found.secondary) == {"at_16", "at_32", "guess"}
    assert found.notes["at_16"] == "of 4 sequences"
    assert found.notes["at_32"] == "of 2 sequences"
    assert found.notes["at_64"] == (
        "left out: it would take about 1,000 s here, "
        "and of the 300 s for longer tests 300 s are left"
    )
    assert "at_16" not in few.notes  # no fewer than at the length of training
    plain = probe.evaluate(model, "validation", "cpu")
    assert not any(name.startswith("at_") for name in (*plain.secondary, *plain.notes))
