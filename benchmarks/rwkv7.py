"""RWKV-7 against other implementations of it, and against a Transformer of its parameters.

    python -m benchmarks.rwkv7 [--rows ROW ...] [--length 512 2048] [--seconds 15] [--fla PATH]

Four layers, width 256, batch 4, fp32, two threads. The recurrence is that of one layer, forward and
backward, against a plain loop over time and against flash-linear-attention's chunked reference in
torch, at its own chunk of 32. Decoding is greedy at batch 1 against the `rwkv` package's own
`forward` in "cpu fp32" on the same weights.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.meters.memory import tensors_of
from benchmarks.rows.command import main
from benchmarks.rows.decoding import DECODED
from benchmarks.rows.rivals import FLA
from benchmarks.rows.row import NotGivenError, Pair, Row, Setting, Side
from benchmarks.rows.training import BATCH, LAYERS, VOCABULARY, WIDTH, alike, renamed, training
from benchmarks.transformer import against_transformer
from models.backbones.rwkv7 import CHECKPOINT_NAMES, RWKV7
from models.backbones.wkv7 import wkv7_chunked, wkv7_reference
from models.objectives.autoregressive import LanguageModel

Form = Callable[..., tuple[Tensor, Tensor]]
HEAD = 64
REFERENCE = "fla/ops/generalized_delta_rule/dplr/naive.py"


def rwkv7(kernel: str = "auto") -> LanguageModel:
    """Ours, with every parameter away from its special initial value."""
    backbone = RWKV7(
        d_model=WIDTH,
        n_layers=LAYERS,
        head_size=HEAD,
        d_ff=4 * WIDTH,
        decay_rank=32,
        rate_rank=32,
        value_rank=32,
        gate_rank=96,
        negative_eigenvalues=False,
        chunk=32,
        kernel=kernel,
    )
    for parameter in backbone.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return LanguageModel(backbone=backbone, vocab_size=VOCABULARY, init="backbone")


def inputs_of(setting: Setting) -> list[Tensor]:
    """r, log_w, k, v, a, b of one layer, (B, T, H, N) each."""
    shape = (BATCH, setting.length, WIDTH // HEAD, HEAD)
    r, k, v, d = (torch.randn(shape) for _ in range(4))
    kk = F.normalize(torch.randn(shape), dim=-1)
    return [r, -0.6065 * torch.sigmoid(d), k, v, -kk, kk * torch.rand(shape)]


def recurrence(setting: Setting, theirs: Form) -> Pair:
    """Forward and backward of the fused recurrence against another form of it."""
    from models.kernels.wkv7 import wkv7_fused

    inputs = [x.requires_grad_() for x in inputs_of(setting)]
    state = torch.zeros(BATCH, WIDTH // HEAD, HEAD, HEAD)

    def output(form: Form) -> Tensor:
        return form(*inputs, state)[0]

    def side(form: Form) -> Side:
        return Side(lambda: torch.autograd.grad(output(form).sum(), inputs), [*inputs, state])

    with torch.no_grad():
        note = alike("outputs", output(wkv7_fused), output(theirs))
    return Pair(side(wkv7_fused), side(theirs), note)


def chunkwise(
    module: ModuleType, r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """fla's reference with the signature of `wkv7_reference`: heads first, queries scaled."""
    q, gk, k, v, a, b = (x.transpose(1, 2) for x in (r * HEAD**0.5, log_w, k, v, a, b))
    out, last = module.dplr_chunkwise(q, k, v, a, b, gk, initial_state=state.mT)
    return out.transpose(1, 2), last.mT


def plain_loop(setting: Setting) -> Pair:
    """The recurrence against the loop."""
    return recurrence(setting, wkv7_reference)


def fla(setting: Setting) -> Pair:
    """The recurrence against flash-linear-attention's reference."""
    return recurrence(setting, partial(chunkwise, FLA.load(setting, REFERENCE)))


def chunks(setting: Setting) -> Pair:
    """The recurrence against our own chunks in torch."""
    return recurrence(setting, partial(wkv7_chunked, chunk=32))


def looped(*inputs: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """The plain loop in the place of the chunked form."""
    return wkv7_reference(*inputs)


def model_loop(setting: Setting) -> Pair:
    """A training step of the model against itself with the loop."""
    ours, theirs = rwkv7(), rwkv7("torch")
    theirs.load_state_dict(ours.state_dict())

    def logits(tokens: Tensor) -> Tensor:
        with mock.patch("models.backbones.rwkv7_time_mix.wkv7_chunked", looped):
            return theirs.next_logits(tokens)

    return training(setting, ours, theirs, logits)


def matched(setting: Setting) -> Pair:
    """Tokens per second over those of the Transformer."""
    return against_transformer(setting, rwkv7(), layers=LAYERS)


def decode(setting: Setting) -> Pair:
    """Symbol by symbol from symbol 0 on, the likeliest next, against the package."""
    os.environ["RWKV_V7_ON"] = "1"  # read when the package is imported
    try:
        from rwkv.model import RWKV_x070
    except ModuleNotFoundError as error:
        raise NotGivenError("pip install rwkv") from error

    model = rwkv7().eval()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(renamed(model, CHECKPOINT_NAMES), Path(folder) / "rwkv7.pth")
        package = RWKV_x070(str(Path(folder) / "rwkv7"), "cpu fp32")

    @torch.no_grad()
    def ours() -> Tensor:
        state = model.backbone.init_state(1, device=torch.device("cpu"), dtype=torch.float32)
        token = torch.zeros(1, dtype=torch.long)
        for _ in range(DECODED):
            logits, state = model.step(token, state)
            token = logits.argmax(-1)
        return logits[0]

    def theirs() -> Tensor:
        token, state = 0, None
        for _ in range(DECODED):
            logits, state = package.forward([token], state)
            token = int(logits.argmax())
        return logits

    note = alike(f"logits of symbol {DECODED}", ours(), theirs())
    weights = list(package.z.values())
    return Pair(Side(ours, list(tensors_of(model))), Side(theirs, weights), note)


ROWS = (
    Row("rwkv7-loop", "RWKV-7's recurrence against the plain loop", 8.0, plain_loop),
    Row("rwkv7-fla", "RWKV-7's recurrence against fla's chunked torch reference", 10.0, fla),
    Row("rwkv7-matched", "RWKV-7 against the Transformer of its parameters", 0.5, matched),
    Row("rwkv7-decode", "RWKV-7 decoding against the rwkv package", 2.0, decode, DECODED),
)
# Not in the table.
MORE = (
    Row("rwkv7-chunks", "RWKV-7's recurrence against our chunks in torch", 1.0, chunks),
    Row("rwkv7-model-loop", "RWKV-7 against itself with the plain loop", 4.0, model_loop),
)


if __name__ == "__main__":
    main(__doc__, (*ROWS, *MORE))
