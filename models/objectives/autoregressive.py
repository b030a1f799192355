"""The autoregressive objective: p(x) = prod_t p(x_t | x_<t).

Every symbol is predicted, the first one from a learned start symbol, so that `log_prob` is the
exact likelihood of the whole sequence. For images the symbols are the grey levels of the pixels in
raster order (van den Oord et al. 2016, arXiv:1601.06759), given the class.

Shapes: B batch, T time, D width, V vocabulary, H and W image sides.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.backbones.interface import RecurrentBackbone, State
from models.backbones.linear import Linear
from models.objectives.categorical import draw
from models.objectives.pixels import check_pixels
from models.output import LogProb, Output, exact_log_prob, scored


class _Autoregressive(nn.Module):
    """What both models do with their parts, which each of them builds and initialises itself."""

    embedding: nn.Embedding
    start: nn.Embedding
    backbone: RecurrentBackbone
    lm_head: nn.Linear

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int:
        """Bytes of the state after `context` symbols."""
        return self.backbone.state_bytes(batch, context, dtype)

    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of one forward pass over `batch` sequences, or images, of `length` symbols."""
        head = 2 * self.lm_head.in_features * self.lm_head.out_features
        backbone = self.backbone.flops(batch, length)
        return None if backbone is None else backbone + batch * length * head

    def _shifted(self, tokens: Tensor) -> Tensor:
        """Vectors of the start symbol and of all tokens but the last, (B, T) -> (B, T, D)."""
        start = self.start.weight.expand(tokens.shape[0], 1, -1)  # (B, 1, D)
        return torch.cat([start, self.embedding(tokens[:, :-1])], 1)  # (B, T, D)

    def _begin(self, batch: int) -> tuple[Tensor, State]:
        """The start symbol's vectors (B, D), and the state before it is read."""
        weight = self.start.weight
        state = self.backbone.init_state(batch, device=weight.device, dtype=weight.dtype)
        return weight.expand(batch, -1), state

    def _drawn(
        self,
        n: int,
        length: int,
        generator: torch.Generator | None,
        placed: Callable[[Tensor, int], Tensor] = lambda x, _: x,
    ) -> Tensor:
        """Symbol after symbol, (n, length); `placed` makes of x (n, D) what is read at a time t."""
        x, state = self._begin(n)
        tokens: list[Tensor] = []
        for t in range(length):
            hidden, state = self.backbone.step(placed(x, t), state)
            tokens.append(draw(self.lm_head(hidden), generator))
            x = self.embedding(tokens[-1])
        return torch.stack(tokens, 1)


class LanguageModel(_Autoregressive):
    """A causal backbone between an embedding and an un-embedding.

    `init` is "scaled" (embedding of unit variance, un-embedding at zero, which starts the loss at
    log V) or "backbone" (both normal with standard deviation 0.02, as most papers do).
    """

    def __init__(self, *, backbone: RecurrentBackbone, vocab_size: int, init: str) -> None:
        super().__init__()
        if init not in ("scaled", "backbone"):
            raise ValueError(f"init is {init!r}; allowed are 'scaled' and 'backbone'")
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, backbone.d_model)
        self.start = nn.Embedding(1, backbone.d_model)
        self.backbone = backbone
        self.lm_head = Linear(backbone.d_model, vocab_size, bias=False)
        self.lm_head.unembedding = True  # type: ignore[assignment]
        std = 1.0 if init == "scaled" else 0.02
        nn.init.normal_(self.embedding.weight, std=std)
        nn.init.normal_(self.start.weight, std=std)
        if init == "scaled":
            nn.init.zeros_(self.lm_head.weight)
        else:
            nn.init.normal_(self.lm_head.weight, std=0.02)

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Logits of the symbol after each position, no start symbol: (B, T) -> (B, T, V)."""
        hidden, _ = self.backbone(self.embedding(tokens))
        return self.lm_head(hidden)

    def forward(self, *, tokens: Tensor, labels: Tensor | None = None) -> Output:
        """logits[:, t] predicts tokens[:, t] from those before it."""
        hidden, losses = self.backbone(self._shifted(tokens))
        return scored(self.lm_head(hidden), labels, dict(losses))

    def log_prob(self, tokens: Tensor, counted: Tensor | None = None) -> LogProb:
        """Exact log p(tokens), nats, (B, T) -> (B,); with `counted` (B, T) of those alone."""
        return exact_log_prob(self(tokens=tokens).logits, tokens, counted)

    def prefill(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Next-symbol logits (B, T, V) after each position, continuing from `state`.

        Without a state the sequence begins: the start symbol is read first.
        """
        if state is None:
            start, state = self._begin(tokens.shape[0])
            _, state = self.backbone.step(start, state)
        hidden, state = self.backbone.prefill(self.embedding(tokens), state)
        return self.lm_head(hidden), state

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """(B,) -> next-symbol logits (B, V)."""
        hidden, state = self.backbone.step(self.embedding(token), state)
        return self.lm_head(hidden), state

    def crop(self, state: State, length: int) -> State:
        """Forget all but the last `length` symbols, where the state grows."""
        return self.backbone.crop(state, length)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n sequences of `length` symbols drawn from the model, (n, length)."""
        if condition is not None:
            raise ValueError("this language model takes no condition; leave it out")
        if length is None or length < 1:
            raise ValueError(f"length is {length}; a language model samples at least 1 symbol")
        return self._drawn(n, length, generator)


class PixelLanguageModel(_Autoregressive):
    """p(pixels | class) as a raster sequence of grey levels.

    Position and class are added at every pixel, for all backbones alike: a causal convolution
    sees only so far, and a recurrence would otherwise have to carry both.
    """

    def __init__(
        self, *, backbone: RecurrentBackbone, levels: int, n_classes: int, height: int, width: int
    ) -> None:
        super().__init__()
        d_model = backbone.d_model
        self.levels, self.height, self.width = levels, height, width
        self.embedding = nn.Embedding(levels, d_model)
        self.start = nn.Embedding(1, d_model)
        self.position = nn.Embedding(height * width, d_model)
        self.condition = nn.Embedding(n_classes, d_model)
        self.backbone = backbone
        self.lm_head = Linear(d_model, levels, bias=False)
        self.lm_head.unembedding = True  # type: ignore[assignment]
        # The three parts of an input vector have a variance of one together.
        for table in (self.embedding, self.start, self.position, self.condition):
            nn.init.normal_(table.weight, std=3**-0.5)
        nn.init.zeros_(self.lm_head.weight)

    def forward(self, *, pixels: Tensor, condition: Tensor, labels: Tensor | None = None) -> Output:
        """logits[:, i, j] predicts pixel (i, j) from those before it: (B, H, W, levels)."""
        x = self._shifted(pixels.flatten(1))  # (B, T, D)
        hidden, losses = self.backbone(
            x + self.position.weight + self.condition(condition)[:, None]
        )
        logits = self.lm_head(hidden).unflatten(1, (self.height, self.width))  # (B, H, W, levels)
        return scored(logits, labels, dict(losses))

    def log_prob(self, pixels: Tensor, condition: Tensor) -> LogProb:
        """Exact log p(pixels | condition), nats, (B,)."""
        logits = self(pixels=pixels, condition=condition).logits.flatten(1, 2)  # (B, T, levels)
        return exact_log_prob(logits, pixels.flatten(1))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n images given their classes `condition` (n,): (n, H, W)."""
        if condition is None:
            raise ValueError("condition is None; give the class of each image")
        check_pixels(length, self.height, self.width)
        given = self.condition(condition)  # (n, D)

        def placed(x: Tensor, t: int) -> Tensor:
            return x + self.position.weight[t] + given

        tokens = self._drawn(n, self.height * self.width, generator, placed)
        return tokens.unflatten(1, (self.height, self.width))  # (n, H, W)
