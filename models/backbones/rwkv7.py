"""RWKV-7: a linear RNN whose matrix state follows a generalised delta rule.

"RWKV-7 'Goose' with Expressive Dynamic State Evolution", arXiv:2503.14456. Reference:
BlinkDL/RWKV-LM (`RWKV_Tmix_x070`, `RWKV_CMix_x070`) and the `rwkv` package; our logits equal its.

Glossary (ours -> paper): x_r x_w x_k x_v x_a x_g -> mu, the token shift of each branch; receptance,
key, value, output -> W_r W_k W_v W_o; w0 w1 w2, a0 a1 a2, v0 v1 v2, g1 g2 -> the low-rank
networks of decay, in-context learning rate, value residual and gate; k_k -> xi, the removal key's
scale; k_a -> alpha, how far the learning rate scales the replacement key; r_k -> rho, the bonus of
the present token; ln_x -> the group norm over heads.

Option: with `negative_eigenvalues` the removal's learning rate a becomes (1 + w) a, which gives the
transitions eigenvalues in [-1, 1] (`TimeMix`); without it none is below -0.455.

Deviations: block 0 has no v0, v1, v2, since it makes the value that the others mix with (a
checkpoint's are dropped on loading); ranks and the hidden width of the channel mix are free.

Shapes: B batch, T time, D width, H heads, N head size.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from models.backbones.branches import Branch, Losses, keeping
from models.backbones.interface import scan_dtype
from models.backbones.rwkv7_channel_mix import ChannelMix
from models.backbones.rwkv7_decode import PackedBlock, block_step, pack
from models.backbones.rwkv7_time_mix import LN_X_EPS, LOG_DECAY, TimeMix
from models.backbones.rwkv_block import RwkvBlock
from models.backbones.sizes import check_sizes, heads_of
from models.kernels.available import MAX_HEAD, check_kernel, steps_fused
from models.kernels.views import Views

if TYPE_CHECKING:
    from models.kernels.rwkv7_step import Weights

CHECKPOINT_NAMES: dict[str, str] = {"embedding.": "emb.", "backbone.": "", "lm_head.": "head."}


class LayerState(NamedTuple):
    """What one block carries: the last inputs of both mixes, and the matrix state (value, key)."""

    time_mix: Tensor  # (B, D)
    wkv: Tensor  # (B, H, N, N), at least fp32
    channel_mix: Tensor  # (B, D)


class Block(RwkvBlock):
    """One block, of a sequence or of a symbol, with what it carries."""

    att: TimeMix
    ffn: ChannelMix

    def forward(
        self, x: Tensor, v_first: Tensor | None, state: LayerState
    ) -> tuple[Tensor, Tensor, LayerState]:
        """(B, T, D) -> (B, T, D), the first block's values, the new state."""
        att_in = self.ln1(x)
        mixed, v_first, wkv = self.att(att_in, state.time_mix, v_first, state.wkv)
        x = x + mixed
        ffn_in = self.ln2(x)
        x = x + self.ffn(ffn_in, state.channel_mix)
        # Copies: a view of the last position would keep the inputs of the whole context alive.
        return x, v_first, LayerState(att_in[:, -1].clone(), wkv, ffn_in[:, -1].clone())

    def mix_time(self, x: Tensor, v_first: Tensor | None) -> tuple[Tensor, Tensor | None, Losses]:
        """The time mix of a sequence from its beginning, normed (B, T, D) -> (B, T, D).

        With the first block's values as (B, T, D), and no losses.
        """
        B, T, D = x.shape
        N, wide = self.att.head_size, scan_dtype(x.dtype)
        wkv = x.new_zeros(B, self.att.n_heads, N, N, dtype=wide)
        flat = None if v_first is None else v_first.reshape(B * T, D)
        mixed, flat, _ = self.att(x, x.new_zeros(B, D), flat, wkv)
        return mixed, flat.view(B, T, D), {}

    def mix_channels(self, x: Tensor) -> Tensor:
        """The channel mix of a sequence from its beginning, normed (B, T, D) -> (B, T, D)."""
        return self.ffn(x, x.new_zeros(x.shape[0], x.shape[2]))


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
        negative_eigenvalues: bool,
        chunk: int,
        kernel: str,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_layers=n_layers, d_ff=d_ff, decay_rank=decay_rank,
                    rate_rank=rate_rank, value_rank=value_rank, gate_rank=gate_rank)  # fmt: skip
        self.d_model, self.head_size = d_model, head_size
        self.n_heads = heads_of(d_model, head_size, "head_size")
        check_kernel(kernel, "head_size", head_size, MAX_HEAD)
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
                    negative_eigenvalues=negative_eigenvalues,
                    chunk=chunk,
                    kernel=kernel,
                ),
                channel_mix=ChannelMix(
                    d_model=d_model, d_ff=d_ff, layer=layer, n_layers=n_layers, kernel=kernel
                ),
            )
            for layer in range(n_layers)
        )
        self.ln_out = nn.LayerNorm(d_model)
        self.register_load_state_dict_pre_hook(_drop_unused)
        self._views = Views(self, self._weights_of_step)
        self._packed = Views(self, self._pack, copies=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> hidden vectors (B, T, D), no auxiliary losses."""
        state = self.init_state(x.shape[0], device=x.device, dtype=x.dtype)
        hidden, _ = self.prefill(x, state)
        return hidden, {}

    def enter(self, x: Tensor) -> Tensor:
        """The first norm."""
        return self._first.ln0(x)

    def branches(self, length: int) -> list[Branch]:
        """Time mix and channel mix of every block, both shifted over time."""
        found = []
        for layer, block in enumerate(cast(Iterable[Block], self.blocks)):
            found += [
                Branch(
                    layer,
                    block.ln1,
                    block.mix_time,
                    ordered=True,
                    outputs=(block.att.output.weight,),
                ),
                Branch(
                    layer,
                    block.ln2,
                    keeping(block.mix_channels),
                    ordered=True,
                    outputs=(block.ffn.value.weight,),
                ),
            ]
        return found

    def leave(self, x: Tensor) -> Tensor:
        """The final norm."""
        return self.ln_out(x)

    def init_state(
        self, batch: int, *, device: torch.device, dtype: torch.dtype
    ) -> list[LayerState]:
        """Zeros; the matrix states stay in fp32 under 16-bit dtypes, as in the reference."""
        wkv = scan_dtype(dtype)
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
        """One symbol, (B, D) -> (B, D).

        Without gradients one sequence by a kernel and several on packed weights, where the modules
        are as they were made; else in the parallel form.
        """
        if torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
            return self._step_in_parallel(x, state)
        if self._takes(x, state) and (weights := self._views()) is not None:
            return self._step_by_kernel(weights, x, state)
        if (packed := self._packed()) is not None:
            return self._step_packed(packed, x, state)
        return self._step_in_parallel(x, state)

    def _step_in_parallel(
        self, x: Tensor, state: list[LayerState]
    ) -> tuple[Tensor, list[LayerState]]:
        hidden, state = self.prefill(x.unsqueeze(1), state)  # (B, 1, D)
        return hidden.squeeze(1), state

    def _step_packed(
        self, packed: list[PackedBlock], x: Tensor, state: list[LayerState]
    ) -> tuple[Tensor, list[LayerState]]:
        x = self._first.ln0(x)
        v_first: Tensor | None = None
        states = []
        for weights, layer in zip(packed, state, strict=True):
            x, v_first, *new = block_step(weights, x, v_first, *layer)
            states.append(LayerState(*new))
        return self.ln_out(x), states

    def _takes(self, x: Tensor, state: list[LayerState]) -> bool:
        """Whether the kernel may take a symbol: of one sequence, without gradients."""
        shape = (1, self.n_heads, self.head_size, self.head_size)
        return (
            steps_fused(x, *(part for layer in state for part in layer))
            and (x.shape[1:], x.dtype) == ((self.d_model,), self.ln_out.weight.dtype)
            and all(layer.wkv.shape == shape for layer in state)
            and all(layer.time_mix.shape == layer.channel_mix.shape == x.shape for layer in state)
            and self.kernel_used == "numba"
        )

    def _step_by_kernel(
        self, weights: "list[Weights]", x: Tensor, state: list[LayerState]
    ) -> tuple[Tensor, list[LayerState]]:
        """(1, D) -> (1, D); writes the new state over the old one."""
        from models.kernels.compiled import first_rows
        from models.kernels.rwkv7_step import block_step

        # What autograd saved is not written over.
        if any(p.requires_grad or not p.is_contiguous() for layer in state for p in layer):
            state = [
                LayerState(*(p.clone(memory_format=torch.contiguous_format) for p in layer))
                for layer in state
            ]
        (row,) = first_rows(self._first.ln0(x))
        v_first = np.empty_like(row)
        for block, layer in zip(weights, state, strict=True):
            row = block_step(block, row, v_first, *(part[0] for part in layer))
        return self.ln_out(torch.from_numpy(row)[None]), state

    def _weights_of_step(self) -> "list[Weights]":
        """Each block's parameters as the kernel takes them."""
        from models.kernels.rwkv7_step import weights_of

        return [
            weights_of(
                dict(block.named_parameters()),
                eps=self.ln_out.eps, eps_x=LN_X_EPS, log_decay=LOG_DECAY,
                reach=self._first.att.reach,
            )
            for block in self.blocks
        ]  # fmt: skip

    @torch.no_grad()
    def _pack(self) -> list[PackedBlock]:
        return [
            pack({name: p.detach() for name, p in block.named_parameters()}, self._first.att.reach)
            for block in self.blocks
        ]

    @property
    def _first(self) -> Block:
        return cast(Block, self.blocks[0])

    def crop(self, state: list[LayerState], length: int) -> list[LayerState]:
        """The state does not grow: nothing to forget."""
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the state, whatever the context."""
        wkv = scan_dtype(dtype)
        matrix = self.d_model * self.head_size * wkv.itemsize
        return batch * len(self.blocks) * (2 * self.d_model * dtype.itemsize + matrix)

    @property
    def kernel_used(self) -> str:
        """What computes the recurrence where the parameters are, in every block the same."""
        weight = self.ln_out.weight
        return self._first.att.kernel_on(weight.device, weight.dtype)

    def flops(self, batch: int, length: int) -> int:
        """Matrix products and the recurrence, of all blocks."""
        return sum(
            block.att.flops(batch, length) + block.ffn.flops(batch, length)
            for block in cast(Iterable[Block], self.blocks)
        )


def _drop_unused(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Official checkpoints hold block 0's v0, v1 and v2, which nothing reads."""
    for name in ("v0", "v1", "v2"):
        state_dict.pop(f"{prefix}blocks.0.att.{name}", None)
