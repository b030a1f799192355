"""The words of `records` that read, through the command line."""

import csv
import io
import json
from pathlib import Path

import pytest

from bench.store import Store
from tests.store.command import MAMBA, MOE, Captured, words


def names(text: str) -> list[tuple[str, int]]:
    """Model and seed of the records whose files are printed."""
    found = [json.loads(Path(line).read_bytes())["cell"] for line in text.splitlines()]
    return [(cell["model"], cell["seed"]) for cell in found]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("model=mamba", MAMBA),
        ("model!=mamba", MOE),
        ("model=mamba,moe seed=1", [MAMBA[1], MOE[1]]),
        ("model!=mamba,moe", []),
        ("status=failed", [MOE[2]]),
        ("quality<2.15", MAMBA[:2]),
        ("quality<=2.2 seed>0", MAMBA[1:]),
        ("quality>=3.1", [MOE[1]]),
        ("quality!=2.0", [*MAMBA[1:], *MOE]),
        ("quality=null", [MOE[2]]),
        ("quality!=null model=moe", MOE[:2]),
        ("created=2026-11-24", [MAMBA[1], MOE[1]]),
        ("created>2026-11-24", [MAMBA[2], MOE[2]]),
        ("created<=2026-11-24T10:00:00Z", [*MAMBA[:2], *MOE[:2]]),
        ("created<2026-11-24", [MAMBA[0], MOE[0]]),
        ("source=0000", [MAMBA[0], MOE[0]]),
        ("commit=cccc seed=2", [MAMBA[2], MOE[2]]),
        ("compile=false seed=0", [MAMBA[0], MOE[0]]),
        ("valid=true seed=0", [MAMBA[0], MOE[0]]),
        ("cell.seed=2 parameters.total>300000", [MAMBA[2], MOE[2]]),
        ("gpu=null seed=0", [MAMBA[0], MOE[0]]),
        ("gpu=H100", []),
    ],
)
def test_conditions(
    store: Store, capsys: Captured, conditions: str, expected: list[tuple[str, int]]
) -> None:
    assert names(words(capsys, "where", conditions, "--in", store.root)) == expected
    assert len(words(capsys, "where", *conditions.split(), "--in", store.root).split()) == len(
        expected
    )


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("modle=moe", ("modle", "allowed", "model", "Did you mean 'model'?")),
        ("quality<good", ("quality<good", "'good' is no number")),
        ("created>soon", ("created>soon", "2026-11-25")),
        ("compile<true", ("compile", "true or false", "= and !=")),
        ("valid=yes", ("valid", "true, false, null")),
        ("model", ("'model' is no condition", "KEY")),
        ("model='a", ("no condition",)),
    ],
)
def test_a_wrong_condition_is_one_sentence(
    store: Store, capsys: Captured, condition: str, told: tuple[str, ...]
) -> None:
    error = words(capsys, "where", condition, "--in", store.root, code=2)
    assert error.count("\n") == 1
    assert all(part in error for part in told)


def test_a_store_without_records_has_none_that_meet_them(tmp_path: Path, capsys: Captured) -> None:
    root = tmp_path / "results"
    Store(root).check_writable()  # as a run leaves it whose cells were all refused
    for condition in ("status=failed", "id=x", "created>2026-11-24", "seed=1 quality<2"):
        assert words(capsys, "where", condition, "--in", root) == ""
    assert words(capsys, "list", root).splitlines()[-1] == "0 records"
    for option in ("--failed", "--stale", "--where=status=failed"):
        assert words(capsys, "prune", root, option).startswith("0 to remove")
    count = words(capsys, "sql", "select count(*) from records where model = 'moe'", "--in", root)
    assert count.split()[-1] == "0"
    assert "modle is no column" in words(capsys, "where", "modle=moe", "--in", root, code=2)


def test_list_in_three_forms(store: Store, capsys: Captured) -> None:
    where = ("--where", "model=moe", "--where", "seed<2")
    table = words(capsys, "list", store.root, *where)
    assert table.splitlines()[-1] == "2 records"
    found = json.loads(words(capsys, "list", store.root, *where, "--format", "json"))
    assert [row["quality.value"] for row in found] == [3.0, 3.1]
    assert all(row["id"] in table for row in found)
    text = words(capsys, "list", store.root, *where, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == [row["id"] for row in found]
    assert [float(row["quality.value"]) for row in rows] == [3.0, 3.1]


def test_verify(store: Store, capsys: Captured) -> None:
    assert words(capsys, "verify", store.root) == ""
    records, _ = store.read_all()
    store.artefact(records[0], "items.npy").write_bytes(b"forged")
    store.artefact(records[1], "items.npy").unlink()
    (store.records / "bad.json").write_text("{")
    lines = words(capsys, "verify", store.root, code=1).splitlines()
    assert len(lines) == 3
    for part in (records[0]["id"], records[1]["id"], "bad.json"):
        assert sum(part in line for line in lines) == 1
    assert "nowhere" in words(capsys, "verify", store.root / "nowhere", code=2)


def test_index(store: Store, capsys: Captured) -> None:
    path = store.root / "index.parquet"
    assert "6 records" in words(capsys, "index", store.root)
    before = path.stat().st_mtime_ns
    words(capsys, "index", store.root)
    assert path.stat().st_mtime_ns == before
    words(capsys, "index", store.root, "--rebuild")
    assert path.stat().st_mtime_ns != before
    assert "quality.value" in words(capsys, "index", store.root, "--columns").split()


def test_sql(store: Store, capsys: Captured) -> None:
    query = "select model, max(quality) best from records group by model order by model"
    found = words(capsys, "sql", query, "--in", store.root, "--format", "json")
    assert json.loads(found) == [{"model": "mamba", "best": 2.2}, {"model": "moe", "best": 3.1}]
    assert words(capsys, "sql", query, "--in", store.root).split() == [
        "model", "best", "mamba", "2.2", "moe", "3.1",
    ]  # fmt: skip
    for bad in ("select modle from records", "selec 1", ""):
        error = words(capsys, "sql", bad, "--in", store.root, code=2)
        assert error.count("\n") == 1
