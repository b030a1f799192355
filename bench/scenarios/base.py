"""What every scenario is given, and the parts of a record that it gives back."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.meters.time import Limits
from bench.protocol import Costed, TrainCosted
from bench.tasks.base import Quality, Task
from bench.training import Recipe, autocast

# What a model is asked for when a task of this kind scores it, unless the task has a `scored_by` of
# its own; see `bench.protocol`.
SCORED_BY = {
    "language": ("log_prob",),
    "classify": ("classify", "readout", "view", "forwards_per_image"),
    "generate": ("log_prob",),
}


class Unsupported(Exception):
    """This cell cannot be: the message says what the model or the task does not offer."""


@dataclass(frozen=True)
class Context:
    """One cell, ready to run."""

    task: Task
    build: Callable[[], nn.Module]  # a fresh model, initialised from the cell's seed
    config: dict[str, Any]  # the cell's resolved configuration
    recipe: Recipe
    limits: Limits
    device: torch.device
    dtype: torch.dtype
    workdir: Path  # for artefacts
    energy: bool = False  # whether Joules are asked for

    @property
    def kind(self) -> str:
        return self.task.kind

    @property
    def scenario(self) -> dict[str, Any]:
        return self.config["scenario"]

    @property
    def items(self) -> int:
        """Training items of this task in this suite, else of tasks of its kind."""
        items = self.config["suite"]["items"]
        name = self.config["task"]["name"]
        found = items.get(name, items.get(self.kind))
        if found is None:
            raise ValueError(
                f"suite.items names neither task {name!r} nor kind {self.kind!r}; "
                f"it has: {', '.join(items)}"
            )
        return int(found)

    @property
    def batch_size(self) -> int:
        return int(self.config["task"]["batch_size"])

    def on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in batch.items()}

    def autocast(self) -> AbstractContextManager[None]:
        """For a model that was trained in a short dtype, whose parameters are in float32."""
        return autocast(self.device, self.dtype)

    def require_trainable(self, model: nn.Module) -> None:
        """Refuse to train by a kernel without gradients, or in float16.

        In float16 small gradients vanish without loss scaling.
        """
        for module in model.modules():
            ask = getattr(module, "training_problem", None)
            if ask and (problem := ask(self.device)):
                raise Unsupported(problem)
        if self.dtype == torch.float16:
            raise Unsupported(
                "dtype=float16 needs loss scaling in training, which the recipe does not do; "
                "allowed for training: float32, bfloat16"
            )

    def require_scorable(self, model: nn.Module) -> None:
        """Refuse a model that could be trained but not scored, before it is trained."""
        names = getattr(self.task, "scored_by", SCORED_BY.get(self.kind, ()))
        lacking = [name for name in names if not hasattr(model, name)]
        if lacking:
            raise Unsupported(
                f"the model has no {', '.join(lacking)}, by which tasks of kind '{self.kind}' "
                "score it (bench/protocol.py)"
            )

    def require_compiled(self, model: nn.Module, call: Callable[[], object]) -> None:
        """Where compiled, refuse to measure a `call` that does not go through forward.

        Forward alone is compiled: all else would carry a label that it does not deserve.
        """
        if not self.config["compile"]:
            return
        seen: list[None] = []
        handle = model.register_forward_pre_hook(lambda *_: seen.append(None))
        with torch.compiler.set_stance("force_eager"):
            call()
        handle.remove()
        if not seen:
            asked = str(self.config["compile"]).lower()
            raise Unsupported(
                f"compile={asked} compiles the forward pass, which {self.scenario['name']} of this "
                f"model does not go through; allowed: compile=false"
            )

    def inference_model(self) -> nn.Module:
        """A fresh model in evaluation mode with its weights in the cell's dtype."""
        return self.build().to(self.dtype).eval().requires_grad_(False)


def stated_flops(
    context: Context, model: nn.Module, batch: dict[str, Tensor], *, training: bool = False
) -> int | None:
    """What the model says of one forward pass over `batch`, where it states a formula."""
    if not isinstance(model, Costed):
        return None
    formula = model.flops
    if training and isinstance(model, TrainCosted):
        formula = model.train_flops
    size = count_units(context, batch)
    length = batch["tokens"].shape[1] if context.kind == "language" else None
    items = size // length if length else size
    return formula(items, length or context.task.symbols_per_item)


def count_units(context: Context, batch: dict[str, Tensor]) -> int:
    """Tokens or images of a batch, whichever the task counts."""
    if context.kind == "language":
        return batch["tokens"].numel()
    return batch["pixels"].shape[0]


def scores(quality: Quality) -> dict[str, Any]:
    """A score as it stands in a record; items and artefacts are files beside it."""
    names = ("metric", "value", "better", "bound", "stderr", "n_items", "secondary", "notes")
    return {name: getattr(quality, name) for name in names}
