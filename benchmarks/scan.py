"""Mamba-1 and Mamba-2 against transformers, and the forms of the selective scan side by side.

Four layers, width 256, batch 4, fp32, two threads. A training step is zero_grad, forward,
backward and fused AdamW. Mamba-1 at length 128, where transformers' slow path still runs;
Mamba-2 at length 512. Decoding at batch 1 is greedy against transformers' own `generate`.

Which torch form of the scan is the fastest on this device (a loop over time, or chunks side by
side) is printed too, and beside it the fused kernel.

    python -m benchmarks.mamba [--seconds 8] [--device cpu]
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from transformers import (
    GenerationMixin,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from benchmarks.ab import THREADS, compare, seconds_of, train_step
from models.backbones.mamba import Mamba
from models.backbones.mamba2 import Mamba2
from models.backbones.selective_scan import (
    recurrence_chunked,
    recurrence_loop,
    selective_scan_torch,
)
from models.kernels.available import numba_problem
from models.objectives.autoregressive import LanguageModel

VOCABULARY, WIDTH, LAYERS, BATCH = 256, 256, 4, 4
DECODED = 64


def mamba(kernel: str) -> LanguageModel:
    """Ours, at the configuration of `their_mamba`."""
    backbone = Mamba(
        d_model=WIDTH,
        n_layers=LAYERS,
        d_inner=2 * WIDTH,
        d_state=16,
        d_conv=4,
        dt_rank=None,
        norm_eps=1e-5,
        kernel=kernel,
        residual_init="scaled",
    )
    return LanguageModel(backbone=backbone, vocab_size=VOCABULARY, init="backbone")


def mamba2() -> LanguageModel:
    """Ours, at the configuration of `their_mamba2` (but for its chunks, which change no result)."""
    backbone = Mamba2(
        d_model=WIDTH,
        n_layers=LAYERS,
        nheads=8,
        headdim=64,
        d_state=64,
        ngroups=1,
        d_conv=4,
        chunk_size=64,
        norm_eps=1e-5,
        kernel="auto",
        residual_init="scaled",
    )
    return LanguageModel(backbone=backbone, vocab_size=VOCABULARY, init="backbone")


def their_mamba() -> nn.Module:
    """transformers' Mamba on its path without kernels."""
    return MambaForCausalLM(
        MambaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            state_size=16,
            tie_word_embeddings=False,
        )
    )


def their_mamba2(chunk: int) -> nn.Module:
    """transformers' Mamba-2 on its torch path."""
    return Mamba2ForCausalLM(
        Mamba2Config(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_heads=8,
            head_dim=64,
            state_size=64,
            n_groups=1,
            chunk_size=chunk,
        )
    )


def compare_training(
    name: str, ours: nn.Module, theirs: nn.Module, length: int, seconds: float, target: float
) -> None:
    """One training step of each on the same tokens."""
    tokens = torch.randint(VOCABULARY, (BATCH, length), device=next(ours.parameters()).device)
    compare(
        f"{name}, train step at length {length}",
        train_step(lambda: ours(tokens=tokens, labels=tokens).loss, ours.parameters()),
        train_step(lambda: theirs(input_ids=tokens, labels=tokens).loss, theirs.parameters()),
        seconds=seconds,
        target=target,
    )


def compare_decoding(name: str, ours: LanguageModel, theirs: nn.Module, seconds: float) -> None:
    """Greedy continuation of one prompt, batch 1."""
    assert isinstance(theirs, GenerationMixin)
    prompt = torch.randint(VOCABULARY, (1, 16), device=next(ours.parameters()).device)

    @torch.no_grad()
    def decode() -> None:
        logits, state = ours.prefill(prompt)
        token = logits[:, -1].argmax(-1)
        for _ in range(DECODED - 1):
            logits, state = ours.step(token, state)
            token = logits.argmax(-1)

    @torch.no_grad()
    def generate() -> None:
        theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=DECODED,
            min_new_tokens=DECODED,
            do_sample=False,
            pad_token_id=0,
        )

    compare(
        f"{name}, decode {DECODED} tokens at batch 1",
        decode,
        generate,
        seconds=seconds,
        target=0.97,
    )


def scan_forms(batch: int, length: int, channels: int, states: int, device: str) -> None:
    """Forward and backward of every form of the selective scan on the same inputs."""
    forms: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
        "torch, loop over time": partial(selective_scan_torch, recurrence=recurrence_loop),
        "torch, chunked": partial(selective_scan_torch, recurrence=recurrence_chunked),
    }
    if device == "cpu" and numba_problem() is None:
        from models.kernels.selective_scan import selective_scan_fused

        forms["numba, fused"] = selective_scan_fused
    inputs = [
        torch.randn(batch, length, channels),
        torch.rand(batch, length, channels) * 0.1,
        -torch.arange(1.0, states + 1).repeat(channels, 1),
        torch.randn(batch, length, states),
        torch.randn(batch, length, states),
        torch.randn(channels),
        torch.randn(batch, length, channels),
    ]
    inputs = [x.to(device).requires_grad_() for x in inputs]

    def call(form: Callable[..., tuple[Tensor, Tensor]]) -> None:
        torch.autograd.grad(form(*inputs, None)[0].sum(), inputs)
        if device != "cpu":
            torch.cuda.synchronize()

    samples: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(9):
        for name, form in forms.items():
            seconds = seconds_of(partial(call, form))
            if turn >= 2:
                samples[name].append(seconds)
    shape = f"batch {batch}, length {length}, {channels} channels, {states} states"
    for name, taken in samples.items():
        median = statistics.median(taken)
        print(
            f"selective scan ({shape}) on {device}: {name}: {1e3 * median:.2f} ms, "
            f"{batch * length / median:,.0f} tokens/s a layer",
            flush=True,
        )


def main() -> None:
    """Print one line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each comparison")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    device, seconds = arguments.device, arguments.seconds
    scan_forms(8, 256, 176, 16, device)  # size nano
    scan_forms(BATCH, 512, 2 * WIDTH, 16, device)
    theirs = their_mamba().to(device)
    for kernel in ("auto", "torch"):
        ours = mamba(kernel).to(device)
        assert isinstance(ours.backbone, Mamba)
        used = ours.backbone.kernel_used
        compare_training(f"Mamba-1 ({used})", ours, theirs, 128, seconds, 3.0)
        if kernel == "auto":
            compare_decoding(f"Mamba-1 ({used})", ours.eval(), theirs.eval(), seconds)
            theirs.train()
    # transformers' chunk is 256 by default; a fair rival may also run at ours.
    for chunk in (64, 256):
        theirs = their_mamba2(chunk).to(device)
        ours = mamba2().to(device)
        compare_training(f"Mamba-2 (their chunk {chunk})", ours, theirs, 512, seconds, 0.97)
    compare_decoding("Mamba-2", ours.eval(), theirs.eval(), seconds)


if __name__ == "__main__":
    main()
