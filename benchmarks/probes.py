"""Symbols a second that the generators of the probes and of the known source draw, on one core.

    python -m benchmarks.probes

Each task as its YAML has it, batches of training with their tensors; asked for is a million.
Seconds are those of the processor, so that what else runs on the machine does not count.
"""

import time
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "task"
SECONDS, TARGET = 1.0, 1e6
DRAWN = ("bench.tasks.probes.", "bench.tasks.source.")


def rate(task: Any, batch_size: int) -> float:
    """Symbols a second over at least SECONDS, from the first batch on.

    Several batches are drawn at once: what has been drawn by the end has been paid for.
    """
    batches = task.batches("train", batch_size, 0)
    count, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < SECONDS:
        count += next(batches)["tokens"].numel()
    return count / spent


def main() -> None:
    """A line for each task, the slowest last."""
    torch.set_num_threads(1)
    rates: dict[str, float] = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        if any(prefix in path.read_text() for prefix in DRAWN):
            config = OmegaConf.create({"task": OmegaConf.load(path)}).task
            # A finite set would be drawn but once.
            if "train" in config.get("sequences", {}):
                config.sequences.train = None
            rates[path.stem] = rate(instantiate(config.task, _convert_="all"), config.batch_size)
    for name, value in sorted(rates.items(), key=lambda pair: -pair[1]):
        verdict = "reached" if value >= TARGET else "MISSED"
        print(f"{name}: {value / 1e6:.1f} M symbols/s, asked for 1 {verdict}")


if __name__ == "__main__":
    main()
