"""A small store that most tests of `records` begin with."""

from pathlib import Path

import pytest

from bench.identity import source_hash
from bench.store import Store
from tests.factories import items_file
from tests.store.command import scored


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two models, three seeds, one of which failed."""
    made = Store(tmp_path / "results")
    for place, model in enumerate(("mamba", "moe")):
        for seed in range(3):
            failed = model == "moe" and seed == 2
            record = scored(
                model, seed, None if failed else 2.0 + place + seed / 10,
                status="failed" if failed else "ok", source=source_hash() if seed else "0" * 64,
                created=f"2026-11-2{seed + 3}T10:00:00+00:00",
            )  # fmt: skip
            made.write(record, {} if failed else {"items.npy": items_file([1.0, seed])})
    return made
