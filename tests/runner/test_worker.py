"""What the measured process does with its cell before and after the measurement."""

from pathlib import Path
from typing import Any

import pytest
from hydra.errors import InstantiationException

from bench import worker
from bench.errors import BadInput, describe
from bench.process.child import TRACEBACK, failure
from bench.report.formats import shorten


def cell(**config: Any) -> dict[str, Any]:
    base = {"threads": 1, "device": {"name": "cpu"}, "seed": 0, "scenario": {"name": "train"}}
    return {"config": {**base, **config}, "allow_targets": [], "overrides": []}


@pytest.mark.parametrize("where", ["task", "model"])
def test_a_foreign_target_is_refused_before_anything_is_built(where: str, tmp_path: Path) -> None:
    """The parent refuses it too; the worker must not depend on that."""
    made = tmp_path / "made"
    node = {"_target_": "pathlib.Path.mkdir", "self": {"_target_": "pathlib.Path", "_args_": [
        str(made)]}}  # fmt: skip
    with pytest.raises(BadInput, match=r"pathlib\.Path.* is refused"):
        worker.run_cell(cell(**{where: {"name": "x", "task": node, "inside": node}}), tmp_path)
    assert not made.exists()


def wrapped() -> Exception:
    """As Hydra wraps what a constructor raises."""
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise InstantiationException("Error in call to target: MemoryError()") from error
    except InstantiationException as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        wrapped(),
        MemoryError("Unable to allocate 8.00 GiB for an array"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate"),
        InstantiationException("x" * 600 + ' RuntimeError("can\'t allocate memory")'),
    ],
)
def test_memory_that_runs_out_is_said_in_one_way(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(worker, "_run", full)
    result = worker.run_cell(cell(), tmp_path)
    assert result["status"] == "failed"
    assert result["reason"].startswith(f"out of memory: {type(error).__name__}: ")
    assert result["reason"].lower().count("out of memory: ") == 1
    assert shorten(result["reason"], "failed", 8) == ("OOM", True)
    assert "Traceback" in (tmp_path / "traceback.txt").read_text()


def test_a_full_disk_does_not_hide_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = worker.run_cell(cell(scenario={"name": "none"}, task={"name": "machine"}), tmp_path)
    assert result["reason"].startswith("ModuleNotFoundError: No module named 'bench.scenarios.none")


def test_a_traceback_of_any_letters_is_kept(tmp_path: Path) -> None:
    assert failure(ValueError("π \udcff"), tmp_path)["reason"] == "ValueError: π \\udcff"
    assert "ValueError: π \\udcff" in (tmp_path / TRACEBACK).read_text(encoding="utf-8")


def test_other_errors_have_no_such_prefix() -> None:
    assert describe(ValueError("two\nlines")) == "ValueError: two lines"
    assert describe(KeyError()) == "KeyError"
