"""Made-up records that every kind of figure can be drawn of, with two sizes of a family."""

from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np

from bench.store import Record, Store
from tests.factories import make_record, quality, timing
from tests.report.contexts import point, swept

# model and size: family, bits per byte, tokens/s in training, MiB, state of a token or sequence
MODELS: dict[tuple[str, str], tuple[str, float, float, float, int]] = {
    ("transformer", "nano"): ("transformer", 2.20, 29_000, 14, 96),
    ("moe", "nano"): ("moe", 2.14, 19_600, 20, 96),
    ("mamba", "nano"): ("mamba", 2.05, 18_300, 19, 35_840),
    ("mamba", "tiny"): ("mamba", 1.90, 6_300, 48, 71_680),
    ("mamba2", "nano"): ("mamba", 2.03, 17_000, 30, 33_792),
    ("rwkv", "nano"): ("rwkv", 2.10, 24_000, 26, 27_648),
    ("resnet", "nano"): ("resnet", 2.19, 42_000, 13, 11_520),
    ("diffusion", "nano"): ("diffusion", 3.53, 18_900, 23, 11_520),
}
LENGTHS = [128 * 2**k for k in range(9)]
COMMITS = [sha1(str(number).encode()).hexdigest() for number in range(14)]


def write_all(folder: Path) -> Path:
    """A results folder with records for all kinds of figures."""
    rng = np.random.default_rng(0)
    store = Store(folder)
    for (model, size), (family, score, speed, mib, state) in MODELS.items():
        same: dict[str, Any] = {"model": model, "size": size, "family": family}
        for record in (*_trained(same, score, speed, mib), _swept(same, speed, state, rng),
                       *_commits(same, speed, rng)):  # fmt: skip
            store.write(record)
    roof = make_record(model="machine", scenario="ceilings")
    roof["figures"] = {"matmul_flops_per_s": 6.4e10, "copy_bytes_per_s": 9e9}
    store.write(roof)
    baselines = make_record(model="baseline", scenario="baselines")
    baselines["baselines"] = [
        {"name": name,
         "quality": {"metric": "bits_per_byte", "value": value, "better": "lower"}}
        for name, value in (("5-gram", 1.88), ("lzma", 1.87), ("bigram", 3.7))
    ]  # fmt: skip
    store.write(baselines)
    return folder


def _trained(same: dict[str, Any], score: float, speed: float, mib: float) -> list[Record]:
    made = []
    for scenario, rate, flops in (("train", speed, 5e8), ("prefill", 4 * speed, 2e8)):
        clock = timing(spread=0.06)
        seconds = 1000 / rate
        clock |= {"median_s": seconds, "ci_low_s": 0.9 * seconds, "ci_high_s": 1.08 * seconds}
        made.append(make_record(
            **same, scenario=scenario, timing=clock,
            figures={f"{scenario}_per_s": rate, f"{scenario}_per_s_low": rate / 1.08,
                     f"{scenario}_per_s_high": rate / 0.9},
            memory={"peak_bytes": int(mib * 2**20)},
            cost={"flops": int(flops), "bytes_moved": int(flops * 6e3 / speed)},
        ))  # fmt: skip
    for seed in (0, 1, 2):
        steps = np.arange(1, 41)
        curve: dict[str, Any] = {
            "items": [int(n) for n in steps * 250],
            "seconds": [float(s) for s in steps * 2e5 / speed],
            "loss": [float(v) for v in score * (0.6 + steps ** (-0.5 - 0.03 * seed))],
            "tokens_per_item": 256,
            "flops_per_item": 5e11 / speed,
        }
        curve["validation"] = {
            "items": curve["items"][4::5], "seconds": curve["seconds"][4::5],
            "value": [score * (1 + 0.5 / (n + 1)) for n in range(8)],
        }  # fmt: skip
        made.append(make_record(
            **same, scenario="quality", seed=seed, curve=curve,
            quality=quality(value=score + 0.02 * (seed - 1), bound=same["model"] == "diffusion",
                            target=2.3),
        ))  # fmt: skip
    return made


def _swept(same: dict[str, Any], speed: float, state: int, rng: np.random.Generator) -> Record:
    """Attention is quadratic in reading and linear in writing and state; the others are not."""
    attends = same["family"] in ("transformer", "moe")
    points = []
    for T in LENGTHS:
        noise, other = np.exp(rng.normal(0, 0.04, 2))
        read = (1e-3 + T / speed / 4 + attends * T * T * 1e-8) * noise
        step = (1e-3 + attends * T * 1e-7) * other * 3e4 / speed
        points.append(point(T, read, step, state * T if attends else state, spread=0.06))
    if same["model"] == "transformer":
        points[-1] = {"at": LENGTHS[-1], "status": "failed", "reason": "out of memory"}
    return swept(points, **same)


def _commits(same: dict[str, Any], speed: float, rng: np.random.Generator) -> list[Record]:
    """Decoding over commits: one step slower, and one faster again for some."""
    made = []
    for number, commit in enumerate(COMMITS):
        level = 200 / speed * (1 + 0.06 * (number >= 5)) * (1 - 0.1 * (number >= 10))
        samples = [float(v) for v in level * np.exp(rng.normal(0, 0.006, 5))]
        record = make_record(
            **same, scenario="decode", created=f"2026-11-{number + 1:02d}T10:00:00+00:00",
            source=commit, timing={
                "samples_s": samples, "median_s": float(np.median(samples)),
                "ci_low_s": min(samples), "ci_high_s": max(samples),
            },
        )  # fmt: skip
        record["code"]["commit"] = commit
        made.append(record)
    return made
