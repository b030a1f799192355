"""The columns of each kind of task: their heads, units and directions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.formats import significant
from bench.report.layout import Column
from bench.report.select import Selection, Variant
from bench.store.record import Record

UNITS = {"tokens": ("k tok/s", 1e3), "images": ("img/s", 1.0)}
METRICS = {  # metric: name, head of the column
    "bits_per_byte": ("bits per byte", "bits/byte"),
    "bits_per_dim": ("bits per dimension", "bits/dim"),
    "accuracy": ("accuracy", "accuracy"),
    "scaled_accuracy": ("accuracy scaled to chance", "scaled acc."),
    "exact_match": ("exact match", "exact"),
    "excess_bits": ("bits per byte above the truth", "excess"),
}
AT = "at_"  # in `quality.secondary`, before a length: the score of longer sequences
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class Secondary:
    """A column beside the score: `keys` are its names in `quality.secondary` or `.notes`."""

    key: str
    head: tuple[str, ...]
    keys: tuple[str, ...]
    better: str = ""
    decimals: int | None = None  # None: three significant digits
    align: str = "right"
    floor: str = ""  # name in `quality.secondary` of what a perfect model would score


SECONDARY: dict[str, tuple[Secondary, ...]] = {
    "language": (
        Secondary("carried", ("state", "carried ↓"), ("carried_bits_per_byte",),
                  "lower", 3),
        Secondary("guess", ("best", "guess"), ("guess",), decimals=3),
        Secondary("reads", ("reads", ""), ("reads",), align="left"),
    ),
    "classify": (
        Secondary("nll", ("nll", "nats ↓"), ("nll",), "lower", 3),
        Secondary("readout", ("readout", ""), ("readout",), align="left"),
        Secondary("view", ("view", ""), ("view",), align="left"),
        Secondary("forwards", ("passes", "/image"), ("forwards",)),
    ),
    "generate": (
        Secondary("frechet", ("Fréchet", "dist. ↓"), ("frechet",),
                  "lower", floor="frechet_floor"),
        Secondary("kernel", ("kernel", "dist. ↓"), ("kernel",), "lower", floor="kernel_floor"),
        Secondary("accuracy", ("acc. by", "p(x|y) ↑"),
                  ("accuracy_log_p",),
                  "higher", 3),
    ),
}  # fmt: skip
SPEEDS = {
    "language": ("train", "prefill", "decode"),
    "classify": ("train", "prefill"),
    "generate": ("train", "prefill", "sample"),
}


def metric_of(selection: Selection) -> tuple[str, str]:
    """The metric of a block in words, and its better direction, as its newest record says."""
    quality: dict[str, Any] = next(
        (dict(q) for record in selection.records if (q := record.get("quality"))), {}
    )
    metric = str(quality.get("metric") or "score")
    return METRICS.get(metric, (metric.replace("_", " "),))[0], str(quality.get("better") or "")


def lookup(quality: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The first of `keys` that the secondary scores or the notes of a quality hold."""
    for part in ("secondary", "notes"):
        values = quality.get(part) or {}
        for key in keys:
            if values.get(key) is not None:
                return values[key]
    return None


def secondaries(kind: str, variants: Sequence[Variant]) -> tuple[Secondary, ...]:
    """The columns beside the score: those of the kind, and one for each length of longer tests."""
    names = {
        name
        for variant in variants
        for record in variant.scenarios.get("quality", [])
        for name in (record.get("quality") or {}).get("secondary") or {}
    }
    lengths = sorted(int(n.removeprefix(AT)) for n in names if n.removeprefix(AT).isdecimal())
    return (
        *SECONDARY.get(kind, ()),
        *(Secondary(f"{AT}{n}", ("at", f"{n} ↑"), (f"{AT}{n}",), "higher", 3) for n in lengths),
    )


def floors(variants: Sequence[Variant]) -> dict[str, str]:
    """The stated floors by the name of their score; several where records disagree."""
    found: dict[str, dict[str, None]] = {}
    for variant in variants:
        for record in variant.scenarios.get("quality", []):
            secondary = (record.get("quality") or {}).get("secondary") or {}
            for name, value in secondary.items():
                if name.endswith("_floor") and isinstance(value, int | float):
                    found.setdefault(name, {})[significant(float(value))] = None
    return {name: "/".join(texts) for name, texts in found.items()}


def unit_of(variants: Sequence[Variant], scenario: str, kind: str) -> str:
    """The unit that most records of a column count in."""
    units: Counter[str] = Counter()
    for variant in variants:
        for record in variant.scenarios.get(scenario, []):
            unit = (record.get("timing") or {}).get("unit")
            if unit:
                units[unit] += 1
    fallback = "tokens" if kind == "language" else "images"
    return units.most_common(1)[0][0] if units else fallback


def memory_scenario(variants: Sequence[Variant]) -> str:
    """The scenario whose peak is shown: training where any row has it."""
    for scenario in ("train", "prefill", "decode", "sample", "quality"):
        for variant in variants:
            for record in variant.scenarios.get(scenario, []):
                if (record.get("memory") or {}).get("peak_bytes") is not None:
                    return scenario
    return "train"


@dataclass(frozen=True)
class State:
    """Bytes that a row carries after a context, as `record` states them."""

    size: float
    context: int | None
    record: Record


def state_of(variant: Variant) -> State | None:
    """Of the scenario that says most of a state; others state it for other contexts."""
    for scenario in ("decode", "sample", "prefill", "train", "quality"):
        for record in variant.scenarios.get(scenario, []):
            figures = record.get("figures") or {}
            stated = figures.get("state_bytes")
            if record["status"] == "ok" and isinstance(stated, int | float):
                return State(float(stated), figures.get("state_context"), record)
    return None


def context_of(variants: Sequence[Variant]) -> int | None:
    """The context at which most rows state their state."""
    found = (state_of(variant) for variant in variants)
    contexts = Counter(s.context for s in found if s is not None and isinstance(s.context, int))
    return contexts.most_common(1)[0][0] if contexts else None


def head_columns(
    kind: str, metric: str, better: str, units: Mapping[str, str], context: int | None,
    floor: Mapping[str, str], beside: Sequence[Secondary], target: float | None,
) -> tuple[Column, ...]:  # fmt: skip
    """The columns of a kind of task with units, arrows of direction, floors and the target."""
    name = METRICS.get(metric, (metric, metric))[1]
    columns = [
        Column("model", ("model", ""), "left"),
        Column("score", (name, f"{ARROWS.get(better, '')} ± 95 %"), "right"),
    ]
    for spec in beside:
        head = spec.head
        if spec.floor in floor:  # three short lines: the block is as wide as a terminal already
            head = (head[0], f"{ARROWS[spec.better]} floor", floor[spec.floor])
        columns.append(Column(spec.key + "_secondary", head, spec.align))
    for scenario in SPEEDS.get(kind, ("train", "prefill", "decode", "sample")):
        unit = UNITS.get(units[scenario], (units[scenario] + "/s", 1.0))[0]
        columns.append(Column(scenario, (scenario, f"{unit} ↑")))
    at = f"KiB@{context} ↓" if context is not None else "KiB ↓"
    columns += [
        Column("memory", ("peak", "MiB ↓")),
        Column("state", ("state", at)),
        Column("parameters", ("parameters", "match/total")),
        Column("seconds", ("train", "s")),
        Column("target", ("to" if target is None else f"to {target:g}", "s ↓")),
    ]
    return tuple(columns)
