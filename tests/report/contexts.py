"""Records of context sweeps that are made up, point by point."""

from collections.abc import Sequence
from typing import Any

from bench.store import Record
from tests.factories import make_record


def point(at: int, read: float, step: float, state: int, *, spread: float) -> dict[str, Any]:
    """A measured point; `spread` is half of its intervals, as a share of the times."""
    return {
        "at": at, "status": "ok", "valid": True,
        "prefill_s": read, "prefill_ci_low_s": read * (1 - spread),
        "prefill_ci_high_s": read * (1 + spread),
        "step_s": step, "step_ci_low_s": step * (1 - spread), "step_ci_high_s": step * (1 + spread),
        "state_bytes": state, "peak_bytes": 1 << 20,
    }  # fmt: skip


def swept(points: Sequence[dict[str, Any]], **same: Any) -> Record:
    """The record of a sweep; `same` as of `make_record`."""
    made = make_record(**same, scenario="context")
    sweep: Any = {"axis": "context", "batch": 1, "largest": points[-1]["at"], "points": points}
    made["sweep"] = sweep
    return made
