"""A cell of the plan: one model on one task in one scenario, and what is known of it before."""

from dataclasses import dataclass
from typing import Any

MACHINE = "machine"  # family, model and task of a cell that has none: it is of the machine alone


@dataclass
class Cell:
    """One cell: `part` as in its record, `config` resolved, `unsupported` a reason not to run."""

    part: dict[str, Any]
    config: dict[str, Any]
    preload: tuple[str, ...]
    order: float
    versions: dict[str, int]
    overrides: tuple[str, ...] = ()
    unsupported: str | None = None
    key: str = ""
    config_hash: str = ""
    predicted_s: float | None = None
    predicted_bytes: int | None = None
    known: bool = False  # whether the prediction comes from a record

    @property
    def name(self) -> str:
        names = [self.part[key] for key in ("model", "task", "scenario", "size")]
        words = [*(str(name) for name in names if name), f"seed {self.part['seed']}"]
        if (self.config.get("model") or {}).get("backends"):  # none but another one than ours
            words.insert(1, f"by {self.part['backend']}")
        if self.part.get("objective"):  # none but another one than the family's own
            words.insert(1, f"under {self.part['objective']}")
        return " · ".join([*words, *(text.lstrip("+") for text in self.overrides)])
