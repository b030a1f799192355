"""What a model must offer; nothing else is known of it.

Shapes: B batch, T time, V vocabulary, C classes, H and W image sides. Pixels are grey levels as
int64 in [0, levels). Text is bytes as int64 in [0, 256).

Conventions that any `torch.nn.Module` may follow so that it is counted correctly:
a module with attribute `unembedding = True` maps hidden vectors to symbols and is not counted as
matched; a module with a buffer `weight_mask` counts the unmasked weights alone; a module with a
method `inactive_parameters() -> int` says how many of its parameters one symbol does not use; a
module with a method `training_problem(device) -> str | None` says why it has no gradients there; a
module with `longest: int | None` has positions for as many symbols, the start symbol among them; a
model whose training step costs more than one forward pass says so (`TrainCosted`).

Conventions for the optimizers: a parameter with attribute `_no_weight_decay = True` does not decay;
a parameter or module with `no_orthogonal = True` is AdamW's, whatever its dimensions.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

State = Any


class Output(Protocol):
    """Result of `forward`: `loss` is minimised, `nll` its likelihood part in nats per symbol.

    `logits` may be None where labels were given and a part of the symbols alone was read out.
    """

    @property
    def logits(self) -> Tensor | None: ...
    @property
    def loss(self) -> Tensor | None: ...
    @property
    def nll(self) -> Tensor | None: ...


class LogProb(Protocol):
    """`nats` (B,): log p(item), or a lower bound when `bound`; `forwards` per item."""

    @property
    def nats(self) -> Tensor: ...
    @property
    def bound(self) -> bool: ...
    @property
    def forwards(self) -> int: ...


@runtime_checkable
class LanguageModel(Protocol):
    """p(tokens). Every token is predicted, the first one from a start symbol."""

    def __call__(self, *, tokens: Tensor, labels: Tensor | None = None) -> Output: ...
    def log_prob(self, tokens: Tensor) -> LogProb: ...


@runtime_checkable
class Filling(Protocol):
    """A language model that reads a sequence from both sides, but for what is asked of it."""

    def fill(self, tokens: Tensor, asked: Tensor) -> Tensor:
        """Logits of the symbols where `asked` (B, T) is true, given all others: (B, T, V)."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """p(label | pixels)."""

    readout: str  # "head", "bound" or "log p(x|y)"; shown in the table
    view: str  # "2-D" or "sequence"
    forwards_per_image: int

    def __call__(self, *, pixels: Tensor, labels: Tensor | None = None) -> Output: ...
    def classify(self, pixels: Tensor) -> Tensor:
        """Unnormalised log-probabilities, (B, H, W) -> (B, C)."""
        ...


@runtime_checkable
class Generator(Protocol):
    """p(pixels | condition)."""

    def __call__(
        self, *, pixels: Tensor, condition: Tensor, labels: Tensor | None = None
    ) -> Output: ...
    def log_prob(self, pixels: Tensor, condition: Tensor) -> LogProb: ...


@runtime_checkable
class Recurrent(Protocol):
    """Symbol by symbol, with an explicit state that is consumed and returned."""

    def prefill(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B, T) -> logits of the next symbol after each position (B, T, V), and the state."""
        ...

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """(B,) -> next-symbol logits (B, V), and the state."""
        ...

    def crop(self, state: State, length: int) -> State: ...
    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int: ...


@runtime_checkable
class Sampler(Protocol):
    """`sample` draws n items: bytes (n, length) for text, pixels (n, H, W) for images."""

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor: ...


@runtime_checkable
class Stateful(Protocol):
    """`state_bytes`: what a sequence carries after `context` symbols."""

    def state_bytes(self, batch: int, context: int, dtype: torch.dtype) -> int: ...


@runtime_checkable
class Costed(Protocol):
    def flops(self, batch: int, length: int) -> int | None:
        """FLOPs of one forward pass over a batch of items of `length` symbols; None: not known."""
        ...


@runtime_checkable
class TrainCosted(Protocol):
    """A model whose forward pass with labels is another one than that without."""

    def train_flops(self, batch: int, length: int) -> int | None:
        """FLOPs of the forward pass of a training step; None: not known."""
        ...


@runtime_checkable
class Placed(Protocol):
    """A model that runs on some devices and in some dtypes alone."""

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there; None where it can."""
        ...


class Backend(Protocol):
    """Another implementation of a model's weights, see `bench.backends`."""

    def problem(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run there; None where it can."""
        ...

    def adopt(self, model: nn.Module) -> nn.Module:
        """Put it in the place of ours inside `model`; ValueError where it computes no such one."""
        ...
