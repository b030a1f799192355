"""`records` as a user calls it, for the tests of its words."""

from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.store import Record
from tests.factories import make_record, quality

DAY = 86_400
Captured = pytest.CaptureFixture[str]
# Model and seed of the records of the fixture `store`.
MAMBA = [("mamba", 0), ("mamba", 1), ("mamba", 2)]
MOE = [("moe", 0), ("moe", 1), ("moe", 2)]


def words(capsys: Captured, *arguments: object, code: int = 0) -> str:
    """What the command prints on stdout; on stderr where it is to fail with 2."""
    assert main(["records", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    return err if code == 2 else out


def scored(model: str, seed: int, value: float | None, **more: Any) -> Record:
    section = quality(value=value) if value is not None else None
    return make_record(model=model, seed=seed, scenario="quality", quality=section, **more)


def content(root: Path) -> dict[str, bytes]:
    """Every file of a store but the index."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "index.parquet"
    }
