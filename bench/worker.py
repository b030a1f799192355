"""Runs one cell inside its own process: the only file that instantiates what YAML names."""

import functools
import importlib
from pathlib import Path
from typing import Any

# What libraries import at their first use comes with this module: the fork server imports it once,
# and a cell's memory does not grow by it.
import numpy.ma  # noqa: F401
import torch
import torch.utils.flop_counter
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors.torch import load_model
from torch import nn

from bench.cell import MACHINE
from bench.errors import BadInput, one_line
from bench.machine.build import torch_facts
from bench.machine.facts import frequency_mhz
from bench.meters.process import resident_bytes
from bench.meters.time import Limits
from bench.parameters import count
from bench.pretrained import Formats, Pretrained
from bench.process.child import failure
from bench.scenarios.base import Context, Unsupported
from bench.sizes import fit
from bench.targets import check_targets
from bench.training import Recipe

CURRENT = "scaling_cur_freq"


def run_cell(cell: dict[str, Any], workdir: Path) -> dict[str, Any]:
    """Run a cell and return the parts of its record that only the measured process knows.

    A cell that cannot be, or that fails, is a result: `status` and `reason` say so. Artefacts are
    files left in `workdir`.
    """
    try:
        # The parent has checked this too; a process that instantiates trusts no one's word for it.
        check_targets(cell["config"], cell.get("allow_targets", ()))
        started = resident_bytes()
        payload = _run(cell, workdir)
        if "memory" in payload:
            payload["memory"]["rss_start_bytes"] = started
        # At once: a frequency tells of the work only while the cores are still warm from it.
        payload["environment"] = {"frequency_mhz": frequency_mhz(CURRENT), "torch": torch_facts()}
        return {"status": "ok", "reason": None, **payload}
    except BadInput:
        raise  # the runner's: a mistake of the user is no result
    except Unsupported as error:
        return {"status": "unsupported", "reason": str(error)}
    except Exception as error:
        return failure(error, workdir)


def _run(cell: dict[str, Any], workdir: Path) -> dict[str, Any]:
    config = cell["config"]
    # Where the user set values inside the model, its refusal is his to read.
    inside = any(key.startswith("model.") for key in cell.get("overrides", ()))
    context = functools.partial(
        _context, config=config, workdir=workdir, energy=bool(cell.get("energy"))
    )
    if config["threads"]:
        torch.set_num_threads(int(config["threads"]))
    device = torch_device(config["device"]["name"])
    name = config["scenario"]["name"]
    if config["task"]["name"] == MACHINE:
        return dict(_scenario(name).run(context(None, _no_model, device=device)))
    model = config.get("model") or {}
    pretrained = _pretrained(model)
    if pretrained is not None:
        config = {**config, "task": pretrained.task(config["task"])}
    task = _task(config["task"])
    payload: dict[str, Any] = {
        "data": {
            "id": task.data.id,
            "sha256": task.data.sha256,
            "sizes": task.data.sizes,
            "notes": task.data.notes,
        }
    }
    if name == "baselines":
        return payload | _scenario(name).run(context(task, _no_model, device=device))

    symbols = getattr(task, "vocab_size", None)
    size = config["size"]
    try:
        if pretrained is not None:
            pretrained.check(int(symbols or 0))
            node = pretrained.node(model, task.kind, cell.get("overrides", ()))
            payload["checkpoint"] = {"name": pretrained.name, "sha256": pretrained.sha256}
        else:
            if symbols is not None and task.kind == "language":
                model["kinds"][task.kind]["model"]["vocab_size"] = symbols
            node = fit(model, task.kind, size["name"], size["parameters"], _module)
    except (ValueError, InstantiationException) as error:
        if not inside:
            raise
        raise BadInput(f"model={model['name']}: {_sentence(error)}") from error

    def build() -> nn.Module:
        torch.manual_seed(int(config["seed"]))
        make = functools.partial(_module, node)
        built = (pretrained.filled(make) if pretrained else make()).to(device)
        if config["compile"]:
            built.compile()
        return built

    try:
        first = build()
    except InstantiationException as error:
        if not inside or not isinstance(error.__cause__, ValueError):
            raise
        raise BadInput(f"model={model['name']}: {_sentence(error)}") from error
    numbers = count(first)
    payload["parameters"] = {
        "total": numbers.total,
        "active": numbers.active,
        "matched": numbers.matched,
        "target": None if pretrained else size["parameters"],
    }
    payload["shape"] = node
    payload["kernel"] = kernel_of(first) or model.get("kernel")
    del first
    scenario = _scenario(name)
    return payload | scenario.run(context(task, build, device=device))


def _pretrained(model: dict[str, Any]) -> Pretrained | None:
    """The checkpoint that the model is read from, where one is named."""
    if not model.get("pretrained"):
        return None
    return Pretrained.of(str(model["pretrained"]), formats(model))


def formats(model: dict[str, Any]) -> Formats:
    """How the family of a model's configuration reads and writes checkpoints."""
    found: Formats = instantiate(model["checkpoints"])
    return found


def filled(shape: dict[str, Any], weights: Path) -> nn.Module:
    """The model of a record, by its `shape`, with the weights that it left."""
    model = _module(shape)
    load_model(model, str(weights))
    return model


def _task(config: dict[str, Any]) -> Any:
    """The task; data that cannot be read or used is the user's to mend."""
    try:
        return instantiate(config["task"], _convert_="all")
    except InstantiationException as error:
        if not isinstance(error.__cause__, ValueError | OSError):
            raise
        text = _sentence(error)
        where = "" if text.startswith("task") else f"task={config['name']}: "
        raise BadInput(where + text) from error


def _sentence(error: Exception) -> str:
    """What a constructor said, without Hydra's words around it."""
    return one_line(str(error.__cause__ or error))


def kernel_of(model: nn.Module) -> str | None:
    """The kernels that modules say they used, in the order of first mention."""
    used = [getattr(module, "kernel_used", None) for module in model.modules()]
    return "+".join(dict.fromkeys(k for k in used if k)) or None


def torch_device(name: str) -> torch.device:
    """The torch device of `device=name`; "auto" takes CUDA where it is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda is not there; allowed here: auto, cpu")
    return torch.device(name)


def _context(
    task: Any,
    build: Any,
    *,
    config: dict[str, Any],
    device: torch.device,
    workdir: Path,
    energy: bool,
) -> Context:
    task_name = config["task"]["name"]
    model = config.get("model") or {}
    rates = model.get("lr", {})
    optimizer = config["optimizer"]
    lr = config["lr"] if config["lr"] is not None else rates.get(task_name, optimizer["lr"])
    return Context(
        task=task,
        build=build,
        config=config,
        recipe=Recipe(
            lr=float(lr),
            adam_ratio=float(optimizer["adam_ratio"]),
            weight_decay=float(optimizer["weight_decay"]),
            cooldown=float(optimizer["cooldown"]),
            clip=float(optimizer["clip"]),
        ),
        limits=Limits(**config["suite"]["measure"]),
        device=device,
        dtype=getattr(torch, config["dtype"]),
        workdir=workdir,
        energy=energy,
    )


def _module(node: dict[str, Any]) -> nn.Module:
    return instantiate(node, _convert_="all")


def _no_model() -> nn.Module:
    raise AssertionError("baselines have no model")


def _scenario(name: str) -> Any:
    """A scenario is the file of bench/scenarios that its YAML is named after."""
    return importlib.import_module(f"bench.scenarios.{name}")
