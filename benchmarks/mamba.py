"""Mamba-1 against other implementations of it, and against a Transformer of its parameters.

    python -m benchmarks.mamba [--rows ROW ...] [--length 512 2048] [--seconds 15] [--mambapy PATH]

Four layers, width 256, batch 4, fp32, two threads; a training step is forward and backward.
transformers' slow path is its path without kernels: at length 128, where it still runs. The
Transformer has as many parameters in two layers of the same width: a Mamba block does the work of
half a Transformer block. `benchmarks.scan` looks at the scan alone.
"""

from functools import partial
from types import ModuleType
from unittest import mock

from torch import Tensor, nn
from transformers import MambaConfig, MambaForCausalLM

from benchmarks.rows.command import main
from benchmarks.rows.decoding import DECODED, decoding
from benchmarks.rows.rivals import mambapy
from benchmarks.rows.row import Pair, Row, Setting
from benchmarks.rows.training import LAYERS, VOCABULARY, WIDTH, renamed, training
from benchmarks.transformer import against_transformer
from models.backbones.mamba import CHECKPOINT_NAMES, Mamba
from models.backbones.selective_scan import recurrence_loop
from models.objectives.autoregressive import LanguageModel

# transformers spells `embeddings` what the official checkpoint calls `embedding`.
NAMES = CHECKPOINT_NAMES | {"embedding.": "backbone.embeddings."}
MAMBAPY_NAMES = {
    "embedding.": "embedding.",
    "backbone.layers.": "mamba.layers.",
    "backbone.norm_f.": "norm_f.",
    "lm_head.": "lm_head.",
}
STATES, CONVOLUTION = 16, 4


def mamba(kernel: str = "auto") -> LanguageModel:
    """Ours."""
    backbone = Mamba(
        d_model=WIDTH,
        n_layers=LAYERS,
        d_inner=2 * WIDTH,
        d_state=STATES,
        d_conv=CONVOLUTION,
        dt_rank=None,
        selective=True,
        negative_eigenvalues=False,
        norm_eps=1e-5,
        kernel=kernel,
        residual_init="scaled",
    )
    return LanguageModel(backbone=backbone, vocab_size=VOCABULARY, init="backbone")


def library(ours: LanguageModel) -> MambaForCausalLM:
    """transformers' Mamba on its path without kernels, with the weights of ours."""
    theirs = MambaForCausalLM(
        MambaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            state_size=STATES,
            tie_word_embeddings=False,
        )
    )
    theirs.load_state_dict(renamed(ours, NAMES))
    return theirs.train()


def slow_path(setting: Setting, kernel: str = "auto") -> Pair:
    """A training step against transformers."""
    ours = mamba(kernel)
    theirs = library(ours)
    return training(setting, ours, theirs, lambda x: theirs(input_ids=x, use_cache=False).logits)


class Mambapy(nn.Module):
    """mambapy's blocks between an embedding and an un-embedding, as its `lm.py` has them.

    That file cannot be imported where there is no GPU: its Mamba-2 asks for triton kernels.
    """

    def __init__(self, module: ModuleType) -> None:
        super().__init__()
        config = module.MambaConfig(
            d_model=WIDTH, n_layers=LAYERS, d_state=STATES, d_conv=CONVOLUTION, pscan=True
        )
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.mamba = module.Mamba(config)
        self.norm_f = module.RMSNorm(WIDTH, config.rms_norm_eps)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        return self.lm_head(self.norm_f(self.mamba(self.embedding(tokens))))


def against_mambapy(setting: Setting) -> Pair:
    """A training step against mambapy's parallel scan in torch."""
    theirs = Mambapy(mambapy(setting))
    ours = mamba()
    theirs.load_state_dict(renamed(ours, MAMBAPY_NAMES))
    return training(setting, ours, theirs, theirs)


def loop(setting: Setting) -> Pair:
    """A training step against our own model in torch, whose scan is a loop over time."""
    ours, theirs = mamba(), mamba("torch")
    theirs.load_state_dict(ours.state_dict())

    def logits(tokens: Tensor) -> Tensor:
        with mock.patch("models.backbones.mamba.recurrence_chunked", recurrence_loop):
            return theirs.next_logits(tokens)

    return training(setting, ours, theirs, logits)


def decode(setting: Setting) -> Pair:
    """Greedy decoding against transformers' `generate`."""
    ours = mamba()
    return decoding(ours, library(ours))


def matched(setting: Setting) -> Pair:
    """Tokens per second over those of the Transformer."""
    return against_transformer(setting, mamba(), layers=LAYERS // 2)


ROWS = (
    Row("mamba-slow-path", "Mamba-1 against transformers' slow path", 10.0, slow_path, 128),
    Row("mamba-mambapy", "Mamba-1 against mambapy", 5.0, against_mambapy),
    Row("mamba-loop", "Mamba-1 against our torch loop", 3.0, loop),
    Row("mamba-matched", "Mamba-1 against the Transformer of its parameters", 0.6, matched),
    Row("mamba-decode", "Mamba-1 decoding against generate", 3.0, decode, DECODED),
)
# Not in the table.
MORE = (
    Row(
        "mamba-torch", "Mamba-1 without numba against transformers' slow path", 3.0,
        partial(slow_path, kernel="torch"), 128,
    ),
)  # fmt: skip


if __name__ == "__main__":
    main(__doc__, (*ROWS, *MORE))
