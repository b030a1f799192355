"""Archbench: speed, memory and quality of model architectures on shared tasks."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> "pandas.DataFrame":
    """One row per record below `path`, sections flattened to columns such as `cell.model`.

    `config`, `baselines` and `artefacts` stay as they are. Files that are no readable record are
    warned of, and listed in the frame's `attrs["problems"]`.
    """
    from bench.store import read_paths
    from bench.store.frame import flatten

    records, problems, _ = read_paths([Path(path)])
    for problem in problems:
        warnings.warn(str(problem), stacklevel=2)
    frame = flatten(records)
    frame.attrs["problems"] = [str(problem) for problem in problems]
    return frame
