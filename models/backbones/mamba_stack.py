"""What the Mambas share: residual blocks of one mixer each, the state, the step-size init.

Names of modules follow mamba_ssm: `layers.i.norm`, `layers.i.mixer`, `norm_f`.

Shapes: B batch, T time, D width, E channels of the mixer, K convolution width.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from models.backbones.branches import Branch
from models.backbones.interface import scan_dtype
from models.backbones.mixers.interface import Mixer, mixed
from models.backbones.norm import RMSNorm
from models.backbones.sizes import check_sizes
from models.kernels.available import choose_kernel, fallback, steps_fused
from models.kernels.views import Array, Views

# Step sizes start log-uniform in this range (section 3.6 of arXiv:2312.00752, and mamba_ssm).
DELTA_MIN, DELTA_MAX, DELTA_FLOOR = 1e-3, 1e-1, 1e-4

# Our prefixes -> those of the official checkpoints.
CHECKPOINT_NAMES: dict[str, str] = {
    "embedding.": "backbone.embedding.",
    "backbone.": "backbone.",
    "lm_head.": "lm_head.",
}


class MixerState(NamedTuple):
    """Of one layer with a convolution. What adds up over time is at least fp32."""

    window: Tensor  # (B, K - 1, C): the last inputs of the convolution
    ssm: Tensor  # Mamba-1 (B, E, N), Mamba-2 (B, H, P, N), Gated DeltaNet (B, H, V, K)


class RecurrentMixer(Mixer):
    """A recurrence, by a fused kernel where one holds it: a Mamba, or Gated DeltaNet."""

    kernel: str  # auto | torch | numba
    out_proj: nn.Linear

    @property
    def output(self) -> Tensor:
        """The matrix onto the residual stream."""
        return self.out_proj.weight

    @abstractmethod
    def flops_per_symbol(self, length: int) -> int:
        """FLOPs of one symbol in a sequence of `length`."""

    def flops(self, batch: int, length: int) -> int:
        """Of all symbols, each of which costs the same."""
        return batch * length * self.flops_per_symbol(length)

    @property
    def fits_kernel(self) -> bool:
        """Whether the fused kernel computes a recurrence of this kind and these sizes."""
        return True

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """What computes the recurrence there, for a model of that type."""
        return choose_kernel(self.kernel, device, scan_dtype(dtype), fits=self.fits_kernel)

    @property
    def kernel_fallback(self) -> str | None:
        """Why kernel=auto takes the slower form here, where it does."""
        weight = next(self.parameters())
        return fallback(self.kernel, weight.device, scan_dtype(weight.dtype), fits=self.fits_kernel)


class ConvMixer(RecurrentMixer):
    """A mixer whose state is a convolution's window and a matrix."""

    @abstractmethod
    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the convolution's window and the scan's state."""

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> MixerState:
        """Nothing seen: an empty window and a zero state."""
        window, ssm = self.state_shapes(batch)
        return MixerState(
            torch.zeros(window, device=device, dtype=dtype),
            torch.zeros(ssm, device=device, dtype=scan_dtype(dtype)),
        )

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Window in `dtype` and matrix state in at least fp32, whatever the context."""
        window, ssm = self.state_shapes(batch)
        return math.prod(window) * dtype.itemsize + math.prod(ssm) * scan_dtype(dtype).itemsize


class StepMixer(ConvMixer):
    """With a kernel for one symbol: a Mamba-1 or -2."""

    in_proj: nn.Linear
    _views: Views[tuple[Any, ...]]  # of what the kernel reads

    @abstractmethod
    def run_kernel(self, weights: tuple[Any, ...], x: Array, *written: Array) -> None:
        """x (D) in; the window, the scan's state and the output (D) are written."""

    def fused_step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState] | None:
        """By the kernel, (1, D) -> (1, D), with the new state in the place of the old one.

        None where it cannot, or not as the module is now.
        """
        if not (
            steps_fused(x, *state)
            and self.kernel_on(x.device, x.dtype) == "numba"
            and (state.window.shape, state.ssm.shape) == self.state_shapes(1)
        ):
            return None
        weights = self._views()
        if weights is None or (x.shape[1:], x.dtype) != (
            self.in_proj.weight.shape[1:], self.in_proj.weight.dtype
        ):  # fmt: skip
            return None
        from models.kernels.compiled import first_rows

        # What autograd saved is not written over.
        if any(part.requires_grad or not part.is_contiguous() for part in state):
            state = MixerState(*(p.clone(memory_format=torch.contiguous_format) for p in state))
        out = torch.empty(x.shape, dtype=x.dtype)
        self.run_kernel(weights, *first_rows(x, *state, out))
        return out, state


def inverse_softplus_steps(count: int) -> Tensor:
    """Biases whose softplus is log-uniform in [DELTA_MIN, DELTA_MAX]."""
    low, high = math.log(DELTA_MIN), math.log(DELTA_MAX)
    delta = torch.exp(torch.rand(count) * (high - low) + low).clamp(min=DELTA_FLOOR)
    return delta + torch.log(-torch.expm1(-delta))


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """For what is in `scan_dtype`: autocast would round its matrix products, states among them."""
    return torch.autocast(device.type, enabled=False)


def init_residual(out_proj: nn.Linear, residual_init: str, n_layers: int) -> None:
    """Start of a projection onto the residual stream.

    "zero", or "scaled": divided by sqrt(layers), as mamba_ssm does after GPT-2.
    """
    if residual_init not in ("zero", "scaled"):
        raise ValueError(f"residual_init is {residual_init!r}; allowed are 'zero' and 'scaled'")
    with torch.no_grad():
        if residual_init == "zero":
            out_proj.weight.zero_()
        else:
            out_proj.weight.div_(math.sqrt(n_layers))


class Block(nn.Module):
    """x + mixer(norm(x))."""

    def __init__(self, *, mixer: Mixer, d_model: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model, norm_eps)
        self.mixer = mixer

    def forward(self, x: Tensor, state: Any | None) -> tuple[Tensor, Any | None]:
        """(B, T, D) -> (B, T, D)."""
        out, state = self.mixer(self.norm(x), state)
        return x + out, state

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, D) -> (B, D)."""
        out, state = self.mixer.step(self.norm(x), state)
        return x + out, state


class MambaStack(nn.Module):
    """Blocks and the final norm: a causal backbone with a state of constant size.

    A family names its mixer's class. `options` are what that takes besides the width, the number of
    layers and the norms' epsilon, which every mixer takes.
    """

    mixer_class: type[RecurrentMixer]

    def __init__(self, *, d_model: int, n_layers: int, norm_eps: float, **options: Any) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_layers=n_layers)
        self.d_model = d_model
        common = {"d_model": d_model, "n_layers": n_layers, "norm_eps": norm_eps}
        self.layers = nn.ModuleList(
            Block(mixer=self.mixer_class(**common, **options), d_model=d_model, norm_eps=norm_eps)
            for _ in range(n_layers)
        )
        self.norm_f = RMSNorm(d_model, norm_eps)

    def _blocks(self) -> Iterable[Block]:
        return cast(Iterable[Block], self.layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> hidden vectors (B, T, D), no auxiliary losses."""
        for block in self._blocks():
            x, _ = block(x, None)
        return self.norm_f(x), {}

    def enter(self, x: Tensor) -> Tensor:
        """The identity."""
        return x

    def branches(self, length: int) -> list[Branch]:
        """The mixer of every block."""
        return [
            Branch(
                layer,
                block.norm,
                mixed(block.mixer),
                ordered=block.mixer.ordered,
                outputs=(block.mixer.output,),
            )
            for layer, block in enumerate(self._blocks())
        ]

    def leave(self, x: Tensor) -> Tensor:
        """The final norm."""
        return self.norm_f(x)

    def init_state(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> list[Any]:
        """Nothing seen: a zero state in every layer."""
        return [
            block.mixer.init_state(batch, device=device, dtype=dtype) for block in self._blocks()
        ]

    def prefill(self, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """Continue from `state`, (B, T, D) -> (B, T, D)."""
        states = []
        for block, before in zip(self._blocks(), state, strict=True):
            x, after = block(x, before)
            states.append(after)
        return self.norm_f(x), states

    def step(self, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """One symbol, (B, D) -> (B, D)."""
        states = []
        for block, before in zip(self._blocks(), state, strict=True):
            x, after = block.step(x, before)
            states.append(after)
        return self.norm_f(x), states

    def crop(self, state: list[Any], length: int) -> list[Any]:
        """The identity: what was seen cannot be taken out of the state, which does not grow."""
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Of all layers, whatever the context."""
        return sum(block.mixer.state_bytes(batch, context, dtype) for block in self._blocks())

    def flops(self, batch: int, length: int) -> int:
        """FLOPs of one forward pass; norms (5 a value) and the residual sums included."""
        mixers = sum(block.mixer.flops(batch, length) for block in self._blocks())
        norms = 5 * self.d_model * (len(self.layers) + 1) + self.d_model * len(self.layers)
        return mixers + batch * length * norms

    @property
    def kernel_used(self) -> str:
        """What computes the recurrence where the parameters are, in every layer the same."""
        weight = self.norm_f.weight
        return next(iter(self._blocks())).mixer.kernel_on(weight.device, weight.dtype)
