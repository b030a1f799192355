"""Records made up for the tests of the store and the report."""

import io
from typing import Any

import numpy as np

from bench.store import Record

METRICS = {
    "text": ("language", "bits_per_byte", "lower"),
    "digits": ("classify", "accuracy", "higher"),
    "generate": ("generate", "bits_per_dim", "lower"),
}
_counter = 0


def make_record(
    *,
    model: str = "transformer",
    family: str | None = None,
    task: str = "text",
    scenario: str = "train",
    seed: int = 0,
    size: str = "nano",
    created: str = "2026-11-24T10:00:00+00:00",
    status: str = "ok",
    reason: str | None = None,
    source: str = "aaaa1111",
    config_hash: str | None = None,
    machine: str = "machine-1",
    device: str = "cpu",
    dtype: str = "float32",
    data_id: str | None = None,
    task_version: int = 1,
    suite_version: int = 1,
    backend: str = "torch",
    packages: dict[str, str] | None = None,
    **sections: Any,
) -> Record:
    """One valid record; `sections` (figures, quality, …) are merged in as given."""
    global _counter
    _counter += 1
    kind = METRICS[task][0]
    family = family or model
    config_hash = config_hash or f"{model}-{task}-{scenario}-{seed}-{size}"
    record: dict[str, Any] = {
        "schema": 1,
        "id": f"r{_counter:06d}-{model}-{task}-{scenario}",
        "created": created,
        "status": status,
        "reason": reason,
        "key": f"{config_hash}-{source}-{machine}-{packages}",
        "cell": {
            "suite": "quick", "family": family, "model": model, "size": size, "task": task,
            "kind": kind, "scenario": scenario, "seed": seed, "device": device, "dtype": dtype,
            "threads": 2, "compile": False, "backend": backend, "kernel": backend,
        },
        "versions": {"suite": suite_version, "task": task_version},
        "config": {"model": {"name": model}},
        "config_hash": config_hash,
        "data": {"id": data_id or f"{task}-1", "sha256": "d" * 64, "sizes": {}, "notes": {}},
        "code": {"version": "0.1.0", "commit": "c" * 40, "dirty": False, "source_sha256": source},
        "environment": {
            "machine_key": machine, "cpu": "Test CPU @ 2.0GHz", "cores": 2, "memory_gib": 8.0,
            "python": "3.11.9", "platform": "Linux",
            "packages": packages or {"torch": "2.14.1", "numpy": "2.4.6"},
        },
        "validity": {"valid": True, "reason": None},
        "parameters": {"total": 305_000, "active": 251_000, "matched": 251_000, "target": 250_000},
    }  # fmt: skip
    record.update(sections)
    return record  # type: ignore[return-value]


def quality(
    task: str = "text", value: float = 2.0, stderr: float = 0.01, **more: Any
) -> dict[str, Any]:
    """A quality section with sensible rest."""
    _, metric, better = METRICS[task]
    section: dict[str, Any] = {
        "metric": metric, "value": value, "better": better, "bound": False, "stderr": stderr,
        "n_items": 200, "secondary": {}, "notes": {}, "train_items": 1000, "train_seconds": 8.1,
        "train_tokens": 262_144, "lr": 0.02, "tuned": True, "items_artefact": "items.npy",
    }  # fmt: skip
    section.update(more)
    return section


def timing(unit: str = "tokens", spread: float = 0.02) -> dict[str, Any]:
    """A timing section whose interval is `spread` wide on each side."""
    return {
        "cold_s": 0.5, "warmup": 3, "samples_s": [0.1, 0.1, 0.1], "n": 3, "median_s": 0.1,
        "ci_low_s": 0.1 * (1 - spread), "ci_high_s": 0.1 * (1 + spread), "items_per_call": 100,
        "unit": unit,
    }  # fmt: skip


def items_file(values: Any) -> bytes:
    """Per-item scores as the worker stores them."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(values, dtype=np.float64))
    return stream.getvalue()
