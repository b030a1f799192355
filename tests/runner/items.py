"""A model of known bytes: every item of its batch takes ITEM, at size tiny a little more."""

import os
import time
from typing import Any

from bench.meters.process import resident_bytes

ITEM = 16 << 20
MORE = 64 << 10
BROKEN_AT = 8


def point(cell: dict[str, Any]) -> dict[str, Any]:
    """One value of a frontier, as `model.behaviour` has it."""
    config = cell["config"]
    value, behaviour = config["scenario"]["at"], config["model"]["behaviour"]
    if behaviour == "broken" and value >= BROKEN_AT:
        raise KeyError("weight")
    if behaviour == "aborts" and value >= BROKEN_AT:
        print("terminate called after throwing an instance of 'std::bad_alloc'", flush=True)
        os.abort()
    if behaviour == "slow" and value >= BROKEN_AT:
        time.sleep(60)
    start = resident_bytes()
    size = ITEM + (MORE if config["size"]["name"] == "tiny" else 0)
    held = bytearray(value * size)
    found = {"start_bytes": start, "peak_bytes": start + len(held), "method": "known"}
    environment = {"frequency_mhz": 2000.0, "torch": {"threads": 1}}
    return {
        "status": "ok", "point": found, "parameters": {"total": 7}, "environment": environment,
    }  # fmt: skip
