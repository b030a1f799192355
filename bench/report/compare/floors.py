"""The noise that A/A comparisons saw on a machine, by metric."""

import json
from collections.abc import Sequence
from pathlib import Path

from bench.arguments import RESULTS
from bench.errors import BadInput
from bench.store import Record

NOISE = "noise.json"  # beside the records of the machine that it was seen on
FLOORS = RESULTS / NOISE  # where the selftest leaves it


def floors_for(
    records: Sequence[Record], results: Path, given: Path | None = None
) -> dict[str, float]:
    """Floors of the machine of the last record, from a `given` file or the one in `results`."""
    machine = (records[-1].get("environment") or {}).get("machine_key") or ""
    return read_floors(given or results / NOISE, machine, given=given is not None)


def read_floors(path: Path, machine: str, *, given: bool) -> dict[str, float]:
    """Floors of `machine` in a file of `python -m bench.selftest`; none where there is no file.

    Raises BadInput where a file that was `given` is missing, or where one cannot be understood.
    """
    if not path.exists() and not given:
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {str(metric): float(value) for metric, value in known.get(machine, {}).items()}
    except OSError as error:
        raise BadInput(f"'{path}' cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"'{path}' holds no floors of noise ({error})") from error
