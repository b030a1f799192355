"""Title, context line and general notes of a block."""

import re
from collections.abc import Mapping
from typing import Any

from bench.report import matching
from bench.report.heads import ARROWS, METRICS, SECONDARY, floors
from bench.report.layout import Notes
from bench.report.noise import BOTH, ITEMS, SEEDS, Score
from bench.report.select import Selection, overrides

INTERVALS = {  # what an interval knows of: how it is called
    BOTH: "95 % interval over seeds {n} and test items",
    SEEDS: "95 % t interval over seeds {n}",
    ITEMS: "95 % interval over test items {n} of one seed, other seeds are not in it",
}


def title(selection: Selection, metric: str, better: str) -> str:
    """Task, metric, corpus, versions: what makes the rows of a block comparable."""
    key = selection.key
    corpus = key.data_id or "unknown data"
    if key.data_sha256 and key.data_sha256[:8] not in corpus:
        corpus += f" ({key.data_sha256[:8]})"
    sizes = {variant.size for variant in selection.current if variant.size}
    name = METRICS.get(metric, (metric.replace("_", " "), ""))[0]
    parts = [key.task, f"{name} {ARROWS.get(better, '')}".strip(), corpus,
             f"task v{_known(key.task_version)}",
             f"suite {_known(key.suite)} v{_known(key.suite_version)}"]  # fmt: skip
    if len(sizes) == 1:
        parts.append(f"size {sizes.pop()}")
    if key.changes:
        parts.append(key.changes)
    if key.match:
        parts.append(f"match {key.match}")
    return " · ".join(parts)


def context(selection: Selection) -> str:
    """Machine, versions, dtype, threads, device, dates: one line above the blocks."""
    key, records = selection.key, selection.records
    environment: dict[str, Any] = next(
        (dict(e) for r in records if (e := r.get("environment"))), {}
    )
    packages = environment.get("packages") or {}
    memory = environment.get("memory_gib")
    name = str(environment.get("gpu") or environment.get("cpu") or "unknown machine")
    machine = [" ".join(re.sub(r"\((R|TM)\)|\bCPU\b", " ", name).split())]
    if environment.get("cores"):
        machine.append(f"{environment['cores']} cores")
    if memory:
        machine.append(f"{memory:.0f} GiB")
    days = sorted({record["created"][:10] for record in records})
    parts = [
        ", ".join(str(part) for part in machine) + f" [{_known(key.machine)[:12]}]",
        f"device {_known(key.device)}", f"{_known(key.dtype)}", f"{_known(key.threads)} threads",
        f"Python {environment.get('python') or '?'}", f"torch {packages.get('torch') or '?'}",
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
    ]  # fmt: skip
    return " · ".join(parts)


def explain(
    selection: Selection, scores: Mapping[int, Score], notes: Notes, *, stale: bool, repeats: bool
) -> None:
    """Add the notes on the block as a whole."""
    counts: dict[str, set[int]] = {}
    for summary in scores.values():
        counts.setdefault(summary.over, set()).add(summary.n)
    for over, text in INTERVALS.items():
        if over in counts:
            numbers = " or ".join(str(n) for n in sorted(counts[over]))
            notes.add(f"±: {text.format(n=f'(n = {numbers})')}.")
    _trained(selection, notes)
    matching.explain(selection, notes)
    _floor(selection, notes)
    _searched(selection, notes)
    for found, flag, word in (
        (selection.stale, stale, "of older source, packages or configuration"),
        (selection.repeats, repeats, "earlier ones of cells run again"),
    ):
        number = sum(len(variant.records()) for variant in found)
        if number and not flag:
            option = "--stale" if found is selection.stale else "--all"
            notes.add(f"Hidden records, {word}: {number} ({option} shows them).")


def _floor(selection: Selection, notes: Notes) -> None:
    """Say what the floors in the head are."""
    if any(spec.floor for spec in SECONDARY.get(selection.key.kind, ())) and any(
        floors(selection.current).values()
    ):
        notes.add(
            "Distances of samples from test; floor: that of as many real images, taken from train. "
            "Precision, recall, density and coverage stand in the records."
        )


def _searched(selection: Selection, notes: Notes) -> None:
    """Say what searches for a rate found: they have no row, for they prepare a run."""
    for record in selection.records:
        if record["cell"]["scenario"] != "tune":
            continue
        cell = record["cell"]
        under = [f"under {cell['objective']}"] if cell.get("objective") else []
        name = " ".join((cell["model"], *under, str(cell.get("size") or ""), *overrides(record)))
        if record["status"] != "ok":
            notes.add(f"Rate of {name}: {record['status']}, {record.get('reason')}.")
            continue
        trials = [t for t in (record.get("tuning") or {}).get("trials") or [] if t]
        best = (record.get("figures") or {}).get("best_lr")
        if isinstance(best, int | float) and trials:
            decays = {trial.get("weight_decay") for trial in trials}
            tried = ", ".join(_trial(trial, decays=len(decays) > 1) for trial in trials)
            decay = (record.get("figures") or {}).get("best_weight_decay")
            also = (
                f" with a weight decay of {decay:g}"
                if decay is not None and len(decays) > 1
                else ""
            )
            notes.add(f"Rate of {name}: {best:g}{also} is the best on validation of {tried}.")


def _trial(trial: Mapping[str, Any], *, decays: bool) -> str:
    lr, decay, value = (trial.get(key) for key in ("lr", "weight_decay", "value"))
    score = "no score" if value is None else f"{value:.3f}"
    also = "" if decay is None or not decays else f"/{decay:g}"
    return f"{'?' if lr is None else f'{lr:g}'}{also} ({score})"


def _trained(selection: Selection, notes: Notes) -> None:
    """Say what was equal: the tokens or images that each row was trained on."""
    qualities: list[dict[str, Any]] = [
        dict(record.get("quality") or {})
        for variant in selection.current
        for record in variant.scenarios.get("quality", [])
        if record["status"] == "ok"
    ]
    language = selection.key.kind == "language"
    # Tokens only where every row states them: a count must not speak for a row that is silent.
    tokens = language and all(q.get("train_tokens") is not None for q in qualities)
    name = "train_tokens" if tokens else "train_items"
    found = {int(q[name]) for q in qualities if q.get(name) is not None}
    unit = "tokens" if tokens else "windows" if language else "images"
    if len(found) == 1:
        notes.add(f"Each model was trained on {found.pop():,} {unit}.")
    elif found:
        notes.add(f"Unequal training: {min(found):,} to {max(found):,} {unit} a model.")


def _known(value: object) -> str:
    return "?" if value is None else str(value)
