"""What the user asked for, and what composes its configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # Hydra is known to the command line alone
    from omegaconf import DictConfig


class Composer(Protocol):
    """Hydra, as far as the planner knows it."""

    def options(self, group: str) -> list[str]: ...
    def compose(self, overrides: Sequence[str]) -> "DictConfig": ...


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    `axes` holds the values of the axes that were given; `variants` the overrides inside a group
    (`model.backbone.d_model=64`), one list for each point of their sweep.
    """

    axes: Mapping[str, Sequence[Any]]
    variants: Sequence[Sequence[str]]
    suite: str
    shared: Sequence[str]  # overrides of every cell: suite.*, device.*, runner keys
    devices: Sequence[str]  # resolved names, one for each value of the axis
    cores: int
    allow_targets: Sequence[str] = ()
