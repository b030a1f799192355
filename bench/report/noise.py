"""The score of a row: its mean over seeds, with an interval over seeds and test items."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.report.intervals import FEWEST, NORMAL, Part, crossed, half_width, mean_of
from bench.store.record import Record

Z = 1.96
BOTH, SEEDS, ITEMS = "seeds and items", "seeds", "items"


@dataclass
class Score:
    """The quality of a row over its seeds; `items` has the scores of each seed's test items."""

    metric: str
    better: str
    bound: bool
    value: float
    half: float | None  # half the 95 % interval
    over: str  # `BOTH`, `SEEDS`, `ITEMS` or "": what the interval knows of
    n: int  # seeds; where `over` is `ITEMS`, items
    seeds: dict[int, float]
    items: dict[int, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    parts: tuple[Part, ...] = ()

    def of_items(self, seeds: Sequence[int]) -> np.ndarray | None:
        """Scores (S, N) of these seeds, or None where some are not at hand or of other lengths."""
        found = [self.items[seed] for seed in seeds if seed in self.items]
        if not found or len(found) < len(seeds) or len({len(scores) for scores in found}) > 1:
            return None
        return np.stack(found) if len(found[0]) > 1 else None


def provisional(seeds: int) -> str:
    """The word for an interval over two seeds or more that are fewer than `FEWEST`."""
    return f"provisional: {seeds} seeds" if 1 < seeds < FEWEST else ""


def t_half(values: Sequence[float]) -> float:
    """Half the 95 % t interval of the mean of at least two values."""
    return float(half_width([mean_of(values)]))


def summarise(records: Sequence[Record], roots: Sequence[Path]) -> Score | None:
    """Quality over the seeds of a row: over seeds and items with two seeds or more, else items."""
    found = []
    for record in records:
        quality = record.get("quality") or {}
        if record["status"] == "ok" and quality.get("value") is not None:
            found.append((record, quality))
    if not found:
        return None
    first = found[0][1]
    seeds = {record["cell"]["seed"]: float(quality["value"]) for record, quality in found}
    score = Score(
        metric=first.get("metric") or "",
        better=first.get("better") or "lower",
        bound=any(quality.get("bound") for _, quality in found),
        value=float(np.mean(list(seeds.values()))),
        half=None,
        over="",
        n=len(seeds),
        seeds=seeds,
    )
    for record, quality in found:
        items, problem = load_items(record, quality.get("items_artefact"), roots)
        if items is not None:
            score.items[record["cell"]["seed"]] = items
        if problem:
            score.problems.append(problem)
    errors = [float(error) for _, q in found if (error := q.get("stderr")) is not None]
    if len(errors) < len(found):
        errors = []
    counted = int(first.get("n_items") or 0)
    score.parts, score.over = _parts(score, errors, counted)
    if score.over == ITEMS:
        score.n = counted
    if score.parts:
        score.half = float(half_width(score.parts))
    return score


def _parts(score: Score, errors: Sequence[float], counted: int) -> tuple[tuple[Part, ...], str]:
    """The parts of the mean's variance, and what they are of.

    Where the scores per item are not at hand, the standard errors in the records say what items
    add: somewhat more than it is, for a seed's own share is in each of them.
    """
    df = max(counted - 1.0, 1.0) if counted else NORMAL
    of_items = Part(float(np.mean(np.square(errors))), df) if any(errors) else None
    if len(score.seeds) < 2:
        return ((of_items,), ITEMS) if of_items else ((), "")
    if (scores := score.of_items(sorted(score.seeds))) is not None:
        return crossed(scores), BOTH
    of_seeds = mean_of(list(score.seeds.values()))
    return ((of_seeds, of_items), BOTH) if of_items else ((of_seeds,), SEEDS)


def load_items(
    record: Record, name: str | None, roots: Sequence[Path]
) -> tuple[np.ndarray | None, str]:
    """Per-item scores of a record, and a sentence where they are unusable; no pickle is loaded."""
    listed = {a.get("name"): a.get("sha256") for a in record.get("artefacts") or []}
    if not name or name not in listed:
        return None, ""
    for root in roots:
        path = root / record["id"] / name
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != listed[name]:
                return None, f"{name} of {record['id']} differs from the hash in its record"
            items = np.load(io.BytesIO(content), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            return None, f"{name} of {record['id']} cannot be read ({error})"
        if items.ndim != 1 or not np.issubdtype(items.dtype, np.number):
            return None, f"{name} of {record['id']} is no list of numbers"
        return items.astype(np.float64), ""
    return None, ""
