"""The name of a row among its rivals, the same in the table, in figures and in sheets."""

from collections.abc import Sequence

from bench.report.select import Variant


def label(row: Variant, rivals: Sequence[Variant]) -> str:
    """The shortest name that no other of `rivals` has: `mamba`, `mamba under diffusion`.

    Size, backend, kernel and mode of compiling are said only where they tell rows apart; an
    objective that is not the family's own and what was given inside the model are always said, so a
    row without them is that of the defaults.
    """
    parts = [row.model]
    if len({rival.size for rival in rivals}) > 1:
        parts[0] += f"/{row.size}"
    if row.objective:
        parts.append(f"under {row.objective}")
    same = [rival for rival in rivals if rival.model == row.model]
    if len({rival.backend for rival in same}) > 1:
        parts.append(row.backend)
    if len({rival.kernel for rival in same}) > 1 and row.kernel:
        parts.append(row.kernel)
    if row.compile:
        modes = {rival.compile for rival in same} - {""}
        parts.append("compiled" if len(modes) == 1 else f"compiled ({row.compile})")
    parts += [_short(text) for text in row.overrides]
    return " ".join(parts)


def _short(override: str) -> str:
    """`d_state=8` of `model.backbone.d_state=8`: the row names the model, the block the task."""
    for prefix in ("model.backbone.", "model."):
        if override.startswith(prefix):
            return override.removeprefix(prefix)
    return override
