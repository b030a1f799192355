"""Runs one cell of the checkout that it is given, in the interpreter that it was started in.

`python driver.py ROOT SLOWDOWN < cell.json` leaves `result.json` in the working directory. It is
started as a file from this checkout and imports `bench` from ROOT, so that any revision whose
`bench.worker.run_cell` takes a cell can be measured. SLOWDOWN is 0 but in tests of the instrument.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Exit code 0 with a result, 2 where the input is refused."""
    root, slowdown = sys.argv[1], float(sys.argv[2])
    sys.path.insert(0, root)
    cell = json.load(sys.stdin)
    from bench.errors import BadInput
    from bench.worker import run_cell

    if slowdown:
        from bench.selftest.slowdown import slow_down

        slow_down(slowdown)
    try:
        payload = run_cell(cell, Path.cwd())
    except BadInput as error:
        payload = {"status": "bad_input", "reason": str(error)}
    Path("result.json").write_text(json.dumps(payload, default=_plain), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # libraries' exit handlers take time, and the result is out


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch, and paths."""
    return value.item() if hasattr(value, "item") else os.fspath(value)


if __name__ == "__main__":
    sys.exit(main())
