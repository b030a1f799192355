"""RWKV-4: a linear RNN that averages values with weights which fade channel by channel.

"RWKV: Reinventing RNNs for the Transformer Era", arXiv:2305.13048. Reference: BlinkDL/RWKV-LM,
RWKV-v4neo (`RWKV_TimeMix`, `RWKV_ChannelMix`), whose parameter names and shapes these are, and the
`rwkv` package; our logits equal its, and those of transformers' RwkvForCausalLM.

Glossary (ours -> paper): time_mix_k, time_mix_v, time_mix_r -> mu, the share of the present input
in the token shift of each branch; key, value, receptance, output -> W_k W_v W_r W_o; time_decay ->
log w; time_first -> u, the weight of the present symbol; att, ffn -> time mixing, channel mixing.

Deviations: the hidden width of the channel mix is free instead of four times the model's. Layers
have one learning rate, where the reference can give time_decay two and time_first three times it.

Shapes: B batch, T time, D width, F hidden width.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from models.backbones.interface import scan_dtype
from models.backbones.rwkv4_mixes import ChannelMix, TimeMix
from models.backbones.rwkv_block import RwkvBlock
from models.backbones.sizes import check_sizes
from models.backbones.wkv4 import EMPTY
from models.kernels.available import check_kernel

CHECKPOINT_NAMES: dict[str, str] = {"embedding.": "emb.", "backbone.": "", "lm_head.": "head."}


class LayerState(NamedTuple):
    """What one block carries: the last inputs of both mixes, and the sums of the WKV operator."""

    time_mix: Tensor  # (B, D)
    wkv: Tensor  # (B, 3, D): numerator, denominator and their exponent, at least fp32
    channel_mix: Tensor  # (B, D)


class Block(RwkvBlock):
    """One block, of a sequence or of a symbol, with what it carries."""

    att: TimeMix
    ffn: ChannelMix

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """(B, T, D) -> (B, T, D), the new state."""
        att_in = self.ln1(x)
        mixed, wkv = self.att(att_in, state.time_mix, state.wkv)
        x = x + mixed
        ffn_in = self.ln2(x)
        x = x + self.ffn(ffn_in, state.channel_mix)
        # Copies: a view of the last position would keep the inputs of the whole context alive.
        return x, LayerState(att_in[:, -1].clone(), wkv, ffn_in[:, -1].clone())


class RWKV4(nn.Module):
    """A stack of RWKV-4 blocks; `ln0` normalises the embedded input, `ln_out` the result."""

    def __init__(self, *, d_model: int, n_layers: int, d_ff: int, chunk: int, kernel: str) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_layers=n_layers, d_ff=d_ff, chunk=chunk)
        check_kernel(kernel)
        self.d_model = d_model
        self.blocks = nn.ModuleList(
            Block(
                first=layer == 0,
                d_model=d_model,
                time_mix=TimeMix(
                    d_model=d_model, layer=layer, n_layers=n_layers, chunk=chunk, kernel=kernel
                ),
                channel_mix=ChannelMix(
                    d_model=d_model, d_ff=d_ff, layer=layer, n_layers=n_layers, kernel=kernel
                ),
            )
            for layer in range(n_layers)
        )
        self.ln_out = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B, T, D) -> hidden vectors (B, T, D), no auxiliary losses."""
        state = self.init_state(x.shape[0], device=x.device, dtype=x.dtype)
        hidden, _ = self.prefill(x, state)
        return hidden, {}

    def init_state(
        self, batch: int, *, device: torch.device, dtype: torch.dtype
    ) -> list[LayerState]:
        """Nothing seen: zeros, and sums over nothing; these stay in fp32 under 16-bit dtypes."""
        states = []
        for _ in self.blocks:
            last = torch.zeros(2, batch, self.d_model, device=device, dtype=dtype)
            wkv = torch.zeros(batch, 3, self.d_model, device=device, dtype=scan_dtype(dtype))
            wkv[:, 2] = EMPTY
            states.append(LayerState(last[0], wkv, last[1]))
        return states

    def prefill(self, x: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """Continue from `state` over (B, T, D) in parallel."""
        x = self._blocks_of()[0].ln0(x)
        states = []
        for block, before in zip(self._blocks_of(), state, strict=True):
            x, after = block(x, before)
            states.append(after)
        return self.ln_out(x), states

    def step(self, x: Tensor, state: list[LayerState]) -> tuple[Tensor, list[LayerState]]:
        """One symbol, (B, D) -> (B, D)."""
        hidden, state = self.prefill(x.unsqueeze(1), state)  # (B, 1, D)
        return hidden.squeeze(1), state

    def _blocks_of(self) -> list[Block]:
        return list(cast(Iterable[Block], self.blocks))

    def crop(self, state: list[LayerState], length: int) -> list[LayerState]:
        """The state does not grow: nothing to forget."""
        return state

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the state, whatever the context."""
        channel = 2 * dtype.itemsize + 3 * scan_dtype(dtype).itemsize
        return batch * len(self.blocks) * self.d_model * channel

    @property
    def kernel_used(self) -> str:
        """What computes the recurrence where the parameters are, in every block the same."""
        weight = self.ln_out.weight
        return self._blocks_of()[0].att.kernel_on(weight.device, weight.dtype)

    def flops(self, batch: int, length: int) -> int:
        """Matrix products and the recurrence, of all blocks."""
        return sum(
            block.att.flops(batch, length) + block.ffn.flops(batch, length)
            for block in self._blocks_of()
        )
