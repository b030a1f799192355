"""Hybrids: layers whose mixer is given by a pattern, such as two of Mamba-2 and one of attention.

As in Jamba (arXiv:2403.19887), Zamba (arXiv:2405.16712) and Qwen3-Next: every layer is a mixer and
a feed-forward network, each on a pre-norm residual branch. The mixers are those of the families
themselves; what a hybrid is like is one list in the configuration.

`pattern=[gated_delta,gated_delta,gated_delta,attention]` is that of Qwen3-Next.

Deviations: no layer is a mixture of experts, none shares its weights with another, attention has
rotary positions in every hybrid (Jamba has none), and every layer of RWKV-7 makes a value of its
own instead of mixing in that of the first.

Shapes: B batch, T time, D width.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.backbones.branches import Branch, keeping
from models.backbones.mixers.by_name import MIXERS
from models.backbones.mixers.interface import Mixer, mixed
from models.backbones.mlp import MLP
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes


class Layer(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, *, mixer: Mixer, mlp: MLP, d_model: int, norm_eps: float) -> None:
        super().__init__()
        self.mixer_norm = RMSNorm(d_model, norm_eps)
        self.mixer = mixer
        self.mlp_norm = RMSNorm(d_model, norm_eps)
        self.mlp = mlp

    def forward(self, x: Tensor, state: Any | None) -> tuple[Tensor, Any | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""
        mixed, state = self.mixer(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), state

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One symbol, (B, D) -> (B, D)."""
        mixed, state = self.mixer.step(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), state


def _mixer(name: str, **options: Any) -> Mixer:
    """A new one; the ValueError that its options may raise names it, since mixers share keys."""
    try:
        return MIXERS[name](**options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class Hybrid(nn.Module):
    """`n_layers` layers whose mixers repeat `pattern`, each built from the options of its name."""

    def __init__(
        self,
        *,
        pattern: Sequence[str] | str,
        d_model: int,
        n_layers: int,
        d_ff: int,
        mlp: str,
        attention: Mapping[str, Any],
        mamba: Mapping[str, Any],
        mamba2: Mapping[str, Any],
        mamba3: Mapping[str, Any],
        rwkv: Mapping[str, Any],
        gated_delta: Mapping[str, Any],
        norm_eps: float,
    ) -> None:
        super().__init__()
        pattern = [pattern] if isinstance(pattern, str) else pattern
        if not isinstance(pattern, Sequence) or not all(isinstance(name, str) for name in pattern):
            raise ValueError(f"pattern is {pattern}; allowed is a list of {', '.join(MIXERS)}")
        options = {
            "attention": attention,
            "mamba": mamba,
            "mamba2": mamba2,
            "mamba3": mamba3,
            "rwkv": rwkv,
            "gated_delta": gated_delta,
        }
        for name in pattern:
            if name not in MIXERS:
                allowed = ", ".join(MIXERS)
                raise ValueError(f"pattern names {name!r}; allowed are {allowed}, in any order")
        check_sizes(d_model=d_model, n_layers=n_layers)
        if not 0 < len(pattern) <= n_layers:
            raise ValueError(
                f"pattern has {len(pattern)} mixers and n_layers is {n_layers}, so that its end is "
                "never used; allowed are one mixer or more, and at least as many layers"
                if pattern
                else "pattern is empty; allowed are one mixer or more"
            )
        self.d_model = d_model
        names = [pattern[layer % len(pattern)] for layer in range(n_layers)]
        common = {"d_model": d_model, "n_layers": n_layers, "norm_eps": norm_eps}
        self.layers = nn.ModuleList(
            Layer(
                mixer=_mixer(name, **common, **options[name]),
                mlp=MLP(d_model=d_model, d_ff=d_ff, mlp=mlp, residual_init=0.0),
                d_model=d_model,
                norm_eps=norm_eps,
            )
            for name in names
        )
        self.norm = RMSNorm(d_model, norm_eps)

    def _layers(self) -> Iterable[Layer]:
        return cast(Iterable[Layer], self.layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> hidden vectors (B, T, D), no auxiliary losses."""
        for layer in self._layers():
            x, _ = layer(x, None)
        return self.norm(x), {}

    def enter(self, x: Tensor) -> Tensor:
        """The identity."""
        return x

    def branches(self, length: int) -> list[Branch]:
        """Mixer and MLP of every layer."""
        found = []
        for index, layer in enumerate(self._layers()):
            mixer, mlp = layer.mixer, layer.mlp
            found += [
                Branch(
                    index,
                    layer.mixer_norm,
                    mixed(mixer),
                    ordered=mixer.ordered,
                    outputs=(mixer.output,),
                ),
                Branch(index, layer.mlp_norm, keeping(mlp), ordered=False, outputs=mlp.outputs()),
            ]
        return found

    def leave(self, x: Tensor) -> Tensor:
        """The final norm."""
        return self.norm(x)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> list[Any]:
        """What each mixer carries before the first symbol."""
        return [
            layer.mixer.init_state(batch, device=device, dtype=dtype) for layer in self._layers()
        ]

    def prefill(self, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """Continue from `state`, (B, T, D) -> (B, T, D)."""
        states = []
        for layer, before in zip(self._layers(), state, strict=True):
            x, after = layer(x, before)
            states.append(after)
        return self.norm(x), states

    def step(self, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """One symbol, (B, D) -> (B, D)."""
        states = []
        for layer, before in zip(self._layers(), state, strict=True):
            x, after = layer.step(x, before)
            states.append(after)
        return self.norm(x), states

    def crop(self, state: list[Any], length: int) -> list[Any]:
        """Attention forgets all but the last `length` symbols; what does not grow stays."""
        return [
            layer.mixer.crop(before, length)
            for layer, before in zip(self._layers(), state, strict=True)
        ]

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """The sum over layers: what grows with the context and what does not."""
        return sum(layer.mixer.state_bytes(batch, context, dtype) for layer in self._layers())

    @property
    def kernel_used(self) -> str:
        """What computes the mixers where the parameters are, each kernel once."""
        weight = self.norm.weight
        used = [layer.mixer.kernel_on(weight.device, weight.dtype) for layer in self._layers()]
        return "+".join(dict.fromkeys(used))

    def flops(self, batch: int, length: int) -> int:
        """Mixers and feed-forward networks; norms and residual sums are not counted."""
        return sum(
            layer.mixer.flops(batch, length) + layer.mlp.flops(batch, length)
            for layer in self._layers()
        )
