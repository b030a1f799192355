"""configs/task: every YAML has the constructor's keys, and says what it needs."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "task"
NEEDS_DATA = {"enwik8", "wikitext", "stream", "cifar10", "mnist"}


def resolved(name: str) -> dict[str, Any]:
    tree = OmegaConf.create({"task": OmegaConf.load(FOLDER / f"{name}.yaml")})
    return OmegaConf.to_container(tree.task, resolve=True)


def target(config: dict[str, Any]) -> Any:
    module, name = config["task"]["_target_"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", sorted(p.stem for p in FOLDER.glob("*.yaml")))
def test_yaml_fits_the_constructor(name: str) -> None:
    config = resolved(name)
    assert config["name"] == name
    cls = target(config)
    keys = {k: v for k, v in config["task"].items() if k != "_target_"}
    parameters = inspect.signature(cls).parameters
    assert set(keys) == set(parameters)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters.values())
    assert (config["kind"], config["unit"]) == (cls.kind, cls.unit)
    assert config["batch_size"] >= 1
    assert isinstance(config["version"], int)
    assert {"description", "items", "metric"} <= set(config)
    if name in NEEDS_DATA:
        with pytest.raises(ValueError, match=r"task\.path=null"):
            cls(**keys)
    else:
        task = cls(**keys)
        if "context" in config:
            assert task.symbols_per_item == config["context"]
        elif cls.kind == "language":  # a probe: what is asked last may stand behind
            assert 0 <= task.symbols_per_item - config["length"] <= config["length"] + 3
        else:
            assert task.symbols_per_item == config["height"] * config["width"]
