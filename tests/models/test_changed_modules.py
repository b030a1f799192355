"""Steps of models that were changed after, or before, the first of them: no weight is stale."""

import copy
import itertools
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.kernels.views import Views
from tests.models.kernels import needs_numba
from tests.models.steps import FAMILIES, inputs, pair, written

pytestmark = needs_numba


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_follow_the_weights(family: str) -> None:
    """After an update in place, a load, a load that replaces them, a cast and a copy."""
    fused, plain = pair(family)
    x = inputs(fused, 1, 6)

    def check(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
        plain.to(dtype).load_state_dict(model.state_dict())
        got = written(model, x.to(dtype), 2)
        expected = written(plain, x.to(dtype), 2)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        return got

    seen = [check(fused)]
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.mul_(1.1)
    seen.append(check(fused))
    other = {n: p * 0.8 for n, p in fused.state_dict().items()}
    fused.load_state_dict(other)
    seen.append(check(fused))
    fused.load_state_dict({n: p * 0.9 for n, p in other.items()}, assign=True)
    seen.append(check(fused))
    twin = copy.deepcopy(fused)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.2)
    seen += [check(twin), check(fused)]
    assert torch.equal(seen[-1], seen[-3])
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in itertools.pairwise(seen))
    check(fused.double(), torch.float64)


class Adapted(nn.Module):
    """A layer and what LoRA (arXiv:2106.09685) adds to it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.more = base, nn.Linear(base.in_features, base.out_features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.more(x)
        return out


LAYERS: dict[str, tuple[str, ...]] = {
    "hybrid": ("layers.0.mixer.attention.q_proj", "layers.1.mixer.out_proj"),
    "rwkv": ("blocks.1.att.key", "blocks.2.ffn.value"), "mamba": ("layers.1.mixer.x_proj",),
    "mamba2": ("layers.0.mixer.in_proj", "layers.1.mixer.out_proj"),
    "transformer": ("layers.1.self_attn.v_proj", "layers.0.mlp.gate_proj"),
    "squared": ("layers.1.mlp.down_proj",), "unshared": ("layers.1.mlp.gate",),
    "moe": ("layers.1.mlp.shared.up_proj", "layers.0.self_attn.o_proj"),
}  # fmt: skip

# A norm, a gain or a table that is no layer, and the halves of blocks.
OTHERS = {
    "rwkv": ("blocks.1.ln1", "blocks.0.ffn"), "mamba": ("layers.1.mixer.conv1d",),
    "mamba2": ("layers.1.mixer.norm",), "hybrid": ("layers.0.mixer.attention",),
    "transformer": ("layers.0.input_layernorm", "layers.1.mlp"), "squared": ("layers.0.self_attn",),
    "moe": ("layers.1.mlp", "layers.0.mlp.shared"), "unshared": ("layers.0.mlp.experts",),
}  # fmt: skip


class Half(nn.Module):
    """Of what parametrises a weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, new)


def every_parameter(model: nn.Module, name: str) -> None:
    for module in list(model.modules()):
        for own, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, own, nn.Parameter(1.2 * parameter.detach()))


def one_storage(model: nn.Module, name: str) -> None:
    weight = next(model.get_submodule(name).parameters())
    weight.data = 2 * weight.data


def a_direct_entry(model: nn.Module, name: str) -> None:
    held = model.get_submodule(name)._parameters
    own = next(iter(held))
    held[own] = nn.Parameter(2 * held[own].detach())  # type: ignore[union-attr]


def a_round_trip(model: nn.Module, name: str) -> None:
    model.bfloat16().float()


def a_copy(model: nn.Module, name: str) -> None:
    new = copy.deepcopy(model.get_submodule(name))
    with torch.no_grad():
        next(new.parameters()).mul_(2)
    replace(model, name, new)


def an_adapter(model: nn.Module, name: str) -> None:
    replace(model, name, Adapted(model.get_submodule(name)))  # type: ignore[arg-type]


def a_bias(model: nn.Module, name: str) -> None:
    layer = model.get_submodule(name)
    layer.bias = nn.Parameter(torch.linspace(1, 3, len(next(layer.parameters()))))


def a_parametrised_weight(model: nn.Module, name: str) -> None:
    parametrize.register_parametrization(model.get_submodule(name), "weight", Half())


def a_hook(model: nn.Module, name: str) -> None:
    model.get_submodule(name).register_forward_hook(lambda layer, given, out: 2 * out)


def a_hook_before(model: nn.Module, name: str) -> None:
    model.get_submodule(name).register_forward_pre_hook(lambda layer, given: (2 * given[0],))


CHANGES = (every_parameter, one_storage, a_direct_entry, a_round_trip, a_copy, an_adapter, a_bias,
           a_parametrised_weight, a_hook, a_hook_before)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize(("family", "name"), [(f, n) for f in FAMILIES for n in LAYERS[f]])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_step_does_what_the_parallel_form_does(
    change: Callable[[nn.Module, str], None], family: str, name: str, batch: int
) -> None:
    model, _ = pair(family)
    x = inputs(model, batch, 4)
    before = written(model, x, 2)
    change(model, name)
    after = written(model, x, 2)
    with torch.no_grad():
        expected = model(x)[0][:, 2:]
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-4)
    assert not torch.equal(after, before)


class Wrapped(nn.Module):
    """Twice what it wraps; what it does not know is asked of that."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def __getattr__(self, name: str) -> object:
        if name == "base":
            return super().__getattr__(name)
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base, name)

    def forward(self, *given: object, **more: object) -> object:
        out = self.base(*given, **more)
        return (2 * out[0], *out[1:]) if isinstance(out, tuple) else 2 * out


@pytest.mark.parametrize(("family", "name"), [(f, n) for f in FAMILIES for n in OTHERS[f]])
def test_another_module_in_the_place_of_one_is_not_fused(family: str, name: str) -> None:
    """Whatever stands there is asked itself, and no kernel computes what it replaced."""
    model, _ = pair(family)
    x = inputs(model, 1, 4)
    written(model, x, 2)
    replace(model, name, Wrapped(model.get_submodule(name)))
    views = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Views)]
    assert any(v() is None for v in views)


@pytest.mark.parametrize("family", ["transformer", "rwkv", "mamba"])
def test_a_norm_of_another_kind(family: str) -> None:
    name = {"transformer": "layers.1.input_layernorm", "rwkv": "blocks.1.ln1",
            "mamba": "layers.0.norm"}[family]  # fmt: skip
    model, _ = pair(family)
    x = inputs(model, 1, 4)
    written(model, x, 2)
    replace(model, name, nn.Identity() if family == "rwkv" else nn.LayerNorm(x.shape[-1]))
    with torch.no_grad():
        expected = model(x)[0][:, 2:]
    torch.testing.assert_close(written(model, x, 2), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hook_that_is_gone_leaves_the_kernel(family: str) -> None:
    model, _ = pair(family)
    x = inputs(model, 1, 4)
    hook = model.get_submodule(LAYERS[family][0]).register_forward_hook(lambda *_: None)
    first = written(model, x, 2)
    views = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Views)]
    assert any(v() is None for v in views)
    hook.remove()
    assert all(v() is not None for v in views)
    torch.testing.assert_close(written(model, x, 2), first, rtol=1e-4, atol=1e-4)


def test_views_are_built_once() -> None:
    layer = nn.Linear(2, 2)
    make = mock.Mock(side_effect=lambda: object())
    views: Views[object] = Views(layer, make)
    first = views()
    assert views() is first
    with torch.no_grad():
        layer.weight.mul_(2)
    assert views() is first
    layer.weight = nn.Parameter(torch.ones(2, 2))
    assert views() is not first
    copied: Views[object] = Views(layer, make, copies=True)
    first = copied()
    with torch.no_grad():
        layer.weight.mul_(2)
    assert copied() is not first


@pytest.mark.parametrize("family", FAMILIES)
def test_an_input_that_does_not_fit_is_torchs_error(family: str) -> None:
    model, _ = pair(family)
    x = inputs(model, 1, 1)[:, 0]
    state = model.init_state(1, device=x.device, dtype=x.dtype)  # type: ignore[operator]
    with torch.no_grad():
        for wrong in (x[:, :2], torch.cat([x, x], 1), x.double()):
            with pytest.raises(RuntimeError):
                model.step(wrong, state)  # type: ignore[operator]
