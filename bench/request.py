"""What the user asked for, and what composes its configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # Hydra is known to the command line alone
    from omegaconf import DictConfig


class Composer(Protocol):
    """Hydra, as far as the planner knows it."""

    def options(self, group: str) -> list[str]:
        """Every name in a group of configurations, sorted."""
        ...

    def alone(self, group: str, name: str) -> "DictConfig | None":
        """One option of a group, a new one, where its file alone is what composing gives."""
        ...

    def compose(self, overrides: Sequence[str]) -> "DictConfig":
        """A new configuration, its interpolations not yet resolved; BadInput where none results."""
        ...


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    - `axes`: the values of those axes that were given; the suite has those of the others.
    - `variants`: overrides that belong to single cells (`model.backbone.d_model=64`, `lr=0.01`),
      one list for each point of their sweep; a single empty one where there are none.
    - `suite`: its name.
    - `shared`: overrides of every cell: `suite.*`, `device.*` and the runner's keys.
    - `devices`: the axis of that name with auto resolved, each name once.
    - `cores`: how many threads a cell takes where it is not told.
    - `allow_targets`: packages of the user's that a `_target_` may name.
    """

    axes: Mapping[str, Sequence[Any]]
    variants: Sequence[Sequence[str]]
    suite: str
    shared: Sequence[str]
    devices: Sequence[str]
    cores: int
    allow_targets: Sequence[str] = ()
