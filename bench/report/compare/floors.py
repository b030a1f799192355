"""The noise of A/A comparisons, by machine, by how the two sides were measured, and by metric.

Processes that take turns agree far better than processes of different times, so `bench.ab` has
other floors than `compare` and `history`, whose records are of whenever they were made.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.arguments import RESULTS
from bench.errors import BadInput
from bench.store.files import put

NOISE = "noise.json"  # beside the records of the machine that it was seen on
FLOORS = RESULTS / NOISE  # where the selftest leaves it
IN_TURNS, APART = "in turns", "apart"
KINDS = (IN_TURNS, APART)
Known = dict[str, dict[str, dict[str, float]]]  # floors by machine, kind and metric


@dataclass(frozen=True)
class Floors:
    """Floors of one kind by machine: relative changes that A/A comparisons show there."""

    by_machine: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def of(self, machine: str | None, metric: str) -> float:
        """The floor of a metric; the largest of the machine where it was not seen, or 0."""
        known = self.by_machine.get(machine or "", {})
        return known.get(metric, max(known.values(), default=0.0))


def floors_in(path: Path, kind: str, *, given: bool) -> Floors:
    """The floors of a file of `python -m bench.selftest`; none where there is no file.

    Raises BadInput where a file that was `given` is missing, or where one cannot be understood.
    """
    if given and not path.exists():
        raise BadInput(f"'{path}' cannot be read (there is no such file)")
    known = read(path)
    return Floors({machine: kinds.get(kind, {}) for machine, kinds in known.items()})


def read(path: Path) -> Known:
    """All floors of a file, none where there is no file; BadInput where it holds something else."""
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {
            machine: {
                kind: {metric: _floor(value) for metric, value in kinds.get(kind, {}).items()}
                for kind in KINDS
            }
            for machine, kinds in known.items()
        }
    except OSError as error:
        raise BadInput(f"'{path}' cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(
            f"'{path}' holds no floors of noise ({error}); allowed: a file of the selftest's."
        ) from error


def _floor(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10:
        raise ValueError(f"{value!r} is no relative change")
    return float(value)


def write(path: Path, machine: str, kinds: Mapping[str, Mapping[str, float]]) -> None:
    """Merge the floors of a machine into the file, which keeps those of others."""
    known = read(path)
    here = known.setdefault(machine, {})
    for kind, floors in kinds.items():
        here.setdefault(kind, {}).update(floors)
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, [json.dumps(known, indent=1).encode(), b"\n"])
