"""A seed draws the initial weights and the order of the data; families of one seed share the data.

Intervals over seeds and paired differences rest on this.
"""

import functools
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.building import Models, make_task
from tests.tasks.test_configs import FOLDER, NEEDS_DATA, resolved
from tests.zoo import SIZED, SIZES, TASKS
from tests.zoo import resolved as model_of

NAMES = sorted({path.stem for path in FOLDER.glob("*.yaml")} - NEEDS_DATA - {"code"})  # as text


@functools.cache
def task_of(name: str) -> Any:
    return make_task(resolved(name))


def order(name: str, seed: int, batches: int = 3) -> torch.Tensor:
    """What a model of that seed reads first."""
    task = task_of(name)
    found = islice(task.batches("train", 4, seed), batches)
    return torch.cat([b["tokens" if task.kind == "language" else "pixels"] for b in found])


@pytest.mark.parametrize("name", NAMES)
def test_seeds_order_the_data(name: str) -> None:
    assert torch.equal(order(name, 0), order(name, 0))
    assert not torch.equal(order(name, 0), order(name, 1))


@pytest.mark.parametrize(("name", "kind"), SIZED)
def test_seeds_draw_the_weights(name: str, kind: str) -> None:
    config: dict[str, Any] = {
        "model": model_of(name, kind, "nano"), "seed": 0, "compile": False, "dtype": "float32",
        "backend": "torch", "size": {"name": "nano", "parameters": SIZES["nano"]},
        "match": {"name": "params", "target": None},
    }  # fmt: skip
    task = SimpleNamespace(
        kind=kind, vocab_size=TASKS[kind].get("vocab_size"), symbols_per_item=256
    )
    models = Models(config, task, torch.device("cpu"), checkpoint=None, overrides=())

    def drawn(seed: int) -> dict[str, torch.Tensor]:
        config["seed"] = seed
        return {key: value.detach() for key, value in models.build().named_parameters()}

    first, again, other = (drawn(seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    weights = {key: value for key, value in first.items() if value.squeeze().ndim > 1}
    same = {key for key in weights if torch.equal(first[key], other[key])}
    # Some start at constants: projections at zero, the decays of Mamba at 1 to N.
    assert sum(weights[k].numel() for k in same) < 0.7 * sum(w.numel() for w in weights.values())
