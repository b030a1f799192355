"""Solving an integer for a number of parameters."""

import pytest
from torch import nn

from bench.sizes import Solve, fit, set_dotted, solve


@pytest.mark.parametrize(
    ("target", "power"), [(1_000, 1), (33_333, 1), (33_333, 2), (5_000_000, 1), (125_000_000, 2)]
)
def test_nearest_value_is_found(target: int, power: int) -> None:
    rule = Solve(key="width", low=1, high=1_000_000, step=1)

    def count_at(value: int) -> int:
        return 7 * value**power + 100

    found = solve(count_at, target, rule)
    assert abs(count_at(found) - target) <= 0.03 * target


def test_few_models_are_built() -> None:
    calls: list[int] = []

    def count_at(value: int) -> int:
        calls.append(value)
        return 576 * value + 90_000

    solve(count_at, 15_000_000, Solve(key="d_ff", low=8, high=65_536, step=8))
    assert len(calls) <= 16


def test_a_target_that_no_value_meets_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no value of width between 10 and 20 .* 2,000"):
        solve(lambda value: 100 * value, 5_000, Solve(key="width", low=10, high=20, step=1))


def test_fit_refuses_unknown_kinds_and_sizes() -> None:
    model = {"name": "m", "kinds": {"language": {"model": {}, "shapes": {"nano": {}}}}}
    with pytest.raises(ValueError, match="no kind 'generate'; it has: language"):
        fit(model, "generate", "nano", 10, lambda node: nn.Identity())
    with pytest.raises(ValueError, match="size=huge is not known to model=m; it has: nano"):
        fit(model, "language", "huge", 10, lambda node: nn.Identity())


def test_fit_solves_through_a_shared_backbone() -> None:
    backbone = {"_target_": "x", "n": 3, "width": None}
    model = {
        "name": "m",
        "backbone": dict(backbone),
        "shapes": {"nano": {"backbone.n": 5}},
        "solve": {"key": "backbone.width", "low": 1, "high": 1000, "step": 1},
        "kinds": {"language": {"model": {"_target_": "y", "backbone": dict(backbone)}}},
    }

    def instantiate(node: dict) -> nn.Module:
        inner = node["backbone"]
        return nn.Linear(inner["width"], inner["n"], bias=False)

    node = fit(model, "language", "nano", 1000, instantiate)
    assert node["backbone"] == {"_target_": "x", "n": 5, "width": 200}


def test_dotted_keys_must_lead_somewhere() -> None:
    with pytest.raises(ValueError, match=r"model\.a\.x\.c names no value: there is no 'x'"):
        set_dotted({"a": {"b": 1}}, "a.x.c", 2)
