"""What the drawing command and the figures agree on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.report.targets import Targets
from bench.store import Record


@dataclass(frozen=True)
class Request:
    """What to draw from, and where to."""

    records: Sequence[Record]
    roots: Sequence[Path]  # artefact folders
    results: Path  # the first results folder
    folder: Path  # of the figures
    formats: Sequence[str]
    targets: Targets = field(default_factory=dict)


class Kind(Protocol):
    """A file of this package: `NEEDS` says in words what records must hold to be drawn."""

    NEEDS: str

    def draw(self, request: Request) -> list[Path]:
        """Write the figures; none where no record has what they show."""
        ...
