"""Runs one cell inside its own process."""

import functools
import importlib
from pathlib import Path
from typing import Any

# What libraries import at their first use comes with this module: the fork server imports it once,
# and a cell's memory does not grow by it.
import numpy.ma  # noqa: F401
import torch
import torch.utils.flop_counter
from torch import nn

from bench.building import Models, checkpoint_of, make_task
from bench.cell import MACHINE
from bench.errors import BadInput
from bench.machine.build import torch_facts
from bench.machine.facts import frequency_mhz
from bench.meters.process import resident_bytes
from bench.meters.time import Limits
from bench.process.child import failure
from bench.scenarios.base import Context, Unsupported
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
    if config["threads"]:
        torch.set_num_threads(int(config["threads"]))
    device = torch_device(config["device"]["name"])
    name = config["scenario"]["name"]
    context = functools.partial(
        _context, config=config, device=device, workdir=workdir, energy=bool(cell.get("energy"))
    )
    if config["task"]["name"] == MACHINE:
        return dict(_scenario(name).run(context(None, _no_model)))
    checkpoint = checkpoint_of(config.get("model") or {})
    task = make_task(config["task"] if checkpoint is None else checkpoint.task(config["task"]))
    data = {key: getattr(task.data, key) for key in ("id", "sha256", "sizes", "notes")}
    if name == "baselines":
        return {"data": data, **_scenario(name).run(context(task, _no_model))}
    overrides = tuple(cell.get("overrides", ()))
    models = Models(config, task, device, checkpoint=checkpoint, overrides=overrides)
    payload = {"data": data, **models.facts()}
    seen, reason = models.agree()
    payload |= seen
    if reason is not None:
        return {**payload, "status": "failed", "reason": reason}
    return payload | _scenario(name).run(context(task, models.build))


def torch_device(name: str) -> torch.device:
    """The torch device of `device=name`; "auto" takes CUDA where it is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda is not there; allowed here: auto, cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device=mps is not there; allowed here: auto, cpu")
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


def _no_model() -> nn.Module:
    raise AssertionError("baselines have no model")


def _scenario(name: str) -> Any:
    """A scenario is the file of bench/scenarios that its YAML is named after."""
    return importlib.import_module(f"bench.scenarios.{name}")
