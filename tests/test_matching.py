"""What families are made equal in: shapes that meet a target, and trainings that end at one."""

import re
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from bench import budgets
from bench.constants import TOLERANCE
from bench.errors import BadInput
from bench.matching import budget_of, missed, shape_of
from bench.scenarios.base import Unsupported
from bench.sizes import NoRule, Solve, Unmet, count_on_meta, fit
from bench.training import Curve
from tests.zoo import SIZES, resolved

CONTEXT = 256
STATE = {"name": "state", "target": 65536, "context": None}
# Those whose YAML says how its state is met; the first ones keep their parameters.
KEEPING = ("transformer", "moe", "mamba", "mamba2", "mamba3", "rwkv")


def matched(name: str, match: dict[str, Any], size: str = "nano") -> nn.Module:
    config = {"match": match, "size": {"parameters": SIZES[size]}}
    aim = shape_of(config, CONTEXT)
    model = resolved(name, "language", size)
    node = fit(model, "language", size, aim.target, built, aim.quantity, aim.parameters)
    with torch.device("meta"):
        return built(node)


def built(node: dict[str, Any]) -> nn.Module:
    return instantiate(node, _convert_="all")


@pytest.mark.parametrize("name", KEEPING)
def test_state_and_parameters_are_met_at_once(name: str) -> None:
    model = matched(name, STATE)
    assert abs(model.state_bytes(1, CONTEXT, torch.float32) / 65536 - 1) <= TOLERANCE
    parameters = count_on_meta(lambda: model).matched
    assert abs(parameters / SIZES["nano"] - 1) <= TOLERANCE


def test_state_is_of_the_context_that_was_named() -> None:
    """Twice the context leaves attention half as much a symbol; a recurrence notices nothing."""
    far = {**STATE, "context": 2 * CONTEXT}
    near, halved = matched("transformer", STATE), matched("transformer", far)
    assert halved.state_bytes(1, 2 * CONTEXT, torch.float32) == 65536
    assert halved.state_bytes(1, CONTEXT, torch.float32) == 65536 // 2
    assert near.state_bytes(1, CONTEXT, torch.float32) == 65536
    shapes = [{n: p.shape for n, p in matched("mamba", m).named_parameters()} for m in (STATE, far)]
    assert shapes[0] == shapes[1]


def test_a_model_without_a_state_has_no_such_cell() -> None:
    with pytest.raises(Unsupported, match="carries no state"):
        matched("diffusion", STATE)
    with pytest.raises(NoRule, match="hybrid has no key 'solve_state'"):
        matched("hybrid", STATE)


def test_a_state_that_no_width_meets_is_refused_with_the_nearest() -> None:
    with pytest.raises(Unmet, match=r"of 100 bytes of state after 256 symbols .* gives [\d,]+"):
        matched("mamba", {**STATE, "target": 100})


@pytest.mark.parametrize("name", ["transformer", "mamba", "rwkv", "resnet", "diffusion"])
def test_flops_of_a_symbol_are_met(name: str) -> None:
    model = matched(name, {"name": "flops", "of": "symbol", "target": 1_000_000})
    assert abs(model.flops(1, CONTEXT) / CONTEXT / 1e6 - 1) <= TOLERANCE


def test_parameters_may_be_named() -> None:
    model = matched("transformer", {"name": "params", "target": 300_000})
    assert abs(count_on_meta(lambda: model).matched / 300_000 - 1) <= TOLERANCE


def test_a_rule_counts_in_units_and_keeps_ratios() -> None:
    tree = {"a": {"heads": 3, "width": 12, "other": 24}}
    rule = Solve("a.width", 2, 8, 2, unit="a.heads", tied=["a.other"])
    within = rule.within(tree)
    assert (within.low, within.high, within.step) == (6, 24, 6)
    assert rule.put(tree, 18) == {"a": {"heads": 3, "width": 18, "other": 36}}


class Cell:
    """As much of a context as a budget is read from."""

    batch_size, items = 5, 77

    def __init__(self, **match: Any) -> None:
        self.config = {"match": match, "model": {"name": "stepped"}}


def test_when_a_training_is_over() -> None:
    # 120 FLOPs an item: 600 a step
    flops = budget_of(Cell(name="flops", of="training", target=600e3), 120.0)
    assert (flops.items, flops.seconds) == (1000 * 5, None)
    assert budget_of(Cell(name="time", target=180.0), None).seconds == 180
    assert budget_of(Cell(name="params", target=None), None).items == 77
    assert budget_of(Cell(name="flops", of="symbol", target=5), 120.0).items == 77
    with pytest.raises(ValueError, match=r"match.target=900 FLOPs is not met within 3%"):
        budget_of(Cell(name="flops", of="training", target=900), 120.0)
    with pytest.raises(Unsupported, match="FLOPs are not known"):
        budget_of(Cell(name="flops", of="training", target=900), None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "params", "target": None}, None),
        ({"name": "params", "target": 300_000}, "params 300000"),
        ({"name": "time", "target": "1min"}, "time 60 s"),
        ({"name": "time", "target": 60}, "time 60 s"),
        ({"name": "flops", "target": 1e12}, "flops 1e+12 of all training"),
        ({"name": "flops", "target": 1e6, "of": "symbol"}, "flops 1000000 of a symbol"),
        ({"name": "state", "target": 65536}, "state 65536 bytes"),
        ({"name": "state", "target": 65536, "context": 512}, "state 65536 bytes at 512"),
    ],
)
def test_one_budget_has_one_spelling(given: dict[str, Any], words: str | None) -> None:
    match = {"of": "training", "context": None, **given}
    budgets.check(match)
    assert budgets.words(budgets.plain(match)) == words


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "time", "target": "soon"}, "match.target=soon is no duration"),
        ({"name": "time", "target": None}, "match.target=null is no duration"),
        ({"name": "state", "target": 0}, "match.target=0 cannot be; allowed: numbers above 0."),
        ({"name": "params", "target": -1}, "allowed: numbers above 0, or null"),
        ({"name": "flops", "target": True}, "match.target=True cannot be"),
        ({"name": "flops", "target": 1, "of": "x"}, "match.of=x is not known"),
        ({"name": "time", "target": 1, "of": "symbol"}, "match.of is read by match=flops alone"),
        ({"name": "params", "target": 1, "context": 5}, "match.context is read by match=state"),
        ({"name": "state", "target": 1, "context": 0}, "match.context=0 is no length"),
    ],
)
def test_what_cannot_be_matched(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        budgets.check({"of": "training", "context": None, **given})


def test_a_budget_of_seconds_that_was_not_met() -> None:
    """Ten steps of five items in 60 s, and a thousand."""
    for steps, taken, said in ((10, 60.0, None), (1000, 61.0, None), (1000, 63.0, "held up")):
        curve = Curve(items=[5 * steps], seconds=[taken], loss=[1.0])
        reason = missed(Cell(name="time", target=60.0), curve)
        assert reason is None if said is None else said in (reason or "")
    curve = Curve(items=[50], seconds=[66.0], loss=[1.0])
    with pytest.raises(BadInput, match=r"model=stepped, 6.6 s each; allowed: 110s or"):
        missed(Cell(name="time", target=60.0), curve)
    assert missed(Cell(name="params", target=None), curve) is None
