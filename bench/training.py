"""The one training recipe: Muon on matrices, fused AdamW on the rest, a linear cool-down.

Muon (Jordan et al. 2024, `bench.muon`) orthogonalises the momentum of two-dimensional weights.
AdamW takes look-up tables, heads, vectors and convolutions at `adam_ratio` times the same rate, so
that one number is tuned a family. The rate is constant, then falls linearly to zero.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.meters.waiting import wait_for
from bench.muon import BatchedMuon
from bench.parameters import by_role

ROUNDING = 1e-9  # of a share that is a whole number of steps
PASSES = 3  # backward costs two forward passes: gradients of the inputs and of the weights


class Diverged(RuntimeError):
    """The training loss became NaN or infinite."""


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Forward passes in a short dtype over parameters in float32; nothing for float32 itself."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


@dataclass(frozen=True)
class Recipe:
    """What the optimizer is told; `lr` is the rate of the matrices."""

    lr: float
    adam_ratio: float
    weight_decay: float
    cooldown: float  # share of the steps over which the rate falls to zero
    clip: float  # largest norm of the gradient


@dataclass
class Checks:
    """Scores on validation on the way: items read, seconds of training alone, the score."""

    items: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def add(self, items: int, seconds: float, value: float) -> None:
        """One more; a score that is no number meets no target and is left out."""
        if math.isfinite(value):
            self.items.append(items)
            self.seconds.append(seconds)
            self.value.append(value)


@dataclass
class Curve:
    """A learning curve: items, seconds, mean loss since the last point."""

    items: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    validation: Checks = field(default_factory=Checks)

    def thinned(self, most: int) -> "Curve":
        """The same curve in at most `most` points: losses of neighbours become their mean."""
        width = math.ceil(len(self.items) / most)
        thin = Curve(validation=self.validation)
        before = 0
        for first in range(0, len(self.items), width):
            items, losses = self.items[first : first + width], self.loss[first : first + width]
            weights = [b - a for a, b in itertools.pairwise([before, *items])]
            before = items[-1]
            thin.items.append(before)
            thin.seconds.append(self.seconds[first + len(items) - 1])
            thin.loss.append(float(np.average(losses, weights=weights)))
        return thin


class Trainer:
    """Steps a model through batches. One instance trains one model once.

    In a short `dtype` the forward pass alone runs under autocast: torch advises against the
    backward pass, and kernels with one of their own would meet other dtypes than forward.
    """

    def __init__(
        self, model: nn.Module, recipe: Recipe, steps: int, dtype: torch.dtype = torch.float32
    ) -> None:
        if dtype == torch.float16:
            raise ValueError("float16 needs loss scaling, which is not done here; use bfloat16")
        matrices, rest = by_role(model)
        self.model = model
        self.recipe = recipe
        self.steps = steps
        self.dtype = dtype
        self.done = 0
        self.parameters = matrices + rest
        self.device = next(model.parameters()).device
        self.optimizers: list[torch.optim.Optimizer] = []
        decay = recipe.weight_decay
        if matrices:
            groups = _by_decay(matrices, decay)
            self.optimizers.append(BatchedMuon(groups, lr=recipe.lr, weight_decay=decay))
        if rest:
            self.optimizers.append(
                torch.optim.AdamW(
                    _by_decay(rest, decay),
                    lr=recipe.lr * recipe.adam_ratio,
                    betas=(0.9, 0.95),
                    fused=True,
                )
            )
        self.rates = [group["lr"] for _, group in self._groups()]

    def step(self, batch: dict[str, Tensor], spent: float | None = None) -> Tensor:
        """zero_grad, forward, backward, clip, both optimizers. Returns the loss, detached.

        `spent` is the share of the training that is over, by which the rate is set; None: that of
        the steps.
        """
        self._set_rate(self.done / max(self.steps, 1) if spent is None else spent)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        self.update()
        self.done += 1
        return loss.detach()

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The forward pass alone."""
        with autocast(self.device, self.dtype):
            return self.model(**batch).loss

    def update(self) -> None:
        """Clip the gradients that are there and step both optimizers."""
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip, foreach=True)
        for optimizer in self.optimizers:
            optimizer.step()

    def moments(self) -> list[Tensor]:
        """Every tensor that the optimizers keep from step to step."""
        states = [state for o in self.optimizers for state in o.state.values()]
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def moment_bytes(self) -> int:
        """What `moments` take by the recipe: Muon one moment a weight, AdamW two and a count."""
        total = 0
        for optimizer in self.optimizers:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                if isinstance(optimizer, BatchedMuon):
                    total += parameter.nbytes
                else:
                    total += 2 * parameter.nbytes + torch.float32.itemsize
        return total

    def facts(self) -> dict[str, Any]:
        """What the optimizers are, as a record holds it: groups with their sizes, the schedule."""
        groups = [
            {
                "optimizer": "Muon" if isinstance(optimizer, BatchedMuon) else "AdamW",
                "tensors": len(group["params"]),
                "parameters": sum(p.numel() for p in group["params"]),
                "lr": rate,
                "weight_decay": group["weight_decay"],
            }
            for (optimizer, group), rate in zip(self._groups(), self.rates, strict=True)
        ]
        return {
            "groups": groups,
            "schedule": "constant, then linear to zero",
            "cooldown": self.recipe.cooldown,
            "steps": self.steps,
            "clip": self.recipe.clip,
        }

    def predicted_bytes(self) -> dict[str, int]:
        """What gradients and optimizers hold by their formulas, from shapes alone."""
        gradients = sum(parameter.nbytes for parameter in self.parameters)
        return {"gradients_bytes": gradients, "optimizer_bytes": self.moment_bytes()}

    def _set_rate(self, spent: float) -> None:
        left = 1 - spent
        factor = min(1.0, left / self.recipe.cooldown) if self.recipe.cooldown > 0 else 1.0
        for (_, group), rate in zip(self._groups(), self.rates, strict=True):
            group["lr"] = rate * max(factor, 0.0)

    def _groups(self) -> Iterator[tuple[torch.optim.Optimizer, dict[str, Any]]]:
        """Every group of parameters with its optimizer."""
        for optimizer in self.optimizers:
            yield from ((optimizer, group) for group in optimizer.param_groups)


def _by_decay(parameters: Sequence[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Groups of an optimizer: those that shrink and those that do not, none of them empty."""
    decayed = [p for p in parameters if _decays(p)]
    undecayed = [p for p in parameters if not _decays(p)]
    groups = [
        {"params": decayed, "weight_decay": decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _decays(parameter: nn.Parameter) -> bool:
    """Matrices, tables and kernels shrink; gains, biases and what its authors mark do not.

    Marked by `_no_weight_decay` are Mamba's A and D, and RWKV's bonus and low-rank networks.

    RWKV keeps its vectors as [1, 1, channels], so sides of one are no dimension.
    """
    marked = getattr(parameter, "_no_weight_decay", False)
    return parameter.squeeze().ndim > 1 and not marked


def steps_for(items: int, batch_size: int) -> int:
    """Whole batches that show `items` items at least."""
    return math.ceil(items / batch_size)


@dataclass(frozen=True)
class Trained:
    """What a training left: its curve, and what the optimizers were (`Trainer.facts`)."""

    curve: Curve
    optimizer: dict[str, Any]


@dataclass(frozen=True)
class Budget:
    """When a training is over: after so many items, or after so many seconds of it."""

    items: int | None = None
    seconds: float | None = None

    def spent(self, step: int, steps: int, seconds: float) -> float:
        """The share of it that is over before a step, numbered from 0.

        Of seconds half of a step more: the last one ends on either side of the budget.
        """
        if self.seconds is None:
            return step / max(steps, 1)
        return (seconds + seconds / max(step, 1) / 2) / self.seconds


def train(
    model: nn.Module,
    batches: Iterator[dict[str, Tensor]],
    *,
    budget: Budget,
    batch_size: int,
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    every: int = 25,
    checks: int = 0,
    check: Callable[[], float] | None = None,
) -> Trained:
    """Train until the budget is spent.

    `check` scores validation, whenever another of `checks` shares of the budget is spent, but for
    its end. The clock stands still meanwhile, and what it draws and how it sets the model is its
    own to undo: training must not see it. Raises `Diverged` as soon as a point of the curve is not
    finite. A budget of seconds counts those of training alone: one step of a copy comes before,
    which loads and compiles what is slow the first time.
    """
    steps = 0 if budget.items is None else steps_for(budget.items, batch_size)
    if budget.seconds is not None:
        _warm_up(model, next(batches), recipe, device, dtype)
    checked = 0
    trainer = Trainer(model, recipe, steps, dtype)
    model.train()
    curve = Curve()
    pending: list[Tensor] = []
    begin = time.perf_counter()
    for step in itertools.count():
        seconds = time.perf_counter() - begin
        spent = budget.spent(step, steps, seconds)
        last = spent >= 1
        if pending and (step % every == 0 or last):
            loss = torch.stack(pending).mean().item()
            pending.clear()
            if not math.isfinite(loss):
                raise Diverged(f"the training loss was {loss} at step {step} of {steps or '?'}")
            curve.items.append(step * batch_size)
            curve.seconds.append(time.perf_counter() - begin)
            curve.loss.append(loss)
        if last:
            break
        if check is not None and (shares := math.floor(spent * checks + ROUNDING)) > checked:
            checked = shares
            wait_for(device)
            paused = time.perf_counter()
            curve.validation.add(step * batch_size, paused - begin, check())
            begin += time.perf_counter() - paused
        batch = {name: value.to(device) for name, value in next(batches).items()}
        # A copy: where forward is a CUDA graph, the next step writes over the loss of this one.
        pending.append(trainer.step(batch, spent).clone())
        if budget.seconds is not None:
            wait_for(device)  # its queue is no time that was spent
    trainer.steps = trainer.done
    return Trained(curve, trainer.facts())


def _warm_up(
    model: nn.Module,
    batch: dict[str, Tensor],
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type=device.type):
        trainer = Trainer(copy.deepcopy(model).train(), recipe, 1, dtype)
        trainer.step({name: value.to(device) for name, value in batch.items()}).item()
