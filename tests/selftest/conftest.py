"""Fewer resamples than a verdict takes: the whole selftest in seconds."""

import pytest

from bench.report.compare import statistics


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
