"""RWKV-7: a linear RNN whose matrix state follows a generalised delta rule.

"RWKV-7 'Goose' with Expressive Dynamic State Evolution", arXiv:2503.14456. Reference:
BlinkDL/RWKV-LM (`RWKV_Tmix_x070`, `RWKV_CMix_x070`) and the `rwkv` package; our logits equal its.

Glossary (ours -> paper): x_r x_w x_k x_v x_a x_g -> mu, the token shift of each branch; receptance,
key, value, output -> W_r W_k W_v W_o; w0 w1 w2, a0 a1 a2, v0 v1 v2, g1 g2 -> the low-rank
networks of decay, in-context learning rate, value residual and gate; k_k -> xi, the removal key's
scale; k_a -> alpha, how far the learning rate scales the replacement key; r_k -> rho, the bonus of
the present token; ln_x -> the group norm over heads.

Deviations: block 0 has no v0, v1, v2, since it makes the value that the others mix with (a
checkpoint's are dropped on loading); ranks and the hidden width of the channel mix are free.

Shapes: B batch, T time, D width, H heads, N head size, F hidden width of the channel mix, R rank.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.rwkv7_decode import PackedBlock, block_step, pack
from models.backbones.wkv7 import MAX_CHUNK, wkv7_chunked, wkv7_reference

CHECKPOINT_NAMES: dict[str, str] = {"embedding.": "emb.", "backbone.": "", "lm_head.": "head."}

# Decay w = exp(-exp(-1/2) sigmoid(d)), so that a channel keeps at least 0.545 of its state a step.
LOG_DECAY = -math.exp(-0.5)
LN_X_EPS = 64e-5
LOW_RANK = frozenset(("w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2"))


class LayerState(NamedTuple):
    """What one block carries: the last inputs of both mixes, and the matrix state (value, key)."""

    time_mix: Tensor  # (B, D)
    wkv: Tensor  # (B, H, N, N), at least fp32
    channel_mix: Tensor  # (B, D)


class _TokenShift(torch.autograd.Function):
    """x_t + (x_{t-1} - x_t) mu_j for several mu_j.

    One node instead of a chain for each j: its backward adds the branches in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, last: Tensor, *mus: Tensor) -> tuple[Tensor, ...]:
        delta = torch.empty_like(x)
        torch.sub(last, x[:, 0], out=delta[:, 0])
        torch.sub(x[:, :-1], x[:, 1:], out=delta[:, 1:])
        ctx.save_for_backward(delta, *mus)
        return tuple(torch.addcmul(x, delta, mu) for mu in mus)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        delta, *mus = ctx.saved_tensors
        d_x, d_delta = grads[0].clone(), grads[0] * mus[0]
        for grad, mu in zip(grads[1:], mus[1:], strict=True):
            d_x.add_(grad)
            d_delta.addcmul_(grad, mu)
        d_mus = [(grad * delta).sum((0, 1), keepdim=True) for grad in grads]
        d_x.sub_(d_delta)
        d_x[:, :-1].add_(d_delta[:, 1:])
        return d_x, d_delta[:, 0], *d_mus


class _SquaredReLU(torch.autograd.Function):
    """max(x, 0)^2, keeping max(x, 0) alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.clamp_min(0)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


def token_shift(x: Tensor, last: Tensor, *mus: Tensor) -> tuple[Tensor, ...]:
    """Each input mixed with its predecessor, once per mu: (B, T, D), (B, D) -> (B, T, D) each."""
    mixed: tuple[Tensor, ...] = _TokenShift.apply(x, last, *mus)
    return mixed


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2, elementwise."""
    squared: Tensor = _SquaredReLU.apply(x)
    return squared


def orthogonal(rows: int, columns: int) -> nn.Parameter:
    """The second matrix of a low-rank network: orthogonal, scaled by 0.1."""
    weight = torch.empty(rows, columns)
    return nn.Parameter(nn.init.orthogonal_(weight, gain=0.1 * max(1, rows / columns) ** 0.5))


class TimeMix(nn.Module):
    """The recurrent half of a block (paper, section 4.1)."""

    v0: nn.Parameter
    v1: nn.Parameter
    v2: nn.Parameter

    def __init__(
        self,
        *,
        d_model: int,
        head_size: int,
        layer: int,
        n_layers: int,
        decay_rank: int,
        rate_rank: int,
        value_rank: int,
        gate_rank: int,
        chunk: int,
    ) -> None:
        super().__init__()
        D, N = d_model, head_size
        self.n_heads, self.head_size, self.chunk = D // N, N, chunk
        # The authors' initial values: decay and mixing run from slow to fast over the channels, and
        # over the N channels of a head (zigzag), steeper in later layers.
        depth = layer / max(n_layers - 1, 1)
        remaining = 1 - layer / n_layers
        channel = torch.arange(D) / D
        ramp = torch.arange(D) / max(D - 1, 1)
        within = (torch.arange(D) % N - (N - 1) / 2) / max((N - 1) / 2, 0.5)
        zigzag = within * within.abs()

        def mu(power: float) -> nn.Parameter:
            return nn.Parameter((1 - channel ** (power * remaining)).view(1, 1, D))

        def vector(value: Tensor) -> nn.Parameter:
            return nn.Parameter(value.view(1, 1, D))

        self.x_r, self.x_w, self.x_k = mu(0.2), mu(0.9), mu(0.7)
        self.x_v, self.x_a, self.x_g = mu(0.7), mu(0.9), mu(0.2)
        self.w0 = vector(-5.5 + 6 * ramp ** (1 + depth**0.3) + 2.5 * zigzag)
        self.w1 = nn.Parameter(torch.zeros(D, decay_rank))
        self.w2 = orthogonal(decay_rank, D)
        self.a0 = vector(-0.19 + 0.3 * zigzag + 0.4 * (ramp - 0.5))
        self.a1 = nn.Parameter(torch.zeros(D, rate_rank))
        self.a2 = orthogonal(rate_rank, D)
        self.first = layer == 0
        if not self.first:
            self.v0 = vector(0.73 - 0.4 * (ramp - 0.5))
            self.v1 = nn.Parameter(torch.zeros(D, value_rank))
            self.v2 = orthogonal(value_rank, D)
        self.g1 = nn.Parameter(torch.zeros(D, gate_rank))
        self.g2 = orthogonal(gate_rank, D)
        self.k_k = vector(0.71 - 0.1 * (ramp - 0.5))
        self.k_a = nn.Parameter(torch.full((1, 1, D), 1.02))
        self.r_k = nn.Parameter(torch.full((D // N, N), -0.04))
        self.receptance = nn.Linear(D, D, bias=False)
        self.key = nn.Linear(D, D, bias=False)
        self.value = nn.Linear(D, D, bias=False)
        self.output = nn.Linear(D, D, bias=False)
        self.ln_x = nn.GroupNorm(D // N, D, eps=LN_X_EPS)
        nn.init.uniform_(self.receptance.weight, -0.5 / D**0.5, 0.5 / D**0.5)
        nn.init.uniform_(self.key.weight, -0.05 / D**0.5, 0.05 / D**0.5)
        nn.init.uniform_(self.value.weight, -0.5 / D**0.5, 0.5 / D**0.5)
        nn.init.zeros_(self.output.weight)
        # Not for an optimizer that orthogonalises matrices: r_k is a vector laid out by heads, and
        # a low-rank network would be driven into the flat part of its sigmoid.
        for name, parameter in self.named_parameters(recurse=False):
            if name == "r_k" or name in LOW_RANK:
                parameter.no_orthogonal = True  # type: ignore[attr-defined]

    def forward(
        self, x: Tensor, last: Tensor, v_first: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), the first block's values, the new matrix state.

        One step goes through the plain recurrence, more through the chunks.
        """
        B, T, D = x.shape
        heads = (B, T, self.n_heads, self.head_size)
        shifted = token_shift(x, last, self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g)
        x_r, x_w, x_k, x_v, x_a, x_g = (t.view(B * T, D) for t in shifted)  # (B T, D)
        r = self.receptance(x_r).view(heads)
        k = self.key(x_k)
        v = self.value(x_v)
        # w_t = exp(-exp(-1/2) sigmoid(w0 + tanh(x_w w1) w2))
        decay = torch.addmm(self.w0.view(1, D), torch.tanh(x_w @ self.w1), self.w2)
        log_w = LOG_DECAY * torch.sigmoid(decay)
        # a_t = sigmoid(a0 + x_a a1 a2)
        a = torch.sigmoid(torch.addmm(self.a0.view(1, D), x_a @ self.a1, self.a2))
        g = torch.sigmoid(x_g @ self.g1) @ self.g2
        # v_t = lerp(v_t, v_t of block 0, sigmoid(v0 + x_v v1 v2))
        if v_first is None:
            v_first = v
        else:
            gate = torch.sigmoid(torch.addmm(self.v0.view(1, D), x_v @ self.v1, self.v2))
            v = torch.lerp(v, v_first, gate)
        # kappa-hat: the removal key, of unit length in each head
        kk = F.normalize((k * self.k_k.view(1, D)).view(heads), dim=-1)
        # k-tilde = k lerp(1, a, alpha)
        k = torch.addcmul(k, k, (a - 1) * self.k_a.view(1, D)).view(heads)
        v, a, log_w = v.view(heads), a.view(heads), log_w.view(heads)  # (B, T, H, N)

        r_, w_, k_, v_, a_, b_ = (t.to(state.dtype) for t in (r, log_w, k, v, -kk, kk * a))
        with torch.autocast(x.device.type, enabled=False):
            if T == 1:
                o, state = wkv7_reference(r_, w_, k_, v_, a_, b_, state)
            else:
                o, state = wkv7_chunked(r_, w_, k_, v_, a_, b_, state, chunk=self.chunk)
        o = self.ln_x(o.to(x.dtype).reshape(B * T, D)).view(heads)
        # p_t = LayerNorm(S r) + (r (rho k)^T) v: what the present token says of itself
        o = torch.addcmul(o, (r * k * self.r_k).sum(-1, keepdim=True), v).view(B * T, D)
        return self.output(o * g).view(B, T, D), v_first, state


class ChannelMix(nn.Module):
    """The feed-forward half of a block: squared ReLU after a token shift."""

    def __init__(self, *, d_model: int, d_ff: int, layer: int, n_layers: int) -> None:
        super().__init__()
        channel = torch.arange(d_model) / d_model
        power = (1 - layer / n_layers) ** 4
        self.x_k = nn.Parameter((1 - channel**power).view(1, 1, d_model))
        self.key = nn.Linear(d_model, d_ff, bias=False)
        self.value = nn.Linear(d_ff, d_model, bias=False)
        nn.init.uniform_(self.key.weight, -0.5 / d_model**0.5, 0.5 / d_model**0.5)
        nn.init.zeros_(self.value.weight)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        (x_k,) = token_shift(x, last, self.x_k)
        return self.value(squared_relu(self.key(x_k)))


class Block(nn.Module):
    """Time mix and channel mix, each on a pre-norm residual branch."""

    ln0: nn.LayerNorm  # block 0 alone

    def __init__(self, *, first: bool, d_model: int, time_mix: TimeMix, channel_mix: ChannelMix):
        super().__init__()
        if first:
            self.ln0 = nn.LayerNorm(d_model)
        self.ln1 = nn.LayerNorm(d_model)
        self.ln2 = nn.LayerNorm(d_model)
        self.att = time_mix
        self.ffn = channel_mix

    def forward(
        self, x: Tensor, v_first: Tensor | None, state: LayerState
    ) -> tuple[Tensor, Tensor, LayerState]:
        """(B, T, D) -> (B, T, D), the first block's values, the new state."""
        shifted = self.ln1(x)
        mixed, v_first, wkv = self.att(shifted, state.time_mix, v_first, state.wkv)
        x = x + mixed
        hidden = self.ln2(x)
        x = x + self.ffn(hidden, state.channel_mix)
        return x, v_first, LayerState(shifted[:, -1], wkv, hidden[:, -1])


class RWKV7(nn.Module):
    """A stack of RWKV-7 blocks; `ln0` normalises the embedded input, `ln_out` the result."""

    def __init__(
        self,
        *,
        d_model: int,
        n_layers: int,
        head_size: int,
        d_ff: int,
        decay_rank: int,
        rate_rank: int,
        value_rank: int,
        gate_rank: int,
        chunk: int,
    ) -> None:
        super().__init__()
        sizes = {
            "d_model": d_model,
            "n_layers": n_layers,
            "head_size": head_size,
            "d_ff": d_ff,
            "decay_rank": decay_rank,
            "rate_rank": rate_rank,
            "value_rank": value_rank,
            "gate_rank": gate_rank,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if d_model % head_size:
            raise ValueError(f"d_model {d_model} is not divisible by head_size {head_size}")
        if not 1 <= chunk <= MAX_CHUNK:
            raise ValueError(f"chunk is {chunk}; allowed are 1 to {MAX_CHUNK}")
        self.d_model, self.n_heads, self.head_size = d_model, d_model // head_size, head_size
        self.chunk = chunk
        self.blocks = nn.ModuleList(
            Block(
                first=layer == 0,
                d_model=d_model,
                time_mix=TimeMix(
                    d_model=d_model,
                    head_size=head_size,
                    layer=layer,
                    n_layers=n_layers,
                    decay_rank=decay_rank,
                    rate_rank=rate_rank,
                    value_rank=value_rank,
                    gate_rank=gate_rank,
                    chunk=chunk,
                ),
                channel_mix=ChannelMix(d_model=d_model, d_ff=d_ff, layer=layer, n_layers=n_layers),
            )
            for layer in range(n_layers)
        )
        self.ln_out = nn.LayerNorm(d_model)
        self.register_load_state_dict_pre_hook(_drop_unused)
        # Loading with assign=True replaces the parameters themselves.
        self.register_load_state_dict_post_hook(_forget_packed)
        self._packed: list[PackedBlock] = []
        self._sources: list[nn.Parameter] = []
        self._versions: list[int] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> hidden vectors (B, T, D), no auxiliary losses."""
        state = self.init_state(x.shape[0], device=x.device, dtype=x.dtype)
        hidden, _ = self.prefill(x, state)
        return hidden, {}

    def init_state(
        self, batch: int, *, device: torch.device, dtype: torch.dtype
    ) -> list[LayerState]:
        """Zeros; the matrix states stay in fp32 under 16-bit dtypes, as in the reference."""
        wkv = torch.promote_types(dtype, torch.float32)
        heads = (batch, self.n_heads, self.head_size, self.head_size)
        return [
            LayerState(
                torch.zeros(batch, self.d_model, device=device, dtype=dtype),
                torch.zeros(heads, device=device, dtype=wkv),
                torch.zeros(batch, self.d_model, device=device, dtype=dtype),
            )
            for _ in self.blocks
        ]

    def prefill(self, x: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """Continue from `state` over (B, T, D) in parallel."""
        x = self._first.ln0(x)
        v_first: Tensor | None = None
        states = []
        for block, layer in zip(self.blocks, state, strict=True):
            x, v_first, layer = block(x, v_first, layer)
            states.append(layer)
        return self.ln_out(x), states

    def step(self, x: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """One symbol, (B, D) -> (B, D); without gradients on packed weights."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
            hidden, state = self.prefill(x.unsqueeze(1), state)  # (B, 1, D)
            return hidden.squeeze(1), state
        x = self._first.ln0(x)
        v_first: Tensor | None = None
        states = []
        for packed, layer in zip(self._packed_blocks(), state, strict=True):
            x, v_first, *new = block_step(
                packed, x, v_first, *layer, log_decay=LOG_DECAY, ln_x_eps=LN_X_EPS
            )
            states.append(LayerState(*new))
        return self.ln_out(x), states

    @property
    def _first(self) -> Block:
        return cast(Block, self.blocks[0])

    def _packed_blocks(self) -> list[PackedBlock]:
        """The weights packed for `step`, anew whenever one of them was written to or replaced."""
        versions = [p._version for p in self._sources]
        if not versions or versions != self._versions:
            self._sources = list(self.parameters())
            self._versions = [p._version for p in self._sources]
            with torch.no_grad():
                self._packed = [
                    pack({name: p.detach() for name, p in block.named_parameters()})
                    for block in self.blocks
                ]
        return self._packed

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moving or casting replaces the storage behind the parameters."""
        self._sources = []
        return super()._apply(fn, recurse)

    def crop(self, state: list[LayerState], length: int) -> list[LayerState]:
        """The state does not grow: nothing to forget."""
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the state, whatever the context."""
        wkv = torch.promote_types(dtype, torch.float32)
        matrix = self.d_model * self.head_size * wkv.itemsize
        return batch * len(self.blocks) * (2 * self.d_model * dtype.itemsize + matrix)

    def flops(self, batch: int, length: int) -> int:
        """Of the chunked form, matrix products only: projections, and per chunk and head the
        pairwise products (8 C^2 N a chunk), the solve (C^3 / 3), what the solved rows and the
        outputs take (10 C^2 N), the transition and its input (8 C N^2), and the state's own
        product (2 N^3).
        """
        N = self.head_size
        total = 0
        for name, p in self.named_parameters():
            if p.ndim == 2 and not name.endswith("r_k"):
                total += 2 * batch * length * p.numel()
        C = min(self.chunk, length)
        chunks = -(-length // C)
        per_chunk = 18 * C * C * N + C**3 // 3 + 8 * C * N * N + 2 * N**3
        return total + batch * len(self.blocks) * self.n_heads * chunks * per_chunk


def _drop_unused(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Official checkpoints hold block 0's v0, v1 and v2, which nothing reads."""
    for name in ("v0", "v1", "v2"):
        state_dict.pop(f"{prefix}blocks.0.att.{name}", None)


def _forget_packed(module: nn.Module, *_: Any) -> None:
    cast(RWKV7, module)._sources = []
