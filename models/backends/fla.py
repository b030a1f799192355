"""RWKV-7 and Gated DeltaNet by the kernels of flash-linear-attention.

Our modules and weights; the library computes the recurrence: `chunk_rwkv7` and
`chunk_gated_delta_rule`, as its own layers call them, and for short inputs without gradients
`fused_mul_recurrent_rwkv7` and `fused_recurrent_gated_delta_rule`. Projections, token shifts and
convolutions are torch's. States lie key by value there, value by key here.

Shapes: B batch, T time, H heads, N head size, G key heads, K key and V value width.
"""

import warnings

import torch
from torch import Tensor, nn

from models.backbones.gated_delta import GatedDeltaMixer
from models.backbones.mamba_stack import MixerState
from models.backbones.rwkv7 import RWKV7, LayerState
from models.backbones.rwkv7_time_mix import LOG_DECAY, TimeMix
from models.backends.cuda import cuda_problem, function

RWKV, DELTA = "fla.ops.rwkv7", "fla.ops.gated_delta_rule"
CHUNK = 64  # below it the library's layers go symbol by symbol, where there are no gradients
LARGEST = 256  # width of a key


class RWKVKernels(TimeMix):
    """The time mix by `chunk_rwkv7`."""

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The function."""
        return "chunk_rwkv7"

    def _recur(
        self, r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, kk: Tensor, a: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Autocast leaves some of them in float32.
        kk, a, log_w, r, k, v = (t.to(r.dtype) for t in (kk, a, log_w, r, k, v))
        held = {"scale": 1.0, "initial_state": state.mT.contiguous(), "output_final_state": True}
        if r.shape[1] < CHUNK and not torch.is_grad_enabled():
            recur = function(RWKV, "fused_mul_recurrent_rwkv7")
            o, last = recur(r=r, w=log_w, k=k, v=v, kk=kk, a=a, **held)
        else:
            recur = function(RWKV, "chunk_rwkv7")
            with warnings.catch_warnings():  # that float32 is not for every card
                warnings.simplefilter("ignore", RuntimeWarning)
                o, last = recur(
                    r=r, w=log_w, k=k, v=v, a=-kk, b=kk * a, safe_gate=True,
                    lower_bound=LOG_DECAY, chunk_size=CHUNK, **held,
                )  # fmt: skip
        return o, last.mT  # (B, T, H, N), (B, H, N, N)


class RWKV7Kernels(RWKV7):
    """Blocks of `RWKVKernels`, which take single symbols too."""

    def step(self, x: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """One symbol, (B, D) -> (B, D)."""
        hidden, state = self.prefill(x.unsqueeze(1), state)  # (B, 1, D)
        return hidden.squeeze(1), state


class DeltaKernels(GatedDeltaMixer):
    """Gated DeltaNet by `chunk_gated_delta_rule`."""

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The function."""
        return "chunk_gated_delta_rule"

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One symbol, (B, D) -> (B, D)."""
        qkv, z, b, a = self._project(x)
        qkv, window = self.conv1d.step(qkv, state.window)
        o, S = self._rule(qkv.unsqueeze(1), b.unsqueeze(1), a.unsqueeze(1), state.ssm)
        return self._out(o.squeeze(1), z), MixerState(window, S)

    def _rule(
        self, qkv: Tensor, b: Tensor, a: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        q, k, v, g, beta = self._select(qkv, b, a, torch.float32)
        q, k, v = (t.to(b.dtype) for t in (q, k, v))  # b is of the model's type, under autocast too
        before = None if state is None else state.mT.contiguous()
        short = v.shape[1] < CHUNK and not torch.is_grad_enabled()
        name = "fused_recurrent_gated_delta_rule" if short else "chunk_gated_delta_rule"
        rule = function(DELTA, name)
        o, last = rule(
            q=q, k=k, v=v, g=g, beta=beta, scale=1.0,  # q is scaled already
            initial_state=before, output_final_state=True,
        )  # fmt: skip
        return o, last.mT  # (B, T, H, V), (B, H, V, K)


class FlashLinearAttention:
    """Backend of RWKV-7, and of hybrids that hold its time mix or Gated DeltaNet."""

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there, or None."""
        return cuda_problem(device, dtype)

    def adopt(self, model: nn.Module) -> nn.Module:
        """`model` itself, whose recurrences from now on are the library's.

        `ValueError` where it holds none, or one whose sizes the kernels do not take.
        """
        found = False
        for module in model.modules():
            if isinstance(module, TimeMix):
                _check_width("head_size", module.head_size)
                function(RWKV, "chunk_rwkv7")
                module.__class__ = RWKVKernels
            elif isinstance(module, RWKV7):
                module.__class__ = RWKV7Kernels
                continue
            elif isinstance(module, GatedDeltaMixer):
                _check_width("head_k_dim", module.head_k_dim)
                function(DELTA, "chunk_gated_delta_rule")
                module.__class__ = DeltaKernels
            else:
                continue
            found = True
        if not found:
            raise ValueError("it computes rwkv and gated_delta, and this model holds none")
        return model


def _check_width(name: str, size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"{name} is {size}; its kernels hold at most {LARGEST}")
