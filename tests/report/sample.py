"""A store full of realistic records: six families, three tasks, with all that can go wrong."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.store import Record, Store
from tests.factories import items_file, make_record, quality, timing

# model: family, bits/byte, bits/dim, accuracy, thousands of tokens/s in training, state bytes
MODELS: dict[str, tuple[str, float, float, float, float, int | None]] = {
    "transformer": ("transformer", 1.987, 1.771, 0.944, 37.1, 98_304),
    "moe": ("moe", 2.171, 1.802, 0.951, 25.4, 98_304),
    "mamba": ("mamba", 2.162, 1.795, 0.968, 14.2, 35_840),
    "mamba2": ("mamba", 2.158, 1.793, 0.969, 14.9, 33_792),
    "rwkv": ("rwkv", 2.104, 1.760, 0.961, 18.3, 27_648),
    "resnet": ("resnet", 1.902, 1.710, 0.983, 37.9, 11_520),
    "diffusion": ("diffusion", 3.718, 2.190, 0.842, 38.6, None),
}
SECONDARY: dict[str, dict[str, float]] = {
    "text": {"carried_bits_per_byte": 1.953},
    "digits": {"nll": 0.131},
    "generate": {"frechet": 12.34, "kernel": 0.0613, "accuracy_log_p": 0.934},
}


def sample_records() -> list[tuple[Record, dict[str, bytes]]]:
    """Records with their artefacts."""
    rng = np.random.default_rng(0)
    made: list[tuple[Record, dict[str, bytes]]] = []
    for task, scenario in (("text", "decode"), ("digits", ""), ("generate", "sample")):
        noise = rng.normal(0.0, 0.3, 200)
        for model, (family, text, generate, digits, speed, state) in MODELS.items():
            common: dict[str, Any] = {"model": model, "family": family, "task": task}
            unit = "tokens" if task == "text" else "images"
            rate = speed * 1e3 if task == "text" else speed * 16
            value = {"text": text, "digits": digits, "generate": generate}[task]
            bound = model == "diffusion" and task != "digits"
            items = value + noise + rng.normal(0.0, 0.05, 200)
            section = quality(
                task, float(items.mean()), float(items.std(ddof=1) / 200**0.5), bound=bound
            )
            section["secondary"] = dict(SECONDARY[task])
            if task == "digits":
                section["notes"] = {
                    "readout": "bound" if model == "diffusion" else "head",
                    "view": "2-D" if model in ("resnet", "diffusion") else "sequence",
                    "forwards": "320" if model == "diffusion" else "1",
                }
            section["tuned"] = model != "rwkv"
            section["target"] = {"text": 2.1, "generate": 1.8, "digits": 0.95}[task]
            curve = {
                "items": [1000], "seconds": [8.1], "loss": [1.0], "flops_per_item": 1e9,
                "tokens_per_item": 256 if task == "text" else None,
                "validation": {
                    "items": [500, 1000], "seconds": [4.0, 8.1], "value": [value * 1.1, value]
                },
            }  # fmt: skip
            made.append(
                (
                    make_record(**common, scenario="quality", quality=section, curve=curve),
                    {"items.npy": items_file(items)},
                )
            )
            speeds = [("train", rate), ("prefill", rate * 4)]
            speeds += [(scenario, rate / 50)] if scenario else []
            for name, figure in speeds:
                if model == "moe" and name == "train":
                    why = "out of memory: needed 5.1 GiB, memory_limit_gib=4"
                    failed = make_record(**common, scenario=name, status="failed", reason=why)
                    made.append((failed, {}))
                    continue
                if model == "diffusion" and name == "decode":
                    made.append((make_record(
                        **common, scenario=name, status="unsupported",
                        reason="a masked diffusion model has no recurrent state"), {}))  # fmt: skip
                    continue
                figures: dict[str, Any] = {f"{name}_per_s": figure}
                if name in ("decode", "sample") and state is not None:
                    figures |= {"state_bytes": state, "state_context": 256}
                valid = not (model == "mamba" and name == "prefill")
                made.append((make_record(
                    **common, scenario=name, figures=figures, timing=timing(unit),
                    memory={"peak_bytes": int(speed * 5e6), "method": "tensor storages"},
                    validity={"valid": valid,
                              "reason": None if valid else "relative error 7 % above 5 %"}),
                    {}))  # fmt: skip
        metric = quality(task)["metric"]
        names = {
            "text": {"uniform": 8.0, "order-0": 4.68, "bigram": 3.39, "lzma": 1.41},
            "digits": {"most frequent": 0.101, "logistic": 0.967, "3-neighbours": 0.986},
            "generate": {"uniform": 4.087, "marginal": 2.215, "test against train": None},
        }[task]
        made.append((make_record(
            model="baseline", task=task, scenario="baselines",
            baselines=[{"name": n, "description": f"the {n} model", "seconds": 0.12,
                        "quality": {"metric": metric, "value": v, "bound": False, "n_items": 200,
                                    "better": quality(task)["better"], "stderr": 0.013,
                                    "secondary": {"frechet": 3.2, "nll": 0.4}, "notes": {}}}
                       for n, v in names.items()]), {}))  # fmt: skip
    return made


def sample_store(root: Path) -> Store:
    """The records, stored below `root`."""
    store = Store(root)
    for record, artefacts in sample_records():
        store.write(record, artefacts)
    return store
