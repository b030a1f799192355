"""RWKV-7 against the same model with a plain loop over time, and against the `rwkv` package.

    python -m benchmarks.rwkv7 [--seconds 15] [--only training|decoding]

4 layers, width 256. Training: length 512, batch 4, fp32, against the loop. Decoding: batch 1, a
token a call with the state carried on, against the package's own `forward` in "cpu fp32" on the
same weights.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ab import compare, train_step
from models.backbones import rwkv7_time_mix
from models.backbones.rwkv7 import RWKV7
from models.backbones.wkv7 import wkv7_chunked, wkv7_reference

Form = Callable[..., tuple[Tensor, Tensor]]
VOCAB, WIDTH, LAYERS, LENGTH, BATCH = 256, 256, 4, 512, 4


def build(kernel: str = "auto") -> nn.ModuleDict:
    """Embedding, backbone and head, with every parameter away from its special initial value."""
    torch.manual_seed(0)
    backbone = RWKV7(
        d_model=WIDTH,
        n_layers=LAYERS,
        head_size=64,
        d_ff=4 * WIDTH,
        decay_rank=32,
        rate_rank=32,
        value_rank=32,
        gate_rank=96,
        chunk=32,
        kernel=kernel,
    )
    for parameter in backbone.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return nn.ModuleDict(
        {
            "emb": nn.Embedding(VOCAB, WIDTH),
            "backbone": backbone,
            "head": nn.Linear(WIDTH, VOCAB, bias=False),
        }
    )


def looped(*inputs: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """The plain loop in the place of the chunked form."""
    return wkv7_reference(*inputs)


def plain_loop() -> AbstractContextManager[Any]:
    """Within it the model runs its recurrence as a loop over time."""
    return mock.patch.object(rwkv7_time_mix, "wkv7_chunked", looped)


def training(seconds: float) -> None:
    """A training step, and the recurrence alone, forward and backward, against the loop."""
    tokens = torch.randint(VOCAB, (BATCH, LENGTH))

    def step_of(model: nn.ModuleDict) -> Callable[[], None]:
        def loss() -> Tensor:
            hidden, _ = model["backbone"](model["emb"](tokens))
            return F.cross_entropy(model["head"](hidden).flatten(0, 1), tokens.flatten())

        return train_step(loss, model.parameters())

    ours, theirs = step_of(build()), step_of(build("torch"))

    def loop() -> None:
        with plain_loop():
            theirs()

    compare("RWKV-7 training / plain loop", ours, loop, seconds=seconds, target=4.0)
    recurrences(seconds)


def recurrences(seconds: float) -> None:
    """Forward and backward of the recurrence of one layer, fused against the loop and chunked."""
    from models.kernels.wkv7 import wkv7_fused

    shape = (BATCH, LENGTH, WIDTH // 64, 64)
    r, k, v, d = (torch.randn(shape) for _ in range(4))
    kk = F.normalize(torch.randn(shape), dim=-1)
    state = torch.zeros(BATCH, WIDTH // 64, 64, 64)
    given = (r, -0.6065 * torch.sigmoid(d), k, v, -kk, kk * torch.rand(shape))
    inputs = [x.requires_grad_() for x in given]

    def call(form: Form) -> Callable[[], None]:
        def both_passes() -> None:
            torch.autograd.grad(form(*inputs, state)[0].sum(), inputs)

        return both_passes

    forms: dict[str, tuple[Form, float]] = {
        "plain loop": (wkv7_reference, 8.0),
        "chunks of 32 in torch": (partial(wkv7_chunked, chunk=32), 1.0),
    }
    for name, (form, target) in forms.items():
        compare(
            f"RWKV-7 recurrence, fused / {name}", call(wkv7_fused), call(form), seconds=seconds,
            target=target,
        )  # fmt: skip


def decoding(seconds: float, calls: int) -> None:
    """`calls` tokens one by one, against the package on the same weights."""
    os.environ["RWKV_V7_ON"] = "1"  # read when the package is imported
    from rwkv.model import RWKV_x070

    model = build().eval()
    names = {k.removeprefix("backbone."): v for k, v in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(names, Path(folder) / "rwkv7.pth")
        package = RWKV_x070(str(Path(folder) / "rwkv7"), "cpu fp32")
    token = torch.zeros(1, dtype=torch.long)
    backbone = model["backbone"]
    assert isinstance(backbone, RWKV7)

    def ours() -> None:
        with torch.inference_mode():
            state = backbone.init_state(1, device=torch.device("cpu"), dtype=torch.float32)
            for _ in range(calls):
                hidden, state = backbone.step(model["emb"](token), state)
                model["head"](hidden)

    def theirs() -> None:
        state = None
        for _ in range(calls):
            _, state = package.forward([0], state)

    compare(
        f"RWKV-7 decoding {calls} tokens / rwkv package", ours, theirs, seconds=seconds, target=0.97
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="about, for each comparison")
    parser.add_argument("--only", choices=["training", "decoding"])
    options = parser.parse_args()
    if options.only != "training":
        decoding(options.seconds, calls=50)
    if options.only != "decoding":
        training(options.seconds)
