"""How long a model is tested at lengths beyond those of its training."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from bench.errors import OUT_OF_MEMORY, describe
from bench.tasks.answers import grows

T = TypeVar("T")

SECONDS = 300.0  # that all longer tests of a model may take together


class Patience:
    """Runs tests in rising order of their lengths as long as the machine can."""

    def __init__(self, model: Any) -> None:
        self.grows, self.left = grows(model), SECONDS
        self.took = (0.0, 1, 1)  # the last test: seconds, symbols, length
        modules = model.modules() if hasattr(model, "modules") else ()
        self.longest = min(
            (m.longest for m in modules if getattr(m, "longest", None)), default=None
        )

    def timed(self, tokens: np.ndarray, test: Callable[[], T]) -> T:
        """What a test on tokens (N, T) gives; begun at once."""
        begin = time.perf_counter()
        found = test()
        self.took = (time.perf_counter() - begin, tokens.size, tokens.shape[1])
        return found

    def within(self, tokens: np.ndarray, test: Callable[[], T]) -> T | str:
        """The same, or why it cannot be tested here.

        How long it takes is predicted from the test before.
        """
        # A start symbol is read as well.
        if self.longest is not None and tokens.shape[1] >= self.longest:
            return f"the model has positions for {self.longest:,} symbols"
        expected = self._expected(tokens)
        if expected > self.left:
            return (
                f"it would take about {expected:,.0f} s here, and of the {SECONDS:g} s for longer "
                f"tests {self.left:.0f} s are left"
            )
        try:
            found = self.timed(tokens, test)
        except (MemoryError, RuntimeError) as error:
            if not (said := describe(error)).startswith(OUT_OF_MEMORY):
                raise
            return said
        self.left -= self.took[0]
        return found

    def _expected(self, tokens: np.ndarray) -> float:
        seconds, symbols, length = self.took
        return seconds * tokens.size / symbols * (tokens.shape[1] / length if self.grows else 1)
