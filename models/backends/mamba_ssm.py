"""Mamba-1, Mamba-2 and Mamba-3 by the kernels of mamba_ssm and causal-conv1d.

Our modules and weights; the libraries compute the recurrence and, for Mamba-1 and Mamba-2, the
convolution and a single step, by functions that their own modules call: `selective_scan_fn`,
`mamba_chunk_scan_combined`, `mamba3_siso_combined`, `selective_state_update`, `causal_conv1d_fn`
and `causal_conv1d_update`.

What differs from mamba_ssm's own modules: norms, gated or not, are torch's; nothing is fused with
the projections and the convolution, as a forward pass of Mamba-1 and Mamba-2 is there; Mamba-1's
softplus is not part of the scan. Mamba-1's `selective_scan_fn` takes no state: from one it begins
with symbols that write it, in float32. Steps of Mamba-1 and Mamba-2 write the new state over the
old one, as theirs do. With gradients these steps are torch's, since the kernels have none, and so
is Mamba-1's scan from a state. Mamba-3's step is always torch's: theirs needs more packages and
says that it is tested on the H100 alone.

Shapes: B batch, T time, D width, E channels, H heads, P headdim, G groups, N d_state, K d_conv.
"""

import importlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.causal_conv import CausalConv
from models.backbones.mamba import MambaMixer
from models.backbones.mamba2 import Mamba2Mixer
from models.backbones.mamba3 import Mamba3Mixer, Mamba3State
from models.backbones.mamba_stack import MixerState
from models.backbones.options import refuse_departures
from models.backends.cuda import cuda_problem, function

SCAN = "mamba_ssm.ops.selective_scan_interface"
SSD = "mamba_ssm.ops.triton.ssd_combined"
MAMBA3 = "mamba_ssm.ops.triton.mamba3"  # of no release before 2.3.2
SISO = f"{MAMBA3}.mamba3_siso_combined"
UPDATE = "mamba_ssm.ops.triton.selective_state_update"
CONV = "causal_conv1d"
SSD_CHUNK, SISO_CHUNK = 256, 64  # those that the library's modules begin with
WIDEST = 4  # convolution
LEAST = 16  # side of a tensor core's product
# Of the symbols that write a state, which therefore are times 2^20: a power of two, so that it is
# gone again without rounding, and so small that N symbols hardly let a state decay.
STEP = 2.0**-20


class Convolution(CausalConv):
    """By causal-conv1d."""

    def forward(self, x: Tensor, window: Tensor | None = None) -> Tensor:
        """(B, T, C), and the inputs before it or zeros, (B, K - 1, C) -> (B, T, C)."""
        skip = 0
        if window is not None:  # an argument of the function too, but of one layout alone
            skip, x = window.shape[1], torch.cat([window.to(x.dtype), x], 1)
        x = x.transpose(1, 2)  # (B, C, K - 1 + T)
        # Channels may stay innermost where rows begin at multiples of eight.
        if any(n % 8 for n in (x.shape[1], x.stride(0), x.stride(2))):
            x = x.contiguous()
        conv = function(CONV, "causal_conv1d_fn")
        y: Tensor = conv(x, self.weight[:, 0], self.bias, activation="silu")
        return y[..., skip:].transpose(1, 2)

    def step(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """One symbol, (B, C) -> (B, C); writes the new window over the old one."""
        if torch.is_grad_enabled():
            return super().step(x, window)
        update = function(CONV, "causal_conv1d_update")
        state = window.transpose(1, 2)  # (B, C, K - 1)
        y = update(x.to(window.dtype), state, self.weight[:, 0], self.bias, activation="silu")
        return y, window


class Mamba1Kernels(MambaMixer):
    """By `selective_scan_fn` and `selective_state_update`."""

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The function."""
        return "selective_scan_fn"

    def _scan(
        self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if state is not None and torch.is_grad_enabled():
            # The library's scan passes no gradient through the state that it returns.
            return super()._scan(u, delta, B, C, z, state)
        # In float32 from a state: symbols that write it would round it to the digits of bfloat16,
        # and leave the range of float16.
        dtype = u.dtype if state is None else torch.float32
        u, delta, B, C, z = (t.transpose(1, 2).to(dtype) for t in (u, delta, B, C, z))
        A, skip = -torch.exp(self.A_log.float()), 0
        if state is not None:
            skip = self.d_state
            first = zip(symbols_of(state, A), (u, delta, B), strict=True)
            u, delta, B = (torch.cat([t, x], -1) for t, x in first)
            C, z = (F.pad(t, (skip, 0)) for t in (C, z))
        scan = function(SCAN, "selective_scan_fn")
        y, last = scan(u, delta, A, B, C, self.D.float(), z, return_last_state=True)
        # A copy: the last state is a view into those at the ends of all chunks.
        return y[..., skip:].transpose(1, 2), last.clone()  # (B, T, E), (B, E, N)

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One symbol, (B, D) -> (B, D)."""
        if torch.is_grad_enabled():
            return super().step(x, state)
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, E) each
        u, window = self.conv1d.step(u, state.window)
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        update = function(UPDATE, "selective_state_update")
        y = update(
            state.ssm, u, F.linear(dt, self.dt_proj.weight), -torch.exp(self.A_log.float()), B, C,
            self.D.float(), z=z, dt_bias=self.dt_proj.bias.float(), dt_softplus=True,
        )  # fmt: skip
        return self.out_proj(y.to(x.dtype)), MixerState(window, state.ssm)


def symbols_of(state: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """N symbols after which zeros have become `state`: the scan takes no state to begin with.

    Symbol n writes state n, with a step of STEP; those after it let the state decay by
    exp(STEP A_n) each, which its input makes good. (B, E, N), (E, N) -> u and delta (B, E, N) and
    B (B, N, N), time last.
    """
    size = A.shape[1]
    after = torch.arange(size - 1, -1, -1, device=A.device)
    u = state / STEP * torch.exp(-STEP * A * after)
    B = torch.eye(size, device=A.device).expand(len(state), -1, -1)
    return u, torch.full_like(u, STEP), B


class Mamba2Kernels(Mamba2Mixer):
    """By `mamba_chunk_scan_combined` and `selective_state_update`."""

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The function."""
        return "mamba_chunk_scan_combined"

    def _scan(self, xBC: Tensor, dt: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        u, B, C = self._split(xBC)
        scan = function(SSD, "mamba_chunk_scan_combined")
        y, last = scan(
            u, dt, -torch.exp(self.A_log.float()), B, C, self.chunk_size, D=self.D.float(),
            dt_bias=self.dt_bias.float(), initial_states=state, dt_softplus=True,
            return_final_states=True,
        )  # fmt: skip
        return y, last  # (B, T, H, P), (B, H, P, N)

    def step(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One symbol, (B, D) -> (B, D)."""
        if torch.is_grad_enabled():
            return super().step(x, state)
        z, xBC, dt = self._project(x)
        xBC, window = self.conv1d.step(xBC, state.window)
        u, B, C = self._split(xBC)
        # One number a head, not copied: from strides of zero the kernel knows that they are one.
        wide = (self.nheads, self.headdim)
        A = -torch.exp(self.A_log.float())[:, None, None].expand(*wide, self.d_state)
        D, dt_bias = (t.float()[:, None].expand(wide) for t in (self.D, self.dt_bias))
        dt = dt.unsqueeze(-1).expand(-1, *wide)
        update = function(UPDATE, "selective_state_update")
        y = update(state.ssm, u, dt, A, B, C, D, dt_bias=dt_bias, dt_softplus=True)  # (B, H, P)
        return self.out_proj(self.norm(y.flatten(-2).to(x.dtype), z)), MixerState(window, state.ssm)


class Mamba3Kernels(Mamba3Mixer):
    """By `mamba3_siso_combined`; it rounds its inputs to bfloat16."""

    def kernel_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The function, and what takes single steps."""
        return "mamba3_siso_combined+torch"

    def forward(self, x: Tensor, state: Mamba3State | None) -> tuple[Tensor, Mamba3State | None]:
        """(B, T, D) -> (B, T, D); without a state the sequence begins and none is returned."""
        z, u, B, C, dt, rate, lam, angle = self._parts(x)
        log_decay, delta = (t.mT for t in self._rates(dt.float(), rate.float()))  # (B, H, T)
        groups = (self.ngroups, self.d_state)
        B, C = self.B_norm(B.unflatten(-1, groups)), self.C_norm(C.unflatten(-1, groups))
        before = None
        if state is not None:
            before = (state.theta, state.ssm, state.B[:, 0], state.x)
        scan = function(SISO, "mamba3_siso_combined")
        found = scan(
            C, B, u, log_decay, delta, lam.mT, self.C_bias[:, 0].float(), self.B_bias[:, 0].float(),
            angle.float().unsqueeze(-2).expand(-1, -1, self.nheads, -1), D=self.D.float(), Z=z,
            Input_States=before, chunk_size=self.chunk_size,
            return_final_states=state is not None,
        )  # fmt: skip
        y, *after = (found,) if state is None else found
        out = self.out_proj(y.flatten(-2).to(x.dtype))  # (B, T, D)
        if state is None:
            return out, None
        theta, h, last_B, last_x = after
        return out, Mamba3State(last_B.unsqueeze(1).to(x.dtype), last_x.to(x.dtype), h, theta)


class MambaSsm:
    """Backend of Mamba-1, Mamba-2 and Mamba-3, and of hybrids that hold them."""

    def __init__(self, *, types: list[str]) -> None:
        self.types = tuple(types)

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there, or None."""
        return cuda_problem(device, dtype, self.types)

    def adopt(self, model: nn.Module) -> nn.Module:
        """`model` itself, whose mixers from now on compute by the library.

        `ValueError` where it holds none, or one whose sizes the kernels do not take.
        """
        found = False
        for module in model.modules():
            if isinstance(module, MambaMixer | Mamba2Mixer):
                refuse_departures(module, "the kernels of mamba_ssm")
            if isinstance(module, MambaMixer):
                _check_convolution(module.conv1d)
                if module.d_state > 256:
                    raise ValueError(f"d_state is {module.d_state}; its scan holds at most 256")
                function(SCAN, "selective_scan_fn")
                module.__class__, module.conv1d.__class__ = Mamba1Kernels, Convolution
            elif isinstance(module, Mamba2Mixer):
                _check_convolution(module.conv1d)
                function(SSD, "mamba_chunk_scan_combined")
                module.__class__, module.conv1d.__class__ = Mamba2Kernels, Convolution
                module.chunk_size = SSD_CHUNK
            elif isinstance(module, Mamba3Mixer):
                _check_siso(module)
                _check_mamba3()
                module.__class__ = Mamba3Kernels
                module.chunk_size = SISO_CHUNK
            else:
                continue
            found = True
        if not found:
            raise ValueError("it computes mamba, mamba2 and mamba3, and this model holds none")
        return model


def _check_convolution(conv: CausalConv) -> None:
    if conv.width > WIDEST:
        raise ValueError(f"d_conv is {conv.width}; causal-conv1d holds at most {WIDEST}")
    function(CONV, "causal_conv1d_fn")


def _check_mamba3() -> None:
    try:
        function(SISO, "mamba3_siso_combined")
    except ValueError as error:
        cause = error.__cause__
        if not isinstance(cause, ModuleNotFoundError) or not (cause.name or "").startswith(MAMBA3):
            raise
        version = importlib.import_module("mamba_ssm").__version__
        raise ValueError(
            f"mamba_ssm {version} is installed and has no Mamba-3; needed is 2.3.2 or later: "
            'pip install --no-build-isolation "mamba-ssm>=2.3.2"'
        ) from error


def _check_siso(mixer: Mamba3Mixer) -> None:
    if mixer.mimo_rank > 1:
        raise ValueError(f"mimo_rank is {mixer.mimo_rank}; its kernels are used here for 1 alone")
    for name in ("headdim", "d_state"):
        size = getattr(mixer, name)
        if size < LEAST or size & (size - 1):
            raise ValueError(
                f"{name} is {size}; Mamba-3's kernels need a power of two from {LEAST}, such as "
                f"model.backbone.{name}={max(LEAST, 1 << (size - 1).bit_length())}"
            )
    if mixer.num_rope_angles % 2:
        raise ValueError(f"{mixer.num_rope_angles} angles turn; Mamba-3's kernels need them even")
