"""Masked (absorbing-state) diffusion of text: symbols are uncovered in any order.

Simple and Effective Masked Diffusion Language Models (MDLM, arXiv:2406.07524); the same bound is
MD4's (arXiv:2406.04329). Integrating its mask rate out leaves the number of masked symbols, and
with it the any-order form of Autoregressive Diffusion Models (arXiv:2110.03023, eq. 10):

    -log p(x) <= T E_{n ~ U{1..T}} E_{M, |M| = n} [ 1/n sum_{i in M} -log p(x_i | x without M) ]

which has the expectation of MDLM's 1/rate-weighted loss (rate uniform in (0, 1)) and less
variance, since a rate's random count is gone. It is the mean over all orders of uncovering of the
exact -log p in that order.

Glossary: `n` = masked symbols (rate t = n / T); `M` = the masked set; `mask` = [M], the absorbing
state, an entry of the embedding beyond the vocabulary.

Deviations: the network is not told the rate, which it can count (MDLM's `time_conditioning=False`);
counts are one shifted grid over batch or draws (low discrepancy, MDLM section 3.5); the weight of
small sets, whose few symbols make it the noisiest, is capped in training and never in the bound.

Shapes: B batch, T time, D width, V vocabulary, K draws.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.interface import SequenceBackbone
from models.backbones.linear import Linear
from models.objectives.categorical import draw
from models.output import LogProb, Output, scored


def masked_counts(u: Tensor, length: int) -> Tensor:
    """Uniform numbers in [0, 1) -> how many symbols are masked, 1..T, (B,)."""
    return (u * length).long().clamp_max(length - 1) + 1


def masked_sets(counts: Tensor, scores: Tensor) -> Tensor:
    """The `counts` positions with the lowest scores, (B,) and (B, T) -> bool (B, T)."""
    return scores.argsort(-1).argsort(-1) < counts[:, None]


class MaskedDiffusion(nn.Module):
    """p(tokens) by a backbone that sees both sides, bounded from below.

    `draws` sets are evaluated a sequence for `log_prob`, drawn from `eval_seed`: the same bound
    comes out twice. Training draws `train_draws` sets a sequence and believes the weight 1/n down
    to n = `count_floor` T; at 0 it is the bound's. `sampling_steps` is the number of evaluations
    in which a text is uncovered.
    """

    def __init__(
        self,
        *,
        backbone: SequenceBackbone,
        vocab_size: int,
        train_draws: int,
        count_floor: float,
        draws: int,
        eval_seed: int,
        sampling_steps: int,
    ) -> None:
        super().__init__()
        if getattr(backbone, "causal", False):
            raise ValueError("the backbone is causal; masked diffusion needs causal=False")
        if min(train_draws, draws, sampling_steps) < 1:
            raise ValueError(
                f"train_draws={train_draws}, draws={draws}, sampling_steps={sampling_steps} "
                f"must be at least 1"
            )
        if not 0 <= count_floor <= 1:
            raise ValueError(f"count_floor={count_floor} must lie in 0..1, a share of the symbols")
        self.vocab_size, self.draws, self.eval_seed = vocab_size, draws, eval_seed
        self.train_draws, self.count_floor = train_draws, count_floor
        self.sampling_steps = sampling_steps
        self.mask = vocab_size
        self.embedding = nn.Embedding(vocab_size + 1, backbone.d_model)
        self.backbone = backbone
        self.lm_head = Linear(backbone.d_model, vocab_size, bias=False)
        self.lm_head.unembedding = True  # type: ignore[assignment]
        nn.init.normal_(self.embedding.weight)
        nn.init.zeros_(self.lm_head.weight)

    def denoise(self, tokens: Tensor, masked: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of every symbol given those outside `masked`, (B, T) -> (B, T, V)."""
        hidden, losses = self._read(tokens, masked)
        return self.lm_head(hidden), losses

    def _read(self, tokens: Tensor, masked: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Hidden vectors that see the symbols outside `masked` alone, (B, T) -> (B, T, D)."""
        hidden, losses = self.backbone(self.embedding(tokens.masked_fill(masked, self.mask)))
        return hidden, dict(losses)

    def fill(self, tokens: Tensor, asked: Tensor) -> Tensor:
        """Logits of the symbols that are asked, all of them masked, (B, T) -> (B, T, V)."""
        return self.denoise(tokens, asked)[0]

    def uncover(self, tokens: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """sum_{i in M} -log p(x_i | x without M), nats a sequence (B,); auxiliary losses."""
        length = tokens.shape[1]
        hidden, losses = self._read(tokens, masked)
        # Only masked positions are read out: about half of the un-embedding is saved.
        nll = F.cross_entropy(
            self.lm_head(hidden[masked]).float(), tokens[masked], reduction="none"
        )  # (number of masked symbols,)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None].expand(-1, length)[masked]
        total = torch.zeros(len(tokens), device=nll.device, dtype=nll.dtype)
        return total.index_add(0, rows, nll), sum(losses.values(), total.new_zeros(()))

    def terms(self, tokens: Tensor, masked: Tensor, counts: Tensor) -> Tensor:
        """T / n sum_{i in M} -log p(x_i | x without M), nats a sequence (B,)."""
        return tokens.shape[1] / counts * self.uncover(tokens, masked)[0]

    def forward(self, *, tokens: Tensor, labels: Tensor | None = None) -> Output:
        """Without labels: logits (B, T, V), nothing masked.

        With labels `nll` is the bound from `train_draws` sets, nats a symbol, and `loss` the same
        with its weight 1/n capped at 1 / (`count_floor` T); `logits` are None, since the masked
        positions alone are read out. Where some labels are negative, the others are questions: they
        are masked, and everything else is read, from both sides.
        """
        if labels is None:
            logits, losses = self.denoise(tokens, torch.zeros_like(tokens, dtype=torch.bool))
            return Output(logits=logits, losses=losses)
        asked = labels >= 0
        if not asked.all():
            logits, losses = self.denoise(tokens, asked)
            return scored(logits, labels, losses)
        x = labels.repeat(self.train_draws, 1)  # (K B, T)
        (count, length), device = x.shape, x.device
        grid = torch.arange(count, device=device) + torch.rand((), device=device)
        counts = masked_counts(grid / count, length)
        masked = masked_sets(counts, torch.rand(count, length, device=device))
        nats, extra = self.uncover(x, masked)
        capped = (nats / counts.clamp_min(self.count_floor * length)).mean()
        return Output(
            logits=None,
            loss=capped + extra,
            nll=(nats / counts).mean(),
            losses={"auxiliary": extra},
        )

    @torch.no_grad()
    def log_prob(self, tokens: Tensor) -> LogProb:
        """Lower bound of log p(tokens), nats (B,), from `draws` stratified counts."""
        batch, length = tokens.shape
        generator = torch.Generator().manual_seed(self.eval_seed)
        total = torch.zeros(batch, device=tokens.device)
        for k in range(self.draws):
            # The rows share a grid as well, dealt out anew each time: their mean varies less.
            row = torch.randperm(batch, generator=generator).float()
            row = row + torch.rand(batch, generator=generator)
            u = ((k + row / batch) / self.draws).to(tokens.device)
            counts = masked_counts(u, length)
            scores = torch.rand(batch, length, generator=generator).to(tokens.device)
            total = total + self.terms(tokens, masked_sets(counts, scores), counts) / self.draws
        return LogProb(nats=-total, bound=True, forwards=self.draws)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n texts of `length` symbols, (n, length): masked at first, uncovered in random order."""
        if condition is not None:
            raise ValueError("this language model takes no condition; leave it out")
        if length is None or length < 1:
            raise ValueError(f"length is {length}; a language model samples at least 1 symbol")
        weight = self.lm_head.weight
        device = generator.device if generator is not None else weight.device
        order = torch.rand(n, length, generator=generator, device=device).to(weight.device)
        rank = order.argsort(-1).argsort(-1)  # (n, T): when each position is uncovered
        tokens = torch.full((n, length), self.mask, device=weight.device)
        steps = min(self.sampling_steps, length)
        for step in range(steps):
            logits, _ = self.denoise(tokens, tokens == self.mask)
            drawn = draw(logits, generator)  # (n, T)
            low, high = length * step // steps, length * (step + 1) // steps
            tokens = torch.where((rank >= low) & (rank < high), drawn, tokens)
        return tokens

    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of one evaluation on `batch` sequences of `length`, all positions read out."""
        head = 2 * self.backbone.d_model * self.vocab_size
        backbone = self.backbone.flops(batch, length)
        return None if backbone is None else backbone + batch * length * head

    def train_flops(self, batch: int, length: int) -> int | None:
        """FLOPs of the forward pass of a training step, which draws several sets a sequence."""
        once = self.flops(batch, length)
        return None if once is None else self.train_draws * once
