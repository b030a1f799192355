"""What a block of every RWKV is made of: two mixes behind norms."""

from torch import nn


class RwkvBlock(nn.Module):
    """Time mix and channel mix, each on a pre-norm residual branch.

    The `first` block has one norm more, of the embedded input (arXiv:2305.13048, figure 2).
    """

    ln0: nn.LayerNorm  # block 0 alone

    def __init__(self, *, first: bool, d_model: int, time_mix: nn.Module, channel_mix: nn.Module):
        super().__init__()
        if first:
            self.ln0 = nn.LayerNorm(d_model)
        self.ln1 = nn.LayerNorm(d_model)
        self.ln2 = nn.LayerNorm(d_model)
        self.att = time_mix
        self.ffn = channel_mix
