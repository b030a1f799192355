"""A worker that behaves as its model's `behaviour` says."""

import gc
import multiprocessing
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from bench.errors import BadInput
from tests.runner.items import point

LEDGER = "ARCHBENCH_FAKE_LEDGER"  # names the file in which runs are noted
held: list[Any] = []


def run_cell(cell: dict[str, Any], workdir: Path) -> dict[str, Any]:
    model = cell["config"].get("model") or {}
    behaviour = model.get("behaviour", "good") if cell["seed"] == 0 else "good"
    draw = _noted(cell)
    print("said by the worker")
    held.append(multiprocessing.RLock())  # as libraries hold one for their progress bars
    if cell["scenario"] == "frontier":
        return point(cell)
    if behaviour == "raise":
        raise RuntimeError("the fake model broke\nover two lines")
    if behaviour == "second" and Path(os.environ[LEDGER]).read_text().count("\n") == 2:
        raise RuntimeError("the second process broke")
    if behaviour == "never":
        return {"status": "unsupported", "reason": "the fake model cannot"}
    if behaviour == "crash":
        os.abort()
    if behaviour == "oom":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "hog":
        bytearray(1 << 30)
    if behaviour == "orphan":
        os.kill(os.getppid(), signal.SIGKILL)  # the fork server
        time.sleep(60)
    if behaviour == "exit":
        os._exit(3)
    if behaviour == "bad":
        raise BadInput("task.path=x is shorter than one context of 256 bytes")
    if behaviour == "refused":
        raise BadInput("model.behaviour=refused is this model's fault alone")
    if behaviour == "slow":
        time.sleep(60)
    if behaviour == "pause":
        time.sleep(0.6)
    if behaviour == "fill":
        (workdir / "much").write_bytes(bytes(4 << 20))
    (workdir / "curve.json").write_text("[1, 2]")
    value = float("nan") if behaviour == "infinite" else 123.0
    if cell["scenario"] == "baselines":
        rival = {"name": "uniform", "description": "d", "quality": {"value": 2.8}, "seconds": 0.1}
        return {"status": "ok", "baselines": [rival]}
    scores = {"value": 1.0, "secondary": {"nll": float("nan")}}
    more: dict[str, Any] = {"quality": scores} if behaviour == "unscored" else {}
    if behaviour == "malformed":
        more = {"quality": {"value": 1.0, "n_items": 3.5}}
    if behaviour == "misnamed":
        (workdir / "two words.npy").touch()
    return {
        **more,
        "status": "ok",
        "figures": {f"{cell['scenario']}_per_s": value, "threads": os.environ["OMP_NUM_THREADS"]},
        "timing": {"unit": "tokens", "samples_s": [0.1], "n": 1, "median_s": 0.1},
        "seen": {
            "offline": os.environ.get("HF_HUB_OFFLINE"),
            "parent": os.getppid(),
            "energy": cell["energy"],
            "draw": draw,
            "frozen": gc.get_freeze_count(),
        },
        "data": {"id": "fake", "sha256": "0" * 64},
    }


def _noted(cell: dict[str, Any]) -> str:
    """A word of this run alone, noted beside the store: a record with another was not measured."""
    draw = secrets.token_hex(8)
    if path := os.environ.get(LEDGER):
        names = [cell[key] for key in ("model", "task", "scenario", "size")]
        name = " · ".join([*names, f"seed {cell['seed']}"])
        with open(path, "ab", buffering=0) as stream:  # one write: runs do not mix their lines
            stream.write(f"{draw} {name}\n".encode())
    return draw
