"""Runs one cell of the checkout that it is given, in the interpreter that it was started in.

`python driver.py ROOT OPTIONS < cell.json` leaves `result.json` in the working directory. It is
started as a file from this checkout and imports `bench` from ROOT, so that any revision whose
`bench.worker.run_cell` takes a cell can be measured. OPTIONS is a JSON object: `inbox`, `outbox`,
`flag` and `leads` of `bench.ab.turns`, and `slowdown`, which is 0 but in tests of the instrument.
"""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

NO_TURNS = (
    "this revision cannot take turns (its bench/meters/time.py has no `turn`); allowed: later ones."
)
HERE = Path(__file__).resolve()


def main() -> int:
    """Exit code 0 with a result, also where the input is refused."""
    root, options = sys.argv[1], json.loads(sys.argv[2])
    sys.path.insert(0, root)
    # An editable install would lend modules that ROOT does not have.
    sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
    cell = json.load(sys.stdin)
    from bench.errors import BadInput
    from bench.worker import run_cell

    meter = importlib.import_module("bench.meters.time")
    if not hasattr(meter, "turn"):
        return _leave({"status": "bad_input", "reason": NO_TURNS})
    turns = _of_this_checkout("turns", HERE.with_name("turns.py"))
    meter.turn = turns.Turns(  # type: ignore[attr-defined]
        options["inbox"], options["outbox"], options["flag"], leads=options["leads"]
    )
    if options["slowdown"]:
        slowdown = HERE.parents[1] / "selftest" / "slowdown.py"
        _of_this_checkout("slowdown", slowdown).slow_down(meter, options["slowdown"])
    try:
        payload = run_cell(cell, Path.cwd())
    except BadInput as error:
        payload = {"status": "bad_input", "reason": str(error)}
    return _leave(payload)


def _leave(payload: dict[str, Any]) -> int:
    Path("result.json").write_text(json.dumps(payload, default=_plain), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # libraries' exit handlers take time, and the result is out


def _of_this_checkout(name: str, path: Path) -> ModuleType:
    """A file of this checkout, whichever revision `bench` is imported from."""
    spec = importlib.util.spec_from_file_location(f"archbench_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch, and paths."""
    return value.item() if hasattr(value, "item") else os.fspath(value)


if __name__ == "__main__":
    sys.exit(main())
