"""What a difference must exceed: intervals over seeds or items, paired where items are at hand."""

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.store.record import Record

UPPER = 0.975  # the quantile at the upper end of a two-sided 95 % interval
Z = 1.96


@dataclass
class Score:
    """The quality of a row over its seeds."""

    metric: str
    better: str
    bound: bool
    value: float
    half: float | None  # half the 95 % interval
    over: str  # "seeds", "items" or ""
    n: int
    seeds: dict[int, float]
    items: dict[int, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def t_half(values: Sequence[float]) -> float:
    """Half the 95 % t interval of the mean of at least two values."""
    from scipy.special import stdtrit  # slow to load, and of no use where every row has one seed

    n = len(values)
    return float(stdtrit(n - 1, UPPER) * np.std(values, ddof=1) / math.sqrt(n))


def summarise(records: Sequence[Record], roots: Sequence[Path]) -> Score | None:
    """Quality over the seeds of a row: mean ± t with two seeds or more, else ± over test items."""
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
    if len(seeds) >= 2:
        score.half, score.over = t_half(list(seeds.values())), "seeds"
    elif first.get("stderr"):
        score.half, score.over = Z * float(first["stderr"]), "items"
        score.n = int(first.get("n_items") or 0)
    for record, quality in found:
        items, problem = load_items(record, quality.get("items_artefact"), roots)
        if items is not None:
            score.items[record["cell"]["seed"]] = items
        if problem:
            score.problems.append(problem)
    return score


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


def inside(a: Score, b: Score) -> tuple[bool, str]:
    """Whether a and b differ by no more than noise, and by which rule: seeds, items, unpaired."""
    common = sorted(a.seeds.keys() & b.seeds.keys())
    if len(common) >= 3:
        differences = [a.seeds[seed] - b.seeds[seed] for seed in common]
        return abs(float(np.mean(differences))) <= t_half(differences), "seeds"
    paired = sorted(a.items.keys() & b.items.keys())
    left = [a.items[s] for s in (paired or a.items)]
    right = [b.items[s] for s in (paired or b.items)]
    sizes = {len(items) for items in left + right}
    if left and right and len(sizes) == 1 and min(sizes) >= 2:
        difference = np.mean(left, axis=0) - np.mean(right, axis=0)
        error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
        mean = abs(float(difference.mean()))
        return mean < Z * error or mean == 0.0, "items"
    half = math.hypot(a.half or 0.0, b.half or 0.0)
    return abs(a.value - b.value) <= half, "unpaired"


def leaders(scores: dict[int, Score]) -> tuple[set[int], set[str]]:
    """Of rows numbered by their keys: the best and those inside the noise of it, and the rules."""
    if len(scores) < 2:
        return set(), set()
    sign = 1 if next(iter(scores.values())).better == "lower" else -1
    best = min(scores, key=lambda index: sign * scores[index].value)
    chosen, rules = {best}, set()
    for index, score in scores.items():
        if index != best:
            same, rule = inside(scores[best], score)
            rules.add(rule)
            if same:
                chosen.add(index)
    return chosen, rules
