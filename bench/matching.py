"""What families are made equal in: parameters, training FLOPs, seconds or bytes of state.

`match=NAME` and `match.target=N` on the command line, `configs/match` in files. Parameters and
state decide the shape of a model, seconds when its training stops, and FLOPs either: those of one
symbol the shape, those of all training the steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.budgets import FLOPS, PARAMS, STATE, SYMBOL, TIME, TRAINING
from bench.constants import TOLERANCE
from bench.errors import BadInput
from bench.protocol import Costed, Stateful
from bench.scenarios.base import Context, Unsupported
from bench.sizes import PARAMETERS, Quantity
from bench.training import Budget, Curve


@dataclass(frozen=True)
class Shape:
    """What a shape is solved for; `parameters` are kept beside it, None: they come as they do."""

    quantity: Quantity
    target: int
    parameters: int | None


def shape_of(config: Mapping[str, Any], symbols: int) -> Shape:
    """What the shape of a cell's model is solved for; `symbols` are those of the task's items."""
    match, parameters = config["match"], int(config["size"]["parameters"])
    name, target = match["name"], match["target"]
    if name == STATE:
        context = int(match["context"] or symbols)
        return Shape(_state(context), round(target), parameters)
    if name == FLOPS and match["of"] == SYMBOL:
        return Shape(_flops(symbols), round(target), None)
    wanted = round(target) if name == PARAMS and target is not None else parameters
    return Shape(PARAMETERS, wanted, wanted)


def _state(context: int) -> Quantity:
    def measure(model: nn.Module) -> int:
        if not isinstance(model, Stateful):
            raise Unsupported(
                "match=state: the model carries no state from symbol to symbol, so that a size of "
                "it is not defined"
            )
        return model.state_bytes(1, context, torch.float32)

    return Quantity(f"bytes of state after {context} symbols", "solve_state", measure)


def _flops(symbols: int) -> Quantity:
    def measure(model: nn.Module) -> int:
        found = model.flops(1, symbols) if isinstance(model, Costed) else None
        if found is None:
            raise Unsupported("match=flops: the model states no FLOPs")
        return math.ceil(found / symbols)

    return Quantity("FLOPs forward a symbol", PARAMETERS.rule, measure)


def budget_of(context: Context, flops: float | None) -> Budget:
    """When the training of a cell's model is over: what is matched says so, else the suite.

    `flops` are those of an item in training, None where they are not known.
    """
    match = context.config["match"]
    if match["name"] == TIME:
        return Budget(seconds=match["target"])
    if match["name"] == FLOPS and match["of"] == TRAINING:
        if flops is None:
            raise Unsupported("match=flops: the model's FLOPs are not known")
        a_step, target = flops * context.batch_size, float(match["target"])
        steps = round(target / a_step)
        if abs(steps * a_step - target) > TOLERANCE * target:
            raise BadInput(
                f"match.target={target:g} FLOPs is not met within {TOLERANCE:.0%} by whole steps "
                f"of model={context.config['model']['name']}, {a_step:.4g} each; allowed: "
                f"{a_step / TOLERANCE / 2:.1e} or more"
            )
        return Budget(items=steps * context.batch_size)
    return Budget(items=context.items)


def missed(context: Context, curve: Curve) -> str | None:
    """Why seconds were not met, where something held the training up; None where they were.

    BadInput where steps are too long for seconds to be met at all.
    """
    match, taken = context.config["match"], curve.seconds[-1]
    if match["name"] != TIME or abs(taken / match["target"] - 1) <= TOLERANCE:
        return None
    a_step = taken * context.batch_size / curve.items[-1]
    if a_step / 2 > TOLERANCE * match["target"]:
        raise BadInput(
            f"match.target={match['target']:g} s is not met within {TOLERANCE:.0%} by whole steps "
            f"of model={context.config['model']['name']}, {a_step:.2g} s each; allowed: "
            f"{a_step / TOLERANCE / 2:.0f}s or more"
        )
    return f"trained {taken:.3g} s where match.target={match['target']:g} s: a step was held up"
