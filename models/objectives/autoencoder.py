"""The autoencoder of MAD (Poli et al. 2024, arXiv:2403.17844, appendix B.6).

A causal backbone reads a sequence, and an MLP says every symbol of it from the hidden vector at the
last position alone, to which the position of the symbol is added:

    p(x_t | x) = softmax(W norm(f(norm(f(norm(h_T + p_t)))))),   f(y) = gelu(V y + b)

Reference: `mad/model/auto_encoder.py` of github.com/athms/mad-lab. Deviations: the backbone has a
norm of its own at its end, and weights start as elsewhere here (symbols of unit variance, logits at
zero) instead of normal with standard deviation 0.02.

Shapes: B batch, T time, D width, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn

from models.backbones.interface import SequenceBackbone
from models.backbones.linear import Linear
from models.backbones.norm import RMSNorm
from models.output import Output, scored

EPS = 1e-5  # of the decoder's norms
PERIOD = 10_000.0  # of the slowest wave, in units of 2 pi


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sines, then cosines, of each position, (T, D); of an odd width the last one is zero.

    Attention Is All You Need (arXiv:1706.03762, section 3.5) in the order of fairseq and mad-lab.
    """
    half = width // 2
    steps = torch.arange(half, device=device, dtype=torch.float32) / max(half - 1, 1)
    rates = torch.exp(-math.log(PERIOD) * steps)  # (D/2,)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates  # (T, D/2)
    rest = angle.new_zeros(length, width - 2 * half)
    return torch.cat([angle.sin(), angle.cos(), rest], 1)


class AutoEncoder(nn.Module):
    """`backbone` encodes, and a decoder of MAD's shape reads its last hidden vector.

    The decoder is the same for every family: like an un-embedding, it is not counted where sizes
    are matched.
    """

    def __init__(self, *, backbone: SequenceBackbone, vocab_size: int) -> None:
        super().__init__()
        if getattr(backbone, "causal", True) is False:
            raise ValueError("the backbone reads from both sides; an autoencoder needs causal=True")
        d_model = backbone.d_model
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.backbone = backbone
        self.decoder = nn.Sequential(
            RMSNorm(d_model, EPS), Linear(d_model, d_model), nn.GELU(),
            RMSNorm(d_model, EPS), Linear(d_model, d_model), nn.GELU(),
            RMSNorm(d_model, EPS), Linear(d_model, vocab_size),
        )  # fmt: skip
        for part in self.decoder:
            part.unembedding = True  # type: ignore[assignment]
        nn.init.normal_(self.embedding.weight)
        nn.init.zeros_(self.decoder[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.decoder[-1].bias)  # type: ignore[arg-type]

    def encode(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The hidden vector at the last position, (B, T) -> (B, D), and auxiliary losses."""
        hidden, losses = self.backbone(self.embedding(tokens))  # (B, T, D)
        return hidden[:, -1], dict(losses)

    def decode(self, code: Tensor, length: int) -> Tensor:
        """Logits of the symbol at each of `length` positions, (B, D) -> (B, T, V)."""
        places = sinusoids(length, code.shape[1], code.device).to(code.dtype)
        logits: Tensor = self.decoder(code[:, None] + places)
        return logits

    def forward(self, *, tokens: Tensor, labels: Tensor | None = None) -> Output:
        """logits[:, t] says tokens[:, t] from all of tokens, through one vector."""
        code, losses = self.encode(tokens)
        return scored(self.decode(code, tokens.shape[1]), labels, losses)

    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of one forward pass over `batch` sequences of `length` symbols."""
        backbone = self.backbone.flops(batch, length)
        matrices = sum(part.weight.numel() for part in self.decoder if isinstance(part, Linear))
        return None if backbone is None else backbone + 2 * batch * length * matrices
